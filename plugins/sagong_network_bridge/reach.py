"""Routes to virtual addresses, for a machine that has no other way there.

The kernel looks for a route before the firewall rewrites an address: without any, a default route,
say, a connection to a service is refused at once. These routes stand in a table of their own that is
asked after all others, so they change nothing where the machine has a route.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping, Sequence

from sagong.contracts.network import Rules
from sagong_network_bridge import links
from sagong_network_bridge.addresses import Space, space_of
from sagong_network_bridge.netlink import Channel, Request
from sagong_network_bridge.records import NetworkRecord

__all__ = ["Reach", "bridges_to"]

# After the kernel's own rules: main at 32766, default at 32767.
_PRIORITY = 32768


def bridges_to(
    rules: Rules, records: Sequence[NetworkRecord], indexes: Mapping[str, int]
) -> dict[Space, int]:
    """Blocks of virtual addresses to the bridge that leads there: one of pods, if there is one."""
    pods = [space_of(block) for block in rules.pod_cidrs]
    open_ones = [r for r in records if not r.network.internal and not r.network.isolated]
    found = {}
    for virtual in map(space_of, rules.service_cidrs):
        ways = [
            (not any(pod.version == space.version and pod.overlaps(space) for pod in pods), index)
            for record in open_ones
            if (index := indexes.get(record.network.id, 0))
            for space in (space_of(subnet.subnet) for subnet in record.network.subnets)
            if space.version == virtual.version
        ]
        if ways:
            found[virtual] = min(ways)[1]
    return found


class Reach:
    """The table of one instance; every method blocks and may be repeated."""

    def __init__(self, prefix: str, host: Channel, log: logging.Logger) -> None:
        self._host = host
        self._log = log
        # At most three bytes, so instances side by side have tables of their own.
        self._table = 0x53 << 24 | int.from_bytes(prefix.encode())
        self._there: dict[Space, int] | None = None

    def ensure(self, wanted: Mapping[Space, int]) -> None:
        """Make the table be this; a kernel without such tables is told of once."""
        if wanted == self._there:
            return
        try:
            self._replace(wanted)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EAFNOSUPPORT):
                raise
            self._log.warning(
                "without a default route this machine will not reach services: %s "
                "(the kernel needs CONFIG_IP_MULTIPLE_TABLES)",
                error,
            )
        self._there = dict(wanted)

    def _replace(self, wanted: Mapping[Space, int]) -> None:
        there = [(space_of(text), i) for text, i in links.routes_in(self._host, self._table)]
        self._host.send([self._no_route(space, i) for space, i in there if space not in wanted])
        for version in {space.version for space in wanted}:
            self._host.send([links.add_rule(version, self._table, _PRIORITY)])
        self._host.send([self._route(space, index) for space, index in wanted.items()])

    def _route(self, space: Space, index: int) -> Request:
        target, prefix = str(space.network_address), space.prefixlen
        return links.add_route(index, target, prefix, "", "a bridge", table=self._table)

    def _no_route(self, space: Space, index: int) -> Request:
        target, prefix = str(space.network_address), space.prefixlen
        return links.delete_route(index, target, prefix, "", table=self._table)

    def remove(self) -> None:
        """Take the table away."""
        self.ensure({})
        for version in (4, 6):
            self._host.send([links.delete_rule(version, self._table, _PRIORITY)])
