"""The kernel's memory on disk: what it started, so that its successor adopts it.

Written to the run directory (lost at reboot, as the processes are) by rename, so that a reader sees
the old or the new whole. Choices of the operator (which units there are, which plugin fills one) and
the uids given to plugins live in the data directory and survive reboots.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from sagong.config import UnitConfig

__all__ = ["Choices", "Journal", "LifeRecord", "ProcessRecord", "read", "write"]


class ProcessRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A process by pid and start time (clock ticks), which together are never used again."""

    unit: str
    identity: str
    plugin: str
    generation: int
    pid: int
    started: int
    since: float
    state: str
    bus: str = ""


class LifeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Which generation of a unit serves, and which is on trial until then; how it fared so far.

    `asleep`: nobody needed it. Times are CLOCK_MONOTONIC, which goes on until reboot, as the journal
    does.
    """

    serving: int = 0
    since: float = 0.0
    restarts: int = 0
    crashes: tuple[float, ...] = ()
    tries: int = 0
    trial: int = 0
    until: float = 0.0
    asleep: bool = False


class Journal(msgspec.Struct, frozen=True, kw_only=True):
    """Processes, the lives of units, the last generation given out, and where porters answered.

    `dead` and `deserted` are paths of those who are gone: who calls there may not have been told.
    """

    boot: str = ""
    generation: int = 0
    lives: dict[str, LifeRecord] = {}
    processes: tuple[ProcessRecord, ...] = ()
    companions: tuple[ProcessRecord, ...] = ()
    porters: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()
    deserted: tuple[str, ...] = ()


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """The operator's choices by unit, and uids by identity.

    `plugins` were swapped in, `units` enabled, configured ones of `disabled` taken away. `resting` is
    what was asked of units that were taken away: they come back with it.
    """

    plugins: dict[str, str] = {}
    uids: dict[str, int] = {}
    units: dict[str, UnitConfig] = {}
    disabled: tuple[str, ...] = ()
    resting: dict[str, UnitConfig] = {}


def read(path: Path, kind: type[msgspec.Struct]) -> msgspec.Struct:
    """What was written, or an empty value when nothing was, or it can't be understood."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, msgspec.MsgspecError):
        return kind()


def write(path: Path, value: msgspec.Struct, *, durable: bool = False) -> None:
    """Replace the file at once; `durable` also survives a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    with open(temporary, "wb") as file:
        file.write(msgspec.json.encode(value))
        if durable:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)
