"""Children that live in this process's memory until their program begins, as vfork(2) has it.

A fork copies the page tables of an interpreter, then each page that the child writes to (a reference
count is enough), and its exec throws all of that away: half of what a container costs before its
program. A child that borrows the memory costs none of it. Its parent stands still meanwhile and goes
on where it called, so what the child does in Python must be over, with every reference given back,
when the program begins. So it returns first, and the C library executes the program after it ::

    clone(CLONE_VM | CLONE_VFORK) ──▶ prepare (Python) ──▶ execve ──▶ refused (Python) ──▶ _exit
                                          └── nothing to execute ──────────────────────────▲

What comes after what is `uc_link` of the C library's contexts. Where it has none (musl), nothing is
lent. Sources: clone(2), makecontext(3).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sagong.shim.failure import NEVER_BEGAN

__all__ = ["Program", "Vfork", "lends_memory"]

# The interpreter's lock is given up for the call: a child that is killed most likely waits for the
# kernel, without it, and then the parent goes on as after any call.
_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_VM, _CLONE_VFORK, _CLONE_PARENT = 0x00000100, 0x00004000, 0x00008000
_CLONE_PARENT_SETTID, _CLONE_NEWPID = 0x00100000, 0x20000000
_FLAGS = _CLONE_VM | _CLONE_VFORK | _CLONE_PARENT | _CLONE_PARENT_SETTID | _CLONE_NEWPID
# Of ucontext_t, alike on 64-bit machines; room for the largest (4.5 kB on aarch64).
_LINK, _STACK, _STACK_SIZE, _CONTEXT_SIZE = 8, 16, 32, 8192
_PYTHON_STACK, _C_STACK = 1 << 20, 64 << 10
_Callback = ctypes.CFUNCTYPE(None, use_errno=True)


class Program(NamedTuple):
    """What is executed."""

    path: str
    arguments: list[str]
    environment: Mapping[str, str]


def lends_memory() -> bool:
    """Whether the interpreter, the C library and the machine have what this needs.

    From 3.14 on Python takes any stack but the thread's own for one that has overflown.
    """
    makes_contexts = hasattr(_LIBC, "makecontext") and ctypes.sizeof(ctypes.c_void_p) == 8
    return makes_contexts and sys.version_info < (3, 14)


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


class _Context:
    """A function to be called on a stack of its own, and the context that goes on after it."""

    def __init__(self, stack: int) -> None:
        # Held as long as the process lives.
        self._area = mmap.mmap(-1, _CONTEXT_SIZE + stack)
        self.place = ctypes.addressof(ctypes.c_char.from_buffer(self._area))
        self._size = stack
        _LIBC.getcontext(ctypes.c_void_p(self.place))

    @property
    def top(self) -> int:
        """Where its stack begins."""
        return self.place + _CONTEXT_SIZE + self._size

    def make(self, function: int, *arguments: int, then: int) -> None:
        """makecontext(3); it lasts for one call."""
        for offset, value in (
            (_LINK, then),
            (_STACK, self.place + _CONTEXT_SIZE),
            (_STACK_SIZE, self._size),
        ):
            ctypes.c_uint64.from_address(self.place + offset).value = value
        pointers = [ctypes.c_void_p(value) for value in (self.place, function, *arguments)]
        _LIBC.makecontext(*pointers[:2], len(arguments), *pointers[2:])


class Vfork:
    """Makes such children of its parent, each the first of a pid namespace, one after the other.

    In the child `prepare` is called with its pid here, and gives the program, or None if there is to
    be none. `refused` hears why the kernel did not execute it. Both leave no object behind that would
    close a descriptor when it goes: its number may be another one's in the parent.
    """

    def __init__(
        self, prepare: Callable[[int], Program | None], refused: Callable[[OSError], None]
    ) -> None:
        self._prepare = prepare
        self._refused = refused
        self._pid = ctypes.c_int()
        self._returned = False
        self._kept: tuple[Any, ...] = ()
        self._first, self._start = _Context(_PYTHON_STACK), _Context(_C_STACK)
        self._execution, self._refusal = _Context(_C_STACK), _Context(_PYTHON_STACK)
        self._end = _Context(_C_STACK)
        self._begun, self._told = _Callback(self._begin), _Callback(self._tell)

    def child(self, *, seconds: int = 120) -> bool:
        """A child, until its program begins or it ends. Whether it left this memory in order: when it
        was killed, or had nothing to execute, the caller had better end. After so many `seconds` it
        does so by itself (SIGALRM).
        """
        self._returned = False
        # One that is killed while it has the interpreter's lock takes it along.
        signal.alarm(seconds)
        self._end.make(_address(_LIBC._exit), NEVER_BEGAN, then=0)
        self._refusal.make(_address(self._told), then=self._end.place)
        # Unless there is a program it is nothing but the end.
        self._execution.make(_address(_LIBC._exit), NEVER_BEGAN, then=0)
        self._first.make(_address(self._begun), then=self._execution.place)
        result = _LIBC.clone(
            ctypes.c_void_p(_address(_LIBC.setcontext)),
            ctypes.c_void_p(self._start.top),
            _FLAGS | signal.SIGCHLD,
            ctypes.c_void_p(self._first.place),
            ctypes.byref(self._pid),
        )
        signal.alarm(0)
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"clone: {os.strerror(code)}")
        return self._returned

    def _begin(self) -> None:
        program = self._prepare(self._pid.value)
        if program is not None:
            self._execute(program)
            self._returned = True

    def _execute(self, program: Program) -> None:
        """execve(2) comes next."""
        path = ctypes.create_string_buffer(os.fsencode(program.path))
        arguments = _strings(program.arguments)
        environment = _strings([f"{k}={v}" for k, v in program.environment.items()])
        self._kept = (path, arguments, environment)
        places = (ctypes.addressof(kept) for kept in self._kept)
        self._execution.make(_address(_LIBC.execve), *places, then=self._refusal.place)

    def _tell(self) -> None:
        code = ctypes.get_errno()
        self._refused(OSError(code, os.strerror(code)))


def _strings(texts: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    """A list of C strings as execve(2) wants it."""
    encoded = [os.fsencode(text) for text in texts]
    return (ctypes.c_char_p * (len(encoded) + 1))(*encoded, None)
