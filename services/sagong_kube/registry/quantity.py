"""Quantities as Kubernetes writes them (`500m`, `1Gi`, `2e3`): exact values and canonical text."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from sagong.errors import InvalidArgument

__all__ = ["parse", "text"]

_FORM = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([numkMGTPE]i?))?\Z")
_DECIMAL: Final = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10) ** 3,
    "M": Decimal(10) ** 6,
    "G": Decimal(10) ** 9,
    "T": Decimal(10) ** 12,
    "P": Decimal(10) ** 15,
    "E": Decimal(10) ** 18,
}
_BINARY: Final = {f"{unit}i": Decimal(1024) ** (at + 1) for at, unit in enumerate("KMGTPE")}
_BINARY_FORM = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))([KMGTPE]i)\Z")


def parse(quantity: str | int | float) -> Decimal:
    """The exact value; InvalidArgument names what is no quantity."""
    said = str(quantity)
    binary = _BINARY_FORM.match(said)
    if binary is not None:
        return Decimal(binary[1]) * _BINARY[binary[2]]
    found = _FORM.match(said)
    if found is None or (found[3] or "").endswith("i"):
        raise InvalidArgument(
            "quantities must match the regular expression "
            f"'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$': \"{said}\""
        )
    number = Decimal(found[1] + (found[2] or ""))
    return number * _DECIMAL[found[3] or ""]


def text(value: Decimal, *, like: str = "") -> str:
    """Canonical text: binary units if `like` has them and the value is a whole number of them."""
    if like.endswith("i"):
        for unit in reversed(list(_BINARY)):
            size = _BINARY[unit]
            if value >= size and value % size == 0:
                return f"{int(value / size)}{unit}"
    if value == value.to_integral_value():
        return _whole(int(value))
    milli = value * 1000
    if milli == milli.to_integral_value():
        return f"{int(milli)}m"
    return f"{int((value * 10**9).to_integral_value())}n"


def _whole(value: int) -> str:
    for unit in ("E", "P", "T", "G", "M", "k"):
        size = int(_DECIMAL[unit])
        if value and value % size == 0:
            return f"{value // size}{unit}"
    return str(value)
