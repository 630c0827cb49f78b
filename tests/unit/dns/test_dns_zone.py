"""Names of services and pods, and what is answered to questions about them."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import msgspec
import pytest

from sagong_dns.resolver import Resolver
from sagong_dns.zone import EndpointSlice, Service, Zone

SERVICES = [
    {
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "clusterIP": "10.96.0.5",
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        },
    },
    {
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {"clusterIP": "None", "ports": [{"name": "pg", "port": 5432}]},
    },
    {
        "metadata": {"name": "far", "namespace": "shop"},
        "spec": {"type": "ExternalName", "externalName": "example.org"},
    },
]
SLICE = {
    "metadata": {
        "name": "db-1",
        "namespace": "shop",
        "labels": {"kubernetes.io/service-name": "db"},
    },
    "ports": [{"name": "pg", "port": 5432, "protocol": "TCP"}],
    "endpoints": [
        {"addresses": ["10.244.0.7"], "hostname": "db-0", "conditions": {"ready": True}},
        {"addresses": ["10.244.0.8"], "conditions": {"ready": False}},
        {"addresses": ["10.244.0.9"], "conditions": {}},
    ],
}


def zone() -> Zone:
    made = Zone()
    for service in SERVICES:
        found = msgspec.convert(service, Service)
        made.services[found.metadata.namespace, found.metadata.name] = found
    part = msgspec.convert(SLICE, EndpointSlice)
    made.slices["shop", "db-1"] = part
    return made


@pytest.mark.parametrize(
    ("name", "kind", "records"),
    [
        ("web.shop.svc", "A", [("A", "10.96.0.5")]),
        ("web.shop.svc", "AAAA", []),
        ("db.shop.svc", "A", [("A", "10.244.0.7"), ("A", "10.244.0.9")]),
        ("db-0.db.shop.svc", "A", [("A", "10.244.0.7")]),
        ("10-244-0-9.db.shop.svc", "A", [("A", "10.244.0.9")]),
        ("far.shop.svc", "A", [("CNAME", "example.org")]),
        ("10-244-0-9.shop.pod", "A", [("A", "10.244.0.9")]),
        ("_http._tcp.web.shop.svc", "SRV", [("SRV", "0 100 80 web.shop.svc.cluster.local.")]),
        ("dns-version", "TXT", [("TXT", '"1.1.0"')]),
        ("shop.svc", "A", []),
    ],
)
def test_a_name_has_its_records(name: str, kind: str, records: list[tuple[str, str]]) -> None:
    found = zone().answer(f"{name}.cluster.local", kind)
    assert found.known
    assert list(found.records) == records


@pytest.mark.parametrize(
    "name",
    ["none.shop.svc", "web.bank.svc", "x.web.shop.svc", "_x._tcp.web.shop.svc", "web", "a.b.pod.x"],
)
def test_a_name_that_is_not_is_unknown(name: str) -> None:
    assert not zone().answer(f"{name}.cluster.local", "A").known


def test_addresses_lead_back_to_names() -> None:
    found = zone()
    assert found.covers("5.0.96.10.in-addr.arpa")
    assert found.answer("5.0.96.10.in-addr.arpa", "PTR").records == (
        ("PTR", "web.shop.svc.cluster.local."),
    )
    assert not found.covers("1.1.1.1.in-addr.arpa")
    assert not found.covers("example.org")


async def ask(name: str, kind: str) -> dns.message.Message:
    resolver = Resolver(zone(), (), 5)
    wire = dns.message.make_query(name, kind).to_wire()
    return dns.message.from_wire(await resolver.resolve(wire, limit=4096))


async def test_messages_are_answered_with_authority() -> None:
    found = await ask("WEB.shop.svc.cluster.local.", "A")
    assert found.answer[0].to_text() == "WEB.shop.svc.cluster.local. 5 IN A 10.96.0.5"
    assert found.flags & dns.flags.AA
    unknown = await ask("none.shop.svc.cluster.local.", "A")
    assert unknown.rcode() == dns.rcode.NXDOMAIN
    nothing = await ask("web.shop.svc.cluster.local.", "TXT")
    assert nothing.rcode() == dns.rcode.NOERROR and not nothing.answer
    for negative in (unknown, nothing):
        (authority,) = negative.authority
        assert authority.to_text().startswith("cluster.local. 5 IN SOA ns.dns.cluster.local.")
        assert authority[0].minimum == 5, "nobody may remember it for longer"
    assert not found.authority


async def test_no_upstream_is_a_failure_and_not_silence() -> None:
    assert (await ask("example.org.", "A")).rcode() == dns.rcode.SERVFAIL


async def test_what_is_no_dns_is_not_answered() -> None:
    assert await Resolver(zone(), (), 5).resolve(b"\x00garbage", limit=512) == b""


async def test_a_long_answer_is_cut_for_udp() -> None:
    made = zone()
    endpoints = tuple({"addresses": [f"10.0.{n // 250}.{n % 250 + 1}"]} for n in range(200))
    part = msgspec.convert({**SLICE, "endpoints": endpoints}, EndpointSlice)
    made.slices["shop", "db-1"] = part
    wire = dns.message.make_query("db.shop.svc.cluster.local.", "A").to_wire()
    cut = dns.message.from_wire(await Resolver(made, (), 5).resolve(wire, limit=4096))
    assert cut.flags & dns.flags.TC
    whole = dns.message.from_wire(await Resolver(made, (), 5).resolve(wire, limit=65535))
    assert len(whole.answer[0]) == 200


async def test_what_is_remembered_of_upstream_ages() -> None:
    """Who asked just before the end kept the answer for as long again."""
    now = 1000.0
    resolver = Resolver(zone(), (), 5, lambda: now)
    question = dns.message.make_query("example.org", "A")
    told = dns.message.make_response(question)
    name = question.question[0].name
    told.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "192.0.2.7"))
    resolver._keep(("example.org.", int(dns.rdatatype.A)), told)

    async def asked() -> dns.message.Message:
        return dns.message.from_wire(await resolver.resolve(question.to_wire(), limit=4096))

    now += 45
    assert [(r.ttl, r[0].address) for r in (await asked()).answer] == [(15, "192.0.2.7")]
    now += 10
    assert (await asked()).answer[0].ttl == 5
    now += 6
    assert (await asked()).rcode() == dns.rcode.SERVFAIL, "nobody is left to be asked"
    assert told.answer[0].ttl == 60
