"""The deputy: makes network namespaces, pins them as files, and opens them for the plugin.

It alone has CAP_SYS_ADMIN. It reads three kinds of requests from the plugin and nothing of anybody
else; what it sends back are descriptors: of namespaces, and of sockets opened inside, by which the
plugin works without ever entering. Its system calls are listed here, one by one.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from sagong.deputy import Post, attend
from sagong.linux import mounts, seccomp, syscalls
from sagong.linux.seccomp import ALLOW, Condition, Rule
from sagong.linux.syscalls import Namespace
from sagong_network_bridge.user_namespace import Maps, made, processes

__all__ = ["KINDS", "USER", "Drop", "Make", "Open", "Setting", "serve"]

# What is opened inside: family, type, protocol.
_RAW = socket.SOCK_RAW | socket.SOCK_NONBLOCK
KINDS: dict[str, tuple[int, int, int]] = {
    "route": (socket.AF_NETLINK, _RAW, 0),
    "filter": (socket.AF_NETLINK, _RAW, 12),
    "datagram": (socket.AF_INET, socket.SOCK_DGRAM, 0),
    "stream": (socket.AF_INET, socket.SOCK_STREAM, 0),
}
# A user namespace is pinned beside the network namespace that it owns.
USER = ".user"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}(\.user)?")
_SETTING = re.compile(r"net[./][A-Za-z0-9_.:/-]+")
_HERE = "/proc/self/ns/net"
_LOST = 70


class Setting(msgspec.Struct, frozen=True, array_like=True):
    """A `net.…` sysctl of the namespace; an optional one may be unknown to this kernel."""

    name: str
    value: str
    optional: bool = False


class Make(msgspec.Struct, frozen=True, tag=True):
    """New namespaces, pinned by these names; the answer has each with its sockets behind it.

    `user`: who owns it, of one alone. All are made or none.
    """

    names: tuple[str, ...]
    sockets: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ()
    user: Maps | None = None


class Open(msgspec.Struct, frozen=True, tag=True):
    """The same of a namespace that is there."""

    name: str
    sockets: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ()


class Drop(msgspec.Struct, frozen=True, tag=True):
    """Take pins away, and those of their owners; one that isn't there is no error."""

    names: tuple[str, ...]


def serve(channel: socket.socket, post: Post) -> None:
    """Be the locksmith until the plugin is gone."""
    decoder = msgspec.msgpack.Decoder(Make | Open | Drop)
    attend(channel, decoder.decode, Locksmith(post.root / "netns").work, rules())


class Locksmith:
    """Works below one directory."""

    def __init__(self, pins: Path) -> None:
        self._pins = pins
        self._home = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
        self._proc = processes()
        # The kernel makes it a shared mount; where nobody has, it is made one here.
        pins.mkdir(mode=0o755, parents=True, exist_ok=True)
        mounts.share(str(pins))

    def work(self, request: Make | Open | Drop, _: tuple[int, ...], found: list[int]) -> None:
        """Do it; descriptors are put into `found`, a namespace before its sockets."""
        match request:
            case Make():
                self._make(tuple(map(self._pin, request.names)), request, found)
            case Open():
                pin = self._pin(request.name)
                found.append(os.open(pin, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW))
                syscalls.setns(found[0], Namespace.NET, path=pin)
                with self._returning():
                    _furnish(request, found)
            case Drop():
                _unpin_all(map(self._pin, request.names))

    def _pin(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no pin's name")
        return str(self._pins / name)

    def _make(self, pins: tuple[str, ...], request: Make, found: list[int]) -> None:
        """One after the other in new namespaces, and home again."""
        if request.user is not None and len(pins) != 1:
            raise ValueError("a user namespace owns one namespace")
        try:
            with self._returning():
                for pin in pins:
                    self._enter_new(pin, request.user, found)
                    _pin(found[-1], pin)
                    _furnish(request, found)
        except BaseException:
            _unpin_all(pins)
            raise

    def _enter_new(self, pin: str, user: Maps | None, found: list[int]) -> None:
        """The new one is put into `found`; a new user namespace that owns it is pinned, too."""
        if user is None:
            syscalls.unshare(Namespace.NET)
            found.append(os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC))
            return
        owner, owned = made(user, self._proc)
        found.append(owned)
        try:
            _pin(owner, pin + USER)
        finally:
            os.close(owner)
        syscalls.setns(owned, Namespace.NET, path=pin)

    @contextlib.contextmanager
    def _returning(self) -> Iterator[None]:
        """Whoever got lost in a container's namespace would do to it what is meant for another."""
        try:
            yield
        finally:
            try:
                syscalls.setns(self._home, Namespace.NET)
            except OSError:
                os._exit(_LOST)


def _furnish(request: Make | Open, found: list[int]) -> None:
    for setting in request.settings:
        _write(setting)
    for kind in request.sockets:
        family, form, protocol = KINDS[kind]
        opened = socket.socket(family, form | socket.SOCK_CLOEXEC, protocol)
        found.append(opened.detach())


def _write(setting: Setting) -> None:
    if not _SETTING.fullmatch(setting.name) or ".." in setting.name:
        raise ValueError(f"{setting.name!r} is no setting of a network namespace")
    # Interface names may hold dots: they are written as slashes, as sysctl(8) allows.
    name = setting.name if "/" in setting.name else setting.name.replace(".", "/")
    path = f"/proc/sys/{name}"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        if not setting.optional:
            raise
        return
    try:
        os.write(descriptor, setting.value.encode())
    except OSError as error:
        raise OSError(error.errno, f"write {setting.value!r}: {error.strerror}", path) from None
    finally:
        os.close(descriptor)


def _pin(namespace: int, pin: str) -> None:
    """By descriptors: a link put in the pin's place leads nowhere."""
    flags = os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    place = os.open(pin, flags, 0o600)
    try:
        mounts.bind(f"/proc/self/fd/{namespace}", f"/proc/self/fd/{place}")
    finally:
        os.close(place)


def _unpin_all(pins: Iterable[str]) -> None:
    """All that can be; what is wrong with one of them is said last."""
    failure: OSError | ValueError | None = None
    for pin in [file for name in pins for file in (name, name + USER)]:
        try:
            _unpin(pin)
        except (OSError, ValueError) as error:
            failure = error
    if failure is not None:
        raise failure


def _unpin(pin: str) -> None:
    try:
        if not stat.S_ISREG(os.lstat(pin).st_mode):
            raise ValueError(f"{pin} is no pin")
        with contextlib.suppress(FileNotFoundError):
            _unmount(pin)
        os.unlink(pin)
    except FileNotFoundError:
        pass


def _unmount(pin: str) -> None:
    try:
        syscalls.umount(pin, mounts.MNT_DETACH | mounts.UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno != 22:  # EINVAL: only the empty file is left, by a crash
            raise


def rules() -> Iterator[Rule]:
    """All that it calls, beside an interpreter's own: nothing that connects or executes."""
    yield seccomp.rule_of("umount2 unlink unlinkat socketpair")
    # Mounting is binding, namespaces are of networks and users.
    yield seccomp.rule_of("mount", ALLOW, Condition(3, "eq", mounts.MS_BIND))
    for kind in (Namespace.NET, Namespace.USER):
        yield seccomp.rule_of("unshare", ALLOW, Condition(0, "eq", kind))
    yield seccomp.rule_of("setns", ALLOW, Condition(1, "eq", Namespace.NET))
    for family in (socket.AF_NETLINK, socket.AF_INET):
        yield seccomp.rule_of("socket", ALLOW, Condition(0, "masked_eq", family, 0xFFFFFFFF))
    # In a fork: root, which owns the user namespace; see there.
    for call in ("setresuid", "setresgid"):
        yield Rule((call,), ALLOW, tuple(Condition(n, "eq", 0) for n in range(3)))
    yield seccomp.rule_of("prctl", ALLOW, Condition(0, "eq", 4))  # PR_SET_DUMPABLE
