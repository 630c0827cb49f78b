"""Blobs on their way into the content store by slot `content`: one file each, until it is finished.

The digest is computed while bytes come; after a restart the file is read once more instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import time
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sagong.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from sagong_image_overlay.content import Content
from sagong_image_overlay.room import CHECK_EVERY, check_room
from sagong_image_overlay.streams import in_thread

__all__ = ["Writes"]

_DAY = 86400.0
_HOUR = 3600.0
_CHUNK = 1 << 20
_MOST = 10_000


@dataclass(slots=True)
class State:
    """A write: where it is kept, how much of it is hashed, and who is sending."""

    path: Path
    hashed: Any = field(default_factory=hashlib.sha256)
    count: int = 0
    sender: asyncio.Task[Any] | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Writes:
    """All writes, by (caller, id)."""

    def __init__(self, root: Path, content: Content, reserve: int) -> None:
        self._root = root
        self._content = content
        self._reserve = reserve
        self._table: dict[tuple[str, str], State] = {}
        self._timer: asyncio.TimerHandle | None = None

    def load(self) -> None:
        """Find the writes of earlier lives."""
        self._root.mkdir(mode=0o700, exist_ok=True)
        for path in self._root.iterdir():
            caller, _, identity = path.name.rpartition(".")
            self._table[urllib.parse.unquote(caller), identity] = State(path)
        self.expire()

    def start(self) -> None:
        """Look after old ones from now on."""
        self._tick()

    def close(self) -> None:
        """Stop looking after them."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        self.expire()
        if self._table:
            self._timer = asyncio.get_running_loop().call_later(_HOUR, self._tick)

    def expire(self) -> None:
        """Forget what nobody has touched for a day."""
        limit = time.time() - _DAY
        for key, state in list(self._table.items()):
            with contextlib.suppress(FileNotFoundError):
                if state.sender is not None or state.path.stat().st_mtime > limit:
                    continue
            self._forget(key)

    def _forget(self, key: tuple[str, str]) -> None:
        state = self._table.pop(key)
        if state.sender is not None:
            state.sender.cancel()
        state.path.unlink(missing_ok=True)

    async def open(self, caller: str, identity: str) -> int:
        """Begin one, or go on; the bytes that are durable."""
        state = self._table.get((caller, identity))
        if state is None:
            state = self._begin(caller, identity)
        return await asyncio.to_thread(_durable_size, state.path)

    def _begin(self, caller: str, identity: str) -> State:
        if len(self._table) >= _MOST:
            raise ResourceExhausted(f"there are {_MOST} writes already; abandon some")
        path = self._root / f"{urllib.parse.quote(caller, safe='')}.{identity}"
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        state = self._table[caller, identity] = State(path)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_HOUR, self._tick)
        return state

    def _get(self, caller: str, identity: str) -> State:
        try:
            return self._table[caller, identity]
        except KeyError:
            raise NotFound(f"there is no write {identity}; open it first") from None

    def check(self, caller: str, identity: str, offset: int) -> None:
        """Whether a stream may write from there now."""
        state = self._get(caller, identity)
        if state.sender is not None:
            raise FailedPrecondition(f"another stream is writing {identity} already")
        size = state.path.stat().st_size
        if offset != size:
            raise FailedPrecondition(f"write {identity} has {size} bytes, not {offset}")
        check_room(state.path, self._reserve)

    async def receive(self, caller: str, identity: str, offset: int, peer: socket.socket) -> None:
        """Take a stream's bytes until its end; then tell it the offset."""
        self.check(caller, identity, offset)
        state = self._get(caller, identity)
        state.sender = asyncio.current_task()
        try:
            with state.path.open("r+b", buffering=0) as file:
                file.seek(offset)
                await self._fill(state, file.fileno(), peer)
                await in_thread(os.fsync, file.fileno())
                size = file.tell()
        finally:
            state.sender = None
        await asyncio.get_running_loop().sock_sendall(peer, b"%d\n" % size)

    async def _fill(self, state: State, target: int, peer: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _CHUNK)
        view = memoryview(bytearray(_CHUNK))
        at = os.lseek(target, 0, os.SEEK_CUR)
        hashing = state.count == at
        checked = 0
        while count := await loop.sock_recv_into(peer, view):
            # In a thread: the disk may be slow, and hashing lets the loop go on.
            await in_thread(_keep, target, view[:count], state.hashed if hashing else None)
            state.count += count if hashing else 0
            checked += count
            if checked > CHECK_EVERY:
                checked = 0
                check_room(state.path, self._reserve)

    async def finish(self, caller: str, identity: str, digest: str) -> bool:
        """Make a blob of it; False if there is no such write."""
        state = self._table.get((caller, identity))
        if state is None:
            return False
        async with state.lock:
            if self._table.get((caller, identity)) is not state:
                return False
            if state.sender is not None:
                raise FailedPrecondition(f"a stream is still writing {identity}")
            found = await asyncio.to_thread(_digest, state, digest.partition(":")[0])
            if found != digest:
                raise InvalidArgument(f"the write {identity} is {found}, not {digest}")
            await asyncio.to_thread(self._content.publish, state.path, digest)
            del self._table[caller, identity]
        return True

    def abandon(self, caller: str, identity: str) -> None:
        """Forget one, and cut who is sending."""
        if (caller, identity) in self._table:
            self._forget((caller, identity))


def _durable_size(path: Path) -> int:
    opened = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(opened)
        return os.fstat(opened).st_size
    finally:
        os.close(opened)


def _keep(target: int, data: memoryview, hashed: Any) -> None:
    if hashed is not None:
        hashed.update(data)
    while data:
        data = data[os.write(target, data) :]


def _digest(state: State, algorithm: str) -> str:
    if algorithm == "sha256" and state.count == state.path.stat().st_size:
        return f"sha256:{state.hashed.hexdigest()}"
    with state.path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"
