"""The service: catalog, vault and gate behind the HTTP server, and the slot `registry` beside it."""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable, Iterator

from sagong.contracts.content import Content
from sagong.contracts.state import State
from sagong.host import Host
from sagong.http import HttpLimits, HttpServer, Request, Response, ServerTls
from sagong_registry.accounts import Accounts
from sagong_registry.administration import Administration
from sagong_registry.catalog import Catalog
from sagong_registry.depot import Depot
from sagong_registry.documents import LIMIT
from sagong_registry.gate import Gate
from sagong_registry.housekeeping import Housekeeping
from sagong_registry.mirrors import Mirrors
from sagong_registry.refusal import refusal
from sagong_registry.rights import Policy
from sagong_registry.routes import serve
from sagong_registry.settings import Settings
from sagong_registry.tokens import Tokens, key_of
from sagong_registry.vault import Vault

__all__ = ["Registry"]

_COMMON = (
    ("Docker-Distribution-API-Version", "registry/2.0"),
    ("X-Content-Type-Options", "nosniff"),
)
_DRAIN_SECONDS = 86400.0
_LOCALHOSTS = ("localhost", "127.0.0.1", "::1")


class Registry:
    """Serves the OCI distribution specification on the listener `api`."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._settings = settings = host.config(Settings)
        catalog = Catalog(host.use(State, "local"))
        self._listener = host.listener("api")
        gate = Gate(
            Accounts(lambda: catalog.accounts, settings.accounts, host.log),
            Tokens(key_of(host.data)),
            Policy(settings.rules, settings.public),
            catalog,
            settings,
            host.log,
            local=_is_local(self._listener),
        )
        self.depot = Depot(catalog, Vault(host.use(Content)), gate, settings, host.log)
        self._mirrors = Mirrors(self.depot, settings.upstreams, host.log)
        self._housekeeping = Housekeeping(self.depot)
        self.implementation = Administration(self.depot, self._housekeeping)
        for name, read, help_ in _figures(catalog):
            host.gauge(name, read, help_)
        self._server = HttpServer(
            self.serve,
            refusal=refusal,
            log=host.log,
            limits=HttpLimits(body=LIMIT),
            headers=_COMMON,
        )

    async def start(self) -> None:
        """Read what is kept, then accept."""
        await self.depot.catalog.load()
        self._host.spawn(self.depot.catalog.follow(self._host.log), "follow the catalog")
        self._host.spawn(self._housekeeping.run(), "collect")
        self._server.listen(self._listener, self._tls(self._listener))
        if not (self.depot.gate.accounts.exist or self.depot.gate.open):
            self._host.log.warning(
                "nobody can log in yet: `sagong registry passwd NAME` makes an account",
                extra={"address": self._listener.getsockname()[:2]},
            )

    async def drain(self) -> None:
        """Accept no more; requests in flight, uploads of hours too, go on until the kernel's bound."""
        self._housekeeping.draining = True
        await self._server.drain(_DRAIN_SECONDS)

    async def stop(self) -> None:
        """End everything."""
        await self._server.close()
        await self._mirrors.close()

    async def serve(self, request: Request) -> Response | None:
        """Answer a request."""
        return await serve(self.depot, self._mirrors, request)

    def _tls(self, listener: socket.socket) -> ServerTls | None:
        from sagong_registry.certificate import of_files, of_its_own

        settings = self._settings
        if settings.certificate or settings.key:
            return of_files(settings.certificate, settings.key)
        if not settings.tls:
            return None
        address = str(listener.getsockname()[0])
        names = dict.fromkeys((*_LOCALHOSTS, socket.gethostname(), address, *settings.names))
        return of_its_own(self._host.data, tuple(names))


def _figures(catalog: Catalog) -> Iterator[tuple[str, Callable[[], float], str]]:
    """What reports tell: name, reading, meaning."""
    yield "registry_repositories", lambda: len(catalog.repositories), "Repositories."
    yield "registry_uploads", lambda: len(catalog.uploads), "Uploads that were begun."
    for kind in ("tags", "manifests", "blobs"):
        yield f"registry_{kind}", functools.partial(_count, catalog, kind), f"Records of {kind}."


def _count(catalog: Catalog, kind: str) -> float:
    return float(sum(len(getattr(found, kind)) for found in catalog.repositories.values()))


def _is_local(listener: socket.socket) -> bool:
    address = listener.getsockname()
    return listener.family == socket.AF_UNIX or str(address[0]) in _LOCALHOSTS
