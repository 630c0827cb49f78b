"""Networks that say that ports are published, and publish none, for tests of rehearsals."""

from __future__ import annotations

from msgspec.structs import replace

from sagong.contracts.network import JoinRequest, Sandbox
from sagong_network_bridge import NetworkBridge

__all__ = ["Mute"]


class Mute(NetworkBridge):
    """All else is right."""

    async def join(self, request: JoinRequest) -> Sandbox:
        """Only what traffic shows is wrong."""
        made = await super().join(replace(request, ports=()))
        return replace(made, ports=request.ports)
