"""A closed question: all objects that matter in, all writes of all controllers out."""

from __future__ import annotations

import random

import msgspec

from sagong.contracts.replication import Plan, Situation
from sagong.errors import InvalidArgument
from sagong_replication_kube.controllers import CONTROLLERS, GARBAGE, Task, reconcile
from sagong_replication_kube.item import Item
from sagong_replication_kube.resources import BY_KIND, Kind
from sagong_replication_kube.world import World

__all__ = ["plan"]


class _Type(msgspec.Struct, rename="camel"):
    api_version: str
    kind: str


_TYPE = msgspec.json.Decoder(_Type)


def plan(situation: Situation) -> Plan:
    """Let every controller look at every object once; none sees another one's writes."""
    world = World(now=situation.now, chance=random.Random(situation.seed))
    world.closed = True
    for number, body in enumerate(situation.objects):
        item = _item(number, body)
        if item.kind.kind == "PodMetrics":
            world.usage.take_object(body, situation.now)
        else:
            world.put(item)
    works = [work for task in _tasks(world) if (work := reconcile(world, task)) is not None]
    found = (time for work in works for time in (work.again, work.within))
    times = [time for time in found if time is not None]
    return Plan(
        writes=tuple(w for work in works for w in (*work.writes, *work.statuses, *work.events)),
        again_seconds=max(min(times), 0.001) if times else 0.0,
    )


def _item(number: int, body: bytes) -> Item:
    try:
        type_ = _TYPE.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"object {number} is not readable: {error}") from None
    kind = BY_KIND.get((type_.api_version, type_.kind)) or _guessed(type_)
    try:
        return Item(kind, body)
    except InvalidArgument as error:
        raise InvalidArgument(f"object {number}: {error.message}") from None


def _guessed(type_: _Type) -> Kind:
    """A custom kind: that its plural is regular is all that can be assumed here."""
    return Kind(f"{type_.api_version}/{type_.kind.lower()}s", type_.kind)


def _tasks(world: World) -> list[Task]:
    tasks = []
    for controller in CONTROLLERS:
        for key in sorted(world.keys(controller.resource)):
            tasks.append(Task(controller.name, controller.resource, key))
    for resource in sorted(world.resources()):
        for key in sorted(world.keys(resource)):
            tasks.append(Task(GARBAGE, resource, key))
    return tasks
