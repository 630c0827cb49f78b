"""Slot `network` on bridges: namespaces, addresses, published ports, services, policies, names.

The class is imported on demand: the resolver's process imports this package and nothing of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sagong_network_bridge.plugin import NetworkBridge

__all__ = ["NetworkBridge"]


def __getattr__(name: str) -> Any:
    if name == "NetworkBridge":
        from sagong_network_bridge.plugin import NetworkBridge

        return NetworkBridge
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
