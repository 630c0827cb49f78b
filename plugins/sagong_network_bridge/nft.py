"""nftables over netlink: tables, chains, rules, sets and elements; one batch is one transaction.

Elements are (key, data, flags) as bytes. A transaction's cost is that of what it changes: nothing
is read before, however much is installed.
"""

from __future__ import annotations

import errno
import itertools
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from sagong_network_bridge.expressions import Hook, number, text
from sagong_network_bridge.netlink import (
    NLM_CREATE,
    Channel,
    Request,
    attribute,
    attributes,
    listed,
    nested,
)

__all__ = [
    "BaseChain",
    "Element",
    "Nftables",
    "Rule",
    "SetKind",
    "interval_end",
]

_SUBSYSTEM = 10 << 8
_NEWTABLE, _DELTABLE = 0, 2
_NEWCHAIN, _GETCHAIN, _DELCHAIN = 3, 4, 5
_NEWRULE, _GETRULE, _DELRULE = 6, 7, 8
_NEWSET, _GETSET, _DELSET = 9, 10, 11
_NEWELEM, _GETELEM, _DELELEM = 12, 13, 14
_BEGIN, _END = 16, 17
_GETGEN = 16
_APPEND = 0x800
_OWNER = 0x2
_VERDICT = 0xFFFFFF00
_GENERATION = struct.Struct(">BBH")
# An attribute's length has 16 bits: so many bytes of elements go into one message.
_CHUNK = 48_000

INTERVAL, MAP, TIMEOUT, DYNAMIC = 0x4, 0x8, 0x10, 0x20


class Element(NamedTuple):
    """An element of a set or map; `data` is an encoded attribute of the element's data."""

    key: bytes
    data: bytes = b""
    end: bool = False


def interval_end(key: bytes) -> Element:
    """The first key behind an interval."""
    return Element(key, b"", True)


class SetKind(NamedTuple):
    """A set or map: lengths in bytes, types as nft(8) numbers them so that it can show them."""

    name: str
    key_type: int
    key_length: int
    data_type: int = 0
    data_length: int = 0
    flags: int = 0
    verdicts: bool = False


class BaseChain(NamedTuple):
    """A chain at a hook."""

    name: str
    kind: str
    hook: Hook
    priority: int


class Rule(NamedTuple):
    """A rule: its chain, its expressions, and what it is for, which nft(8) shows."""

    chain: str
    expressions: bytes
    comment: str = ""


def _payload(family: int, *values: bytes) -> bytes:
    return _GENERATION.pack(family, 0, 0) + b"".join(values)


class Nftables:
    """One table of one family in the namespace of the channel, and batches of changes to it."""

    def __init__(self, channel: Channel, table: str, family: int = 1) -> None:
        self._channel = channel
        self.table = table
        self.family = family

    def commit(self, requests: Iterable[Request]) -> None:
        """All of them or none; OSError names the first that failed."""
        batch = list(requests)
        if not batch:
            return
        mark = _GENERATION.pack(0, 0, 10)
        begin = Request(_BEGIN, 0, mark, "begin a transaction of nftables")
        end = Request(_END, 0, mark, "commit a transaction of nftables")
        self._channel.send([begin, *batch, end])

    def _request(
        self, kind: int, flags: int, what: str, *values: bytes, tolerated: Sequence[int] = ()
    ) -> Request:
        payload = _payload(self.family, *values)
        return Request(_SUBSYSTEM | kind, flags, payload, what, tuple(tolerated))

    def add_table(self, *, owned: bool = False) -> Request:
        """The table; it may be there already. An `owned` one is the channel's, and goes with it."""
        values = (text(1, self.table), number(2, _OWNER)) if owned else (text(1, self.table),)
        return self._request(_NEWTABLE, NLM_CREATE, f"add table {self.table}", *values)

    def delete_table(self) -> Request:
        """The table with all that is in it."""
        return self._request(_DELTABLE, 0, f"delete table {self.table}", text(1, self.table))

    def add_base_chain(self, chain: BaseChain) -> Request:
        """A chain at a hook; what it doesn't decide is accepted."""
        hook = nested(4, number(1, chain.hook), number(2, chain.priority))
        values = (text(1, self.table), text(3, chain.name), hook, number(5, 1), text(7, chain.kind))
        return self._request(_NEWCHAIN, NLM_CREATE, f"add chain {chain.name}", *values)

    def add_chain(self, name: str) -> Request:
        """A chain that others jump to."""
        values = (text(1, self.table), text(3, name))
        return self._request(_NEWCHAIN, NLM_CREATE, f"add chain {name}", *values)

    def delete_chain(self, name: str) -> Request:
        """An empty chain that nobody jumps to."""
        values = (text(1, self.table), text(3, name))
        return self._request(_DELCHAIN, 0, f"delete chain {name}", *values)

    def flush_chain(self, name: str) -> Request:
        """All rules of a chain."""
        values = (text(1, self.table), text(2, name))
        return self._request(_DELRULE, 0, f"flush chain {name}", *values)

    def add_rule(self, rule: Rule, *, first: bool = False) -> Request:
        """At the end of its chain, or `first`."""
        values = [text(1, self.table), text(2, rule.chain), attribute(4 | 0x8000, rule.expressions)]
        if rule.comment:
            raw = rule.comment.encode()[:120] + b"\0"
            values.append(attribute(7, bytes([0, len(raw)]) + raw))
        flags = NLM_CREATE | (0 if first else _APPEND)
        return self._request(_NEWRULE, flags, f"add a rule to {rule.chain}", *values)

    def delete_rule(self, chain: str, handle: int) -> Request:
        """One rule by its handle."""
        values = (text(1, self.table), text(2, chain), attribute(3, struct.pack(">Q", handle)))
        return self._request(_DELRULE, 0, f"delete a rule of {chain}", *values)

    def add_set(self, kind: SetKind) -> Request:
        """A set or map; it may be there already with the same form."""
        values = [text(1, self.table), text(2, kind.name), number(3, kind.flags)]
        values += [number(4, kind.key_type), number(5, kind.key_length), number(10, 1)]
        if kind.verdicts:
            values.append(number(6, _VERDICT))
        elif kind.data_length:
            values += [number(6, kind.data_type), number(7, kind.data_length)]
        return self._request(_NEWSET, NLM_CREATE, f"add set {kind.name}", *values)

    def delete_set(self, name: str) -> Request:
        """A set that no rule uses, with its elements."""
        values = (text(1, self.table), text(2, name))
        return self._request(_DELSET, 0, f"delete set {name}", *values)

    def add_elements(self, name: str, elements: Iterable[Element]) -> Iterator[Request]:
        """Elements in as many messages as it takes; one that exists with other data is an error."""
        for chunk in _chunks(elements, data=True):
            values = (text(1, self.table), text(2, name), attribute(3 | 0x8000, chunk))
            yield self._request(_NEWELEM, NLM_CREATE, f"add elements to {name}", *values)

    def delete_elements(self, name: str, elements: Iterable[Element]) -> Iterator[Request]:
        """Elements that are there."""
        for chunk in _chunks(elements, data=False):
            values = (text(1, self.table), text(2, name), attribute(3 | 0x8000, chunk))
            yield self._request(_DELELEM, 0, f"delete elements of {name}", *values)

    def elements(self, name: str) -> Iterator[Element]:
        """The elements that a set has."""
        values = (text(1, self.table), text(2, name))
        request = self._request(_GETELEM, 0, f"list set {name}", *values)
        for _, payload in self._channel.dump(request):
            for _, item in listed(attributes(payload, 4).get(3, b"")):
                yield _element(attributes(item))

    def chains(self) -> Iterator[tuple[str, str, int | None]]:
        """Table, name and policy (0 drop, 1 accept, None: no base chain) of the family's chains."""
        request = self._request(_GETCHAIN, 0, "list chains")
        for _, payload in self._channel.dump(request):
            found = attributes(payload, 4)
            policy = struct.unpack(">I", found[5])[0] if 5 in found else None
            yield _name(found.get(1, b"")), _name(found.get(3, b"")), policy

    def generation(self) -> int:
        """A number that grows with every transaction of anybody, in this network namespace."""
        found = self._channel.ask(self._request(_GETGEN, 0, "read the generation of the rules"))
        return int(struct.unpack(">I", attributes(found[1], 4)[1])[0]) if found else -1

    def sets(self) -> Iterator[str]:
        """Names of the table's sets."""
        request = self._request(_GETSET, 0, "list sets", text(1, self.table))
        request = request._replace(tolerated=(errno.ENOENT,))
        for _, payload in self._channel.dump(request):
            found = attributes(payload, 4)
            if _name(found.get(1, b"")) == self.table:
                yield _name(found.get(2, b""))

    def rules(self, chain: str) -> Iterator[tuple[int, str]]:
        """Handle and comment of a chain's rules."""
        values = (text(1, self.table), text(2, chain))
        request = self._request(_GETRULE, 0, f"list chain {chain}", *values)
        for _, payload in self._channel.dump(request):
            found = attributes(payload, 4)
            if _name(found.get(1, b"")) == self.table and _name(found.get(2, b"")) == chain:
                yield struct.unpack(">Q", found[3])[0], _comment(found.get(7, b""))


def _name(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode()


def _comment(raw: bytes) -> str:
    return _name(raw[2:]) if raw[:1] == b"\0" else ""


def _element(found: dict[int, bytes]) -> Element:
    key = attributes(found.get(1, b"")).get(1, b"")
    flags = struct.unpack(">I", found[3])[0] if 3 in found else 0
    # The kernel's nested attributes carry no flag of nesting; ours do, so data is packed anew.
    inner = attributes(found[2]) if 2 in found else {}
    data = b""
    if 1 in inner:
        data = attribute(1, inner[1])
    elif 2 in inner:
        data = nested(2, *itertools.starmap(attribute, listed(inner[2])))
    return Element(key, data, bool(flags & 1))


def _chunks(elements: Iterable[Element], *, data: bool) -> Iterator[bytes]:
    chunk = bytearray()
    for element in elements:
        values = [nested(1, attribute(1, element.key))]
        if data and element.data:
            values.append(nested(2, element.data))
        if element.end:
            values.append(number(3, 1))
        chunk += nested(1, *values)
        if len(chunk) > _CHUNK:
            yield bytes(chunk)
            chunk.clear()
    if chunk:
        yield bytes(chunk)
