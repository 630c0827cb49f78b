"""The service: the engine behind the HTTP server."""

from __future__ import annotations

import msgspec

from sagong.errors import NotFound
from sagong.host import Host
from sagong.http import HttpLimits, HttpServer, Request, Response
from sagong_docker.ask import Ask
from sagong_docker.engine import Engine, Memory
from sagong_docker.gate import Gate, network_tls
from sagong_docker.malformed import query_complaint
from sagong_docker.refusal import empty, refusal, refuse
from sagong_docker.routes import ROUTER
from sagong_docker.settings import Settings
from sagong_docker.version import API, ENGINE, text_of, versioned

__all__ = ["Docker"]

_COMMON = (
    ("Api-Version", text_of(API)),
    ("Docker-Experimental", "false"),
    ("Ostype", "linux"),
    ("Server", f"Docker/{ENGINE} (linux)"),
)


class Docker:
    """Serves the Docker Engine API on the listener `api`."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.engine = Engine(host, host.config(Settings))
        self._gate = Gate(host)
        self._used = False
        self._server = HttpServer(
            self.serve,
            refusal=refusal,
            log=host.log,
            limits=HttpLimits(body=8 << 20),
            headers=_COMMON,
        )

    async def restore(self, state: bytes) -> None:
        """Go on with the history of one that fell asleep."""
        self.engine.restore(msgspec.msgpack.decode(state, type=Memory))

    async def start(self) -> None:
        """Read what is kept, then accept."""
        await self.engine.start()
        self._server.listen(self._host.listener("api"))
        self._listen_network()

    def _listen_network(self) -> None:
        """The listener over TCP, if the configuration has one."""
        try:
            listener = self._host.listener("network")
        except NotFound:
            return
        tls = network_tls(self.engine.settings)
        if tls is None:
            self._host.log.warning(
                "the Docker API is open to everybody who reaches this address, and with it this "
                "machine: its settings say insecure",
                extra={"address": str(listener.getsockname())},
            )
        self._server.listen(listener, tls)

    def busy(self) -> bool:
        """Whether somebody is connected, or was since this was last asked, or work goes on."""
        used, self._used = self._used, False
        return used or self._server.connected or self.engine.busy

    async def doze(self) -> float:
        """Sleep until somebody connects, or there is something to be told later."""
        await self.engine.leave_word()
        return 0.0

    async def export(self) -> bytes:
        """What would be forgotten."""
        return msgspec.msgpack.encode(self.engine.export())

    async def drain(self) -> None:
        """Accept no more; requests in flight end, streams go on until the kernel's bound."""
        await self._server.drain(86400.0)

    async def stop(self) -> None:
        """End everything."""
        await self._server.close()
        await self.engine.stop()

    async def serve(self, request: Request) -> Response | None:
        """Route a request by its version and the table."""
        self._used = True
        if request.method == "OPTIONS":
            return empty(200)
        asked = versioned(request.segments)
        match = ROUTER.find(request.method, asked.segments)
        if match is None and request.method == "HEAD":
            match = ROUTER.find("GET", asked.segments)
        if match is None:
            return refuse(404, "page not found")
        if wrong := query_complaint(request.target.partition("?")[2]):
            return refuse(400, wrong)
        self._gate.check(request, asked.segments)
        return await match.handler(self.engine, Ask(request, match.parts, asked.version))
