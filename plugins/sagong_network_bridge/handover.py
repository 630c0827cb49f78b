"""What a plugin hands to the one that replaces it, so that it need not find out again. Values only.

None of it is trusted further than it can be checked at once: what the successor finds changed, and
all of it after a crash, is read from records and kernel as ever.
"""

from __future__ import annotations

import msgspec

from sagong_network_bridge.records import SandboxRecord

__all__ = ["Handover", "Installed", "packed", "unpacked"]


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """The firewall's table as of a `generation` of the machine's nftables rules.

    `form` tells whether the fixed part is the successor's, too. `elements`: set, key, whether the
    key ends an interval, data.
    """

    generation: int
    form: bytes
    elements: tuple[tuple[str, bytes, bool, bytes], ...] = ()
    chains: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()


class Handover(msgspec.Struct, frozen=True, kw_only=True):
    """Sandboxes, indexes of bridges by network, and the firewall."""

    sandboxes: tuple[SandboxRecord, ...] = ()
    bridges: dict[str, int] = {}
    installed: Installed | None = None


def packed(handover: Handover) -> bytes:
    """For the successor."""
    return msgspec.msgpack.encode(handover)


def unpacked(raw: bytes) -> Handover | None:
    """None if another version, or another plugin, has written it."""
    try:
        return msgspec.msgpack.decode(raw, type=Handover)
    except msgspec.DecodeError:
        return None
