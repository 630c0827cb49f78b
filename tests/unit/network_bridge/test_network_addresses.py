"""Address ranges and subnets: what is given, what is refused, what never overlaps."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from sagong.contracts.network import Network, Subnet
from sagong.errors import Conflict, InvalidArgument, ResourceExhausted
from sagong_network_bridge.addresses import AddressRange, hardware_address, space_of
from sagong_network_bridge.settings import Settings
from sagong_network_bridge.subnets import (
    bridge_name,
    complete,
    default_networks,
    private_pool6,
    range_of,
)

BRIDGE = "com.docker.network.bridge"
SETTINGS = Settings(pool6=private_pool6("test"))


def test_addresses_follow_each_other_and_come_back_last() -> None:
    range_ = AddressRange(Subnet(subnet="10.0.0.0/29"))
    assert range_.gateway == "10.0.0.1"
    given_ = [range_.allocate(f"o{n}") for n in range(5)]
    assert given_ == [f"10.0.0.{n}" for n in range(2, 7)]
    with pytest.raises(ResourceExhausted, match=r"10\.0\.0\.0/29"):
        range_.allocate("late")
    range_.release("10.0.0.3", "o1")
    range_.release("10.0.0.2", "somebody else")
    assert range_.allocate("again") == "10.0.0.3"


def test_a_freed_address_is_not_the_next_one() -> None:
    range_ = AddressRange(Subnet(subnet="10.0.0.0/24"))
    first = range_.allocate("a")
    range_.release(first, "a")
    assert range_.allocate("b") != first


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=120))
@settings(max_examples=60, deadline=None)
def test_no_address_has_two_owners(steps: list[tuple[bool, int]]) -> None:
    range_ = AddressRange(Subnet(subnet="10.1.0.0/27", ip_range="10.1.0.8/29"))
    held: dict[str, str] = {}
    for takes, number in steps:
        owner = f"o{number}"
        if takes and owner not in held:
            try:
                address = range_.allocate(owner)
            except ResourceExhausted:
                assert len(held) == 8
                continue
            assert address not in held.values()
            assert ipaddress.ip_address(address) in ipaddress.ip_network("10.1.0.8/29")
            held[owner] = address
        elif owner in held:
            range_.release(held.pop(owner), owner)


@pytest.mark.parametrize("address", ["10.0.0.0", "10.0.0.255", "10.0.1.1", "x", "fe80::1"])
def test_wrong_addresses_are_refused(address: str) -> None:
    with pytest.raises(InvalidArgument):
        AddressRange(Subnet(subnet="10.0.0.0/24")).reserve(address, "o")


@pytest.mark.parametrize(
    ("gateway", "reserved"),
    [
        ("10.0.0.0", ()),
        ("10.0.0.255", ()),
        ("10.0.0.4", (("x", "10.0.0.4"),)),
        ("", (("x", "10.0.0.9"), ("y", "10.0.0.9"))),
        ("", (("x", "10.0.0.255"),)),
    ],
)
def test_nobody_has_the_ends_of_a_subnet_or_what_another_one_has(
    gateway: str, reserved: tuple[tuple[str, str], ...]
) -> None:
    with pytest.raises(InvalidArgument):
        AddressRange(Subnet(subnet="10.0.0.0/24", gateway=gateway, reserved=reserved))


def test_a_large_ipv6_subnet_needs_no_list_of_addresses() -> None:
    range_ = AddressRange(Subnet(subnet="fd00::/64"))
    assert [range_.allocate(str(n)) for n in range(3)] == ["fd00::2", "fd00::3", "fd00::4"]
    assert range_.reserve("fd00::ffff:1", "x") == "fd00::ffff:1"


def test_a_point_to_point_subnet_has_both_its_addresses() -> None:
    range_ = AddressRange(Subnet(subnet="10.0.0.0/31"))
    assert (range_.gateway, range_.allocate("o")) == ("10.0.0.0", "10.0.0.1")


@pytest.mark.parametrize(
    "options",
    [
        ((f"{BRIDGE}.inhibit_ipv4", "true"),),
        ((f"{BRIDGE}.gateway_mode_ipv4", "isolated"),),
    ],
)
def test_nobody_has_a_gateway_where_none_leads(options: tuple[tuple[str, str], ...]) -> None:
    """Two containers on a subnet of two, on an internal network that the machine is not on."""
    asked = Network(
        id="a" * 64,
        name="p2p",
        internal=True,
        subnets=(Subnet(subnet="192.168.135.0/31"),),
        options=options,
    )
    made = complete(asked, SETTINGS, [])
    assert made.subnets[0].gateway == ""
    range_ = range_of(made, made.subnets[0])
    assert [range_.allocate("a"), range_.allocate("b")] == ["192.168.135.0", "192.168.135.1"]
    assert range_of(replace(asked, options=()), asked.subnets[0]).gateway == "192.168.135.0"


def test_host_bits_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="host bits"):
        space_of("10.0.0.1/24")


def test_hardware_addresses_are_local_and_differ() -> None:
    assert hardware_address("172.17.0.2") == "02:42:ac:11:00:02"
    assert hardware_address("fd00::2") != hardware_address("fd00::3")


def network(**more: object) -> Network:
    return Network(id="a" * 64, name="n", **more)  # type: ignore[arg-type]


def test_free_pools_avoid_what_is_taken() -> None:
    taken = [space_of("172.17.0.0/16"), space_of("172.16.0.0/12")]
    made = complete(network(ipv6=True), SETTINGS, taken)
    assert made.subnets[0].subnet == "192.168.0.0/20"
    assert made.subnets[1].subnet.startswith("fd") and made.subnets[1].gateway.endswith("::1")


def test_subnets_that_are_found_beside_a_given_one_avoid_the_machine_s_routes() -> None:
    """A network with an IPv6 subnet of its own got an IPv4 one that a route of the machine had."""
    given = Network(id="a" * 64, name="x", ipv6=True, subnets=(Subnet(subnet="fd01::/64"),))
    routes = [space_of("172.17.0.0/16"), space_of("fd01::/48")]
    found = [subnet.subnet for subnet in complete(given, SETTINGS, [], routes).subnets]
    assert found == ["172.18.0.0/16", "fd01::/64"]


def test_two_subnets_of_one_version_are_refused() -> None:
    subnets = (Subnet(subnet="10.0.0.0/24"), Subnet(subnet="10.0.1.0/24"))
    with pytest.raises(InvalidArgument, match="at most one"):
        complete(network(subnets=subnets), SETTINGS, [])


def test_a_network_may_have_ipv6_alone() -> None:
    options = (("com.docker.network.enable_ipv4", "false"),)
    made = complete(network(ipv6=True, options=options), SETTINGS, [])
    assert [space_of(s.subnet).version for s in made.subnets] == [6]


def test_ipv4_stands_first_whatever_was_named() -> None:
    made = complete(network(subnets=(Subnet(subnet="2001:db8:1::/64"),)), SETTINGS, [])
    assert [space_of(s.subnet).version for s in made.subnets] == [4, 6] and made.ipv6


def test_overlap_names_what_it_overlaps_with() -> None:
    with pytest.raises(Conflict, match=r"10\.0\.0\.0/8"):
        complete(
            network(subnets=(Subnet(subnet="10.9.0.0/24"),)), SETTINGS, [space_of("10.0.0.0/8")]
        )


def test_exhausted_pools_say_what_to_do() -> None:
    tight = Settings(pools=("10.0.0.0/24",), pool6=SETTINGS.pool6)
    with pytest.raises(ResourceExhausted, match="widen `pools`"):
        complete(network(), tight, [space_of("10.0.0.0/16")])


def test_default_networks_are_the_same_everywhere() -> None:
    one, two = (default_networks(SETTINGS) for _ in range(2))
    assert [n.id for n in one] == [n.id for n in two]
    assert [n.name for n in one] == ["bridge", "host", "none"]
    assert bridge_name(one[0], SETTINGS) == "sagong0"


def test_bridges_of_instances_beside_each_other_have_different_names() -> None:
    pods = network()
    names = [bridge_name(pods, Settings(prefix=prefix)) for prefix in ("sg", "sgb", "other")]
    assert names[0] == f"br-{pods.id[:12]}"
    assert names[1:] == [f"sgb-{pods.id[:11]}", f"other-{pods.id[:9]}"]


@pytest.mark.parametrize("name", ["a/b", "far too long a name", "with space", "..", "a:b"])
def test_wrong_bridge_names_are_refused(name: str) -> None:
    options = (("com.docker.network.bridge.name", name),)
    with pytest.raises(InvalidArgument):
        complete(network(options=options), SETTINGS, [])


@pytest.mark.parametrize(
    "wrong",
    [
        {"prefix": "toolong"},
        {"prefix": "S"},
        {"subnet": "10.0.0.1/24"},
        {"pools": ("x",)},
        {"pool_size": -1},
        {"pool_most": 257},
        {"first_port": 10, "last_port": 9},
        {"mtu": 10},
    ],
)
def test_wrong_settings_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument, match=str(next(iter(wrong)))[:4]):
        Settings(**wrong).check()  # type: ignore[arg-type]
