"""The machine's start: what the records tell of before it, and is not so any more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sagong.contracts.node import StatusState
from sagong.linux.files import replace_file
from sagong_node.records import ContainerRecord
from sagong_node.registry import Registry

__all__ = ["begin", "is_new"]


def is_new(mark: Path) -> bool:
    """Whether this is the first node since the machine started, by a mark of the one before; asked
    once. A mark that is right is left alone: half written it would say that everything is dead.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    if mark.exists() and mark.read_text() == boot:
        return False
    replace_file(str(mark), boot.encode(), beside=f"{mark}.new")
    return True


def begin(registry: Registry, said: Callable[[ContainerRecord], str]) -> None:
    """No namespace of before is left, and everything is dead.

    As in Docker, `always` holds now for what was stopped or signalled by hand, too. Where the power
    went right after a start, the record of it may not have been written (ADR 405): a log with something
    in it (`said`, where it is) tells of it. If nothing has come to the disk, nothing has happened.
    """
    for sandbox in registry.sandboxes.values():
        if sandbox.network is not None:
            sandbox.network = None
            registry.keep(sandbox)
    for record in registry.containers.values():
        unseen = record.state is StatusState.CREATED and not record.error
        if unseen and (path := said(record)):
            record.log_path = path
            record.state, record.run, record.wanted = StatusState.RUNNING, record.run + 1, True
            record.started_at = record.created_at
            registry.keep(record)
        record.felled = record.alive
        stopped = record.state is StatusState.EXITED and record.started_at > 0
        if record.spec.restart.name == "always" and (stopped or record.alive):
            record.wanted = True
            record.state = StatusState.RESTARTING if stopped else record.state
            registry.keep(record)
