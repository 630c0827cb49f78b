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
        async with asyncio.timeout(60):
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
    from sagong_builder.buildkit.exporting import caches_of, exporters_of
    from sagong_builder.buildkit.frontend import read_options
    from sagong_builder.buildkit.graphs import image_of
    from sagong_builder.buildkit.protobuf import decode
    from sagong_builder.origins import key_of

    request = decode(m.SolveRequest, data)
    exporters_of(request)
    caches_of(request)
    for definition in request.frontend_inputs.values():
        with contextlib.suppress(SagongError):
            image_of(definition)
    images = dict.fromkeys(request.frontend_inputs, "sha256:" + "0" * 64)
    wish = read_options(request.frontend, request.frontend_attrs, Surroundings(), "id", images)
    for name, *_ in wish.named:
        key_of(name)


class _Store:
    """A content store of the client's that says these things, one after the other."""

    def __init__(self, documents: list[bytes]) -> None:
        self._documents = documents

    async def document(self, digest: str) -> bytes:
        """The next."""
        return self._documents.pop(0) if self._documents else b"{}"


def stores(data: bytes) -> None:
    """Indexes, manifests and configs of a client's store."""
    from sagong_builder.buildkit.stored import StoredImages

    async def run() -> None:
        images = StoredImages(cast(Any, None), cast(Any, _Store(data.split(b"\n")[:50])))
        for image in await images.all("sha256:" + "0" * 64):
            images.offer(image)

    asyncio.run(run())


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


def _packets() -> bytes:
    """A directory of one file, as a client sends it."""
    from sagong_builder.buildkit import messages as m
    from sagong_builder.buildkit.protobuf import encode

    stat = m.Stat(path="f", mode=0o644, size=3, mod_time=7)
    told = [m.Packet(stat=stat), m.Packet(), m.Packet(2, data=b"abc"), m.Packet(2), m.Packet(3)]
    return b"\xff\xff".join(map(encode, told))


def _stored() -> bytes:
    """An index of one image, its manifest and its config."""
    entry = b'{"mediaType":"m","digest":"sha256:0","size":1}'
    manifest = b'{"schemaVersion":2,"config":' + entry + b',"layers":[' + entry + b"]}"
    config = b'{"rootfs":{"type":"layers","diff_ids":["sha256:0"]},"history":[{"created_by":"x"}]}'
    return b'{"schemaVersion":2,"manifests":[' + entry + b"]}\n" + manifest + b"\n" + config


def _wish() -> bytes:
    """A build of two platforms with an input, that is pushed and leaves a cache."""
    from sagong_builder.buildkit import messages as m
    from sagong_builder.buildkit.graphs import naming
    from sagong_builder.buildkit.protobuf import encode

    options = {
        "platform": "linux/amd64,linux/arm64",
        "context:x": "input:y",
        "cache-imports": '[{"Type":"local","Attrs":{"src":"d"}}]',
        "attest:provenance": "mode=max",
        "ulimit": "nofile=1:2",
    }
    outputs = [m.ExporterSpec("image", {"name": "a:1", "push": "true", "annotation.k": "v"})]
    caches = m.CacheOptions(exports=[m.CacheOptionsEntry("local", {"dest": "d"})])
    return encode(
        m.SolveRequest(
            ref="r",
            frontend="dockerfile.v0",
            frontend_attrs=options,
            exporters=outputs,
            cache=caches,
            frontend_inputs={"y": naming("sha256:" + "0" * 64)},
        )
    )


_DOCKERFILE = b"ARG G=1\nFROM a AS b\nARG X=$G\nRUN --mount=type=secret,id=s,required $x\nFROM b\n"

# Name: what is run, and what to begin with.
BUILDKIT: tuple[tuple[str, Callable[[bytes], None], tuple[bytes, ...]], ...] = (
    ("buildkit-connection", connection, (_greeting(),)),
    ("buildkit-files", files, (_packets(),)),
    ("buildkit-wishes", wishes, (_wish(),)),
    ("buildkit-stores", stores, (_stored(),)),
    ("buildkit-questions", questions, (_DOCKERFILE,)),
)
