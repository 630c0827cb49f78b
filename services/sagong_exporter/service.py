"""Answers GET /metrics by asking the kernel for a report; between two scrapes it does nothing."""

from __future__ import annotations

import asyncio

from sagong.call import deadline
from sagong.contracts.kernel import Kernel, ReportQuery, StatusQuery
from sagong.errors import SagongError
from sagong.figures import exposition
from sagong.host import Host
from sagong.http import HttpServer, Request, Response

__all__ = ["Exporter"]

_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = 8.0


class Exporter:
    """Serves the listener `metrics`."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._kernel = host.use(Kernel)
        self._server = HttpServer(self.serve, refusal=_refusal, log=host.log)

    async def start(self) -> None:
        """Accept."""
        self._server.listen(self._host.listener("metrics"))

    def busy(self) -> bool:
        """Whether a scraper is connected."""
        return self._server.connected

    async def drain(self) -> None:
        """Accept no more; scrapes under way end."""
        await self._server.drain(_SECONDS)

    async def stop(self) -> None:
        """End everything."""
        await self._server.close()

    async def serve(self, request: Request) -> Response:
        """GET /metrics, and a word for who looks elsewhere."""
        if request.method not in ("GET", "HEAD"):
            return Response(405, b"only GET is allowed\n", {"Content-Type": _TEXT})
        if request.path != "/metrics":
            return Response(404, b"the figures are at /metrics\n", {"Content-Type": _TEXT})
        with deadline(_SECONDS):
            report, status = await asyncio.gather(
                self._kernel.report(ReportQuery()), self._kernel.status(StatusQuery())
            )
        return Response(200, exposition(report, status).encode(), {"Content-Type": _TEXT})


def _refusal(request: Request, error: Exception) -> Response:
    status = 503 if isinstance(error, SagongError) else 500
    return Response(status, f"{error}\n".encode(), {"Content-Type": _TEXT})
