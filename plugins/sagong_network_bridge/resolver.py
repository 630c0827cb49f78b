"""The resolver's process: answers containers from the name table, forwards the rest.

It is started by the plugin without any right and imports only the standard library. Sockets that
were opened inside the containers' namespaces come over the control channel, with the tables; that
channel is read before any question, so a name resolves as soon as the plugin has written it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from sagong_network_bridge.directory import NameTable
from sagong_network_bridge.forwarding import Forwarder, Inquiry, Reply
from sagong_network_bridge.orders import orders
from sagong_network_bridge.question import (
    AAAA,
    ANY,
    NO_ERROR,
    NO_NAME,
    PTR,
    SERVER_FAILURE,
    A,
    Question,
    answered,
    failed,
    packed_name,
    question_of,
)
from sagong_network_bridge.stream import Stream

__all__ = ["Resolver", "main"]

_STREAM = 65535
_MOST_STREAMS = 256


class Resolver:
    """Sockets of all sandboxes, one table, one loop."""

    def __init__(self, control: socket.socket, nameservers: tuple[str, ...]) -> None:
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._table = NameTable()
        self._sockets: dict[str, list[socket.socket]] = {}
        self._streams: set[Stream] = set()
        self._forwarder = Forwarder(self._selector, nameservers)
        self._open = True
        control.setblocking(False)
        self._selector.register(control, selectors.EVENT_READ, self._command)

    def run(self) -> None:
        """Until the plugin closes its end."""
        while self._open:
            events = self._selector.select(self._forwarder.patience())
            self._command()
            for key, _ in events:
                handler: Callable[[], None] = key.data
                with contextlib.suppress(OSError, KeyError):
                    handler()
            self._forwarder.expire()
            self._expire_streams()

    def _command(self) -> None:
        """All that the plugin has said so far."""
        try:
            for order, descriptors in orders(self._control):
                self._obey(order, descriptors)
        except EOFError:
            self._open = False

    def _obey(self, order: dict[str, Any], descriptors: list[int]) -> None:
        identity = order["id"]
        if order["do"] == "forget":
            self._table.drop(identity)
            for old in self._sockets.pop(identity, []):
                self._selector.unregister(old)
                old.close()
            return
        self._table.put(identity, order)
        for descriptor in descriptors:
            self._serve(identity, socket.socket(fileno=descriptor))

    def _serve(self, identity: str, served: socket.socket) -> None:
        served.setblocking(False)
        self._sockets.setdefault(identity, []).append(served)
        stream = served.type == socket.SOCK_STREAM
        if stream:
            self._selector.register(
                served, selectors.EVENT_READ, lambda: self._accept(identity, served)
            )
        else:
            self._selector.register(
                served, selectors.EVENT_READ, lambda: self._receive(identity, served)
            )

    def _receive(self, identity: str, served: socket.socket) -> None:
        for _ in range(64):
            try:
                data, peer = served.recvfrom(4096)
            except BlockingIOError:
                return

            def reply(answer: bytes, peer: Any = peer) -> None:
                with contextlib.suppress(OSError):
                    served.sendto(answer, peer)

            self._answer(identity, data, reply, stream=False)

    def _accept(self, identity: str, served: socket.socket) -> None:
        try:
            connection, _ = served.accept()
        except BlockingIOError:
            return
        if len(self._streams) >= _MOST_STREAMS:
            connection.close()
            return

        def ask(data: bytes, reply: Reply) -> None:
            self._answer(identity, data, reply, stream=True)

        self._streams.add(Stream(self._selector, connection, ask, self._streams.discard))

    def _expire_streams(self) -> None:
        now = time.monotonic()
        for stream in [stream for stream in self._streams if stream.deadline < now]:
            stream.close()

    def _answer(self, identity: str, data: bytes, reply: Reply, *, stream: bool) -> None:
        question = question_of(data)
        if question is None:
            return
        # What was told before this was asked counts, also while one question follows another.
        self._command()
        own = self._own_answer(identity, question, _STREAM if stream else question.room)
        if own is not None:
            reply(own)
        elif not question.name:
            reply(failed(question, NO_NAME))
        elif not self._table.forwards(identity):
            # Nobody said that there is no such name: nobody can be asked.
            reply(failed(question, SERVER_FAILURE))
        else:
            servers = self._table.nameservers(identity)
            self._forwarder.forward(data, Inquiry(question, servers, stream=stream), reply)

    def _own_answer(self, identity: str, question: Question, limit: int) -> bytes | None:
        """The table's answer; None if the name is nobody's here."""
        found = self._table.find(identity, question.name)
        if not found.known:
            return None
        if found.name and question.kind in (PTR, ANY):
            return answered(question, PTR, [packed_name(found.name)], limit)
        if question.kind in (A, ANY, AAAA):
            kind = A if question.kind == ANY else question.kind
            family = socket.AF_INET if kind == A else socket.AF_INET6
            wanted = [a for a in found.addresses if (":" in a) == (kind == AAAA)]
            packed = [socket.inet_pton(family, address) for address in wanted]
            if packed:
                return answered(question, kind, packed, limit)
        return failed(question, NO_ERROR)


def main(descriptor: int, nameservers: tuple[str, ...]) -> None:
    """Serve what comes over the channel until it closes."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as comm:
        comm.write("sagong-resolver")
    control = socket.socket(fileno=descriptor)
    try:
        Resolver(control, nameservers).run()
    except KeyboardInterrupt:
        sys.exit(0)
    os._exit(0)
