"""What a sandbox has received and sent, as its own interfaces count it.

The machine's ends of cables won't do: they don't count what is dropped inside, and a macvlan has none.
"""

from __future__ import annotations

from pathlib import Path

from sagong.contracts.network import Sandbox, SandboxCounters
from sagong_network_bridge.cells import Cells

__all__ = ["counted"]


def counted(cells: Cells, sandbox: Sandbox) -> SandboxCounters | None:
    """Of its endpoints' interfaces; None when it has left meanwhile. Blocking."""
    if not sandbox.endpoints:
        return SandboxCounters(id=sandbox.id)
    try:
        found = cells.counters(Path(sandbox.path))
    except FileNotFoundError:
        return None
    names = (endpoint.interface for endpoint in sandbox.endpoints)
    return SandboxCounters(
        id=sandbox.id, interfaces=tuple(found[name] for name in names if name in found)
    )
