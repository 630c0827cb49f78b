"""Quantities: canonical forms as the API shows them, integers, refusals."""

from __future__ import annotations

from fractions import Fraction

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


@pytest.mark.parametrize(
    ("suffix", "size"),
    [
        *(
            (name, Fraction(1024) ** power)
            for power, name in enumerate(["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"], 1)
        ),
        *((name, Fraction(10) ** (3 * power - 9)) for power, name in enumerate(["n", "u", "m"])),
        *(
            (name, Fraction(10) ** (3 * power))
            for power, name in enumerate(["k", "M", "G", "T", "P", "E"], 1)
        ),
    ],
)
def test_each_suffix_has_its_size(suffix: str, size: Fraction) -> None:
    assert quantity.nano(f"3{suffix}") == 3 * size * 10**9
    assert quantity.nano(f"-3{suffix}") == -3 * size * 10**9
    assert quantity.canonical(f"3{suffix}") == f"3{suffix}"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("0.9765625Ki", "1k"),  # below 1024 of binary ones are decimal
        ("1023Ki", "1023Ki"),
        ("0.5Mi", "512Ki"),
        ("1.5Ki", "1536"),
        ("0.3Ki", "307200m"),
        ("1000000e-3", "1e3"),
        ("1e999", "9223372036854775807"),
        ("-1e999", "-9223372036854775807"),
        (2.5, "2500m"),
        (1e21, "9223372036854775807"),
    ],
)
def test_a_canonical_text_has_the_suffix_that_fits(said: str | float, shown: str) -> None:
    assert quantity.canonical(said) == shown


@pytest.mark.parametrize("said", ["1e1000", "1e-1000", "1E99999"])
def test_exponents_end(said: str) -> None:
    with pytest.raises(InvalidArgument, match="unable to parse quantity's suffix"):
        quantity.parse(said)
