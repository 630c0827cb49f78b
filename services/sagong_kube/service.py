"""The service: wires storage, rules, handlers and the front together, starts and stops them."""

from __future__ import annotations

import gc
import ipaddress
import random
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

from sagong.contracts.auth import Auth, PolicyChanged
from sagong.contracts.metrics import Metrics
from sagong.contracts.network import Networks
from sagong.contracts.node import Node
from sagong.contracts.objects import (
    Commit,
    CommitResult,
    GetRequest,
    ListRequest,
    ListResult,
    Object,
    ObjectBatch,
    ObjectWatch,
    Reminder,
)
from sagong.contracts.state import State
from sagong.errors import NotFound, Unavailable
from sagong.host import Host
from sagong.http import HttpLimits, HttpServer
from sagong_kube.admission.hooks import HookAdmission
from sagong_kube.assembly import Assembly
from sagong_kube.bootstrap.start import Advertised, offer_storage, publish_authority, start
from sagong_kube.certificate import ServerCertificate
from sagong_kube.front import Front
from sagong_kube.settings import Settings
from sagong_kube.storage.change import Event

__all__ = ["Kube"]

_DRAIN_SECONDS = 86400.0
_POLICY = frozenset(
    {
        "rbac.authorization.k8s.io/roles",
        "rbac.authorization.k8s.io/rolebindings",
        "rbac.authorization.k8s.io/clusterroles",
        "rbac.authorization.k8s.io/clusterrolebindings",
        "core/serviceaccounts",
    }
)
_LOCALHOSTS = ("127.0.0.1", "::1", "localhost")


class Kube:
    """The Kubernetes API server, and the provider of contract `objects`."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._settings = host.config(Settings)
        self._auth = host.use(Auth)
        self._state = host.use(State, "cluster")
        self._listener = host.listener("api")
        self._inner = _inner_listener(host)
        reached = self._inner or self._listener
        address = self._settings.advertise or _own_address(reached)
        port = reached.getsockname()[1]
        self._assembly = Assembly(
            self._settings,
            self._state,
            self._auth,
            node=_optional(host, Node),
            metrics=_optional(host, Metrics),
            network=_optional(host, Networks),
            data=host.data,
            address=f"{address}:{port}",
            chance=random.Random(),
            wake=host.wake,
            spawn=host.spawn,
            admission=(HookAdmission(host),) if host.has_hooks else (),
        )
        self._advertised = Advertised(self._assembly.allocations.first_address, address, port)
        self._front = Front(self._assembly.router.serve, host.log, audit=self._settings.audit)
        self._server = HttpServer(
            self._front.handle,
            refusal=self._front.refuse,
            log=host.log,
            limits=HttpLimits(body=3 << 20),
        )
        self._assembly.figures = self._figures

    async def start(self) -> None:
        """Load the cache, make what every cluster has, then listen once there is a certificate."""
        assembly, spawn = self._assembly, self._host.spawn
        await assembly.store.load()
        spawn(assembly.store.follow(), "follow the store")
        await start(assembly.writer, assembly.catalogue, self._advertised)
        await offer_storage(assembly.writer, assembly.catalogue, self._settings.storage_class)
        spawn(assembly.housekeeping.run(), "housekeeping")
        # Whoever decides may be asleep, and then tells nobody.
        assembly.store.listeners.append(self._see_policy)
        spawn(self._hear_policy(), "hear policy")
        spawn(self._listen(), "listen")
        # What is loaded now stays: collections of garbage need not walk it again and again.
        gc.collect()
        gc.freeze()

    async def _listen(self) -> None:
        settings = self._settings
        names = (
            *_LOCALHOSTS,
            self._advertised.address,
            self._advertised.service,
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            f"kubernetes.default.svc.{settings.cluster_domain}",
            socket.gethostname(),
        )
        authority = (await self._auth.authority()).certificate
        await publish_authority(self._assembly.writer, self._assembly.catalogue, authority)
        certificate = ServerCertificate(self._auth, settings, names, self._host.log)
        tls = await certificate.wait_tls()
        for listener in filter(None, (self._listener, self._inner)):
            self._server.listen(listener, tls)
        self._assembly.listening = True
        self._host.log.info("serving", extra={"address": self._listener.getsockname()[:2]})
        await certificate.renew()

    def _see_policy(self, event: Event) -> None:
        if event.storage in _POLICY:
            self._assembly.gate.forget()

    async def _hear_policy(self) -> None:
        async for _ in self._host.hear(Auth, PolicyChanged):
            self._assembly.gate.forget()

    async def drain(self) -> None:
        """End watches so that they resume elsewhere, finish requests; streams go on to the bound.

        The store is followed meanwhile: requests wait for what they wrote to be seen.
        """
        await self._server.drain(_DRAIN_SECONDS)

    async def stop(self) -> None:
        """End what is left, store renewals."""
        await self._server.close()
        try:
            await self._assembly.renewals.flush()
        except Unavailable:
            # Renewals are worth no more than their holders' next ones.
            self._host.log.warning("renewals not stored: the store is away")

    def _figures(self) -> Iterator[str]:
        yield "# HELP apiserver_request_total Requests answered, by verb, resource and code."
        yield "# TYPE apiserver_request_total counter"
        for (verb, resource, code), count in sorted(self._front.served.items()):
            labels = f'verb="{verb.upper()}",resource="{resource}",code="{code}"'
            yield f"apiserver_request_total{{{labels}}} {count}"

    # Contract objects

    async def get(self, request: GetRequest) -> Object:
        """One object."""
        return await self._assembly.slot.get(request)

    async def list(self, request: ListRequest) -> ListResult:
        """Objects that match."""
        return await self._assembly.slot.list(request)

    async def watch(self, request: ObjectWatch) -> AsyncIterator[ObjectBatch]:
        """Follow objects."""
        batches = self._assembly.slot.watch(request)
        try:
            async for batch in batches:
                yield batch
        finally:
            await batches.aclose()  # type: ignore[attr-defined]

    async def remind(self, reminder: Reminder) -> None:
        """Wake the caller when what it waits for happens."""
        await self._assembly.slot.remind(reminder)

    async def commit(self, commit: Commit) -> CommitResult:
        """Store a batch."""
        return await self._assembly.slot.commit(commit)


def _optional(host: Host, protocol: Any) -> Any:
    try:
        return host.use(protocol)
    except NotFound:
        return None


def _inner_listener(host: Host) -> socket.socket | None:
    """The socket on the pods' network, where there is one: how pods reach the API."""
    try:
        return host.listener("pods")
    except NotFound:
        return None


def _own_address(listener: socket.socket) -> str:
    """The listener's address; for a wildcard or loopback the one that packets leave from.

    Pods and endpoints can't use a loopback address, and the API refuses one in endpoints.
    """
    address = ipaddress.ip_address(str(listener.getsockname()[0]))
    if not address.is_unspecified and not address.is_loopback:
        return str(address)
    with socket.socket(listener.family, socket.SOCK_DGRAM) as probe:
        try:
            # Connecting a datagram socket sends nothing; it only chooses the route.
            inner = listener.family == socket.AF_INET
            probe.connect(("192.0.2.1", 9) if inner else ("2001:db8::1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1" if listener.family == socket.AF_INET else "::1"
