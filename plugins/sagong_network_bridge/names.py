"""The plugin's side of name resolution: keeps the resolver's process and tells it who has which name.

The process is started with the first sandbox that needs it, and started again when it dies; what it
must know is all here and in the namespaces.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine
from ipaddress import ip_address, ip_interface
from typing import Any

from sagong.contracts.network import Endpoint, JoinRequest, Sandbox
from sagong_network_bridge.outwork import Outwork

__all__ = ["Names", "order_of"]

Reopen = Callable[[str], Awaitable[list[socket.socket]]]
_AGAIN = 0.2


def order_of(
    sandbox: Sandbox, request: JoinRequest, labels: dict[str, str], internal: frozenset[str]
) -> dict[str, Any]:
    """What the resolver is told of a sandbox; `labels` are the networks' names by id."""
    leads_out = any(endpoint.network not in internal for endpoint in sandbox.endpoints)
    own = _own_nameservers(sandbox, request, leads_out=leads_out)
    links = {attachment.network: dict(attachment.links) for attachment in request.attachments}
    return {
        "do": "serve",
        "id": sandbox.id,
        "nameservers": own,
        # Who names servers of its own alone that can't be asked is not answered by the machine's.
        "forward": bool(own) or (leads_out and not request.nameservers),
        "endpoints": [
            {
                "network": endpoint.network,
                "label": labels.get(endpoint.network, ""),
                "names": _names(sandbox, endpoint),
                "links": links.get(endpoint.network, {}),
                "addresses": [a for a in (endpoint.ipv4, endpoint.ipv6) if a],
            }
            for endpoint in sandbox.endpoints
        ],
    }


def _own_nameservers(sandbox: Sandbox, request: JoinRequest, *, leads_out: bool) -> list[str]:
    """Those that the sandbox could ask itself: the resolver asks them on its behalf.

    A container's own loopback, this resolver among it, is out of the resolver's reach; the machine's
    is none of its. Who is on internal networks alone reaches those that are there with it.
    """
    given = [a for a in request.nameservers if not ip_address(a).is_loopback]
    return given if leads_out else [a for a in given if _is_beside(sandbox, a)]


def _is_beside(sandbox: Sandbox, address: str) -> bool:
    return any(
        ip_address(address) in ip_interface(f"{own}/{prefix}").network
        for endpoint in sandbox.endpoints
        for own, prefix in (
            (endpoint.ipv4, endpoint.ipv4_prefix),
            (endpoint.ipv6, endpoint.ipv6_prefix),
        )
        if own
    )


def _names(sandbox: Sandbox, endpoint: Endpoint) -> list[str]:
    return list(dict.fromkeys([*sandbox.names, *endpoint.aliases]))


class Names:
    """The resolver's process, and everything that it has been told."""

    def __init__(
        self,
        nameservers: tuple[str, ...],
        log: logging.Logger,
        reopen: Reopen,
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
    ) -> None:
        self._reopen = reopen
        self._spawn = spawn
        self._orders: dict[str, dict[str, Any]] = {}
        self._served: set[str] = set()
        self._resolver = Outwork("resolver", nameservers, log, self._ended)
        self._closed = False

    def adopt(self, order: dict[str, Any]) -> None:
        """A sandbox of a predecessor: known as soon as the process starts, served later."""
        self._orders[order["id"]] = order

    def serve(self, order: dict[str, Any], sockets: list[socket.socket]) -> None:
        """Tell of a new sandbox; its sockets are given away and closed here."""
        self._begin()
        identity = order["id"]
        self._orders[identity] = order
        if sockets:
            self._served.add(identity)
        try:
            self._resolver.send(order, sockets)
        finally:
            for served in sockets:
                served.close()

    def tell(self, order: dict[str, Any]) -> None:
        """Names or networks of a sandbox have changed."""
        self._orders[order["id"]] = order
        self._resolver.send(order)

    def forget(self, identity: str) -> None:
        """A sandbox is gone: its sockets would keep its namespace alive."""
        if self._orders.pop(identity, None) is not None:
            self._served.discard(identity)
            self._resolver.send({"do": "forget", "id": identity})

    def close(self) -> None:
        """End the process."""
        self._closed = True
        self._resolver.close()

    def _begin(self) -> None:
        if self._resolver.runs:
            return
        self._resolver.begin()
        for order in self._orders.values():
            self._resolver.send(order)

    def _ended(self) -> None:
        """It died on its own: start another and hand it everything again."""
        if not self._closed:
            self._spawn(self._resume(), "resolver")

    async def _resume(self) -> None:
        await asyncio.sleep(_AGAIN)
        if not self._orders or self._closed:
            return
        self._begin()
        for identity in list(self._orders):
            sockets: list[socket.socket] = []
            if identity in self._served:
                with contextlib.suppress(OSError):
                    sockets = await self._reopen(identity)
            if identity in self._orders:
                self._resolver.send(self._orders[identity], sockets)
            for served in sockets:
                served.close()
