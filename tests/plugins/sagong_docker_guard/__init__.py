"""A rule for the Docker API: over the network nobody makes volumes."""

from __future__ import annotations

from sagong.hooks import hookimpl
from sagong.host import Host
from sagong.model.authorization import ApiRequest

__all__ = ["DockerGuard"]


class DockerGuard:
    """Refuses by method and path, and says whom."""

    def __init__(self, host: Host) -> None:
        self._log = host.log

    @hookimpl
    def deny(self, request: ApiRequest) -> str:
        """Why not; "" if it may."""
        if request.method == "TLS" and (request.verb, request.path) == ("POST", "/volumes/create"):
            return f"{request.user} may not make volumes over the network"
        return ""
