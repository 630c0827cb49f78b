"""`linux.resources` of the specification as limits of our cgroup bindings; pure."""

from __future__ import annotations

from typing import Any

from sagong.shim.failure import StartError

__all__ = ["limits_from"]

_PLAIN = (
    ("memory", "limit", "memory"),
    ("memory", "swap", "memory_swap"),
    ("memory", "reservation", "memory_reservation"),
    ("memory", "swappiness", "memory_swappiness"),
    ("memory", "disableOOMKiller", "oom_kill_disable"),
    ("cpu", "shares", "cpu_shares"),
    ("cpu", "quota", "cpu_quota"),
    ("cpu", "period", "cpu_period"),
    ("cpu", "cpus", "cpuset_cpus"),
    ("cpu", "mems", "cpuset_mems"),
    ("pids", "limit", "pids"),
    ("blockIO", "weight", "io_weight"),
)
_THROTTLES = (
    ("throttleReadBpsDevice", "io_read_bps"),
    ("throttleWriteBpsDevice", "io_write_bps"),
    ("throttleReadIOPSDevice", "io_read_iops"),
    ("throttleWriteIOPSDevice", "io_write_iops"),
)
_EVERYTHING = ("bc", "*:*", "rwm")


def limits_from(resources: dict[str, Any], defaults: tuple[str, ...] | None) -> dict[str, Any]:
    """Limits as a message holds them; `defaults` are devices every container may use, None: as is."""
    limits: dict[str, Any] = {}
    for group, key, name in _PLAIN:
        value = (resources.get(group) or {}).get(key)
        if value not in (None, "", 0, False):
            limits[name] = value
    if limits.get("memory") == -1:
        # What lifts the one and says nothing of both together can't leave them lower.
        limits.setdefault("memory_swap", -1)
    for key, name in _THROTTLES:
        entries = (resources.get("blockIO") or {}).get(key) or ()
        found = [(f"{e['major']}:{e['minor']}", e["rate"]) for e in entries]
        if found:
            limits[name] = found
    if defaults is not None:
        limits["devices"] = _devices(resources.get("devices") or (), defaults)
    return limits


def _devices(rules: Any, defaults: tuple[str, ...]) -> list[str]:
    """Allow rules in the end: what all get, and what the configuration adds in its order."""
    everything = False
    allowed: dict[tuple[str, str], str] = {}
    for rule in rules:
        kinds, numbers, access = _rule(rule)
        if (kinds, numbers, access) == _EVERYTHING:
            everything = bool(rule.get("allow"))
            allowed.clear()
        elif rule.get("allow"):
            for kind in kinds:
                allowed[kind, numbers] = _letters(allowed.get((kind, numbers), "") + access)
        else:
            _deny(allowed, kinds, numbers, access, everything=everything)
    if everything:
        return ["a"]
    return [*defaults, *(f"{k} {numbers} {access}" for (k, numbers), access in allowed.items())]


def _deny(
    allowed: dict[tuple[str, str], str], kinds: str, numbers: str, access: str, *, everything: bool
) -> None:
    """Take access away; what was not allowed is denied already. The kernel knows no exceptions."""
    for kind in kinds:
        partial = [
            had for (k, n), had in allowed.items()
            if k == kind and n != numbers and _overlap(n, numbers) and set(had) & set(access)
        ]  # fmt: skip
        if everything or partial:
            raise StartError(
                "invalid_argument",
                f"linux.resources.devices: '{kind} {numbers} {access}' can't be denied: a part of "
                "what was allowed before, which would stay allowed",
            )
        left = _letters("".join(set(allowed.pop((kind, numbers), "")) - set(access)))
        if left:
            allowed[kind, numbers] = left


def _overlap(one: str, other: str) -> bool:
    """Whether two MAJOR:MINOR mean a device in common."""
    pairs = zip(one.split(":"), other.split(":"), strict=True)
    return all(a == b or "*" in (a, b) for a, b in pairs)


def _letters(access: str) -> str:
    return "".join(letter for letter in "rwm" if letter in access)


def _rule(rule: dict[str, Any]) -> tuple[str, str, str]:
    """Kinds, numbers and access; without a type it is for both kinds."""
    major, minor = ("*" if rule.get(key) in (None, -1) else rule[key] for key in ("major", "minor"))
    kinds = {"": "bc", "a": "bc", "u": "c"}.get(rule.get("type") or "", rule.get("type"))
    if kinds not in ("bc", "b", "c"):
        raise StartError(
            "invalid_argument", f"linux.resources.devices: type {kinds!r} is not one of a, b, c"
        )
    return kinds, f"{major}:{minor}", _letters(rule.get("access") or "rwm")
