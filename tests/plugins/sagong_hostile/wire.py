"""Attacks on the bus, by raw sockets beside the host: identities, methods that were not granted."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import zmq

from sagong.contracts.kernel import Attendance, Done
from sagong.wire import EMPTY, VERSION, Envelope, Kind, encode

__all__ = ["BUS_ATTACKS", "Facts", "ask", "frame", "greeted", "kernel_path", "opened", "packed"]

Facts = dict[str, str]
_ANSWER_MS = 3000


def kernel_path(facts: Facts) -> str:
    """Where the kernel listens."""
    return f"{facts['root']}/kernel/bus/s"


def packed(value: object) -> msgspec.Raw:
    """A body."""
    return msgspec.Raw(msgspec.msgpack.encode(value))


def opened(path: str, identity: bytes = b"", mark: int = 1000) -> zmq.Socket[bytes]:
    """A raw DEALER in a context of its own, with a routing id of the attacker's choice.

    No more than `mark` messages wait on this side.
    """
    context: zmq.Context[Any] = zmq.Context()
    made: zmq.Socket[bytes] = context.socket(zmq.DEALER)
    made.linger = 0
    made.sndhwm = mark
    if identity:
        made.setsockopt(zmq.ROUTING_ID, identity)
    made.connect(f"ipc://{path}")
    return made


def greeted(path: str) -> socket.socket:
    """A plain connection that has shaken hands as a DEALER does (https://rfc.zeromq.org/spec/23/)."""
    made = socket.socket(socket.AF_UNIX)
    made.connect(path)
    made.sendall(b"\xff" + bytes(8) + b"\x7f\x03\0" + b"NULL".ljust(20, b"\0") + bytes(32))
    greeting = b""
    while len(greeting) < 64:
        greeting += made.recv(64 - len(greeting))
    ready = b"\x05READY\x0bSocket-Type" + (6).to_bytes(4, "big") + b"DEALER"
    made.sendall(bytes([4, len(ready)]) + ready)
    made.recv(256)
    return made


def frame(size: int, *, more: bool) -> bytes:
    """The head of a long frame."""
    return bytes([2 | more]) + size.to_bytes(8, "big")


def ask(
    path: str,
    method: str,
    body: msgspec.Raw = EMPTY,
    *,
    kind: Kind = Kind.CALL,
    cause: str = "",
    identity: bytes = b"",
) -> str:
    """The code of the error that comes back, or "done"; "silence" after a while."""
    made = opened(path, identity)
    try:
        made.send_multipart(encode([Envelope(VERSION, kind, 1, method, 0, 0, cause, body)]))
        if not made.poll(_ANSWER_MS):
            return "silence"
        answer = msgspec.msgpack.decode(made.recv_multipart()[0], type=list[Envelope])[0]
        if answer.kind != Kind.ERROR:
            return "done"
        return str(msgspec.msgpack.decode(answer.body)[0])
    finally:
        made.close()
        made.context.term()


def forge_identity(facts: Facts) -> dict[str, str]:
    """To be another unit, another generation, the operator, or somebody's child."""
    kernel = kernel_path(facts)

    def attend(unit: str, generation: int, **more: Any) -> str:
        body = packed(Attendance(unit=unit, generation=generation, pid=1, health=True))
        return ask(kernel, "kernel/1/attend", body, kind=Kind.OPEN, **more)

    other, generation = facts["unit"], int(facts["generation"])
    done = packed(Done(unit=other, generation=generation, order=1, state=b"mine"))
    return {
        "another unit": attend(other, generation),
        "a generation that is not": attend("hostile", 1 << 40),
        "with another's cause": attend(other, generation, cause=f"{other}-1"),
        "with root's routing id": attend(other, generation, identity=b"\0root"),
        "done for another": ask(kernel, "kernel/1/done", done),
    }


def call_ungranted(facts: Facts) -> dict[str, str]:
    """Methods that its manifest does not name, of providers that it can reach."""
    kernel = kernel_path(facts)
    asked = {"unit": "greeter", "plugin": "hostile"}
    names = ("stop", "swap", "enable", "disable", "restart", "trace", "routes", "status", "report")
    found = {name: ask(kernel, f"kernel/1/{name}", packed(asked)) for name in names}
    greeter = next(iter(Path(facts["root"], "slots", "greeter", "bus").glob("*/s")), None)
    if greeter is not None:
        found["greeting events"] = ask(str(greeter), "greeting/1/events", kind=Kind.OPEN)
        found["greeting unknown"] = ask(str(greeter), "greeting/1/unknown")
        found["greeting granted"] = ask(str(greeter), "greeting/1/greet", packed({"name": "eve"}))
    return found


def accuse(facts: Facts) -> dict[str, str]:
    """Say of others that they flood this process."""
    kernel = kernel_path(facts)
    uids = {name: int(uid) for name, uid in facts.items() if name.startswith("uid ")}
    return {
        name: ask(kernel, "kernel/1/flooded", packed({"uid": uid, "seconds": 1e9}))
        for name, uid in uids.items()
    }


BUS_ATTACKS: dict[str, Callable[[Facts], dict[str, str]]] = {
    "forge identity": forge_identity,
    "call ungranted": call_ungranted,
    "accuse": accuse,
}
