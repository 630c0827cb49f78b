"""The terminal that a runtime of others hands over: it may connect long before it sends it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sagong.linux.process import send_descriptors
from sagong_runtime_oci.engine import Console


class Handlers(dict[int, Callable[[int], None]]):
    """A loop whose turns the test takes."""

    def add(self, descriptor: int, _: int, handler: Callable[[int], None]) -> None:
        self[descriptor] = handler

    def drop(self, descriptor: int) -> None:
        self.pop(descriptor, None)

    def turn(self) -> None:
        """Whoever waits looks."""
        for handler in [*self.values()]:
            handler(0)


def test_who_gets_no_core_between_connecting_and_sending_is_waited_for(tmp_path: Path) -> None:
    """A second was all it had; and all other containers of the monitor stood for as long."""
    taken: list[int] = []
    loop, session = Handlers(), SimpleNamespace(use_terminal=taken.append)
    order: Any = SimpleNamespace(loop=loop, session=session)
    console = Console(order, str(tmp_path / "console"))
    with socket.socket(socket.AF_UNIX) as runtime:
        runtime.connect(str(tmp_path / "console"))
        for _ in range(3):
            loop.turn()
        assert not console.received and not taken
        reading, writing = os.pipe()
        send_descriptors(runtime, b"/dev/ptmx", (writing,))
        loop.turn()
    assert console.received and len(taken) == 1
    os.write(taken[0], b"x")
    assert os.read(reading, 1) == b"x"
    console.close()
    assert not loop
    for descriptor in (reading, writing, *taken):
        os.close(descriptor)


def test_who_ends_without_sending_it_is_no_terminal(tmp_path: Path) -> None:
    loop, session = Handlers(), SimpleNamespace(use_terminal=None)
    order: Any = SimpleNamespace(loop=loop, session=session)
    console = Console(order, str(tmp_path / "console"))
    with socket.socket(socket.AF_UNIX) as runtime:
        runtime.connect(str(tmp_path / "console"))
        loop.turn()
    loop.turn()
    assert not console.received
    console.close()
    assert not loop
