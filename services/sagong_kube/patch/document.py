"""Documents as JSON gives them, copied and compared."""

from __future__ import annotations

from typing import Any

from sagong.errors import InvalidArgument

__all__ = ["copied", "unprocessable", "without_nulls"]


def copied(value: Any) -> Any:
    """A deep copy; JSON values only."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copied(item) for item in value]
    return value


def without_nulls(value: Any) -> Any:
    """A deep copy without members that are null."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def unprocessable(message: str) -> InvalidArgument:
    """A patch that is well-formed but does not fit the object: 422."""
    return InvalidArgument(message, detail={"reason": "Invalid", "code": "422"})
