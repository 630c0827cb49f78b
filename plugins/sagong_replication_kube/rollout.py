"""Rollouts: how many pods the old and the new replica sets of a deployment shall have. Pure numbers.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#rolling-update-deployment
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from sagong.model.numbers import natural

__all__ = ["Limits", "Part", "limits", "portion", "proportional", "rolling"]


class Limits(NamedTuple):
    """How many pods more or fewer than wished there may be."""

    surge: int
    unavailable: int


class Part(NamedTuple):
    """A replica set: what it is asked to have, and what of it is there and serves."""

    name: str
    replicas: int
    available: int
    created: float = 0.0
    # What the whole deployment could have had when this set's number was chosen.
    most: int = 0


def portion(said: int | str | None, total: int, *, up: bool, default: int | str) -> int:
    """A number or a percentage of `total`."""
    said = default if said is None else said
    if isinstance(said, int):
        return said
    if not said.endswith("%"):
        return natural(said) or 0
    share = total * int(said[:-1]) / 100
    return math.ceil(share) if up else math.floor(share)


def limits(rolling_update: dict[str, int | str] | None, replicas: int) -> Limits:
    """maxSurge and maxUnavailable as numbers; not both zero, else nothing could ever move."""
    said = rolling_update or {}
    surge = portion(said.get("maxSurge"), replicas, up=True, default="25%")
    unavailable = portion(said.get("maxUnavailable"), replicas, up=False, default="25%")
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return Limits(surge, min(unavailable, replicas))


def rolling(wanted: int, new: Part, old: Sequence[Part], bounds: Limits) -> dict[str, int]:
    """The next step of a rolling update: numbers by replica set, of those that change."""
    total = new.replicas + sum(part.replicas for part in old)
    target = _new_size(wanted, new, total, bounds)
    changes = {new.name: target} if target != new.replicas else {}
    grown = new._replace(replicas=target)
    return changes | _shrunk(wanted, grown, old, bounds)


def _new_size(wanted: int, new: Part, total: int, bounds: Limits) -> int:
    if new.replicas >= wanted:
        return wanted
    room = wanted + bounds.surge - total
    return new.replicas + max(0, min(room, wanted - new.replicas))


def _shrunk(wanted: int, new: Part, old: Sequence[Part], bounds: Limits) -> dict[str, int]:
    """Old sets give up pods that don't serve first, then as many as may be missing."""
    everything = new.replicas + sum(part.replicas for part in old)
    least = wanted - bounds.unavailable
    waiting = new.replicas - min(new.available, new.replicas)
    most = everything - least - waiting
    if most <= 0:
        return {}
    sizes = {part.name: part.replicas for part in old}
    for part in sorted(old, key=lambda p: (p.created, p.name)):
        dead = min(most, part.replicas - min(part.available, part.replicas))
        sizes[part.name] -= dead
        most -= dead
    serving = new.available + sum(min(p.available, sizes[p.name]) for p in old)
    spare = serving - least
    for part in sorted(old, key=lambda p: (p.created, p.name)):
        gone = max(0, min(spare, sizes[part.name]))
        sizes[part.name] -= gone
        spare -= gone
    return {part.name: sizes[part.name] for part in old if sizes[part.name] != part.replicas}


def proportional(wanted: int, surge: int, parts: Sequence[Part]) -> dict[str, int]:
    """A deployment that was scaled in the midst of a rollout: each set gets its share."""
    present = sum(part.replicas for part in parts)
    if not wanted:
        return {part.name: 0 for part in parts if part.replicas}
    change = wanted + surge - present
    if not change:
        return {}
    # More go to the largest first; when fewer are wanted, the older ones give first.
    ordered = sorted(parts, key=lambda p: (-p.replicas, -p.created if change > 0 else p.created))
    sizes, given = {}, 0
    for part in ordered:
        share = _share(part, wanted + surge, change, change - given)
        sizes[part.name] = part.replicas + share
        given += share
    left = change - given
    for part in ordered:  # what rounding has left
        step = max(left, -sizes[part.name])
        sizes[part.name] += step
        left -= step
    return {p.name: sizes[p.name] for p in parts if sizes[p.name] != p.replicas}


def _share(part: Part, now: int, change: int, left: int) -> int:
    before = part.most or max(now - change, 1)
    share = math.floor(part.replicas * now / before + 0.5) - part.replicas
    return max(0, min(share, left)) if change > 0 else min(0, max(share, left))
