"""What the firewall is told: intervals, differences, services, policies, published ports."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagong.contracts.network import (
    Endpoint,
    Peer,
    Policy,
    PortMapping,
    Sandbox,
    ServicePort,
)
from sagong.errors import InvalidArgument
from sagong_network_bridge.elements import difference, interval_elements
from sagong_network_bridge.interior import gateway_endpoints
from sagong_network_bridge.joining import pieces_of
from sagong_network_bridge.policies import plan_policies
from sagong_network_bridge.ports import Door
from sagong_network_bridge.ruleset import BASE_CHAINS, PLAIN_CHAINS, SETS, fixed_rules
from sagong_network_bridge.services import chain_rules, elements_of

BLOCKS = st.lists(
    st.builds(
        lambda number, length: str(ipaddress.ip_network((number << 24, length), strict=False)),
        st.integers(0, 255),
        st.integers(4, 12),
    ),
    max_size=12,
)


def covered(edges: dict[tuple[bytes, bool], bytes], address: int) -> bool:
    """Whether intervals with these edges hold an address."""
    inside = False
    for key, end in sorted(edges):
        if int.from_bytes(key, "big") <= address:
            inside = not end
    return inside


@given(BLOCKS, st.integers(0, 255))
@settings(max_examples=150, deadline=None)
def test_intervals_hold_exactly_their_blocks(blocks: list[str], number: int) -> None:
    edges = interval_elements(blocks, 4)
    for address in (number << 24, (number << 24) + 0xFFFFFF):
        wanted = any(ipaddress.ip_address(address) in ipaddress.ip_network(b) for b in blocks)
        assert covered(edges, address) == wanted


@given(BLOCKS, BLOCKS)
@settings(max_examples=150, deadline=None)
def test_a_difference_leads_from_one_to_the_other(one: list[str], other: list[str]) -> None:
    before, after = interval_elements(one, 4), interval_elements(other, 4)
    now = dict(before)
    for change in difference({"s": before}, {"s": after}):
        for element in change.gone:
            del now[element.key, element.end]
        for element in change.new:
            assert (element.key, element.end) not in now
            now[element.key, element.end] = element.data
    assert now == after


def test_the_last_address_ends_no_interval() -> None:
    assert interval_elements(["0.0.0.0/0"], 4) == {(bytes(4), False): b""}
    assert interval_elements(["::/0"], 4) == {}


def test_rules_name_only_chains_and_sets_that_exist() -> None:
    chains = {chain.name for chain in BASE_CHAINS} | set(PLAIN_CHAINS)
    assert {rule.chain for rule in fixed_rules()} <= chains
    names = b"".join(rule.expressions for rule in fixed_rules())
    for kind in SETS:
        alone = kind.name.rstrip("46") in (
            "backends",
            "sticky",
            "live",
            "serviceids",
            "nodeids",
            "behind",
            "behinddoor",
        )
        assert alone or kind.name.encode() + b"\0" in names, f"no rule looks at {kind.name}"


def service(**more: object) -> ServicePort:
    fields: dict[str, object] = {"name": "ns/s:p", "addresses": ("10.96.0.1",), "port": 80}
    return ServicePort(**(fields | more))  # type: ignore[arg-type]


def sets_of(found: ServicePort) -> dict[str, int]:
    counts: dict[str, int] = {}
    for piece in elements_of(found).pieces:
        counts[piece.set] = counts.get(piece.set, 0) + 1
    return counts


def test_a_service_is_a_front_and_its_backends_behind_it() -> None:
    plain = service(backends=("10.0.0.1:8080", "10.0.0.2:8080", "[fd00::1]:8080"))
    assert sets_of(plain) == {"services4": 1, "behind4": 2}
    assert elements_of(plain).chains == {"front4_2"}
    both = service(addresses=("10.96.0.1", "fd96::1"), backends=plain.backends, node_port=30000)
    assert sets_of(both)["nodes4"] == sets_of(both)["nodes6"] == 1
    assert elements_of(both).chains == {"front4_2", "front6_1", "door4_2", "door6_1"}


def test_a_service_without_backends_is_refused_and_a_local_one_ignored() -> None:
    assert sets_of(service()) == {"noservices4": 1}
    local = service(backends=("10.0.0.1:80",), node_port=30000, local_only=True)
    found = {piece.set: piece.data for piece in elements_of(local).pieces}
    assert b"ignore" in found["nonodes4"]


def test_sticky_services_have_chains_of_their_own_time() -> None:
    sticky = service(backends=("10.0.0.1:80",), affinity_seconds=600)
    assert elements_of(sticky).chains == {"front4_1_600"}
    assert sets_of(sticky)["live4"] == 1
    rules = list(chain_rules("front4_1_600"))
    assert len(rules) == 2 and struct.pack(">Q", 600_000) in rules[0].expressions


def test_equal_services_have_equal_elements_and_others_not() -> None:
    one = service(backends=("10.0.0.1:80",))
    assert elements_of(one) == elements_of(service(backends=("10.0.0.1:80",)))
    numbers = {
        piece.data
        for name in ("a", "b", "c")
        for piece in elements_of(
            service(name=name, backends=("10.0.0.1:80",), affinity_seconds=9)
        ).pieces
        if piece.set == "serviceids4"
    }
    assert len(numbers) == 3


@pytest.mark.parametrize("backend", ["10.0.0.1", "10.0.0.1:0", "x:80", "[fd00::1:80", ":80"])
def test_wrong_backends_are_named(backend: str) -> None:
    with pytest.raises(InvalidArgument, match="ns/s:p"):
        elements_of(service(backends=(backend,)))


def test_policies_of_one_address_share_a_chain_for_their_combination() -> None:
    a = Policy(name="a", addresses=("10.0.0.1", "10.0.0.2"), ingress=())
    b = Policy(name="b", addresses=("10.0.0.2", "10.0.0.3"), ingress=(Peer(any_address=True),))
    plan = plan_policies((a, b))
    chosen = [name for name in plan.chains if name.startswith("chosen_in_")]
    assert len(chosen) == 3 and len(plan.content["selected_in4"]) == 3
    assert [len(plan.chains[name]) for name in sorted(chosen)].count(3) == 1


def test_exceptions_are_cut_out_of_blocks() -> None:
    peer = Peer(blocks=("10.0.0.0/8",), excepted=("10.1.0.0/16", "10.2.3.4/32"))
    plan = plan_policies((Policy(name="p", addresses=("10.9.9.9",), ingress=(peer,)),))
    (edges,) = (plan.content[name] for name in plan.sets)
    for text, wanted in (
        ("10.0.255.255", True),
        ("10.1.2.3", False),
        ("10.2.3.3", True),
        ("10.2.3.4", False),
        ("10.2.3.5", True),
        ("11.0.0.0", False),
    ):
        assert covered(edges, int(ipaddress.ip_address(text))) == wanted, text


def test_a_policy_of_one_direction_leaves_the_other_open() -> None:
    plan = plan_policies((Policy(name="p", addresses=("10.0.0.1",), egress=()),))
    assert set(plan.content) == {"selected_out4"}


def endpoint(network: str, gateway: str = "", ipv6: str = "") -> Endpoint:
    address = gateway[:-1] + "9" if gateway else "10.9.9.9"
    return Endpoint(
        network=network, interface="eth0", mac="", ipv4=address, gateway4=gateway, ipv6=ipv6
    )


def test_the_default_route_follows_the_ranks() -> None:
    endpoints = (endpoint("inner"), endpoint("a", "10.1.0.1"), endpoint("b", "10.2.0.1"))
    assert gateway_endpoints(endpoints, {})[0] == endpoints[1]
    assert gateway_endpoints(endpoints, {"b": (-1, "")})[0] == endpoints[2]
    assert gateway_endpoints(endpoints, {"inner": (-9, "")})[0] == endpoints[1]
    assert gateway_endpoints(endpoints[:1], {}) == (None, None)


def test_ports_lead_to_the_endpoint_with_the_default_route() -> None:
    sandbox = Sandbox(
        id="s",
        endpoints=(endpoint("a", "10.1.0.1"), endpoint("b", "10.2.0.1")),
        ports=(
            PortMapping(container_port=80, host_port=8080),
            PortMapping(container_port=81, host_port=8081, host_ip="127.0.0.1"),
            PortMapping(container_port=82, host_port=8082, host_ip="::1"),
        ),
    )
    pieces = list(pieces_of(sandbox, {"b": (-5, "")}))
    assert [piece.set for piece in pieces] == ["hairpin4", "ports4", "portsat4"]
    assert bytes([10, 2, 0, 9]) in pieces[1].data
    assert not list(pieces_of(Sandbox(id="s", endpoints=(endpoint("inner"),)), {}))


@pytest.mark.parametrize(
    ("mine", "other", "clash"),
    [
        ("", "", True),
        ("", "127.0.0.1", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("0.0.0.0", "::1", False),
        ("::", "fd00::1", True),
    ],
)
def test_which_ports_are_the_same(mine: str, other: str, clash: bool) -> None:
    assert Door("tcp", mine, 80).clashes(other) is clash
    assert Door("tcp", other, 80).clashes(mine) is clash
