"""Executing Python anew without site packages, from a view of the interpreter that nobody can write to.

What enters a container is reachable there as /proc/PID/exe: through it a container could otherwise
write to the host's interpreter.
"""

from __future__ import annotations

import ctypes
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["arguments", "execute_readonly", "readonly_view"]


# This is the first of two programs, and each module it imports is imported for two calls: no bindings
# of ours, then. These numbers are the same on all machines (Linux 5.2 and 5.12).
_OPEN_TREE, _MOUNT_SETATTR = 428, 442
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_CLONE = 1
# MOUNT_ATTR_RDONLY
_READ_ONLY = 0x1


def execute_readonly(
    text: str, root: str, words: Sequence[str], environment: Mapping[str, str]
) -> None:
    """Run a program text with arguments in this process; see `arguments`."""
    view = readonly_view()
    os.execve(f"/proc/self/fd/{view}", arguments(text, root, words), dict(environment))


def readonly_view() -> int:
    """A descriptor of the interpreter's file, to be executed as long as it is open."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    path = os.path.realpath(sys.executable)
    tree: int = call(_OPEN_TREE, _AT_FDCWD, os.fsencode(path), _CLONE | os.O_CLOEXEC)
    if tree < 0:
        raise _failed("open_tree", path)
    # struct mount_attr: what is set, what is cleared, propagation, a user namespace.
    wanted = (ctypes.c_uint64 * 4)(_READ_ONLY)
    size = ctypes.c_size_t(ctypes.sizeof(wanted))
    if call(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, wanted, size) < 0:
        raise _failed("mount_setattr", path)
    return tree


def _failed(name: str, path: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, f"{name}: {os.strerror(code)}", path)


def arguments(text: str, root: str, words: Sequence[str]) -> list[str]:
    """Of a program text; modules are found below `root` and where sagong lies."""
    own = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
    paths = list(dict.fromkeys((os.path.abspath(root), own)))
    # Behind the standard library, whose modules are found at once then.
    program = f"import sys\nsys.path += {paths!r}\n{text}"
    # argv[0] names the interpreter, by which Python finds its standard library.
    return [sys.executable, "-I", "-S", "-c", program, *words]
