"""Where a reader of a log stands is known again, whatever became of the file meanwhile."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from pathlib import Path

import pytest

from sagong import logfiles
from sagong.contracts.node import LogsRequest
from sagong.frames import Frame
from sagong.shim.logs import LINE_LIMIT, Piece, encoder
from sagong.streams import framed
from sagong_node.logs import LogReader
from sagong_node.streams import StreamServer

DRIVERS = ("json-file", "cri", "local")
SECOND = 1_000_000_000


def write(log: Path, driver: str, texts: Iterable[bytes], *, at: int) -> None:
    """Further lines; each a second after the one before."""
    encode = encoder(driver)
    with log.open("ab") as file:
        for number, text in enumerate(texts):
            file.write(encode(Piece(1, text, True), (at + number) * SECOND))


async def read(log: Path, driver: str, place: bytes = b"") -> tuple[list[bytes], bytes]:
    """The lines from a place on, and the place after them."""
    server = StreamServer(log.parent)
    await server.start()
    request = LogsRequest(id="c", place=place)
    reader = LogReader(log, driver, request, lambda: False)
    lines = []
    async with framed(server.offer(reader.serve, "frames")) as frames:
        async for kind, payload in frames:
            if kind == Frame.STDOUT:
                lines.append(payload.rstrip(b"\n"))
            elif kind == Frame.PLACE:
                place = payload
    await server.stop()
    return lines, place


def emptied(log: Path) -> None:
    """Another file with the number of the one that was."""
    inode = log.stat().st_ino
    os.truncate(log, 0)
    assert log.stat().st_ino == inode


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("size", [3, LINE_LIMIT])
async def test_a_new_file_with_an_old_ones_number_is_read_from_its_beginning(
    tmp_path: Path, driver: str, size: int
) -> None:
    """Also when its lines are the same but for their time."""
    log, same = tmp_path / "c.log", b"x" * size
    write(log, driver, [same] * 3, at=1000)
    _, place = await read(log, driver)
    emptied(log)
    write(log, driver, [same] * 5, at=5000)
    lines, further = await read(log, driver, place)
    assert lines == [same] * 5
    write(log, driver, [b"more"], at=6000)
    assert (await read(log, driver, further))[0] == [b"more"]


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_place_is_found_in_a_file_that_was_packed(tmp_path: Path, driver: str) -> None:
    log = tmp_path / "c.log"
    write(log, driver, [b"a" * 9000] * 4, at=1000)
    _, place = await read(log, driver)
    write(log, driver, [b"b"], at=2000)
    logfiles.rotate(str(log), 3)
    logfiles.pack(str(log), 3)
    write(log, driver, [b"c"], at=3000)
    assert (await read(log, driver, place))[0] == [b"b", b"c"]


async def test_a_place_of_before_marks_is_understood(tmp_path: Path) -> None:
    """A reader that was there when the node was replaced by a newer one goes on."""
    log = tmp_path / "c.log"
    write(log, "cri", [b"a"], at=1000)
    place = struct.pack(">QQ", log.stat().st_ino, log.stat().st_size)
    write(log, "cri", [b"b"], at=2000)
    assert (await read(log, "cri", place))[0] == [b"b"]


async def test_a_place_in_a_file_that_is_gone_is_the_beginning(tmp_path: Path) -> None:
    log = tmp_path / "c.log"
    write(log, "cri", [b"a"], at=1000)
    _, place = await read(log, "cri")
    log.rename(tmp_path / "kept")
    write(log, "cri", [b"b", b"c"], at=2000)
    assert (await read(log, "cri", place))[0] == [b"b", b"c"]
