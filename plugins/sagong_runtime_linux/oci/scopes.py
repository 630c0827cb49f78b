"""Names and properties of systemd's scopes, by `cgroupsPath`, `linux.resources` and annotations; pure.

Source: systemd.resource-control(5), org.freedesktop.systemd1(5); the table is the one that runc has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sagong.shim.failure import StartError
from sagong_runtime_linux.oci.dbus_messages import Variant

__all__ = [
    "Property",
    "Scope",
    "device_properties",
    "expanded",
    "is_scope",
    "limit_properties",
    "properties_of",
    "scope_of",
]

Property = tuple[str, Variant]

_UNIT_NAME = re.compile(r"[\w:.\\@-]+")
_UNIT_LENGTH = 255
_INFINITE = (1 << 64) - 1
_SECOND = 1_000_000
_PERIOD = 100_000
# systemd counts quotas in percent: what is not whole is rounded up, and set below the scope by us.
_PERCENT = _SECOND // 100
_ANNOTATION = "org.systemd.property."
_ACCOUNTS = ("MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting")
# What the runtime says itself, and an annotation may not say otherwise.
_OURS = frozenset({"Slice", "Delegate", "PIDs"})
_NUMBERS = {
    "memory.max": "MemoryMax",
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.min": "MemoryMin",
    "memory.swap.max": "MemorySwapMax",
    "pids.max": "TasksMax",
    "cpu.weight": "CPUWeight",
}
_SETS = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}
_TEXT_TYPES = {
    "byte": "y",
    "int16": "n",
    "uint16": "q",
    "int32": "i",
    "uint32": "u",
    "int64": "x",
    "uint64": "t",
}
_ONE_TEXT = re.compile(r"""'([^'\\]*)'|"([^"\\]*)\"""")


class Scope(NamedTuple):
    """A scope and the slice it is in."""

    unit: str
    slice: str

    def path(self, manager: str) -> str:
        """Its cgroup, relative to the mount; `manager` is systemd's own."""
        return "/".join(filter(None, (manager.strip("/"), expanded(self.slice), self.unit)))


def is_scope(path: str) -> bool:
    """Whether a `cgroupsPath` is SLICE:PREFIX:NAME."""
    return path.count(":") == 2 and "/" not in path


def scope_of(path: str, name: str, *, default: str) -> Scope:
    """Of SLICE:PREFIX:NAME, each but NAME may be empty; without a path by the container's name."""
    if path and not is_scope(path):
        raise _invalid(f"{path!r} must be SLICE:PREFIX:NAME with --systemd-cgroup")
    given, prefix, own = path.split(":") if path else ("", "sagong-runtime", name)
    unit = f"{prefix}-{own}.scope" if prefix else f"{own}.scope"
    if not own or own.endswith(".slice") or not _UNIT_NAME.fullmatch(unit):
        raise _invalid(f"{path!r} names no scope of systemd: {unit!r}")
    if len(unit) > _UNIT_LENGTH:
        raise _invalid(f"{unit!r} is longer than {_UNIT_LENGTH} bytes")
    expanded(given or default)
    return Scope(unit, given or default)


def expanded(name: str) -> str:
    """Where a slice is: of a-b.slice it is a.slice/a-b.slice; -.slice is the root."""
    if name == "-.slice":
        return ""
    parts = name.removesuffix(".slice").split("-")
    if not name.endswith(".slice") or not all(parts) or not _UNIT_NAME.fullmatch(name):
        raise _invalid(f"{name!r} names no slice of systemd")
    return "/".join(f"{'-'.join(parts[: depth + 1])}.slice" for depth in range(len(parts)))


def _invalid(text: str) -> StartError:
    return StartError("invalid_argument", f"linux.cgroupsPath: {text}")


def properties_of(scope: Scope, name: str, annotations: Mapping[str, str]) -> list[Property]:
    """What each scope has, and what annotations ask for."""
    found = [
        ("Description", Variant("s", f"sagong-runtime container {name}")),
        ("Slice", Variant("s", scope.slice)),
        ("Delegate", Variant("b", value=True)),
        *((account, Variant("b", value=True)) for account in _ACCOUNTS),
        ("DefaultDependencies", Variant("b", value=False)),
    ]
    for key, text in annotations.items():
        if key.startswith(_ANNOTATION):
            found.append(_annotated(key, text))
    return found


def _annotated(key: str, text: str) -> Property:
    """A property in GVariant's text format; of one in seconds systemd takes microseconds."""
    name = key.removeprefix(_ANNOTATION)
    value = _parsed(text.strip())
    if value is None or not name.isalpha() or name in _OURS:
        raise StartError("invalid_argument", f"annotations: {key}={text!r} is not supported")
    if name.endswith("Sec") and not name.endswith("USec") and value.signature not in ("s", "as"):
        return f"{name.removesuffix('Sec')}USec", Variant("t", int(value.value * _SECOND))
    return name, value


def _parsed(text: str) -> Variant | None:
    """Booleans, numbers with and without a type, texts, and lists of texts."""
    if text in ("true", "false"):
        return Variant("b", text == "true")
    kind, _, digits = text.rpartition(" ")
    if digits.removeprefix("-").isdigit() and kind in ("", *_TEXT_TYPES):
        return Variant(_TEXT_TYPES.get(kind, "i"), int(digits))
    if found := _ONE_TEXT.fullmatch(text):
        return Variant("s", found[1] or found[2] or "")
    if text.startswith("[") and text.endswith("]"):
        inner = [_ONE_TEXT.fullmatch(part.strip()) for part in text[1:-1].split(",")]
        if all(inner):
            return Variant("as", [part[1] or part[2] or "" for part in inner if part])
    return None


def limit_properties(files: Sequence[tuple[str, str]]) -> list[Property]:
    """What files of a version 2 cgroup are to hold, as far as systemd has properties for it.

    systemd writes the files anew whenever it likes: what it does not know it would take back.
    """
    found: dict[str, Variant] = {}
    for file, value in files:
        text = value.strip()
        try:
            if file in _NUMBERS:
                found[_NUMBERS[file]] = Variant("t", _number(text))
            elif file in _SETS:
                found[_SETS[file]] = Variant("ay", _bits(text))
            elif file == "cpu.max":
                found |= _quota(*text.split())
        except (TypeError, ValueError):
            key = f"linux.resources: {file}"
            raise StartError("invalid_argument", f"{key}: {value!r} is not understood") from None
    # A weight of 0 is idle, and then there is no other.
    if ("cpu.idle", "1") in {(file, value.strip()) for file, value in files}:
        found["CPUWeight"] = Variant("t", 0)
    return list(found.items())


def _number(text: str) -> int:
    return _INFINITE if text == "max" else int(text)


def _quota(quota: str, period: str = str(_PERIOD)) -> dict[str, Variant]:
    each = _INFINITE
    if quota != "max":
        each = -(-int(quota) * _SECOND // int(period) // _PERCENT) * _PERCENT
    return {
        "CPUQuotaPeriodUSec": Variant("t", int(period)),
        "CPUQuotaPerSecUSec": Variant("t", each),
    }


def _bits(text: str) -> bytes:
    """Of "0-2,8" a bit each, the lowest first."""
    mask = 0
    for part in text.split(","):
        first, _, last = part.partition("-")
        for number in range(int(first), int(last or first) + 1):
            mask |= 1 << number
    return mask.to_bytes((mask.bit_length() + 7) // 8, "little")


def device_properties(
    rules: Iterable[str], groups: Mapping[tuple[str, str], str]
) -> list[Property]:
    """Rules as "c 1:3 rwm"; `groups` are names of major numbers: ("c", "136") is pts.

    What systemd can't say (a major number without a name, a minor one of all) stays to our own
    program, and systemd then has none: of two programs both must allow.
    """
    allowed = []
    for rule in rules:
        kind, _, rest = rule.partition(" ")
        numbers, _, access = rest.partition(" ")
        node = _node(kind, numbers, groups)
        if not node:
            return [("DevicePolicy", Variant("s", "auto")), ("DeviceAllow", Variant("a(ss)", []))]
        allowed.append((node, access))
    return [
        ("DevicePolicy", Variant("s", "strict")),
        ("DeviceAllow", Variant("a(ss)", [])),
        ("DeviceAllow", Variant("a(ss)", allowed)),
    ]


def _node(kind: str, numbers: str, groups: Mapping[tuple[str, str], str]) -> str:
    word = {"c": "char", "b": "block"}.get(kind)
    major, _, minor = numbers.partition(":")
    if word is None:
        return ""
    if "*" not in numbers:
        return f"/dev/{word}/{numbers}"
    if numbers == "*:*":
        return f"{word}-*"
    group = groups.get((kind, major)) if minor == "*" else None
    return f"{word}-{group}" if group else ""
