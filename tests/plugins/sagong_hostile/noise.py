"""Attacks without end: they fill what has bounds, and take what others need."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from sagong.wire import EMPTY, VERSION, Envelope, Kind, encode
from sagong_hostile.wire import Facts, frame, greeted, kernel_path, opened, packed

__all__ = ["FLOODS"]


def _call(kind: Kind, id_: int, method: str, body: msgspec.Raw = EMPTY) -> Envelope:
    return Envelope(VERSION, kind, id_, method, 0, 0, "", body)


def _greeter(facts: Facts) -> str:
    return str(next(iter(Path(facts["root"], "slots", "greeter", "bus").glob("*/s"))))


def log_lines(facts: Facts) -> None:
    """Lines of log without end."""
    line = b"x" * 4000 + b"\n"
    while True:
        try:
            os.write(2, line)
        except OSError:
            time.sleep(0.001)


def eat_memory(facts: Facts) -> None:
    """All there is."""
    kept = []
    while True:
        kept.append(bytearray(b"x") * (1 << 20))


def fill_disk(facts: Facts) -> None:
    """Many files in its own directories."""
    for number in itertools.count():
        try:
            Path(facts["data"], f"{number}").write_bytes(bytes(1 << 20))
        except OSError:
            time.sleep(0.01)


def forks(facts: Facts) -> None:
    """A process as soon as there may be one more; each works."""
    while True:
        try:
            if os.fork() == 0:
                signal.alarm(30)
                while True:
                    pass
        except OSError:
            time.sleep(0.001)


def computes(facts: Facts) -> None:
    """Nothing that is forbidden, without end, with some processes, fewer than it may have."""
    for _ in range(8):
        if os.fork() == 0:
            break
    while True:
        pass


def linger(facts: Facts) -> None:
    """Do nothing, and stay."""
    while True:
        time.sleep(60)


def _flood(path: str, frames: list[bytes]) -> None:
    """Few messages wait on this side, or it would end by its own limit of memory."""
    made = opened(path, mark=4)
    while True:
        made.send_multipart(frames)


def refused_calls(facts: Facts) -> None:
    """Calls of the kernel that are not granted."""
    _flood(kernel_path(facts), encode([_call(Kind.CALL, n, "kernel/1/stop") for n in range(1000)]))


def reports(facts: Facts) -> None:
    """What every process may tell the kernel, without end, its answers read."""
    made = opened(kernel_path(facts), mark=4)
    body = packed({"unit": "hostile", "generation": 1 << 40, "order": 1})
    frames = encode([_call(Kind.CALL, n, "kernel/1/done", body) for n in range(64)])
    while True:
        made.send_multipart(frames)
        while made.poll(100):
            made.recv_multipart()


def granted_calls(facts: Facts) -> None:
    """The one call that is granted, as often as can be, its answers unread."""
    body = packed({"name": "x" * 1000})
    calls = [_call(Kind.CALL, n, "greeting/1/greet", body) for n in range(256)]
    _flood(_greeter(facts), encode(calls))


def streams(facts: Facts) -> None:
    """Attend again and again, and read nothing."""
    body = packed({"unit": "hostile", "generation": 1 << 40, "pid": 1, "health": False})
    _flood(
        kernel_path(facts),
        encode([_call(Kind.OPEN, n, "kernel/1/attend", body) for n in range(1000)]),
    )


def malformed(facts: Facts) -> None:
    """No messages at all."""
    _flood(kernel_path(facts), [b"\xff" * 10_000])


def oversize(facts: Facts) -> None:
    """Bodies as large as the bus carries, and larger."""
    made = opened(kernel_path(facts))
    for size in itertools.cycle((1 << 20, 30 << 20, 66 << 20)):
        made.send_multipart([b"\xdd\x00\x7f\xff\xff", bytes(size)])


def connections(facts: Facts) -> None:
    """Connect without end, say half of a greeting, and stay."""
    kept: list[socket.socket] = []
    while True:
        made = socket.socket(socket.AF_UNIX)
        try:
            made.connect(kernel_path(facts))
            made.send(b"\xff\0\0\0\0\0\0\0\1\x7f")
            kept.append(made)
        except OSError:
            time.sleep(0.001)
        if len(kept) > 500:
            kept.clear()


def handshakes(facts: Facts) -> None:
    """Begin TLS with a service of the machine's without end, and never finish it."""
    hello = _client_hello()
    kept: list[socket.socket] = []
    while True:
        try:
            made = socket.create_connection(("127.0.0.1", int(facts["port"])), timeout=1)
            made.sendall(hello)
            kept.append(made)
        except OSError:
            time.sleep(0.001)
        if len(kept) > 300:
            kept.clear()


def _client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def requests(facts: Facts) -> None:
    """Connect to a service without TLS, ask, and connect again."""
    asked = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    while True:
        try:
            with socket.create_connection(("127.0.0.1", int(facts["port"])), timeout=1) as made:
                made.sendall(asked)
                while made.recv(65536):
                    pass
        except OSError:
            time.sleep(0.001)


def endless(facts: Facts) -> None:
    """One message whose parts never end, again and again."""
    part = frame(1 << 20, more=True) + bytes(1 << 20)
    while True:
        try:
            made = greeted(kernel_path(facts))
            while True:
                made.sendall(part)
        except OSError:
            time.sleep(0.01)


def unfinished(facts: Facts) -> None:
    """Many frames, each as large as may be, that all lack their last byte."""
    kept: list[socket.socket] = []
    while True:
        try:
            made = greeted(kernel_path(facts))
            made.sendall(frame(60 << 20, more=False))
            for _ in range(59):
                made.sendall(bytes(1 << 20))
            kept.append(made)
        except OSError:
            kept.clear()
            time.sleep(0.01)


def titles(facts: Facts) -> None:
    """Standard output is the log, too."""
    while True:
        print("x" * 10_000, file=sys.stdout, flush=True)


FLOODS: dict[str, Callable[[Facts], None]] = {
    "log lines": log_lines,
    "eat memory": eat_memory,
    "fill disk": fill_disk,
    "forks": forks,
    "computes": computes,
    "linger": linger,
    "refused calls": refused_calls,
    "reports": reports,
    "granted calls": granted_calls,
    "streams": streams,
    "malformed": malformed,
    "oversize": oversize,
    "connections": connections,
    "handshakes": handshakes,
    "requests": requests,
    "endless": endless,
    "unfinished": unfinished,
    "titles": titles,
}
