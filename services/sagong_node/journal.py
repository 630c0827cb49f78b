"""Tells what happens: events in Docker's words, numbered, with the attributes its users filter by."""

from __future__ import annotations

import time

from sagong.contracts.node import ContainerEvent
from sagong.host import Host
from sagong_node.records import ContainerRecord

__all__ = ["Journal"]


class Journal:
    """Emits `ContainerEvent`s; the numbers go on over restarts by beginning at the time."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._number = time.time_ns()

    def note(self, record: ContainerRecord, owner: str, action: str, **facts: str) -> None:
        """One event of a container."""
        self._number += 1
        spec = record.spec
        attributes = {
            **dict(record.image.config.labels if record.image else ()),
            **dict(spec.labels),
            "image": spec.image,
            "name": spec.name,
            **facts,
        }
        self._host.emit(
            ContainerEvent(
                number=self._number,
                time=time.time_ns(),
                action=action,
                id=spec.id,
                owner=owner,
                attributes=tuple(attributes.items()),
                volumes=_volumes(record, action),
            )
        )


def _volumes(record: ContainerRecord, action: str) -> tuple[tuple[str, str, bool], ...]:
    """Names, paths, whether it may write: of a removal, those that nobody named and it takes along."""
    if action == "destroy":
        return tuple((name, "", True) for name in record.anonymous)
    if action not in ("start", "die"):
        return ()
    return tuple((m[1], m[3], m[5]) for m in record.mounts if m[0] == "volume")
