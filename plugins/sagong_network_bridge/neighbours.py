"""Other people's firewalls: let our bridges through a FORWARD chain that drops by default.

In nftables no chain can overrule another one's drop, so where Docker (its DOCKER-USER chain) or
someone else's iptables-nft FORWARD chain drops what it does not know, rules of ours at its head
accept traffic of our bridges; our own table still decides after. Chains of iptables-legacy can't be
reached that way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sagong_network_bridge import expressions as ex
from sagong_network_bridge.netlink import Channel
from sagong_network_bridge.nft import Nftables, Rule

__all__ = ["NAMES", "accept_bridges"]

_FAMILIES = (2, 10)
_TABLE = "filter"
NAMES = ("DOCKER-USER", "FORWARD")
_DROP = 0


class _Foreign(NamedTuple):
    family: int
    chain: str


def _dropping(channel: Channel) -> Iterator[_Foreign]:
    """For each family the chain to put rules into, if its FORWARD drops by default."""
    for family in _FAMILIES:
        found = {
            chain: policy
            for table, chain, policy in Nftables(channel, _TABLE, family).chains()
            if table == _TABLE
        }
        if found.get("FORWARD") == _DROP:
            yield _Foreign(family, next(name for name in NAMES if name in found))


def accept_bridges(channel: Channel, prefix: str, bridges: Iterable[str]) -> int:
    """Make the foreign chains accept exactly these bridges; how many chains have them now."""
    names = sorted(bridges)
    count = 0
    for foreign in _dropping(channel):
        table = Nftables(channel, _TABLE, foreign.family)
        mark = f"sagong {prefix} "
        wanted = [f"{mark}{way} {name}" for name in names for way in ("from", "to")]
        there = [
            (handle, comment)
            for handle, comment in table.rules(foreign.chain)
            if comment.startswith(mark)
        ]
        count += 1
        if sorted(comment for _, comment in there) == sorted(wanted):
            continue
        requests = [table.delete_rule(foreign.chain, handle) for handle, _ in there]
        requests += [
            table.add_rule(Rule(foreign.chain, _accepting(comment), comment), first=True)
            for comment in wanted
        ]
        table.commit(requests)
    return count


def _accepting(comment: str) -> bytes:
    way, name = comment.split(" ")[-2:]
    named = ex.compare(0, name.encode().ljust(16, b"\0"))
    return ex.interface(0, incoming=way == "from") + named + ex.counter() + ex.accept()
