"""Address translation of open connections goes on when somebody flushes all rules.

The kernel translates what it has begun to as long as any NAT chain is at the hook and any rule asks
for connections. Else packets of open ones would be the machine's own until our rules are back, and it
would reset them. So there are NAT chains in a table that our socket owns (Linux 5.12), with a rule that
changes nothing: a flush passes it over, and it goes with the socket.
"""

from __future__ import annotations

import logging

from sagong_network_bridge import expressions as ex
from sagong_network_bridge.netlink import Channel
from sagong_network_bridge.nft import Nftables, Rule
from sagong_network_bridge.ruleset import BASE_CHAINS

__all__ = ["hold_translation"]

_ESTABLISHED = 2


def hold_translation(channel: Channel, prefix: str, log: logging.Logger) -> None:
    """For as long as the channel is open; a kernel that knows no owners does without.

    The name has the socket's number: a predecessor's table may still be there.
    """
    nft = Nftables(channel, f"{prefix}-nat-{channel.address}")
    chains = [chain for chain in BASE_CHAINS if chain.kind == "nat"]
    asking = Rule(chains[0].name, ex.conntrack_bits(0, _ESTABLISHED) + ex.accept())
    try:
        made = [nft.add_table(owned=True), *map(nft.add_base_chain, chains)]
        nft.commit([*made, nft.add_rule(asking)])
    except OSError as error:
        log.info("open connections will not outlive a flush of all rules: %s", error)
