"""A unit that is to listen elsewhere moves there by a swap, though its old address be in the way."""

from __future__ import annotations

import socket
import time
import urllib.request

import pytest

from tests.ports import free_port
from tests.system.instance import Instance, instance

pytestmark = pytest.mark.root


def configuration(host: str, port: int) -> str:
    """The exporter alone, at an address."""
    return f"""
profile = "bare"
[units.exporter]
plugin = "exporter"
idle_seconds = 0.0
listens = {{ metrics = "tcp:{host}:{port}" }}
"""


def serves(host: str, port: int) -> bool:
    """Whether the exporter answers there."""
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=30) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def accepts(host: str, port: int) -> bool:
    """Whether anything listens there."""
    with socket.socket() as client:
        return client.connect_ex((host, port)) == 0


def wait_deserted(host: str, port: int) -> None:
    """Wait until who drains has let go of it."""
    limit = time.monotonic() + 60
    while accepts(host, port):
        assert time.monotonic() < limit, f"{host}:{port} is still open"
        time.sleep(0.05)


def move(running: Instance, host: str, port: int, *, well: bool = True) -> None:
    """As an operator does it; whether it is to go well."""
    (running.paths.etc / "sagong.toml").write_text(configuration(host, port))
    running.run("upgrade", "kernel")
    done = running.run("swap", "exporter", "--trial", "0.1", check=False)
    assert (done.returncode == 0) == well, done.stderr


def test_a_wider_and_a_narrower_address_of_the_same_port() -> None:
    port = free_port()
    with instance(configuration("127.0.0.1", port)) as running:
        running.wait_ready()
        assert (serves("127.0.0.1", port), serves("127.0.0.2", port)) == (True, False)
        move(running, "0.0.0.0", port)
        assert (serves("127.0.0.1", port), serves("127.0.0.2", port)) == (True, True)
        move(running, "127.0.0.2", port)
        wait_deserted("127.0.0.1", port)
        assert serves("127.0.0.2", port)
        with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            stranger.bind(("127.0.0.2", port))


def test_a_move_that_fails_leaves_the_old_address_and_nothing_at_the_new_one() -> None:
    """The new one stayed open with nobody behind it: who connected there waited for ever."""
    with instance(configuration("127.0.0.1", (old := free_port()))) as running:
        running.wait_ready()
        log = running.paths.run / "log" / "exporter.log"
        log.rename(log.with_suffix(".aside"))
        log.mkdir()  # no process can be given it as its standard error
        new = free_port()
        move(running, "127.0.0.1", new, well=False)
        assert (serves("127.0.0.1", old), accepts("127.0.0.1", new)) == (True, False)
        log.rmdir()
        running.run("swap", "exporter", "--trial", "0.1")
        wait_deserted("127.0.0.1", old)
        assert serves("127.0.0.1", new)
