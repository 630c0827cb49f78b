"""The plugin's side of name resolution: keeps the resolver's process and tells it who has which name.

The process is started with the first sandbox that needs it, without any capability, and started
again when it dies; what it must know is all here and in the namespaces.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import logging
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any

from sagong.contracts.network import Endpoint, JoinRequest, Sandbox
from sagong.linux import capabilities, process, syscalls

__all__ = ["Names", "order_of"]

Reopen = Callable[[str], Awaitable[list[socket.socket]]]
_START = (
    "import sys;sys.path[:0]=[sys.argv[1]];"
    "from sagong_network_bridge.resolver import main;"
    "main(int(sys.argv[2]),tuple(sys.argv[3:]))"
)
_AGAIN = 0.2
_END_MILLISECONDS = 1000


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
        "forward": leads_out or bool(own),
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

    A container's own loopback is out of the resolver's reach; the machine's is none of its. Who is on
    internal networks alone reaches those that are there with it.
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
        self._nameservers = nameservers
        self._log = log
        self._reopen = reopen
        self._spawn = spawn
        self._orders: dict[str, dict[str, Any]] = {}
        self._served: set[str] = set()
        self._child: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._pidfd = -1
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
            self._send(order, sockets)
        finally:
            for served in sockets:
                served.close()

    def tell(self, order: dict[str, Any]) -> None:
        """Names or networks of a sandbox have changed."""
        self._orders[order["id"]] = order
        self._send(order, [])

    def forget(self, identity: str) -> None:
        """A sandbox is gone: its sockets would keep its namespace alive."""
        if self._orders.pop(identity, None) is not None:
            self._served.discard(identity)
            self._send({"do": "forget", "id": identity}, [])

    def close(self) -> None:
        """End the process: it goes when its channel closes."""
        self._closed = True
        self._lose()

    def _begin(self) -> None:
        if self._child is not None:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        ours.setblocking(False)
        self._control = ours
        try:
            self._child = _started(theirs, self._nameservers)
        except BaseException:
            ours.close()
            self._control = None
            raise
        finally:
            theirs.close()
        self._pidfd = syscalls.pidfd_open(self._child.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended)
        for order in self._orders.values():
            self._send(order, [])

    def _ended(self) -> None:
        """It died on its own: start another and hand it everything again."""
        status = self._child.wait() if self._child is not None else 0
        self._lose()
        if not self._closed:
            self._log.warning("the resolver ended", extra={"status": status})
            self._spawn(self._resume(), "resolver")

    def _lose(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._child is not None:
            self._reap(self._child)
            self._child = None

    def _reap(self, child: subprocess.Popen[bytes]) -> None:
        """It ends when its channel is closed; `wait` of subprocess with a limit would doze."""
        asyncio.get_running_loop().remove_reader(self._pidfd)
        ended = select.poll()
        ended.register(self._pidfd, select.POLLIN)
        if not ended.poll(_END_MILLISECONDS):
            child.kill()
        child.wait()
        os.close(self._pidfd)
        self._pidfd = -1

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
                self._send(self._orders[identity], sockets)
            for served in sockets:
                served.close()

    def _send(self, order: dict[str, Any], sockets: list[socket.socket]) -> None:
        """A full channel means a stuck process: it is ended, and the next one is told everything."""
        if self._control is None:
            return
        descriptors = array.array("i", [served.fileno() for served in sockets])
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)] if descriptors else []
        try:
            self._control.sendmsg([json.dumps(order).encode()], rights)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            if self._child is not None:
                self._child.kill()


def _started(channel: socket.socket, nameservers: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """Start it from a thread that has given up every capability: they are each thread's own."""
    root = str(Path(__file__).parents[1])
    arguments = [root, str(channel.fileno()), *nameservers]
    found: list[subprocess.Popen[bytes]] = []
    problems: list[BaseException] = []

    def start() -> None:
        try:
            _renounce()
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _START, *arguments],
                pass_fds=[channel.fileno()],
                stdin=subprocess.DEVNULL,
                cwd="/",
            )
            found.append(child)
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=start, name="resolver-start")
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
    return found[0]


def _renounce() -> None:
    """No capability for this thread and what it executes, not even for root."""
    process.set_no_new_privs()
    with contextlib.suppress(PermissionError):
        # Only who may change the bounding set must: others lose all with the ambient set.
        capabilities.drop_bounding(0)
    capabilities.apply(capabilities.CapabilitySets(0, 0, 0, 0, 0))
