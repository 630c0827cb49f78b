"""Executing the program: found as a shell would, refused in the words that Docker's users know."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping

from sagong.shim.failure import StartError

__all__ = ["environment_of", "find_program", "refusal", "replace_process"]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment_of(entries: list[str]) -> dict[str, str]:
    """`NAME=value` entries as a mapping, the last of a name wins; HOME comes from /etc/passwd."""
    found = dict(entry.split("=", 1) for entry in entries if "=" in entry)
    if not found.get("HOME"):
        found["HOME"] = _home(os.getuid())
    return found


def _home(uid: int) -> str:
    try:
        with open("/etc/passwd", "rb", buffering=0) as file:
            lines = file.read().split(b"\n")
    except OSError:
        return "/"
    for line in lines:
        fields = line.split(b":")
        if len(fields) >= 6 and fields[2] == b"%d" % uid:
            return os.fsdecode(fields[5]) or "/"
    return "/"


def find_program(name: str, path: str) -> str:
    """The file to execute; StartError in the words of Go's os/exec, as Docker shows them."""
    if "/" in name:
        _check(name, name)
        return name
    for directory in path.split(":"):
        candidate = f"{directory or '.'}/{name}"
        if _executable(candidate):
            return candidate
    raise StartError("not_found", f'exec: "{name}": executable file not found in $PATH')


def _executable(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISDIR(mode) and bool(mode & 0o111)


def _check(path: str, name: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        code = "failed_precondition" if error.errno == errno.EACCES else "not_found"
        text = os.strerror(error.errno or 0).lower()
        raise StartError(code, f'exec: "{name}": stat {path}: {text}') from None
    if stat.S_ISDIR(mode):
        raise StartError("failed_precondition", f'exec: "{name}": is a directory')
    if not mode & 0o111:
        raise StartError("failed_precondition", f'exec: "{name}": permission denied')


def replace_process(path: str, arguments: list[str], environment: Mapping[str, str]) -> None:
    """execve(2); returns never, raises StartError."""
    try:
        os.execve(path, arguments, environment)
    except OSError as error:
        raise refusal(path, error) from None
    except ValueError as error:
        raise StartError("invalid_argument", f"exec {path}: {error}") from None


def refusal(path: str, error: OSError) -> StartError:
    """The kernel did not execute it."""
    code = "not_found" if error.errno == errno.ENOENT else "failed_precondition"
    return StartError(code, f"exec {path}: {os.strerror(error.errno or 0).lower()}")
