"""Listening sockets: opened once from the manifests, held by the keeper, lent to each generation.

A restart or a swap of a service, or of the kernel, refuses no connection: the socket stays open.
"""

from __future__ import annotations

import contextlib
import grp
import os
import socket
from collections.abc import Iterable
from pathlib import Path

from sagong.config import Paths
from sagong.errors import FailedPrecondition, InvalidArgument
from sagong.kernel.units import Unit
from sagong.manifest import Listener

__all__ = ["Listeners", "listen"]

_IP_FREEBIND = 15
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1


class Listeners:
    """Descriptors by `unit/name`; `keep` gives a new one to the keeper."""

    def __init__(self, paths: Paths, kept: dict[str, int], keeper: socket.socket | None) -> None:
        self._paths = paths
        self._open = dict(kept)
        self._keeper = keeper

    def of(self, unit: Unit) -> tuple[list[str], list[int]]:
        """Names and descriptors of a unit's listeners, opened now if they are not yet."""
        names, descriptors = [], []
        for name, listener in unit.manifest.listens.items():
            address = unit.listens.get(name, listener.address)
            if not address:
                continue
            key = f"{unit.name}/{name}/{address}"
            if key not in self._open:
                opened = self._listen(key, address, listener)
                if opened is None:
                    continue
                self._open[key] = opened
            names.append(name)
            descriptors.append(self._open[key])
        return names, descriptors

    def drop(self, unit: Unit) -> None:
        """Close a unit's listeners: who connects is refused, and does not wait for nobody."""
        for key in [key for key in self._open if key.startswith(f"{unit.name}/")]:
            self._close(key)

    def retain(self, units: Iterable[Unit]) -> None:
        """Close what an earlier kernel opened for a unit that is no more, or at another address."""
        wanted = {
            f"{unit.name}/{name}/{unit.listens.get(name, listener.address)}"
            for unit in units
            for name, listener in unit.manifest.listens.items()
        }
        for key in set(self._open) - wanted:
            self._close(key)

    def _close(self, key: str) -> None:
        os.close(self._open.pop(key))
        _, _, address = key.split("/", 2)
        if address.startswith("unix:"):
            Path(self._paths.expand(address.removeprefix("unix:"))).unlink(missing_ok=True)
        if self._keeper is not None:
            with contextlib.suppress(OSError):
                self._keeper.send(f"drop {key}".encode())

    def change_keeper(self, keeper: socket.socket) -> None:
        """New ones go to this keeper from now on, and those that are open now."""
        self._keeper = keeper
        for key, fd in self._open.items():
            self._keep(key, fd)

    def _keep(self, key: str, fd: int) -> None:
        from sagong.linux.process import send_descriptors

        if self._keeper is not None:
            # A keeper that has just died is followed by one that gets all of them.
            with contextlib.suppress(OSError):
                send_descriptors(self._keeper, f"keep {key}".encode(), (fd,))

    def _listen(self, key: str, address: str, listener: Listener) -> int | None:
        try:
            fd = listen(self._paths.expand(address), listener)
        except FailedPrecondition:
            if listener.optional:
                return None
            raise
        self._keep(key, fd)
        return fd


def listen(address: str, listener: Listener) -> int:
    """Open what a manifest's `address` says; FailedPrecondition if it is in use."""
    family, _, rest = address.partition(":")
    try:
        if family == "unix":
            return _listen_unix(Path(rest), listener)
        host, _, port = rest.rpartition(":")
        if family == "netlink":
            return _listen_netlink(int(host), int(port))
        kind = socket.SOCK_DGRAM if family == "udp" else socket.SOCK_STREAM
        return _listen_internet(host.strip("[]"), int(port), kind)
    except ValueError:
        raise InvalidArgument(f"listener {address!r}: the port, or group, is no number") from None
    except OSError as error:
        raise FailedPrecondition(
            f"can't listen on {address}: {error.strerror}; "
            "is another program, or another sagong, using it?"
        ) from error


def _listen_unix(path: Path, listener: Listener) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as probe:
        if path.exists() and probe.connect_ex(str(path)) == 0:
            raise OSError(98, "the socket answers already")
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX)
    old = os.umask(0o177)
    try:
        sock.bind(str(path))
    finally:
        os.umask(old)
    os.chmod(path, int(listener.mode, 8))
    if listener.group:
        try:
            os.chown(path, 0, grp.getgrnam(listener.group).gr_gid)
        except KeyError:
            pass  # no such group on this machine: root's alone, as Docker does it
    sock.listen(1024)
    return sock.detach()


def _listen_internet(host: str, port: int, kind: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # An address that appears later: that of a network which the network plugin makes.
    sock.setsockopt(socket.SOL_IP, _IP_FREEBIND, 1)
    sock.bind((host, port))
    if kind == socket.SOCK_STREAM:
        sock.listen(1024)
    return sock.detach()


def _listen_netlink(protocol: int, group: int) -> int:
    """What comes while nobody reads is kept, up to the socket's bound; past it the reader is told."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    sock.bind((0, 0))  # before: it takes memberships away
    sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    return sock.detach()
