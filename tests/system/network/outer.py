"""A machine for a test: a forked process in fresh network and mount namespaces, and probes in it.

`machine(story)` runs a coroutine function in such a process and raises here what failed there.
Inside, `within(path, function)` does something in a sandbox's namespace, by a thread that enters it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from sagong.contracts.network import Attachment, JoinRequest, PortMapping, Sandbox
from sagong.linux import mounts, syscalls
from sagong.linux.syscalls import Namespace
from sagong.testing import LocalHost
from sagong_network_bridge import NetworkBridge

T = TypeVar("T")
Story = Callable[..., Coroutine[Any, Any, None]]


def machine(story: Story, *arguments: Any) -> None:
    """Run the story on a machine of its own; what it asserts is asserted here."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        code = 1
        try:
            _enter()
            with tempfile.TemporaryDirectory(prefix="sgnet-", dir="/tmp") as base:
                try:
                    uvloop.run(story(Path(base), *arguments))
                finally:
                    _unmount(base)
            code = 0
        except BaseException:
            os.write(writer, traceback.format_exc().encode()[-60000:])
        finally:
            os._exit(code)
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as stream:
            text = stream.read().decode()
        _, status = os.waitpid(pid, 0)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    assert status == 0, f"in the machine (status {status}):\n{text}"


def _enter() -> None:
    syscalls.unshare(Namespace.NET | Namespace.MNT)
    mounts.set_propagation("/", "rprivate")
    for line in (
        "link set lo up",
        "link add uplink type bridge",
        "addr add 198.51.100.1/24 dev uplink",
        "link set uplink up",
        "route add default via 198.51.100.254",
    ):
        subprocess.run(["ip", *line.split()], check=True)


def _unmount(base: str) -> None:
    for entry in reversed(mounts.mount_table()):
        if entry.target.startswith(base):
            with contextlib.suppress(OSError):
                syscalls.umount(entry.target, mounts.MNT_DETACH)


@contextlib.asynccontextmanager
async def plugin(
    base: Path, config: Mapping[str, Any] | None = None
) -> AsyncIterator[NetworkBridge]:
    """The plugin on directories below `base`; may be made again on the same ones."""
    for name in ("data", "run"):
        (base / name).mkdir(exist_ok=True)
    host = LocalHost("network", data=base / "data", run=base / "run", config=config)
    candidate = NetworkBridge(host)
    try:
        await candidate.start()
        yield candidate
    finally:
        await candidate.stop()
        await host.close()


def within(path: str, function: Callable[..., T], *arguments: Any) -> T:
    """Call a function in a thread that is inside the namespace ("" is the machine's own)."""
    found: list[T] = []
    problems: list[BaseException] = []

    def work() -> None:
        try:
            if path:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                syscalls.setns(descriptor, Namespace.NET)
                os.close(descriptor)
            found.append(function(*arguments))
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
    return found[0]


def shell(path: str, command: str) -> str:
    """A command's output inside a namespace."""

    def run() -> str:
        done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=20)
        return done.stdout + done.stderr

    return within(path, run)


class Server:
    """Answers every connection or datagram with a word and the peer's address."""

    def __init__(self, path: str, port: int, word: str, protocol: str = "tcp") -> None:
        self._word = word
        self._stream = protocol == "tcp"
        self._socket = within(path, self._open, port)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _open(self, port: int) -> socket.socket:
        kind = socket.SOCK_STREAM if self._stream else socket.SOCK_DGRAM
        try:
            served = socket.socket(socket.AF_INET6, kind)
            served.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            served.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            served.bind(("::", port))
        except OSError:
            served = socket.socket(socket.AF_INET, kind)
            served.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            served.bind(("0.0.0.0", port))
        if self._stream:
            served.listen(64)
        return served

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                if self._stream:
                    connection, peer = self._socket.accept()
                    connection.sendall(f"{self._word} {peer[0]}".encode())
                    connection.close()
                else:
                    _, peer = self._socket.recvfrom(2048)
                    self._socket.sendto(f"{self._word} {peer[0]}".encode(), peer)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def ask(
    path: str, address: str, port: int, protocol: str = "tcp", *, seconds: float = 1.0
) -> tuple[str, str]:
    """The word and the address that a server saw; ("", reason) if nobody answered."""

    def dial() -> tuple[str, str]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        with socket.socket(family, kind) as channel:
            channel.settimeout(seconds)
            try:
                channel.connect((address, port))
                if protocol == "udp":
                    channel.send(b"?")
                text = channel.recv(200).decode()
            except OSError as error:
                return "", str(error)
            word, _, peer = text.partition(" ")
            return word, peer.removeprefix("::ffff:")

    return within(path, dial)


async def dial(*arguments: Any, **named: Any) -> tuple[str, str]:
    """`ask` without stopping the plugin's loop."""
    return await asyncio.to_thread(lambda: ask(*arguments, **named))


async def reached(*arguments: Any, **named: Any) -> tuple[str, str]:
    """`dial` for what must answer, however busy the machine is."""
    return await dial(*arguments, seconds=10.0, **named)


async def joined(
    network: NetworkBridge, name: str, *networks: str, ports: tuple[PortMapping, ...] = (),
    aliases: tuple[str, ...] = (), **more: Any,
) -> Sandbox:  # fmt: skip
    """A sandbox on networks by id or name."""
    attachments = tuple(Attachment(network=one, aliases=aliases) for one in networks)
    request = JoinRequest(id=name, attachments=attachments, ports=ports, names=(name,), **more)
    return await network.join(request)


class World:
    """A neighbour of the machine: a namespace behind a cable, 192.0.2.2 and 2001:db8::2."""

    address, address6 = "192.0.2.2", "2001:db8::2"
    machine, machine6 = "192.0.2.1", "2001:db8::1"

    def __init__(self, base: Path) -> None:
        self.path = str(base / "world")
        Path(self.path).touch()
        name = f"w{os.getpid()}"
        for line in (
            f"ip netns add {name}",
            f"mount --bind /run/netns/{name} {self.path}",
            f"umount /run/netns/{name}",
            f"rm /run/netns/{name}",
        ):
            subprocess.run(line.split(), check=True)
        shell("", "ip link add cable type veth peer name plug")
        shell("", f"ip link set plug netns {self._holder()}")
        shell("", "ip addr add 192.0.2.1/24 dev cable; ip addr add 2001:db8::1/64 dev cable nodad")
        shell("", "ip link set cable up")
        shell(self.path, "ip addr add 192.0.2.2/24 dev plug; ip link set lo up")
        shell(self.path, "ip addr add 2001:db8::2/64 dev plug nodad; ip link set plug up")

    def _holder(self) -> int:
        """A process inside, for as long as the cable is plugged."""
        self._process = subprocess.Popen(["nsenter", f"--net={self.path}", "sleep", "5"])
        time.sleep(0.1)
        return self._process.pid

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):
            syscalls.umount(self.path, mounts.MNT_DETACH)


__all__ = [
    "Server",
    "World",
    "ask",
    "dial",
    "joined",
    "machine",
    "plugin",
    "reached",
    "shell",
    "shutil",
    "sys",
    "within",
]
