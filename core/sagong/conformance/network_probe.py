"""Traffic in namespaces of this machine: servers, clients and commands inside of them, by threads.

`within(path, function)` calls a function in a thread that has entered a network namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset

from sagong.contracts.network import Sandbox
from sagong.linux import syscalls
from sagong.linux.syscalls import Namespace

__all__ = ["Nameserver", "NamespaceProbe", "Server", "ask", "dial", "owner_of", "shell", "within"]

T = TypeVar("T")
_PATIENCE = 4.0


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
        done = subprocess.run(
            command, shell=True, capture_output=True, text=True, timeout=60, check=False
        )
        return done.stdout + done.stderr

    return within(path, run)


_GET_OWNER = 0xB701  # NS_GET_USERNS of ioctl_ns(2)


def owner_of(path: str, user: str) -> tuple[tuple[int, int, int], ...]:
    """The map of uids of what owns a network namespace, () for the machine's; it must be `user`."""
    namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    owner = fcntl.ioctl(namespace, _GET_OWNER)
    os.close(namespace)
    try:
        assert os.fstat(owner).st_ino == os.stat(user or "/proc/self/ns/user").st_ino
        if not user:
            return ()  # nobody may enter where he is
        command = "cat /proc/self/uid_map"
        entered = ["nsenter", f"--user=/proc/self/fd/{owner}", "--preserve-credentials", "sh", "-c"]
        text = subprocess.run(
            [*entered, command], pass_fds=[owner], capture_output=True, text=True, check=True
        ).stdout
    finally:
        os.close(owner)
    lines = [line.split() for line in text.splitlines()]
    return tuple((int(a), int(b), int(c)) for a, b, c in lines)


class Server:
    """Answers every connection or datagram with a word and the peer's address."""

    def __init__(self, path: str, port: int, word: str, protocol: str = "tcp") -> None:
        self._word = word
        self._stream = protocol == "tcp"
        self._socket = within(path, self._open, port)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer nobody any more."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

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
                    if peer is None:  # it was shut down
                        return
                    self._socket.sendto(f"{self._word} {peer[0]}".encode(), peer)


def ask(
    path: str, address: str, port: int, protocol: str = "tcp", *, seconds: float = 1.0
) -> tuple[str, str]:
    """The word and the address that a server saw; ("", reason) if nobody answered."""

    def call() -> tuple[str, str]:
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

    return within(path, call)


async def dial(*arguments: Any, **named: Any) -> tuple[str, str]:
    """`ask` without stopping the loop."""
    return await asyncio.to_thread(lambda: ask(*arguments, **named))


class Nameserver:
    """A nameserver on the machine that knows one name; all others it says not to exist."""

    def __init__(self, address: str, known: tuple[str, str]) -> None:
        self._known = known
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, 53))
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Answer nobody any more."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, peer = self._socket.recvfrom(4096)
                if peer is None:  # it was shut down
                    return
                self._socket.sendto(self._answer(data), peer)

    def _answer(self, data: bytes) -> bytes:
        query = dns.message.from_wire(data)
        name, kind = query.question[0].name, query.question[0].rdtype
        answer = dns.message.make_response(query)
        if name.to_text(omit_final_dot=True) != self._known[0]:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif kind == dns.rdatatype.A:
            answer.answer.append(dns.rrset.from_text(name, 60, "IN", "A", self._known[1]))
        return answer.to_wire()


class NamespaceProbe:
    """Servers and clients in the sandboxes' namespaces (`sagong.conformance.network_lab.Probe`)."""

    def __init__(self) -> None:
        self._servers: list[Server] = []

    async def serve(self, sandbox: Sandbox, port: int, protocol: str = "tcp") -> None:
        """Until the probe is closed."""
        self._servers.append(Server(sandbox.path, port, sandbox.id, protocol))

    async def reach(
        self, source: Sandbox | None, address: str, port: int, protocol: str = "tcp"
    ) -> str:
        """Long enough for a second SYN, where the machine is busy."""
        path = source.path if source else ""
        word, _ = await dial(path, address, port, protocol, seconds=_PATIENCE)
        return word

    async def resolve(self, sandbox: Sandbox, name: str) -> tuple[str, ...]:
        """By UDP, as a container's C library does."""
        query = dns.message.make_query(name, dns.rdatatype.A)

        def ask_resolver() -> dns.message.Message:
            return dns.query.udp(query, sandbox.dns, timeout=30)

        answer = await asyncio.to_thread(within, sandbox.path, ask_resolver)
        return tuple(item.address for rrset in answer.answer for item in rrset)

    async def owner(self, sandbox: Sandbox) -> tuple[tuple[int, int, int], ...]:
        """The map of uids of its owner."""
        return await asyncio.to_thread(owner_of, sandbox.path, sandbox.user_path)

    async def gateway(self, sandbox: Sandbox) -> str:
        """As `ip route` shows it."""
        words = (await asyncio.to_thread(shell, sandbox.path, "ip -4 route show default")).split()
        return words[2] if words else ""

    def close(self) -> None:
        """End the servers."""
        for server in self._servers:
            server.close()
