"""The machine's start: what the records tell of before it, and is not so any more."""

from __future__ import annotations

from pathlib import Path

from sagong.contracts.node import StatusState
from sagong_node.registry import Registry

__all__ = ["begin", "is_new"]


def is_new(mark: Path) -> bool:
    """Whether this is the first node since the machine started, by a mark of the one before; asked
    once."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    known = mark.read_text() if mark.exists() else ""
    mark.write_text(boot)
    return known != boot


def begin(registry: Registry) -> None:
    """No namespace of before is left, and everything is dead.

    As in Docker, `always` holds now for what was stopped by hand too.
    """
    for sandbox in registry.sandboxes.values():
        if sandbox.network is not None:
            sandbox.network = None
            registry.keep(sandbox)
    for record in registry.containers.values():
        record.felled = record.alive
        stopped = record.state is StatusState.EXITED and record.started_at > 0
        if stopped and record.spec.restart.name == "always":
            record.state, record.wanted = StatusState.RESTARTING, True
            registry.keep(record)
