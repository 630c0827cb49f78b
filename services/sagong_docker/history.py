"""Events of the engine in Docker's form: kept in a bounded ring, told to those who listen."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sagong.contracts.node import ContainerEvent
from sagong_docker.filters import Filters

__all__ = ["Event", "History", "event_matches", "event_view", "of_container"]

_LISTENER_BACKLOG = 4096
# Events are asked for by any of these; there are none of the swarm's.
_NAMED_KINDS = (
    "container", "network", "volume", "daemon", "plugin", "service", "node", "secret", "config",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Event:
    """`kind` is container, image, network, volume or daemon; `time` in nanoseconds."""

    kind: str
    action: str
    id: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    time: int = 0
    owner: str = "docker"


class History:
    """The ring and its listeners."""

    def __init__(self, size: int) -> None:
        self._ring: deque[Event] = deque(maxlen=size)
        self._listeners: set[asyncio.Queue[Event | None]] = set()

    def export(self) -> tuple[Event, ...]:
        """All that is kept, for the process that comes next."""
        return tuple(self._ring)

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return len(self._listeners)

    def note(self, kind: str, action: str, id: str, attributes: Mapping[str, str]) -> None:
        """Something happened now."""
        self.add(Event(kind, action, id, dict(attributes), time.time_ns()))

    def add(self, event: Event) -> None:
        """Keep and tell; a listener that lags by thousands is ended rather than fed a gap."""
        self._ring.append(event)
        for queue in list(self._listeners):
            if queue.qsize() < _LISTENER_BACKLOG:
                queue.put_nowait(event)
            else:
                self._listeners.discard(queue)
                queue.put_nowait(None)

    def listen(self) -> asyncio.Queue[Event | None]:
        """Events from now on; None ends them."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._listeners.add(queue)
        return queue

    def leave(self, queue: asyncio.Queue[Event | None]) -> None:
        """Listen no more."""
        self._listeners.discard(queue)

    def between(self, since: int, until: int) -> list[Event]:
        """Kept events of a span in nanoseconds since the epoch; 0 is open."""
        return [e for e in self._ring if e.time >= since and (not until or e.time <= until)]


def of_container(event: ContainerEvent) -> Event:
    """A node's event; it speaks Docker's words already."""
    return Event(
        "container",
        event.action,
        event.id,
        dict(event.attributes),
        event.time,
        event.owner.partition("/")[0] or "docker",
    )


def event_matches(event: Event, filters: Filters) -> bool:
    """Docker's filters of events; pods' containers only show up when labels are asked for."""
    if event.owner != "docker" and not filters["label"]:
        return False
    attributes = event.attributes
    action = event.action.partition(":")[0]
    if filters["event"] and not {event.action, action} & set(filters["event"]):
        return False
    return (
        filters.exact("type", event.kind)
        and filters.labels(attributes)
        and filters.exact("scope", "local")
        and all(_is(event, filters, kind) for kind in _NAMED_KINDS)
        and _is_image(event, filters)
    )


def _is(event: Event, filters: Filters, kind: str) -> bool:
    """By the beginning of an id or name, of whatever kind it is, as in Docker."""
    wanted = filters[kind]
    name = event.attributes.get("name", "")
    return not wanted or event.id.startswith(wanted) or name.startswith(wanted)


def _is_image(event: Event, filters: Filters) -> bool:
    wanted = filters["image"]
    if not wanted:
        return True
    names = {event.attributes.get("image", ""), event.attributes.get("name", ""), event.id}
    names |= {name.rpartition(":")[0] for name in names if "/" not in name.rpartition(":")[2]}
    return bool(names & set(wanted))


def event_view(event: Event, version: tuple[int, int]) -> dict[str, Any]:
    """An event as JSON; older versions repeat parts at the top."""
    view: dict[str, Any] = {
        "Type": event.kind,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": dict(event.attributes)},
        "scope": "local",
        "time": event.time // 10**9,
        "timeNano": event.time,
    }
    if version < (1, 52) and event.kind in ("container", "image"):
        view |= {"status": event.action, "id": event.id}
        if event.kind == "container":
            view["from"] = event.attributes.get("image", "")
    return view
