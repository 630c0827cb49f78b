"""Terminals: handed to a console socket, or shown on our own terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import termios
import tty

from sagong.linux import process
from sagong.linux.files import write_all
from sagong.shim.failure import StartError

__all__ = ["hand_over", "leave_lines", "relay"]

_SIZE = 64 << 10


def hand_over(path: str, master: int) -> None:
    """Send the master to whoever listens at the console socket."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.connect(path)
            process.send_descriptors(channel, b"/dev/ptmx", (master,))
    except OSError as error:
        text = f"console socket {path}: {error.strerror}"
        raise StartError("failed_precondition", text) from None


def relay(master: int) -> None:
    """Between our terminal and the container's until that one ends."""
    saved = None
    with contextlib.suppress(termios.error, OSError):
        saved = termios.tcgetattr(0)
        tty.setraw(0)
        _set_output(0, put=termios.OPOST)
    signal.signal(signal.SIGWINCH, lambda *_: _copy_size(master))
    _copy_size(master)
    try:
        _pump(master)
    finally:
        if saved is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, saved)


def leave_lines(master: int) -> None:
    """Lines end as they are written: our terminal, if there is one, begins new ones at their left."""
    with contextlib.suppress(termios.error, OSError):
        _set_output(master, clear=termios.ONLCR)


def _set_output(descriptor: int, *, put: int = 0, clear: int = 0) -> None:
    modes = termios.tcgetattr(descriptor)
    modes[1] = modes[1] & ~clear | put
    termios.tcsetattr(descriptor, termios.TCSANOW, modes)


def _copy_size(master: int) -> None:
    with contextlib.suppress(OSError):
        size = fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8)
        fcntl.ioctl(master, termios.TIOCSWINSZ, size)


def _pump(master: int) -> None:
    sources = [0, master]
    while True:
        for source in select.select(sources, [], [])[0]:
            try:
                data = os.read(source, _SIZE)
            except OSError:
                data = b""
            if source == master:
                if not data:
                    return
                write_all(1, data)
            elif data:
                write_all(master, data)
            else:
                sources.remove(0)
