"""A start that failed, on its way from the child to the plugin's caller."""

from __future__ import annotations

import os

__all__ = ["StartError", "reason"]


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
    call = detail.partition(":")[0] if ":" in detail else ""
    named = f"{call} {error.filename}".strip() if error.filename else call
    return f"{named}: {text}" if named else text
