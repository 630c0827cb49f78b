"""Quantities: canonical forms as the API shows them, integers, refusals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagong.errors import InvalidArgument
from sagong.model import quantity

CANONICAL = {
    "0": "0",
    "0.5": "500m",
    "1": "1",
    "1000m": "1",
    "1500m": "1500m",
    "100m": "100m",
    "0.1": "100m",
    "1024Mi": "1Gi",
    "1.5Gi": "1536Mi",
    "1Ki": "1Ki",
    "1024": "1024",
    "1000": "1k",
    "1500k": "1500k",
    "1000k": "1M",
    "128974848": "128974848",
    "129e6": "129e6",
    "12e3": "12e3",
    "1e3": "1e3",
    "1E": "1E",
    "0.5Ki": "512",
    "0.5Mi": "512Ki",
    "500Ki": "500Ki",
    "-1": "-1",
    "+1": "1",
    ".5": "500m",
    "1.": "1",
    "0.0001": "100u",
    "0.1n": "1n",
    "100n": "100n",
    "0Mi": "0",
}


@pytest.mark.parametrize("said", CANONICAL)
def test_a_quantity_is_shown_in_canonical_form(said: str) -> None:
    assert quantity.canonical(said) == CANONICAL[said]


def test_json_numbers_are_quantities() -> None:
    assert quantity.canonical(2) == "2"
    assert quantity.canonical(0.25) == "250m"


def test_integers_round_up() -> None:
    assert quantity.milli("0.0001") == 1
    assert quantity.milli("2") == 2000
    assert quantity.value("1100m") == 2
    assert quantity.bytes_of("1Mi") == 1048576
    assert quantity.value("-1100m") == -1


@pytest.mark.parametrize("said", ["", "x", "1 Gi", "1gi", "1K", "--1", ".", "1e", "e3", "1iK", "٣"])
def test_what_is_no_quantity_is_refused(said: str) -> None:
    with pytest.raises(InvalidArgument, match="quantities must"):
        quantity.parse(said)


def test_what_is_too_large_is_capped() -> None:
    assert quantity.value("1e30") == 2**63 - 1


@given(st.integers(0, 10**15), st.sampled_from(["", "m", "k", "Ki", "Mi", "M", "e3"]))
def test_canonical_text_keeps_the_amount(number: int, suffix: str) -> None:
    said = f"{number}{suffix}"
    assert quantity.nano(quantity.canonical(said)) == quantity.nano(said)
    assert quantity.canonical(quantity.canonical(said)) == quantity.canonical(said)
