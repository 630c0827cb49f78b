"""Children that live in their parent's memory until their program begins."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections.abc import Callable

import pytest

from sagong.shim.vforking import Program, Vfork

pytestmark = pytest.mark.root

_REFUSED = "/proc/self/status"


def siblings_of(lender: Callable[[int], object]) -> tuple[object, dict[int, int]]:
    """What a process tells that makes children of ours, and how these ended."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, json.dumps(lender(write)).encode())
        finally:
            os._exit(0)
    os.close(write)
    told = b"".join(iter(lambda: os.read(read, 4096), b""))
    os.close(read)
    ended = {}
    for _ in range(20):
        try:
            found, status = os.waitpid(-1, 0)
        except ChildProcessError:
            break
        ended[found] = os.waitstatus_to_exitcode(status)
    del ended[pid]
    return json.loads(told), ended


def test_the_program_runs_as_the_first_of_a_pid_namespace_with_what_it_is_given() -> None:
    script = 'test $$ = 1 && test "$1" = ü && test "$NAME" = "a b"; exit $(($? + 7))'

    def lender(_: int) -> object:
        known: list[int] = []

        def prepare(pid: int) -> Program:
            known.append(pid)  # in this process's memory
            return Program("/bin/sh", ["sh", "-c", script, "x", "ü"], {"NAME": "a b"})

        made = Vfork(prepare, lambda error: None)
        return [[made.child() for _ in range(3)], known]

    told, ended = siblings_of(lender)
    assert told == [[True] * 3, sorted(ended)]
    assert set(ended.values()) == {7}


def test_a_refusal_is_told_in_the_child_and_the_next_child_is_as_ever() -> None:
    def lender(_: int) -> object:
        paths = ["/bin/true", _REFUSED, "/nowhere", "/bin/true"]
        refusals: list[int | None] = []
        left = iter(paths)
        made = Vfork(lambda pid: Program(next(left), ["x"], {}), lambda e: refusals.append(e.errno))
        return [[made.child() for _ in paths], refusals]

    told, ended = siblings_of(lender)
    assert told == [[True] * 4, [errno.EACCES, errno.ENOENT]]
    assert [ended[pid] for pid in sorted(ended)] == [0, 127, 127, 0]


def test_it_is_known_that_a_child_had_nothing_to_execute() -> None:
    def lender(_: int) -> object:
        return Vfork(lambda pid: None, lambda error: None).child()

    told, ended = siblings_of(lender)
    assert (told, [*ended.values()]) == (False, [127])


def test_it_is_known_that_a_child_was_killed() -> None:
    """What it did in this memory is half done then."""

    def lender(_: int) -> object:
        read, write = os.pipe()

        def prepare(pid: int) -> None:
            os.write(write, b"%d" % pid)
            time.sleep(60)

        watcher = os.fork()
        if watcher == 0:
            os.kill(int(os.read(read, 16)), signal.SIGKILL)
            os._exit(0)
        whole = Vfork(prepare, lambda error: None).child()
        os.waitpid(watcher, 0)
        return whole

    told, ended = siblings_of(lender)
    assert (told, [*ended.values()]) == (False, [-signal.SIGKILL])
