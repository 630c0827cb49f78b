"""The embedded resolver: its own names, the machine's nameservers, and its process's death."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from sagong.contracts.network import Network, Sandbox, SandboxRef
from tests.system.network.outer import joined, machine, plugin, within

pytestmark = pytest.mark.root

USER = Network(id="d" * 64, name="Front", ipv6=True)
INNER = Network(id="e" * 64, name="inner", internal=True)


class Upstream:
    """A nameserver of the machine that knows big.example and answers with what it is told."""

    def __init__(self, address: str, *, silent: bool = False, refuses: bool = False) -> None:
        self.asked: list[str] = []
        self.questions: set[tuple[int, dns.name.Name]] = set()
        self._refuses = refuses
        self._silent = silent
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind((address, 53))
        self._tcp = socket.create_server((address, 53))
        for work in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=work, daemon=True).start()

    def _serve_udp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, peer = self._udp.recvfrom(4096)
                answer = self._answer(data, limit=512)
                if not self._silent:
                    self._udp.sendto(answer, peer)

    def _serve_tcp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                channel, _ = self._tcp.accept()
                with channel:
                    length = int.from_bytes(channel.recv(2), "big")
                    answer = self._answer(channel.recv(length), limit=65535)
                    channel.sendall(len(answer).to_bytes(2, "big") + answer)

    def _answer(self, data: bytes, limit: int) -> bytes:
        query = dns.message.from_wire(data)
        name = query.question[0].name
        self.asked.append(name.to_text())
        self.questions.add((query.id, name))
        answer = dns.message.make_response(query)
        if self._refuses:
            answer.set_rcode(dns.rcode.REFUSED)
            return answer.to_wire()
        count = 100 if name.to_text().startswith("big") else 1
        addresses = [f"203.0.113.{number}" for number in range(1, count + 1)]
        answer.answer.append(dns.rrset.from_text_list(name, 60, "IN", "A", addresses))
        whole = answer.to_wire(max_size=65535)
        if len(whole) <= limit:
            return whole
        cut = dns.message.make_response(query)
        cut.flags |= dns.flags.TC
        return cut.to_wire()

    def close(self) -> None:
        self._udp.close()
        self._tcp.close()


async def asked(
    sandbox: Sandbox, name: str, kind: str = "A", *, tcp: bool = False, seconds: float = 30.0
) -> dns.message.Message:
    query = dns.message.make_query(name, kind)
    ask: Callable[..., dns.message.Message] = dns.query.tcp if tcp else dns.query.udp

    def work() -> dns.message.Message:
        return ask(query, sandbox.dns, timeout=seconds)

    return await asyncio.to_thread(within, sandbox.path, work)


async def asked_again(sandbox: Sandbox, name: str) -> dns.message.Message:
    """As a C library asks that hears nothing."""
    for _ in range(60):
        try:
            return await asked(sandbox, name, seconds=1.0)
        except dns.exception.Timeout:
            continue
    raise AssertionError(f"nobody answers for {name}")


def texts(answer: dns.message.Message) -> set[str]:
    return {item.to_text() for rrset in answer.answer for item in rrset}


async def own_names(base: Path) -> None:
    async with plugin(base) as network:
        await network.create(USER)
        a = await joined(network, "a", "Front", aliases=("web",))
        b = await joined(network, "b", "Front", aliases=("web",))
        first, second = a.endpoints[0], b.endpoints[0]
        for tcp in (False, True):
            assert texts(await asked(a, "B", tcp=tcp)) == {second.ipv4}
            assert texts(await asked(a, "b.front", tcp=tcp)) == {second.ipv4}
            assert texts(await asked(a, "web", tcp=tcp)) == {first.ipv4, second.ipv4}
            assert texts(await asked(a, "web", "AAAA", tcp=tcp)) == {first.ipv6, second.ipv6}
        empty = await asked(a, "web", "TXT")
        assert empty.rcode() == dns.rcode.NOERROR and not empty.answer
        turns = {(await asked(a, "web")).answer[0][0].to_text() for _ in range(8)}
        assert turns == {first.ipv4, second.ipv4}, "addresses don't take turns"
        reverse = second.ipv4.split(".")[::-1]
        answer = await asked(a, ".".join(reverse) + ".in-addr.arpa", "PTR")
        assert texts(answer) == {"b.Front."}


def test_names_aliases_and_addresses() -> None:
    machine(own_names)


async def forwarded(base: Path) -> None:
    silent, speaking = Upstream("127.0.0.2", silent=True), Upstream("127.0.0.3")
    nameservers = ("127.0.0.2", "127.0.0.3")
    async with plugin(base, {"nameservers": nameservers}) as network:
        await network.create(USER)
        await network.create(INNER)
        a, inner = await joined(network, "a", "Front"), await joined(network, "i", "inner")
        assert texts(await asked(a, "small.example")) == {"203.0.113.1"}
        assert silent.asked and speaking.asked, "the second nameserver was not tried"
        cut = await asked(a, "big.example")
        assert cut.flags & dns.flags.TC
        assert len(texts(await asked(a, "big.example", tcp=True))) == 100
        assert (await asked(inner, "small.example")).rcode() == dns.rcode.SERVFAIL
        assert speaking.asked.count("a.") == 0, "names of containers leak to the machine's"
    silent.close()
    speaking.close()


def test_other_names_go_to_the_machine_s_nameservers() -> None:
    machine(forwarded)


async def beside(base: Path) -> None:
    """A nameserver of one's own on an internal network; those elsewhere are not asked."""
    async with plugin(base, {"nameservers": ("127.0.0.3",)}) as network:
        await network.create(INNER)
        server = await joined(network, "server", "inner")
        local = within(server.path, lambda: Upstream(server.endpoints[0].ipv4))
        outside = Upstream("198.51.100.1")
        for name, nameservers, code in (
            ("near", (server.endpoints[0].ipv4,), dns.rcode.NOERROR),
            ("far", ("198.51.100.1",), dns.rcode.SERVFAIL),
        ):
            asker = await joined(network, name, "inner", nameservers=nameservers)
            assert (await asked(asker, "small.example")).rcode() == code, name
        assert local.asked and not outside.asked
    local.close()
    outside.close()


def test_internal_networks_have_nameservers_of_their_own() -> None:
    machine(beside)


async def refused(base: Path) -> None:
    """One nameserver knows only its own names: the next one is asked at once."""
    closed, speaking = Upstream("198.51.100.1", refuses=True), Upstream("127.0.0.3")
    async with plugin(base, {"nameservers": ("198.51.100.1", "127.0.0.3")}) as network:
        await network.create(USER)
        a = await joined(network, "a", "Front")
        b = await joined(network, "b", "Front", nameservers=("198.51.100.1",))
        for tcp in (False, True):
            assert texts(await asked(a, "small.example", tcp=tcp)) == {"203.0.113.1"}
        assert (await asked(b, "small.example")).rcode() == dns.rcode.REFUSED, "it is all there is"
    # One that is answered late is asked again, and is the same.
    assert (len(closed.questions), len(speaking.questions)) == (3, 2)
    closed.close()
    speaking.close()


def test_a_refusal_is_not_the_last_word() -> None:
    machine(refused)


async def own_nameservers(base: Path) -> None:
    theirs, mine = Upstream("127.0.0.2"), Upstream("198.51.100.1")
    async with plugin(base, {"nameservers": ("127.0.0.2",)}) as network:
        await network.create(USER)
        a = await joined(network, "a", "Front", nameservers=("198.51.100.1", "127.0.0.2"))
        b = await joined(network, "b", "Front")
        assert texts(await asked(a, "small.example")) == {"203.0.113.1"}
        assert texts(await asked(a, "b")) == {b.endpoints[0].ipv4}
        assert mine.asked == ["small.example."] and not theirs.asked
        assert texts(await asked(b, "small.example")) == {"203.0.113.1"}
        assert len(theirs.asked) == len(mine.asked) == 1, "another's nameserver was asked"
        only = await joined(network, "c", "Front", nameservers=("127.0.0.2",))
        assert (await asked(only, "other.example")).rcode() == dns.rcode.SERVFAIL
        assert len(theirs.asked) == 1, "who named others is answered by the machine's"
    theirs.close()
    mine.close()


def test_a_sandbox_s_own_nameservers_are_asked_instead() -> None:
    machine(own_nameservers)


async def killed_resolver(base: Path) -> None:
    async with plugin(base, {"nameservers": ("127.0.0.9",)}) as network:
        await network.create(USER)
        a, b = await joined(network, "a", "Front"), await joined(network, "b", "Front")
        child = network._names._resolver._child
        assert child is not None
        status = Path(f"/proc/{child.pid}/status").read_text()
        assert "CapEff:\t0000000000000000" in status and "CapBnd:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        os.kill(child.pid, signal.SIGKILL)
        # Until the next one has its sockets, a question is lost, and asked again.
        assert texts(await asked_again(a, "b")) == {b.endpoints[0].ipv4}
        await network.leave(SandboxRef(id="b"))
        assert not texts(await asked(a, "b"))


def test_a_killed_resolver_comes_back_with_all_it_knew() -> None:
    machine(killed_resolver)


async def port_is_free(base: Path) -> None:
    async with plugin(base) as network:
        await network.create(USER)
        a, b = await joined(network, "a", "Front"), await joined(network, "b", "Front")

        def serve() -> tuple[socket.socket, socket.socket]:
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            udp.bind(("0.0.0.0", 53))
            return udp, socket.create_server(("0.0.0.0", 53))

        servers = within(a.path, serve)
        assert texts(await asked(a, "b")) == {b.endpoints[0].ipv4}
        assert texts(await asked(a, "b", tcp=True)) == {b.endpoints[0].ipv4}
        for server in servers:
            server.close()


def test_a_container_may_serve_port_53_itself() -> None:
    machine(port_is_free)


async def rubbish(base: Path) -> None:
    async with plugin(base) as network:
        await network.create(USER)
        a, b = await joined(network, "a", "Front"), await joined(network, "b", "Front")

        def pour() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
                for length in range(300):
                    channel.sendto(os.urandom(length), (a.dns, 53))
            with socket.create_connection((a.dns, 53)) as stream:
                stream.sendall(os.urandom(70000))
            for _ in range(20):
                socket.create_connection((a.dns, 53)).close()

        with contextlib.suppress(ConnectionError):
            await asyncio.to_thread(within, a.path, pour)
        assert texts(await asked(a, "b")) == {b.endpoints[0].ipv4}


def test_rubbish_harms_nobody() -> None:
    machine(rubbish)
