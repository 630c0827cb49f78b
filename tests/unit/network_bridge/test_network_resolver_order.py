"""The resolver: what the plugin has told counts for every question that is asked afterwards."""

from __future__ import annotations

import json
import socket
from typing import Any

import dns.message

from sagong_network_bridge.resolver import Resolver


def order(name: str, address: str) -> bytes:
    """A sandbox of that name on a network."""
    endpoint = {"network": "n", "label": "n", "names": [name], "addresses": [address], "links": {}}
    told = {"do": "serve", "id": name, "forward": False, "nameservers": [], "endpoints": [endpoint]}
    return json.dumps(told).encode()


class Line:
    """A sandbox's socket: questions in a row, and what happens when one was answered."""

    def __init__(self, *events: Any) -> None:
        self._events = list(events)
        self.answers: list[dns.message.Message] = []

    def recvfrom(self, size: int) -> tuple[bytes, str]:
        while self._events:
            event = self._events.pop(0)
            if isinstance(event, bytes):
                return event[:size], "asker"
            event()
        raise BlockingIOError

    def sendto(self, data: bytes, peer: str) -> None:
        self.answers.append(dns.message.from_wire(data))


def test_a_name_that_was_given_back_is_not_told_to_who_asks_afterwards() -> None:
    """However many questions come in a row: leaving ended before the second one was asked."""
    plugin, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    question = dns.message.make_query("b", "A").to_wire()
    forget = json.dumps({"do": "forget", "id": "b"}).encode()
    line: Any = Line(question, lambda: plugin.send(forget), question)
    with plugin, control:
        resolver = Resolver(control, ())
        for told in (order("a", "10.0.0.1"), order("b", "10.0.0.2")):
            plugin.send(told)
        resolver._receive("a", line)
    assert [len(answer.answer) for answer in line.answers] == [1, 0]
