"""Bridges and the machine's settings that they need; every function blocks and may be repeated."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from sagong.contracts.network import Network
from sagong_network_bridge import links
from sagong_network_bridge.addresses import hardware_address
from sagong_network_bridge.namespaces import write_sysctl
from sagong_network_bridge.netlink import Channel
from sagong_network_bridge.records import NetworkRecord
from sagong_network_bridge.subnets import INHIBIT, flag, gateway_mode, range_of

__all__ = ["Bridges"]


class Bridges:
    """The bridges of one instance, known by their alias."""

    def __init__(self, prefix: str, host: Channel, memory: Path) -> None:
        self._host = host
        self._mark = f"sagong {prefix} "
        self._memory = memory

    def ensure(self, record: NetworkRecord, mtu: int) -> int:
        """Make a network's bridge as it should be; its index."""
        network, name = record.network, record.bridge
        index = links.link_index(self._host, name)
        if not index:
            self._host.send([links.new_bridge(name, mtu)])
            index = links.link_index(self._host, name)
        self._set_up(network, name)
        ranges = [range_of(network, subnet) for subnet in network.subnets]
        mac = hardware_address(ranges[0].gateway) if ranges[0].gateway else _mac_of(network)
        requests = [links.change_link(index, name, mac=mac, alias=self._mark + network.id)]
        for range_ in ranges:
            if range_.version == 4 and flag(network, INHIBIT, default=False):
                continue  # a gateway of somebody else's
            if gateway_mode(network, range_.version) == "isolated":
                continue  # the machine itself is not on it
            prefix = range_.space.prefixlen
            requests.append(links.add_address(index, range_.gateway, prefix, name))
        requests.append(links.change_link(index, name, up=True))
        self._host.send(requests)
        return index

    def is_there(self, record: NetworkRecord, index: int) -> bool:
        """Whether a network's bridge is the one that it was."""
        link = links.find_link(self._host, record.bridge)
        found = (link.ifindex, link.alias, link.up) if link else None
        return found == (index, self._mark + record.network.id, True)

    def _set_up(self, network: Network, name: str) -> None:
        self._write("net/ipv4/ip_forward", "1")
        # Ports published on 127.0.0.1 are sent on from there; the firewall guards the way back.
        write_sysctl(f"net/ipv4/conf/{name}/route_localnet", "1")
        write_sysctl(f"net/ipv4/conf/{name}/send_redirects", "0")
        with contextlib.suppress(FileNotFoundError):
            if network.ipv6:
                self._forward_ipv6()
            write_sysctl(f"net/ipv6/conf/{name}/accept_ra", "0")
            # A second of looking for duplicates would be one without neighbours.
            write_sysctl(f"net/ipv6/conf/{name}/accept_dad", "0")
            write_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "0" if network.ipv6 else "1")

    def _forward_ipv6(self) -> None:
        """A router ignores router advertisements unless told otherwise: keep the machine's own."""
        for interface in sorted(os.listdir("/proc/sys/net/ipv6/conf")):
            setting = f"net/ipv6/conf/{interface}/accept_ra"
            if _read(setting) == "1" and interface != "lo":
                self._write(setting, "2")
        self._write("net/ipv6/conf/all/forwarding", "1")

    def _write(self, setting: str, value: str) -> None:
        """Change a setting of the machine and remember what it was."""
        before = _read(setting)
        if before == value:
            return
        known = self.remembered()
        if setting not in known:
            known[setting] = before
            beside = self._memory.with_name(f"{self._memory.name}~")
            beside.write_text(json.dumps(known, indent=1))
            beside.rename(self._memory)
        write_sysctl(setting, value)

    def remembered(self) -> dict[str, str]:
        """Settings of the machine that were changed, with their former values."""
        try:
            found: dict[str, str] = json.loads(self._memory.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return found

    def remove(self, name: str) -> None:
        """Delete a bridge; its absence is no error."""
        self._host.send([links.delete_link(name)])

    def owned(self) -> dict[str, str]:
        """Interface names of this instance's bridges with their networks' ids."""
        return {
            link.name: link.alias.removeprefix(self._mark)
            for link in links.links_of(self._host)
            if link.alias.startswith(self._mark)
        }

    def filter(self, name: str, *, on: bool) -> bool:
        """Let bridged packets pass the firewall; False where the kernel can't (br_netfilter)."""
        index = links.link_index(self._host, name)
        if not os.path.exists("/proc/sys/net/bridge") or not index:
            return False
        self._host.send([links.set_bridge_filter(name, index, on=on)])
        return on


def _mac_of(network: Network) -> str:
    """A bridge's hardware address where it has no other: none that a container could have."""
    return "0a:" + ":".join(network.id[at : at + 2] for at in range(0, 10, 2))


def _read(setting: str) -> str:
    with open(f"/proc/sys/{setting}") as file:
        return file.read().strip()
