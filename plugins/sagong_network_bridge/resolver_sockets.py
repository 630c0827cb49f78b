"""The resolver's sockets inside a namespace, and the rules by which port 53 leads to them."""

from __future__ import annotations

import errno
import socket

from sagong_network_bridge import expressions as ex
from sagong_network_bridge.doors import Room
from sagong_network_bridge.expressions import Hook
from sagong_network_bridge.netlink import Channel
from sagong_network_bridge.nft import BaseChain, Nftables, Rule

__all__ = ["RESOLVER", "RESOLVER_SOCKETS", "bound"]

RESOLVER = "127.0.0.11"
RESOLVER_SOCKETS = ("datagram", "stream", "filter")
_CHECKSUMS = {6: 16, 17: 6}


def bound(room: Room, wanted: int) -> tuple[list[socket.socket], int] | None:
    """UDP and TCP on one port, `wanted` or a free one (0); None if it is taken for one of them."""
    sockets: list[socket.socket] = []
    found = wanted
    try:
        for kind in ("datagram", "stream"):
            served = room.socket(kind)
            sockets.append(served)
            # The predecessor of a killed plugin may be about to close its own.
            served.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            served.bind((RESOLVER, found))
            found = served.getsockname()[1]
        sockets[1].listen(16)
        if found != wanted:
            _rewrite(room.channel("filter"), found, fresh=not wanted)
    except OSError as error:
        for served in sockets:
            served.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return sockets, found


def _rewrite(channel: Channel, port: int, *, fresh: bool) -> None:
    """Rewrite port 53 of the resolver's address to `port` and back, without connection tracking.

    A container may serve port 53 on all its addresses itself, so the resolver must not hold it.
    Closing a channel that deleted something waits 12 ms: not for a `fresh` namespace.
    """
    table = Nftables(channel, "sagong_resolver", 2)
    chain = BaseChain("output", "filter", Hook.OUTPUT, -450)
    address = socket.inet_aton(RESOLVER)
    raw, plain = port.to_bytes(2, "big"), (53).to_bytes(2, "big")
    requests = [table.add_table(), table.add_base_chain(chain)]
    if not fresh:
        requests.append(table.flush_chain(chain.name))
    for protocol, checksum in _CHECKSUMS.items():
        match = ex.protocol(0) + ex.compare(0, bytes([protocol]))
        there = ex.destination(0, 4) + ex.compare(0, address) + match
        there += ex.payload(0, "transport", 2, 2) + ex.compare(0, plain)
        there += ex.immediate(0, raw) + ex.set_payload(0, 2, 2, checksum)
        back = ex.source(0, 4) + ex.compare(0, address) + match
        back += ex.payload(0, "transport", 0, 2) + ex.compare(0, raw)
        back += ex.immediate(0, plain) + ex.set_payload(0, 0, 2, checksum)
        requests += [table.add_rule(Rule("output", rule)) for rule in (there, back)]
    try:
        table.commit(requests)
    finally:
        channel.close()
