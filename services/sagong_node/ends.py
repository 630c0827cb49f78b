"""How runs end: by which signals, and with what code. Pure."""

from __future__ import annotations

import time

from sagong.contracts.runtime import Container, Exited
from sagong_node import signals
from sagong_node.records import ContainerRecord

__all__ = ["KILL", "ending", "is_final", "stop_signal", "wakes"]

KILL = 9
# The code of a run whose end nobody saw.
_LOST = 255


def stop_signal(record: ContainerRecord) -> str:
    """The signal that ends it, by its spec or its image; "" if neither says."""
    return record.spec.stop_signal or (record.image.config.stop_signal if record.image else "")


def wakes(record: ContainerRecord, number: int) -> bool:
    """Whether a paused container is to see a signal now: the one that stops it, or any if none is
    named, as in Docker. A kill needs no help."""
    named = stop_signal(record)
    return number != KILL and (not named or number == signals.number(named))


def ending(record: ContainerRecord, found: Container | None) -> Exited:
    """The end of a run as the runtime tells it, or as good as is known when it was lost."""
    if found is None or found.run != record.run:
        return Exited(id=record.spec.id, run=record.run, code=_LOST, finished_at=time.time())
    return Exited(
        id=found.id,
        run=found.run,
        code=found.code,
        oom_killed=found.oom_killed,
        finished_at=found.finished_at,
    )


def is_final(record: ContainerRecord, number: int) -> bool:
    """Whether who sends this signal wants it to end, and not to be restarted: as Docker has it, any
    signal if nobody says which one stops it."""
    named = stop_signal(record)
    return number == KILL or not named or number == signals.number(named)
