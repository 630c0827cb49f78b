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
_EVERYTHING = "a *:* rwm"


def limits_from(resources: dict[str, Any], defaults: tuple[str, ...] | None) -> dict[str, Any]:
    """Limits as a message holds them; `defaults` are devices every container may use, None: as is."""
    limits: dict[str, Any] = {}
    for group, key, name in _PLAIN:
        value = (resources.get(group) or {}).get(key)
        if value not in (None, "", 0, False):
            limits[name] = value
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
    allowed: list[str] = []
    for rule in rules:
        text = _rule(rule)
        if rule.get("allow"):
            allowed.append(text)
        elif text == _EVERYTHING:
            allowed.clear()
        elif text in allowed:
            allowed.remove(text)
        else:
            raise StartError(
                "invalid_argument",
                f"linux.resources.devices: {text!r} can't be denied: only rules that were allowed "
                "before, or all",
            )
    return ["a"] if _EVERYTHING in allowed else [*defaults, *allowed]


def _rule(rule: dict[str, Any]) -> str:
    major, minor = ("*" if rule.get(key) in (None, -1) else rule[key] for key in ("major", "minor"))
    return f"{rule.get('type') or 'a'} {major}:{minor} {rule.get('access') or 'rwm'}"
