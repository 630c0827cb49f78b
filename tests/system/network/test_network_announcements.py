"""Neighbours are told of addresses whose hardware address is not the one that they may remember."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from pathlib import Path

import pytest

from sagong.contracts.network import Attachment, JoinRequest, Network, SandboxRef, Subnet
from sagong_network_bridge import NetworkBridge
from sagong_network_bridge.addresses import hardware_address
from tests.system.network.outer import machine, plugin

pytestmark = pytest.mark.root

BRIDGE = "br-told"
TOLD = Network(
    id="c4" * 32,
    name="told",
    ipv6=True,
    subnets=(Subnet(subnet="10.44.0.0/24"), Subnet(subnet="fd44::/64")),
    options=(("com.docker.network.bridge.name", BRIDGE),),
)
CHOSEN = "02:42:00:00:00:77"
_ALL, _ARP, _IPV6, _ICMP6, _ADVERTISEMENT = 0x0003, 0x0806, 0x86DD, 58, 136


class Ear:
    """Hears who says, unasked, where an address is: (address, hardware address)."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
        self._socket.bind((BRIDGE, 0))
        self._socket.setblocking(False)
        self.heard: set[tuple[str, str]] = set()

    def _listen(self) -> None:
        try:
            while True:
                frame = self._socket.recv(2048)
                kind, source = int.from_bytes(frame[12:14], "big"), frame[6:12].hex(":")
                if kind == _ARP and frame[28:32] == frame[38:42]:
                    self.heard.add((socket.inet_ntoa(frame[28:32]), source))
                elif kind == _IPV6 and (frame[20], frame[54]) == (_ICMP6, _ADVERTISEMENT):
                    self.heard.add((str(ipaddress.IPv6Address(frame[62:78])), source))
        except BlockingIOError:
            pass

    async def wait_heard(self, address: str, mac: str) -> None:
        """Until it is said."""
        for _ in range(1200):
            self._listen()
            if (address, mac) in self.heard:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"nobody said that {address} is at {mac}: {self.heard}")

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()


async def _join(network: NetworkBridge, name: str, last: int, mac: str = "") -> tuple[str, str]:
    wish = Attachment(network="told", ipv4=f"10.44.0.{last}", ipv6=f"fd44::{last}", mac=mac)
    await network.join(JoinRequest(id=name, names=(name,), attachments=(wish,)))
    return wish.ipv4, wish.ipv6


async def announced(base: Path) -> None:
    async with plugin(base, {"pool_size": 1}) as network:
        await network.create(TOLD)
        ear = Ear()
        for address in await _join(network, "chosen", 9, CHOSEN):
            await ear.wait_heard(address, CHOSEN)
        await network.leave(SandboxRef(id="chosen"))
        usual = hardware_address("10.44.0.9")
        for address in await _join(network, "next", 9):
            await ear.wait_heard(address, usual)
        await network.leave(SandboxRef(id="next"))
        # Who comes now has what everybody remembers, and the one after him is heard again.
        ear.heard.clear()
        await _join(network, "third", 9)
        for address in await _join(network, "last", 10, CHOSEN):
            await ear.wait_heard(address, CHOSEN)
        assert ("10.44.0.9", usual) not in ear.heard, "what is right was said again"
        ear.close()


def test_addresses_are_announced_where_a_neighbour_may_be_wrong() -> None:
    machine(announced)
