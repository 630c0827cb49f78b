"""Other people's firewalls: let our bridges through a FORWARD chain that drops by default.

In nftables no chain can overrule another one's drop, so where someone's iptables-nft FORWARD chain
(Docker's, ufw's) drops by policy what no rule of it knows, rules of ours at its *end* accept traffic
of our bridges, or only what containers begin: whatever the machine's administrator has refused, or
refuses later, stays refused.
Our own table still decides after. Chains of iptables-legacy can't be reached that way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sagong_network_bridge import expressions as ex
from sagong_network_bridge.netlink import Channel
from sagong_network_bridge.nft import Nftables, Rule

__all__ = ["CHAIN", "accept_bridges"]

_FAMILIES = (2, 10)
_TABLE = "filter"
CHAIN = "FORWARD"
_DROP = 0
# Established, related.
_ANSWERS = 2 | 4
# Comments of all instances begin so: they don't fight for the last place.
_OURS = "sagong "


class _Found(NamedTuple):
    handle: int
    comment: str


def _concerned(channel: Channel, *, dropping: bool) -> Iterator[Nftables]:
    """Tables of each family with a FORWARD chain, or only where that drops by default."""
    for family in _FAMILIES:
        table = Nftables(channel, _TABLE, family)
        policies = [policy for *chain, policy in table.chains() if chain == [_TABLE, CHAIN]]
        if policies and (policies[0] == _DROP or not dropping):
            yield table


def accept_bridges(
    channel: Channel, prefix: str, bridges: Iterable[str], *, outgoing: bool = False
) -> int:
    """Make foreign chains accept exactly these bridges, last; how many chains have them now.

    `outgoing`: of what goes to them only answers.
    """
    mark = f"{_OURS}{prefix} "
    ways = ("from", "answers-to") if outgoing else ("from", "to")
    wanted = [f"{mark}{way} {name}" for name in sorted(bridges) for way in ways]
    count = 0
    for table in _concerned(channel, dropping=bool(wanted)):
        count += 1
        there = [_Found(*found) for found in table.rules(CHAIN)]
        mine = [found for found in there if found.comment.startswith(mark)]
        last = [found for found in _tail(there) if found in mine]
        if last == mine and [found.comment for found in mine] == wanted:
            continue
        requests = [table.delete_rule(CHAIN, found.handle) for found in mine]
        requests += [table.add_rule(Rule(CHAIN, _accepting(text), text)) for text in wanted]
        table.commit(requests)
    return count


def _tail(rules: list[_Found]) -> list[_Found]:
    """The rules of ours, of whatever instance, that no stranger's rule follows."""
    last = len(rules)
    while last and rules[last - 1].comment.startswith(_OURS):
        last -= 1
    return rules[last:]


def _accepting(comment: str) -> bytes:
    way, name = comment.split(" ")[-2:]
    named = ex.compare(0, name.encode().ljust(16, b"\0"))
    rule = ex.interface(0, incoming=way == "from") + named
    if way == "answers-to":
        rule += ex.conntrack_bits(0, _ANSWERS)
    return rule + ex.counter() + ex.accept()
