"""Executing Python anew without site packages, from a view of the interpreter that nobody can write to.

What enters a container is reachable there as /proc/PID/exe: through it a container could otherwise
write to the host's interpreter.
"""

from __future__ import annotations

import os
import sys

from sagong.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["arguments", "execute_readonly", "readonly_view"]


# MOUNT_ATTR_RDONLY; `mounts` is not imported for it, since this is the first of two programs.
_READ_ONLY = 0x1


def execute_readonly(
    text: str, root: str, words: Sequence[str], environment: Mapping[str, str]
) -> None:
    """Run a program text with arguments in this process; see `arguments`."""
    view = readonly_view()
    os.execve(f"/proc/self/fd/{view}", arguments(text, root, words), dict(environment))


def readonly_view() -> int:
    """A descriptor of the interpreter's file, to be executed as long as it is open."""
    tree = syscalls.open_tree(os.path.realpath(sys.executable), clone=True)
    syscalls.mount_setattr("", set_=_READ_ONLY, directory=tree)
    return tree


def arguments(text: str, root: str, words: Sequence[str]) -> list[str]:
    """Of a program text; modules are found below `root` and where sagong lies."""
    own = os.path.abspath(os.path.join(os.path.dirname(syscalls.__file__), "..", ".."))
    paths = list(dict.fromkeys((os.path.abspath(root), own)))
    # Behind the standard library, whose modules are found at once then.
    program = f"import sys\nsys.path += {paths!r}\n{text}"
    # argv[0] names the interpreter, by which Python finds its standard library.
    return [sys.executable, "-I", "-S", "-c", program, *words]
