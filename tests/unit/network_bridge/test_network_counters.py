"""What the kernel says of an interface's traffic, as bytes, read into counters."""

from __future__ import annotations

import struct

from sagong.contracts.network import Counters
from sagong_network_bridge.links import counters
from sagong_network_bridge.netlink import attribute

# struct ifinfomsg of linux/rtnetlink.h: family, type, index, flags, change.
_HEADER = struct.pack("=BxHiII", 0, 1, 2, 0x11043, 0)
# struct rtnl_link_stats64 of linux/if_link.h, as Linux 2.6.35 had it: 23 numbers, newer ones more.
_FIELDS = (
    "rx_packets", "tx_packets", "rx_bytes", "tx_bytes",
    "rx_errors", "tx_errors", "rx_dropped", "tx_dropped",
)  # fmt: skip


def message(name: str, numbers: dict[str, int], more: int) -> bytes:
    values = [*(numbers[field] for field in _FIELDS), *range(900, 900 + more)]
    statistics = struct.pack(f"={len(values)}Q", *values)
    return _HEADER + attribute(3, name.encode() + b"\0") + attribute(23, statistics)


def test_each_number_gets_to_its_name_whatever_the_kernel_adds() -> None:
    numbers = {field: 2**40 + position for position, field in enumerate(_FIELDS)}
    for more in (15, 17):
        found = counters(message("eth0", numbers, more))
        assert found == Counters(interface="eth0", **numbers)


def test_an_interface_that_has_sent_nothing_is_counted_too() -> None:
    found = counters(message("eth1", dict.fromkeys(_FIELDS, 0), 16))
    assert found == Counters(interface="eth1")
