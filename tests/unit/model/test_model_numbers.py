"""Numbers as text says them."""

from __future__ import annotations

import pytest

from sagong.model.numbers import natural


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("007", 7),
        ("9" * 18, 10**18 - 1),
        ("9" * 19, None),
        ("9" * 5000, None),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1_0", None),
        ("²", None),
        ("٣", None),
        ("1 ", None),
    ],
)
def test_only_plain_digits_are_numbers(text: str, number: int | None) -> None:
    assert natural(text) == number
