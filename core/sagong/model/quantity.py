"""Kubernetes quantities (`500m`, `1.5Gi`, `2e3`): exact values, canonical text, integers.

A quantity is exact: it is kept as an integer number of nano-units, the finest step that upstream
keeps. Finer values are rounded away from zero, values beyond 2^63-1 are capped, as upstream does.
Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import functools
import re
from decimal import ROUND_UP, Decimal
from typing import Final

import msgspec

from sagong.errors import InvalidArgument

__all__ = ["Quantity", "bytes_of", "canonical", "milli", "nano", "parse", "value"]

NANO: Final = 10**9
LIMIT: Final = (2**63 - 1) * NANO
_FORM = re.compile(
    r"([+-]?)(\d*)(?:\.(\d*))?(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?\d+)?\Z", re.ASCII
)
_BINARY: Final = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL: Final = {
    "n": -9,
    "u": -6,
    "m": -3,
    "": 0,
    "k": 3,
    "M": 6,
    "G": 9,
    "T": 12,
    "P": 15,
    "E": 18,
}
_SUFFIXES: Final = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_WRONG = (
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)


class Quantity(msgspec.Struct, frozen=True, order=True):
    """An exact amount in nano-units; `format`: DecimalSI, BinarySI or DecimalExponent."""

    nano: int
    format: str = "DecimalSI"

    def __str__(self) -> str:
        return _text(self.nano, self.format)


def parse(said: str | int | float) -> Quantity:
    """A quantity from its text (or a JSON number); InvalidArgument in upstream's words."""
    return _parse(said if isinstance(said, str) else _number(said))


def nano(said: str | int | float) -> int:
    """The amount in nano-units."""
    return parse(said).nano


def milli(said: str | int | float) -> int:
    """The amount in thousandths, rounded up: CPUs as millicores."""
    return -(-parse(said).nano // 10**6)


def value(said: str | int | float) -> int:
    """The amount in whole units, rounded up: bytes, pods, devices."""
    return -(-parse(said).nano // NANO)


bytes_of = value


def canonical(said: str | int | float) -> str:
    """The text as the API shows it: `0.5` is `500m`, `1024Mi` is `1Gi`."""
    return _canonical(said if isinstance(said, str) else _number(said))


def _number(said: int | float) -> str:
    return str(said) if isinstance(said, int) else format(Decimal(repr(said)), "f")


@functools.lru_cache(4096)
def _canonical(said: str) -> str:
    return str(_parse(said))


@functools.lru_cache(4096)
def _parse(said: str) -> Quantity:
    found = _FORM.match(said)
    if found is None or not (found[2] or found[3]):
        raise InvalidArgument(_WRONG if said else "quantities must not be empty")
    sign, whole, part, suffix = found[1], found[2] or "0", found[3] or "", found[4] or ""
    digits = Decimal(f"{whole}.{part or '0'}")
    if suffix in _BINARY:
        exact, shape = digits * 2 ** _BINARY[suffix], "BinarySI"
    elif suffix in _DECIMAL:
        exact, shape = digits.scaleb(_DECIMAL[suffix]), "DecimalSI"
    else:
        exact, shape = _scaled(digits, suffix), "DecimalExponent"
    amount = min(int((exact * NANO).to_integral_value(ROUND_UP)), LIMIT)
    return Quantity(-amount if sign == "-" else amount, shape)


def _scaled(digits: Decimal, suffix: str) -> Decimal:
    exponent = int(suffix[1:])
    if not -1000 < exponent < 1000:
        raise InvalidArgument("unable to parse quantity's suffix")
    return digits.scaleb(exponent)


def _text(amount: int, shape: str) -> str:
    sign, size = ("-", -amount) if amount < 0 else ("", amount)
    if size == 0:
        return "0"
    if shape == "BinarySI" and size >= 1024 * NANO and size % NANO == 0:
        return sign + _binary_text(size // NANO)
    return sign + _decimal_text(size, exponent=shape == "DecimalExponent")


def _binary_text(units: int) -> str:
    suffix = ""
    for name in _BINARY:
        if units % 1024:
            break
        units, suffix = units // 1024, name
    return f"{units}{suffix}"


def _decimal_text(size: int, *, exponent: bool) -> str:
    power = -9
    while size % 1000 == 0 and (power < 18 or exponent):
        size, power = size // 1000, power + 3
    if exponent:
        return f"{size}e{power}" if power else str(size)
    return f"{size}{_SUFFIXES[power]}"
