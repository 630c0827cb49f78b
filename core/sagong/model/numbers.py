"""Numbers as text from outside says them."""

from __future__ import annotations

from typing import Final

__all__ = ["natural"]

# Beyond 64 bits there is nothing to count; Python's own limit of digits is never met.
_DIGITS: Final = 18


def natural(text: str) -> int | None:
    """The number that decimal digits say, at most 18 of them; None for any other text.

    `str.isdigit` is no such check: it holds for `²`, which `int` refuses, and for `٣`.
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS else None
