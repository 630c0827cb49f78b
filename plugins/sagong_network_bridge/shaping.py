"""Bandwidth limits: a token bucket on each end of a sandbox's interface."""

from __future__ import annotations

import struct

from sagong_network_bridge.netlink import NLM_CREATE, NLM_REPLACE, Request, attribute, nested

__all__ = ["limit"]

_NEWQDISC = 36
_ROOT = 0xFFFFFFFF
_ETHERNET = 1
_RATE = struct.Struct("=BBHhHI")
_LARGEST_RATE = (1 << 32) - 1
# At least one packet of offloaded segments must fit, else they are cut apart one by one.
_SMALLEST_BURST = 1 << 16


def limit(index: int, bits_per_second: int, what: str) -> Request:
    """What leaves by this interface is at most so much; bursts last ten milliseconds."""
    rate = max(1, bits_per_second // 8)
    burst = max(_SMALLEST_BURST, rate // 100)
    queue = min(burst + rate // 20, 1 << 30)
    spec = _RATE.pack(0, _ETHERNET, 0, -1, 0, min(rate, _LARGEST_RATE))
    parameters = spec + bytes(_RATE.size) + struct.pack("=III", queue, 0, 0)
    values = [attribute(1, parameters), attribute(6, struct.pack("=I", burst))]
    if rate > _LARGEST_RATE:
        values.append(attribute(4, struct.pack("=Q", rate)))
    header = struct.pack("=BxxxiIII", 0, index, 0, _ROOT, 0)
    payload = header + attribute(1, b"tbf\0") + nested(2, *values)
    return Request(_NEWQDISC, NLM_CREATE | NLM_REPLACE, payload, f"limit bandwidth of {what}")
