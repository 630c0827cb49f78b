"""What BuildKit's clients send: frames of a connection, files, wishes; targets for `targets`."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from sagong.contracts.builder import BuildRequest, Surroundings
from sagong.errors import SagongError

__all__ = ["BUILDKIT"]


class _Writer:
    """Takes what is written to a connection and drops it."""

    def write(self, data: bytes) -> None:
        """Nothing."""

    async def drain(self) -> None:
        """At once."""

    def is_closing(self) -> bool:
        """Never."""
        return False

    def close(self) -> None:
        """Nothing."""


def connection(data: bytes) -> None:
    """A connection's bytes: calls begin, messages come, and all ends when the bytes do."""
    from sagong_builder.buildkit import messages as m
    from sagong_builder.buildkit.rpc import Call, Connection

    async def serve(call: Call) -> None:
        while (message := await call.receive(m.SolveRequest)) is not None:
            await call.send(message)

    async def run() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        writer = cast(asyncio.StreamWriter, _Writer())
        async with asyncio.timeout(10):
            await Connection(reader, writer, client=False, serve=serve).run()

    asyncio.run(run())


class _Packets:
    """A call whose messages are known; what is sent is counted."""

    def __init__(self, packets: list[Any]) -> None:
        self._packets = packets
        self.last_size = 0
        self.sent = 0

    async def receive(self, kind: type[Any]) -> Any:
        """The next."""
        await asyncio.sleep(0)
        return self._packets.pop(0) if self._packets else None

    async def send(self, message: Any) -> None:
        """One more."""
        self.sent += 1

    def end(self) -> None:
        """Nothing."""


def files(data: bytes) -> None:
    """Packets of a directory, received; what came is sent back to a client that asks for the same."""
    from sagong_builder.buildkit import messages as m
    from sagong_builder.buildkit.filesync import receive_files, send_files
    from sagong_builder.buildkit.protobuf import decode
    from sagong_builder.context.checksum import checksum

    packets = [decode(m.Packet, part) for part in data.split(b"\xff\xff")[:200]]

    async def run(directory: Path) -> None:
        call = cast(Any, _Packets(list(packets)))
        came = await receive_files(call, directory / "f", limit=1 << 20, entries=100)
        with contextlib.closing(came.archive) as archive:
            checksum(archive, archive.tree.root)
            await send_files(cast(Any, _Packets(list(packets))), [("", archive)])

    with tempfile.TemporaryDirectory() as name:
        asyncio.run(run(Path(name)))


def wishes(data: bytes) -> None:
    """What a build is asked for: options, exporters, inputs that are graphs."""
    from sagong_builder.buildkit import messages as m
    from sagong_builder.buildkit.exporting import exporters_of
    from sagong_builder.buildkit.frontend import read_options
    from sagong_builder.buildkit.graphs import image_of
    from sagong_builder.buildkit.protobuf import decode
    from sagong_builder.origins import key_of

    request = decode(m.SolveRequest, data)
    exporters_of(request)
    for definition in request.frontend_inputs.values():
        with contextlib.suppress(SagongError):
            image_of(definition)
    images = dict.fromkeys(request.frontend_inputs, "sha256:" + "0" * 64)
    wish = read_options(request.frontend, request.frontend_attrs, Surroundings(), "id", images)
    for name, _ in wish.named:
        key_of(name)


def questions(data: bytes) -> None:
    """A Dockerfile that is asked about, and its errors with the lines that they point to."""
    from sagong_builder.buildkit.failures import failure
    from sagong_builder.buildkit.outline import answer
    from sagong_builder.dockerfile import parse
    from sagong_builder.titles import Titles

    try:
        made = parse(data)
        for question in ("outline", "targets", "lint", "subrequests.describe"):
            answer(f"frontend.{question}", made, BuildRequest(id="x"))
        for stage in made.stages:
            titles = Titles(stage, several=True, own=True)
            for instruction in stage.instructions:
                titles.of(instruction, {"x": "y"})
    except SagongError as error:
        raise failure(error, "Dockerfile", data) from None


def _greeting() -> bytes:
    """What a client sends first, with a call and its message."""
    import h2.connection

    client = h2.connection.H2Connection()
    client.initiate_connection()
    headers = [(":method", "POST"), (":scheme", "http"), (":path", "/x"), (":authority", "l")]
    client.send_headers(1, [*headers, ("content-type", "application/grpc"), ("te", "trailers")])
    client.send_data(1, b"\0\0\0\0\x05\x0a\x03abc", end_stream=True)
    return client.data_to_send()


_STAT = b"\x12\x0d\x0a\x01f\x10\xa4\x03\x28\x03\x30\x07\x3a\x00"
_PACKETS = b"\xff\xff".join((_STAT, b"\x08\x00", b"\x08\x02\x22\x03abc", b"\x08\x02", b"\x08\x03"))
_WISH = (
    b"\x0a\x01r\x1a\x04moby\x32\x0ddockerfile.v0\x3a\x10\x0a\x08platform\x12\x04a,b"
    b"\x3a\x14\x0a\x09context:x\x12\x07input:y\x52\x07\x0a\x01y\x12\x02\x0a\x00"
)
_DOCKERFILE = b"ARG G=1\nFROM a AS b\nARG X=$G\nRUN --mount=type=secret,id=s,required $x\nFROM b\n"

# Name: what is run, and what to begin with.
BUILDKIT: tuple[tuple[str, Callable[[bytes], None], tuple[bytes, ...]], ...] = (
    ("buildkit-connection", connection, (_greeting(),)),
    ("buildkit-files", files, (_PACKETS,)),
    ("buildkit-wishes", wishes, (_WISH,)),
    ("buildkit-questions", questions, (_DOCKERFILE,)),
)
