"""A start that failed, on its way from the child to the plugin's caller."""

from __future__ import annotations

import errno
import os

__all__ = ["NEVER_BEGAN", "StartError", "failed", "reason", "wrong"]

# The exit code of a child whose program was not executed; of a program it says nothing.
NEVER_BEGAN = 127
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


class StartError(Exception):
    """A start that failed in a way users know; `code` is one of `sagong.errors`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def reason(error: OSError) -> str:
    """An OSError in the style of messages: lower case, with the path if it has one."""
    text = os.strerror(error.errno).lower() if error.errno else str(error)
    detail = error.strerror or ""
    call = detail.rpartition(": ")[0]
    named = f"{call} {error.filename}".strip() if error.filename else call
    return f"{named}: {text}" if named else text


def failed(error: OSError, doing: str) -> StartError:
    """A step of a start that its spec asks for did not succeed."""
    if error.errno in _NO_ROOM:
        return StartError("resource_exhausted", f"{doing}: {reason(error)}; make room there")
    return StartError("failed_precondition", f"{doing}: {reason(error)}")


def wrong(error: BaseException) -> StartError:
    """What no start foresees; that there is no room, for blocks or inodes, is the machine's fault."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return StartError("resource_exhausted", f"{reason(error)}; make room there")
    return StartError("internal", f"{type(error).__name__}: {error}")
