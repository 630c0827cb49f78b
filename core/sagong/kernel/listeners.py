"""Listening sockets: opened once from the manifests, held by the keeper, lent to each generation.

A restart or a swap of a service, or of the kernel, refuses no connection: the socket stays open.
Where a newcomer listens elsewhere, both addresses are open until it serves, or until it never will;
then those that nobody serves are closed::

    of(newcomer) opens ──► it serves: `settle` closes its predecessor's
                      └──► it fails, the predecessor serves on: `withdraw` closes the newcomer's
"""

from __future__ import annotations

import contextlib
import grp
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sagong.config import Paths
from sagong.errors import FailedPrecondition, InvalidArgument
from sagong.kernel.life import Life
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
            opened = self._at(unit, name, listener)
            if opened is not None:
                names.append(name)
                descriptors.append(opened)
        return names, descriptors

    def _at(self, unit: Unit, name: str, listener: Listener) -> int | None:
        """The one at the address that is wanted now; those at former ones stay until it is settled."""
        place, address = f"{unit.name}/{name}/", unit.listens.get(name, listener.address)
        if address and place + address not in self._open:
            former = [d for k, d in self._open.items() if k.startswith(place)]
            opened = self._listen(place + address, address, listener, former)
            if opened is None:
                return None
            self._open[place + address] = opened
        if address.startswith("unix:"):
            _give_to_group(Path(self._paths.expand(address).removeprefix("unix:")), listener)
        return self._open.get(place + address)

    def follow(self, before: Life, after: Life) -> None:
        """A step of a unit's life: who serves now decides which of its listeners stay."""
        if not after.serving or after.coming is not None:
            return
        serving = after.member(after.serving)
        if serving is not None and after.serving != before.serving:
            self.settle(serving.what)
        elif serving is not None and before.coming is not None:
            self.withdraw(serving.what)

    def settle(self, unit: Unit) -> None:
        """Close what an earlier generation had elsewhere, or by other names.

        One that has not drained yet has its own copy.
        """
        wanted = {
            f"{unit.name}/{name}/{unit.listens.get(name, listener.address)}"
            for name, listener in unit.manifest.listens.items()
        }
        for key in self._of(unit.name):
            if key not in wanted:
                self._close(key)

    def withdraw(self, unit: Unit) -> None:
        """Close what was opened for a successor that does not come; `unit` is who serves on.

        What serves may not be what is configured now: of each name it is the one that was there first.
        """
        first = set()
        for key in self._of(unit.name):
            _, name, _ = key.split("/", 2)
            if name in first or name not in unit.manifest.listens:
                self._close(key)
            first.add(name)

    def _of(self, unit: str) -> list[str]:
        """The keys of a unit, in the order in which they were opened, by an earlier kernel, too."""
        return [key for key in self._open if key.startswith(f"{unit}/")]

    def drop(self, unit: Unit) -> None:
        """Close a unit's listeners: who connects is refused, and does not wait for nobody."""
        for key in self._of(unit.name):
            self._close(key)

    def retain(self, units: Iterable[Unit]) -> None:
        """Close what an earlier kernel opened for a unit, or a listener, that is no more.

        One whose address has changed stays open until its unit's next process serves at the new one.
        """
        wanted = {f"{unit.name}/{name}" for unit in units for name in unit.manifest.listens}
        for key in [key for key in self._open if "/".join(key.split("/", 2)[:2]) not in wanted]:
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

    def _listen(
        self, key: str, address: str, listener: Listener, former: Sequence[int]
    ) -> int | None:
        try:
            fd = listen(self._paths.expand(address), listener, former)
        except FailedPrecondition:
            if listener.optional:
                return None
            raise
        self._keep(key, fd)
        return fd


def listen(address: str, listener: Listener, former: Sequence[int] = ()) -> int:
    """Open what a manifest's `address` says; FailedPrecondition if it is in use.

    `former` are the same listener's sockets elsewhere, which may be a part of the new address:
    127.0.0.1:5000 of 0.0.0.0:5000.
    """
    family, _, rest = address.partition(":")
    try:
        if family == "unix":
            return _listen_unix(Path(rest), listener)
        host, _, port = rest.rpartition(":")
        if family == "netlink":
            return _listen_netlink(int(host), int(port))
        kind = socket.SOCK_DGRAM if family == "udp" else socket.SOCK_STREAM
        return _listen_internet(host.strip("[]"), int(port), kind, former)
    except (ValueError, OverflowError):
        raise InvalidArgument(
            f"listener {address!r}: write unix:PATH, tcp:HOST:PORT, udp:HOST:PORT or "
            "netlink:PROTOCOL:GROUP, with numbers for ports and groups"
        ) from None
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
    _give_to_group(path, listener)
    sock.listen(1024)
    return sock.detach()


def _give_to_group(path: Path, listener: Listener) -> None:
    """Make a socket that is root's alone its manifest's group's, if this machine has that group.

    A package may bring the group after the socket was opened; who gave it to another one meant it.
    """
    if not listener.group:
        return
    with contextlib.suppress(KeyError, FileNotFoundError):
        group = grp.getgrnam(listener.group).gr_gid
        if path.stat().st_gid == 0:
            os.chown(path, 0, group)


def _listen_internet(host: str, port: int, kind: int, former: Sequence[int]) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # An address that appears later: that of a network which the network plugin makes.
    sock.setsockopt(socket.SOL_IP, _IP_FREEBIND, 1)
    with _sharing((sock.fileno(), *former) if former else ()):
        sock.bind((host, port))
        if kind == socket.SOCK_STREAM:
            sock.listen(1024)
    return sock.detach()


@contextlib.contextmanager
def _sharing(descriptors: Sequence[int]) -> Iterator[None]:
    """For this moment these sockets may have a port together (SO_REUSEPORT in socket(7))."""
    _set_sharing(descriptors, 1)
    try:
        yield
    finally:
        _set_sharing(descriptors, 0)


def _set_sharing(descriptors: Sequence[int], value: int) -> None:
    for descriptor in descriptors:
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            if sock.family in (socket.AF_INET, socket.AF_INET6):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, value)


def _listen_netlink(protocol: int, group: int) -> int:
    """What comes while nobody reads is kept, up to the socket's bound; past it the reader is told."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    sock.bind((0, 0))  # before: it takes memberships away
    sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    return sock.detach()
