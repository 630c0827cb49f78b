"""Answers GET /metrics by asking the kernel for a report, GET /metrics/cadvisor by asking who knows of
containers; between two scrapes it does nothing.
"""

from __future__ import annotations

import asyncio

from sagong.cadvisor import Figures, add_container, add_network
from sagong.call import deadline
from sagong.contracts.kernel import Kernel, ReportQuery, StatusQuery
from sagong.contracts.metrics import Metrics, SampleQuery, SampleSet
from sagong.contracts.network import CountersList, CountersQuery
from sagong.contracts.node import Node, NodeQuery, StatusList
from sagong.drivers import EveryNetwork
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
        self._node = host.use(Node)
        self._metrics = host.use(Metrics)
        self._network = EveryNetwork(host)
        self._pages = {"/metrics": self._own, "/metrics/cadvisor": self._containers}
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
        """GET of a page, and a word for who looks elsewhere."""
        if request.method not in ("GET", "HEAD"):
            return Response(405, b"only GET is allowed\n", {"Content-Type": _TEXT})
        page = self._pages.get(request.path)
        if page is None:
            words = f"the figures are at {' and '.join(self._pages)}\n"
            return Response(404, words.encode(), {"Content-Type": _TEXT})
        with deadline(_SECONDS):
            text = await page()
        return Response(200, text.encode(), {"Content-Type": _TEXT})

    async def _own(self) -> str:
        report, status = await asyncio.gather(
            self._kernel.report(ReportQuery()), self._kernel.status(StatusQuery())
        )
        return exposition(report, status)

    async def _containers(self) -> str:
        known, sampled, counted = await asyncio.gather(
            self._node.list(NodeQuery(begun=True)),
            self._metrics.sample(SampleQuery()),
            self._network.counters(CountersQuery()),
        )
        return containers(known, sampled, counted)


def containers(known: StatusList, sampled: SampleSet, counted: CountersList) -> str:
    """What runs and its figures; a network that containers share stands once, with their first."""
    found = Figures()
    samples = {sample.id: sample for sample in sampled.samples}
    interfaces = {sandbox.id: sandbox.interfaces for sandbox in counted.sandboxes}
    for status in known.containers:
        spec = status.spec
        labels = {"id": spec.id, "name": spec.name, "image": spec.image}
        if spec.id in samples:
            add_container(found, samples[spec.id], labels)
        add_network(found, interfaces.pop(spec.sandbox, ()), labels)
    return "\n".join([*found.lines(), ""])


def _refusal(request: Request, error: Exception) -> Response:
    status = 503 if isinstance(error, SagongError) else 500
    return Response(status, f"{error}\n".encode(), {"Content-Type": _TEXT})
