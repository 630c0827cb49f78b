"""How many replicas measurements ask for, and how fast one may get there. Pure numbers.

Source: https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

__all__ = ["Measured", "Memory", "bounded", "by_average", "by_utilization", "stabilized"]

TOLERANCE: Final = 0.1
Rules = dict[str, Any]
_UP: Final[Rules] = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": [
        {"type": "Percent", "value": 100, "periodSeconds": 15},
        {"type": "Pods", "value": 4, "periodSeconds": 15},
    ],
}
_DOWN: Final[Rules] = {
    "stabilizationWindowSeconds": 300,
    "selectPolicy": "Max",
    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
}


class Measured(NamedTuple):
    """A target's pods: use and request of those measured, requests of those without measurement,
    and of those that are not ready yet.
    """

    used: Sequence[int]
    requests: Sequence[int]
    missing: Sequence[int] = ()
    unready: Sequence[int] = ()


class Memory(msgspec.Struct):
    """What an autoscaler said and did before: (time, replicas) and (time, change)."""

    said: list[tuple[float, int]] = []
    done: list[tuple[float, int]] = []


def by_utilization(current: int, target: int, pods: Measured) -> int:
    """Replicas so that pods use `target` percent of their requests."""
    wanted = [request * target / 100 for request in pods.requests]
    missing = [request * target / 100 for request in pods.missing]
    unready = [request * target / 100 for request in pods.unready]
    return _asked(current, pods.used, wanted, missing, unready)


def by_average(current: int, target: int, pods: Measured) -> int:
    """Replicas so that pods use `target` each."""
    each = float(target)
    return _asked(
        current,
        pods.used,
        [each] * len(pods.used),
        [each] * len(pods.missing),
        [each] * len(pods.unready),
    )


def _asked(
    current: int,
    used: Sequence[int],
    wanted: Sequence[float],
    missing: Sequence[float],
    unready: Sequence[float],
) -> int:
    """Where it is unknown, the cautious thing is assumed: it never enlarges the change."""
    ratio = sum(used) / sum(wanted)
    if abs(ratio - 1) <= TOLERANCE and not missing:
        return current
    grows = ratio > 1
    if not missing and not (unready and grows):
        return math.ceil(ratio * len(used))
    idle = [*missing, *unready] if grows else []
    busy = [] if grows else [*missing]
    total = sum(used) + sum(busy)
    careful = total / (sum(wanted) + sum(missing) + (sum(unready) if grows else 0.0))
    if abs(careful - 1) <= TOLERANCE or (careful > 1) != grows:
        return current
    asked = math.ceil(careful * (len(used) + len(idle) + len(busy)))
    return current if (asked > current) != grows else asked


def stabilized(
    memory: Memory, behavior: Rules, current: int, asked: int, now: float
) -> tuple[int, bool]:
    """What was asked for lately too counts: down only to the highest, up only to the lowest."""
    up, down = _rules(behavior, "scaleUp", _UP), _rules(behavior, "scaleDown", _DOWN)
    windows = (up["stabilizationWindowSeconds"], down["stabilizationWindowSeconds"])
    memory.said = [(at, n) for at, n in memory.said if now - at < max(windows)]
    lowest = min([n for at, n in memory.said if now - at < windows[0]] + [asked])
    highest = max([n for at, n in memory.said if now - at < windows[1]] + [asked])
    memory.said.append((now, asked))
    found = current
    if lowest > current:
        found = lowest
    elif highest < current:
        found = highest
    return found, found != asked


def bounded(memory: Memory, behavior: Rules, current: int, asked: int, now: float) -> int:
    """How far the policies let it go within their periods."""
    if asked == current:
        return asked
    grows = asked > current
    rules = _rules(behavior, "scaleUp" if grows else "scaleDown", _UP if grows else _DOWN)
    if rules["selectPolicy"] == "Disabled":
        return current
    reach = [_reach(memory, policy, current, now, grows=grows) for policy in rules["policies"]]
    most = rules["selectPolicy"] != "Min"
    if grows:
        return max(current, min(asked, max(reach) if most else min(reach)))
    return min(current, max(asked, min(reach) if most else max(reach)))


def _reach(memory: Memory, policy: Rules, current: int, now: float, *, grows: bool) -> int:
    recent = [n for at, n in memory.done if now - at < policy["periodSeconds"]]
    added, removed = sum(n for n in recent if n > 0), -sum(n for n in recent if n < 0)
    base = current - added + removed
    if policy["type"] == "Pods":
        return base + int(policy["value"]) if grows else base - int(policy["value"])
    share = float(policy["value"]) / 100
    return math.ceil(base * (1.0 + share)) if grows else math.floor(base * (1.0 - share))


def _rules(behavior: Rules, side: str, usual: Rules) -> Rules:
    said = {key: one for key, one in (behavior.get(side) or {}).items() if one is not None}
    return {**usual, **said}
