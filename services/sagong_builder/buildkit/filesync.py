"""Directories from the client and to it: names first, then the contents that are asked for.

The sender tells each entry by a packet `stat` in the order of its walk, numbered from zero, and ends
with an empty one; the receiver asks for the content of each regular file by its number, and says when
it has all. Contents come interleaved, and are put beside each other in one file: an archive.
Source: the packages fsutil and session/filesync of BuildKit.
"""

from __future__ import annotations

import asyncio
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from sagong.errors import InvalidArgument, ResourceExhausted, Unavailable
from sagong_builder.buildkit import messages as m
from sagong_builder.buildkit.rpc import Call
from sagong_builder.context import Archive, Entry, Kind, Tree
from sagong_builder.kept import Facts, KeptContext

__all__ = ["Received", "Root", "receive_files", "send_files"]

_PIECE = 1 << 18


class _Type(IntEnum):
    STAT = 0
    REQUEST = 1
    DATA = 2
    END = 3
    ERROR = 4


# Go's bits of os.FileMode.
_DIRECTORY, _SYMLINK, _DEVICE, _PIPE, _SOCKET = 1 << 31, 1 << 27, 1 << 26, 1 << 25, 1 << 24
_CHARACTER = 1 << 21
_SPECIAL = ((1 << 23, 0o4000), (1 << 22, 0o2000), (1 << 20, 0o1000))


def _kind(mode: int) -> Kind | None:
    for bit, kind in ((_DIRECTORY, Kind.DIRECTORY), (_SYMLINK, Kind.SYMLINK), (_PIPE, Kind.FIFO)):
        if mode & bit:
            return kind
    if mode & _DEVICE:
        return Kind.CHARACTER if mode & _CHARACTER else Kind.BLOCK
    return None if mode & _SOCKET else Kind.FILE


def _mode(mode: int) -> int:
    return mode & 0o777 | sum(ours for theirs, ours in _SPECIAL if mode & theirs)


@dataclass
class _Inbox:
    """What is being received. Owners are dropped: in a context all files are root's."""

    target: int
    limit: int
    entries: int
    tree: Tree = field(default_factory=Tree)
    earlier: Mapping[str, tuple[Facts, int]] = field(default_factory=dict)
    number: int = 0
    size: int = 0
    end: int = 0
    open: dict[int, tuple[Entry, str, Facts]] = field(default_factory=dict)
    files: dict[str, tuple[Facts, int]] = field(default_factory=dict)

    def stat(self, stat: m.Stat) -> bool:
        """An entry; whether its content is to be asked for."""
        kind = _kind(stat.mode)
        if self.number >= self.entries:
            raise ResourceExhausted(f"the context has more than {self.entries} entries")
        if kind is None:
            return False
        if kind is Kind.FILE and stat.linkname:
            linked = self.tree.get(stat.linkname)
            if linked is None or linked.is_directory:
                raise InvalidArgument(f"the context links {stat.path[:200]!r} to nothing")
            self.tree.put(stat.path, linked)
            return False
        entry = Entry(
            kind=kind,
            mode=_mode(stat.mode),
            mtime=max(0.0, stat.mod_time / 1e9),
            link=stat.linkname if kind is Kind.SYMLINK else "",
            offset=self.end,
            device=(stat.devmajor, stat.devminor),
            xattrs=tuple(
                (key, value.decode("utf-8", "surrogateescape"))
                for key, value in sorted(stat.xattrs.items())
            ),
        )
        self.tree.put(stat.path, entry)
        if kind is not Kind.FILE or stat.size <= 0:
            return False
        self.size += stat.size
        if self.size > self.limit:
            raise ResourceExhausted(f"the context has more than {self.limit} bytes")
        facts = (stat.mode, stat.size, stat.mod_time)
        before = self.earlier.get(stat.path)
        if before is not None and before[0] == facts:
            entry.size, entry.offset = stat.size, before[1]
            self.files[stat.path] = before
            return False
        self.end += stat.size
        self.open[self.number] = entry, stat.path, facts
        return True

    def data(self, number: int, data: bytes) -> None:
        """A piece of a file, or its end."""
        if number not in self.open:
            raise InvalidArgument("the client sent what nobody asked for")
        entry, path, facts = self.open[number]
        if not data:
            del self.open[number]
            if entry.size == facts[1]:
                self.files[path] = facts, entry.offset
            return
        # One that has grown since it was told of is taken as it was then.
        piece = data[: facts[1] - entry.size]
        _write(self.target, piece, entry.offset + entry.size)
        entry.size += len(piece)


def _write(target: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        try:
            done = os.pwrite(target, view, offset)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise ResourceExhausted(f"the context can't be kept: {reason}") from None
        view, offset = view[done:], offset + done


@dataclass(frozen=True)
class Received:
    """A directory that came: its complete files by path, and the bytes that came over the wire."""

    archive: Archive
    files: dict[str, tuple[Facts, int]]
    sent: int


async def receive_files(
    call: Call,
    path: Path,
    *,
    limit: int,
    entries: int,
    kept: KeptContext | None = None,
) -> Received:
    """All entries and contents as an archive at `path`, or where a kept one's contents are.

    Of files that are in the kept one, by the same facts, nothing is sent; it is used up.
    """
    place = path if kept is None else kept.content
    file = place.open("w+b" if kept is None else "r+b", buffering=0)
    try:
        inbox = _Inbox(file.fileno(), limit, entries, earlier=kept.files if kept else {})
        inbox.end = os.fstat(file.fileno()).st_size
        sent = await _receive(call, inbox)
        return Received(Archive(place, file, inbox.tree), inbox.files, sent)
    except BaseException:
        file.close()
        place.unlink(missing_ok=True)
        raise


async def _receive(call: Call, inbox: _Inbox) -> int:
    """Until all is there; how many bytes of messages came."""
    sent = 0
    complete = ended = False
    while (packet := await call.receive(m.Packet)) is not None:
        if packet.type == _Type.ERROR:
            raise InvalidArgument(f"error from sender: {packet.data.decode('utf-8', 'replace')}")
        if packet.type == _Type.STAT:
            if packet.stat is None:
                complete = True
            else:
                if inbox.stat(packet.stat):
                    await call.send(m.Packet(type=_Type.REQUEST, id=inbox.number))
                inbox.number += 1
        elif packet.type == _Type.DATA:
            inbox.data(packet.id, packet.data)
        sent += call.last_size
        if complete and not inbox.open and not ended:
            ended = True
            await call.send(m.Packet(type=_Type.END))
            call.end()
    if not ended:
        raise Unavailable("the client went away while it sent its files")
    return sent


# Sending.


Root = tuple[str, Archive]


async def send_files(call: Call, roots: Sequence[Root]) -> int:
    """All entries of archives, each below its directory ("" is the top), contents as they are asked
    for; how many bytes of them were."""
    sender = _Sender(call, sorted(roots, key=operator.itemgetter(0)))
    telling = asyncio.create_task(sender.tell())
    try:
        await sender.answer()
        await telling
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
    return sender.sent


class _Sender:
    def __init__(self, call: Call, roots: Sequence[Root]) -> None:
        self._call = call
        self._roots = roots
        self._files: dict[int, tuple[Archive, Entry]] = {}
        self.sent = 0

    async def tell(self) -> None:
        """The names."""
        first: dict[int, str] = {}
        for number, (archive, path, entry) in enumerate(self._entries()):
            linked = ""
            if entry.kind is Kind.FILE:
                linked = first.setdefault(id(entry), path)
                linked = "" if linked == path else linked
                if not linked:
                    self._files[number] = archive, entry
            await self._call.send(m.Packet(type=_Type.STAT, stat=_stat(path, entry, linked)))
        await self._call.send(m.Packet(type=_Type.STAT))

    def _entries(self) -> Iterator[tuple[Archive, str, Entry]]:
        for directory, archive in self._roots:
            if directory:
                yield archive, directory, Entry(Kind.DIRECTORY, 0o755)
            for path, entry in archive.tree.walk():
                yield archive, f"{directory}/{path}".lstrip("/"), entry

    async def answer(self) -> None:
        """What the receiver asks for, until it has all."""
        while (packet := await self._call.receive(m.Packet)) is not None:
            if packet.type == _Type.REQUEST:
                await self._content(packet.id)
            elif packet.type == _Type.END:
                await self._call.send(m.Packet(type=_Type.END))
                self._call.end()
                return
            elif packet.type == _Type.ERROR:
                told = packet.data.decode("utf-8", "replace")
                raise InvalidArgument(f"error from receiver: {told}")
        raise Unavailable("the client went away while it was sent files")

    async def _content(self, number: int) -> None:
        archive, entry = self._files.pop(number, (None, None))
        if archive is None or entry is None:
            raise InvalidArgument(f"the client asked for file {number}, which there is not")
        for piece in archive.content(entry):
            for at in range(0, len(piece), _PIECE):
                data = piece[at : at + _PIECE]
                self.sent += len(data)
                await self._call.send(m.Packet(type=_Type.DATA, id=number, data=data))
        await self._call.send(m.Packet(type=_Type.DATA, id=number))


_BITS = {
    Kind.FILE: 0,
    Kind.DIRECTORY: _DIRECTORY,
    Kind.SYMLINK: _SYMLINK,
    Kind.CHARACTER: _DEVICE | _CHARACTER,
    Kind.BLOCK: _DEVICE,
    Kind.FIFO: _PIPE,
}


def _stat(path: str, entry: Entry, linked: str) -> m.Stat:
    mode = entry.mode & 0o777 | sum(theirs for theirs, ours in _SPECIAL if entry.mode & ours)
    return m.Stat(
        path=path,
        mode=mode | _BITS[entry.kind],
        uid=entry.uid,
        gid=entry.gid,
        size=entry.size,
        mod_time=int(entry.mtime * 1e9),
        linkname=linked or entry.link,
        devmajor=entry.device[0],
        devminor=entry.device[1],
        xattrs={k: value.encode("utf-8", "surrogateescape") for k, value in entry.xattrs},
    )
