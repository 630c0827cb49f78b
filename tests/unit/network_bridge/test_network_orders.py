"""What the plugin tells its programs."""

from __future__ import annotations

import socket

import pytest

from sagong_network_bridge.orders import orders


def test_a_plugin_that_was_killed_before_it_read_all_has_gone() -> None:
    """The kernel tells of a reset then, not of an end."""
    plugin, program = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with program:
        program.setblocking(False)
        assert list(orders(program)) == []
        program.send(b"unread")
        plugin.close()
        with pytest.raises(EOFError):
            list(orders(program))
