"""DNS messages of our own against dnspython, and the table of names."""

from __future__ import annotations

import socket

import dns.message
import dns.rcode
import dns.reversename
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagong_network_bridge.directory import NameTable
from sagong_network_bridge.forwarding import nameservers_of
from sagong_network_bridge.question import (
    AAAA,
    A,
    address_of,
    answered,
    failed,
    packed_name,
    question_of,
)

LABEL = st.text("abcdefghijklmnopqrstuvwxyzABC0123456789-_", min_size=1, max_size=20)


@given(st.lists(LABEL, min_size=1, max_size=6), st.sampled_from(["A", "AAAA", "PTR", "MX"]))
@settings(max_examples=100, deadline=None)
def test_questions_are_read_as_dnspython_writes_them(labels: list[str], kind: str) -> None:
    query = dns.message.make_query(".".join(labels) + ".", kind, use_edns=True)
    question = question_of(query.to_wire())
    assert question is not None
    assert question.name == ".".join(labels).lower()
    assert (question.id, question.kind) == (query.id, query.question[0].rdtype)


@given(st.lists(st.ip_addresses(v=4).map(str), min_size=1, max_size=20, unique=True))
@settings(max_examples=60, deadline=None)
def test_answers_are_read_by_dnspython(addresses: list[str]) -> None:
    query = dns.message.make_query("web.front.", "A")
    question = question_of(query.to_wire())
    assert question is not None
    packed = [socket.inet_aton(address) for address in addresses]
    answer = dns.message.from_wire(answered(question, A, packed, 1232))
    assert query.is_response(answer)
    assert {item.address for item in answer.answer[0]} == set(addresses)


def test_what_is_too_long_for_a_datagram_says_so_and_has_what_fits() -> None:
    question = question_of(dns.message.make_query("web.", "AAAA").to_wire())
    assert question is not None
    answer = dns.message.from_wire(answered(question, AAAA, [bytes(16)] * 200, 512))
    assert answer.flags & 0x200
    packed = [bytes(15) + bytes([number]) for number in range(200)]
    raw = answered(question, AAAA, packed, question.room)
    some = dns.message.from_wire(raw)
    assert some.flags & 0x200
    assert len(raw) <= 512 < len(raw) + 28
    assert len(some.answer[0]) == (len(raw) - 21) // 28


@pytest.mark.parametrize(
    ("size", "room"), [(None, 512), (100, 512), (1232, 1232), (4096, 4096), (65535, 65000)]
)
def test_askers_say_how_much_they_take(size: int | None, room: int) -> None:
    query = dns.message.make_query("web.", "A", use_edns=size is not None, payload=size or 0)
    question = question_of(query.to_wire())
    assert question is not None
    assert question.room == room
    cut = question_of(query.to_wire()[:-1])
    assert cut is None or cut.room == 512


@pytest.mark.parametrize("code", [dns.rcode.NXDOMAIN, dns.rcode.SERVFAIL, dns.rcode.NOERROR])
def test_failures_carry_their_code(code: int) -> None:
    query = dns.message.make_query("no.such.", "A")
    question = question_of(query.to_wire())
    assert question is not None
    assert dns.message.from_wire(failed(question, code)).rcode() == code


@given(st.binary(max_size=600))
@settings(max_examples=300, deadline=None)
def test_no_bytes_break_the_reader(data: bytes) -> None:
    question_of(data)


def test_answers_and_several_questions_are_no_questions() -> None:
    query = dns.message.make_query("a.", "A")
    assert question_of(dns.message.make_response(query).to_wire()) is None
    wire = bytearray(query.to_wire())
    wire[5] = 2
    assert question_of(bytes(wire)) is None


def test_reverse_names() -> None:
    assert address_of("4.3.2.1.in-addr.arpa") == "1.2.3.4"
    name = dns.reversename.from_address("fd00::1").to_text(omit_final_dot=True)
    assert address_of(name) == "fd00::1"
    for wrong in ("in-addr.arpa", "x.ip6.arpa", "1.2.3.in-addr.arpa", "example"):
        assert address_of(wrong) == ""
    assert packed_name("a.bc") == b"\x01a\x02bc\0"


def entry(
    network: str, *names: str, addresses: tuple[str, ...] = ("10.0.0.2",)
) -> dict[str, object]:
    return {
        "network": network,
        "label": f"{network}-net",
        "names": list(names),
        "addresses": list(addresses),
    }


def test_names_are_known_on_their_networks_alone() -> None:
    table = NameTable()
    table.put("a", {"forward": True, "endpoints": [entry("one", "Web")]})
    table.put("b", {"forward": False, "endpoints": [entry("one", "b", addresses=("10.0.0.3",))]})
    table.put("c", {"forward": True, "endpoints": [entry("two", "c")]})
    assert table.find("b", "web").addresses == ("10.0.0.2",)
    assert table.find("b", "web.one-net").addresses == ("10.0.0.2",)
    assert not table.find("c", "web").known and not table.find("nobody", "web").known
    assert table.find("b", "2.0.0.10.in-addr.arpa").name == "Web.one-net"
    assert table.forwards("a") and not table.forwards("b") and not table.forwards("nobody")


def test_a_name_goes_with_its_last_owner() -> None:
    table = NameTable()
    for who in ("a", "b"):
        table.put(who, {"forward": True, "endpoints": [entry("one", "web", addresses=(who,))]})
    assert set(table.find("a", "web").addresses) == {"a", "b"}
    table.drop("b")
    assert table.find("a", "web").addresses == ("a",)
    table.put("a", {"forward": True, "endpoints": [entry("one", "other", addresses=("a",))]})
    assert not table.find("a", "web").known
    table.drop("a")
    table.drop("a")
    assert not table._names and not table._owners


def test_nameservers_of_a_resolv_conf() -> None:
    text = "# nameserver 1.1.1.1\nsearch x\nnameserver 192.0.2.1\nnameserver fd00::1 \nnameserver"
    assert nameservers_of(text) == ("192.0.2.1", "fd00::1")
