"""A transport for models of the bus: messages arrive when a world says so; and its loop."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVarTuple

import zmq

Ts = TypeVarTuple("Ts")
UID = 4321


class Frame:
    """A received frame, with what the operating system says of its sender."""

    def __init__(self, data: bytes, *, more: bool) -> None:
        self.bytes = self.buffer = data
        self.more = more

    def __len__(self) -> int:
        return len(self.bytes)

    def get(self, name: str) -> str:
        return f"localhost:{UID}:{UID}:1" if name == "Peer-Address" else ""


@dataclass(eq=False)
class Pipe:
    """One connection: what is on its way in each direction, in order."""

    caller: Socket
    path: str
    identity: bytes
    up: deque[list[bytes]] = field(default_factory=deque)
    down: deque[list[bytes]] = field(default_factory=deque)
    left: bool = False


class Socket:
    """A zmq.Socket as far as the bus uses it."""

    def __init__(self, context: Context, kind: int, number: int) -> None:
        self._context = context
        self._number = number
        self._router = kind == zmq.ROUTER
        self.inbox: deque[list[bytes]] = deque()
        self._sent: list[bytes] = []
        self._received: deque[Frame] = deque()
        self.closed = False

    def fileno(self) -> int:
        return self._number

    def connect(self, address: str) -> None:
        path = address.removeprefix("ipc://")
        identity = self._number.to_bytes(4, "big")
        self._context.pipes.append(Pipe(self, path, identity))

    def bind(self, address: str) -> None:
        self._context.bound[address.removeprefix("ipc://")] = self

    def send(self, frame: bytes, flags: int = 0) -> None:
        """One frame; the message leaves with its last."""
        self._sent.append(frame)
        if not flags & zmq.SNDMORE:
            frames, self._sent = self._sent, []
            self._send(frames)

    def _send(self, frames: Sequence[bytes]) -> None:
        if not self._router:
            self._own().up.append(list(frames))
            return
        for pipe in self._context.pipes:
            if pipe.identity == frames[0] and not pipe.left:
                pipe.down.append(list(frames[1:]))
                return
        raise zmq.ZMQError(zmq.EHOSTUNREACH)

    def get(self, option: int) -> int:
        """What can be done now."""
        assert option == zmq.EVENTS
        return zmq.POLLIN if self.inbox or self._received else 0

    def recv(self, flags: int = 0, copy: bool = True) -> Frame:
        """The next frame of a message."""
        if not self._received:
            if not self.inbox:
                raise zmq.Again
            message = self.inbox.popleft()
            last = len(message) - 1
            self._received += [Frame(data, more=n < last) for n, data in enumerate(message)]
        return self._received.popleft()

    def close(self, linger: int = 0) -> None:
        """What a caller has sent still arrives, if it lingers."""
        self.closed = True
        for pipe in [pipe for pipe in self._context.pipes if pipe.caller is self]:
            pipe.left = True
            pipe.down.clear()
            if not linger or not pipe.up:
                self._context.pipes.remove(pipe)

    def _own(self) -> Pipe:
        return next(pipe for pipe in self._context.pipes if pipe.caller is self)


class Context:
    """A zmq.Context whose sockets are connected by the world."""

    def __init__(self) -> None:
        self.pipes: list[Pipe] = []
        self.bound: dict[str, Socket] = {}
        self._numbers = itertools.count(1_000_000)

    def socket(self, kind: int) -> Socket:
        return Socket(self, kind, next(self._numbers))


class Loop(asyncio.SelectorEventLoop):
    """Readers are woken by the world; time leaps when the world says so."""

    def __init__(self) -> None:
        super().__init__()
        self.woken: dict[int, Callable[[], object]] = {}
        self._ahead = 0.0

    def add_reader(self, fd: Any, callback: Callable[[*Ts], Any], *args: *Ts) -> None:
        self.woken[fd] = callback

    def remove_reader(self, fd: Any) -> bool:
        return self.woken.pop(fd, None) is not None

    def time(self) -> float:
        return super().time() + self._ahead

    def leap(self, seconds: float) -> None:
        self._ahead += seconds
