"""What is fuzzed: a function of bytes each, the errors that it may raise, and seeds to begin with."""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import importlib
import io
import pkgutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from sagong import contracts, manifest, wire
from sagong.contract import MethodSpec, slot_of
from sagong.errors import InvalidArgument, SagongError
from sagong.frames import FrameReader, pack
from sagong.http.body import Body, ChunkedCutter
from sagong.http.head import BadRequest, parse_head
from sagong.model import oci, quantity, references, selectors
from sagong.model.objects import GroupVersionKind
from sagong.wire import Envelope, Kind
from tests.fuzz.buildkit_targets import BUILDKIT
from tests.fuzz.cluster_targets import CLUSTER
from tests.fuzz.engine_targets import ENGINE
from tests.fuzz.provider_target import PROVIDER_SEEDS, receive

__all__ = ["TARGETS", "Target"]


@dataclass(frozen=True)
class Target:
    """A reader of bytes. Whatever they are, it returns or raises one of `errors`."""

    name: str
    run: Callable[[bytes], object]
    errors: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]


def _text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: read(data.decode("utf-8", "surrogateescape"))


def _frames(data: bytes) -> list[bytes]:
    """Several frames of one input, cut where a marker stands."""
    return data.split(b"\xc1\xc1")


def _wire(data: bytes) -> None:
    for envelope in wire.decode(_frames(data)):
        wire.unpack_error(envelope.body)


def _methods() -> Iterator[MethodSpec]:
    for module in pkgutil.walk_packages(contracts.__path__, "sagong.contracts."):
        found = importlib.import_module(module.name)
        for value in vars(found).values():
            if isinstance(value, type) and "__sagong_slot__" in vars(value):
                yield from slot_of(value).methods.values()


@functools.cache
def _decoders() -> tuple[msgspec.msgpack.Decoder[object], ...]:
    return tuple(d for m in _methods() for d in (m.request_decoder, m.result_decoder))


def _contracts(data: bytes) -> None:
    """The first two bytes choose the message, the rest is its body."""
    decoders = _decoders()
    decoders[int.from_bytes(data[:2], "big") % len(decoders)].decode(data[2:])


def _frame_reader(data: bytes) -> None:
    reader = FrameReader()
    for at in range(0, len(data), 7):
        for _ in reader.feed(data[at : at + 7]):
            pass


class _Flow:
    """A body's flow control that nobody waits for."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def want_body(self) -> None: ...


def _chunks(data: bytes) -> None:
    cutter = ChunkedCutter(Body(_Flow()))  # type: ignore[arg-type]
    buffer = bytearray()
    for at in range(0, len(data), 5):
        buffer += data[at : at + 5]
        if cutter.cut(buffer):
            return


def _spdy(data: bytes) -> None:
    from sagong_kube.streams.spdy import Spdy

    spdy = Spdy()
    for at in range(0, len(data), 11):
        for _ in spdy.feed(data[at : at + 11]):
            spdy.answers()


def _protobuf(data: bytes) -> None:
    from sagong_kube.convert.protobuf import decode

    decode(b"k8s\0" + data, GroupVersionKind("apps", "v1", "Deployment"))


def _pod(media: str) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        from sagong_kube.schema.decoding import decode

        return decode(data, GroupVersionKind("", "v1", "Pod"), media=media)

    return read


def _tar(data: bytes) -> None:
    from sagong_image_overlay.tarstream import Bounds, TarStream

    chunks = (data[at : at + 1024] for at in range(0, len(data), 1024))
    stream = TarStream(chunks, whiteouts=True, bounds=Bounds(entries=1000, size=1 << 24))
    while (entry := stream.next()) is not None:
        if entry.stored:
            for _ in stream.pieces():
                pass
    stream.finish()


def _archive(data: bytes) -> None:
    """A whole archive, whatever it is compressed with, into records and out of them."""
    import os
    import tempfile

    from sagong_image_overlay.entry import Kind, RecordReader, checked_name
    from sagong_image_overlay.parser import parse
    from sagong_image_overlay.tarstream import Bounds

    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as target:
        source.write(data)
        source.seek(0)
        bounds = Bounds(entries=1000, size=1 << 24, ratio=100)
        parse(source.fileno(), target.fileno(), whiteouts=True, bounds=bounds)
        os.lseek(target.fileno(), 0, os.SEEK_SET)
        records = RecordReader(target.fileno())
        while (entry := records.next()).kind < Kind.END:
            assert checked_name(entry.name) == entry.name
            records.skip(entry.stored)


def _challenge(data: bytes) -> None:
    """What a registry says of its authorization."""
    from sagong_image_overlay.challenge import parse_challenges

    parse_challenges([data.decode("latin-1")])


def _image_document(data: bytes) -> None:
    """A config document of a build, and one to squash."""
    from sagong_image_overlay.configuration import documented_config, squashed_config

    squashed_config(
        msgspec.json.encode(documented_config(data, b"", ("l", "a", ""), ())), 1, "", ()
    )


def _names(data: bytes) -> None:
    """A question to the resolver of a network namespace, and the answers that echo it."""
    from sagong_network_bridge.question import answered, failed, question_of

    question = question_of(data)
    if question is not None:
        failed(question, 3)
        assert len(answered(question, 1, [b"\x7f\0\0\1"] * 100, 512)) <= 512


def _dns(data: bytes) -> None:
    """A question to the cluster's DNS service."""
    import asyncio

    from sagong_dns.resolver import Resolver
    from sagong_dns.zone import Zone

    asyncio.run(Resolver(Zone("cluster.local"), (), 5).resolve(data, limit=512))


def _dockerfile(data: bytes) -> None:
    """A Dockerfile, all its words expanded."""
    from sagong_builder.dockerfile import Expander, parse

    made = parse(data)
    expander = Expander({"x": "a b", "y": ""}, made.escape)
    for stage in made.stages:
        made.needed(stage, {s.number: s.base for s in made.stages})
        for instruction in stage.instructions:
            for word in instruction.words:
                expander.words(word)
            for heredoc in instruction.heredocs:
                expander.text(heredoc.content)


def _mount_flags(data: bytes) -> None:
    """What RUN --mount says."""
    from sagong.model.oci import Platform
    from sagong_builder.dockerfile import Expander, Instruction
    from sagong_builder.draft import Draft
    from sagong_builder.mounting import read_mounts

    text = data.decode("utf-8", "surrogateescape")
    run = Instruction(1, "RUN", "RUN", flags={"mount": (text,)})
    read_mounts(run, Expander({}), Draft.scratch(Platform(os="linux", architecture="amd64")))


def _buildkit(data: bytes) -> None:
    """The first byte chooses the message of BuildKit's, the rest is its body."""
    from sagong_builder.buildkit import messages, protobuf

    kinds = [kind for kind in vars(messages).values() if isinstance(kind, type)]
    kinds = [kind for kind in kinds if kind.__module__ == messages.__name__]
    if data:
        found = protobuf.decode(kinds[data[0] % len(kinds)], data[1:])
        protobuf.encode(found)


def _dockerignore(data: bytes) -> None:
    from sagong_builder.context.ignore import Ignore

    ignore = Ignore.read(data)
    for path in ("a", "a/b/c.txt", "x" * 200, "a/" * 40 + "b"):
        ignore.excludes(path)


def _context(data: bytes) -> None:
    """A context: decompressed, indexed, hashed."""
    import tempfile
    from pathlib import Path

    from sagong_builder.context import open_archive
    from sagong_builder.context.checksum import checksum

    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "source"
        source.write_bytes(data)
        archive = open_archive(source, Path(name) / "target", limit=1 << 24, entries=1000)
        checksum(archive, archive.tree.root)
        for path, _ in archive.tree.walk():
            with contextlib.suppress(SagongError):
                archive.tree.resolve(path)
        archive.close()


def _monitor(data: bytes) -> None:
    from sagong.shim.messages import MessageReader

    reader = MessageReader()
    for at in range(0, len(data), 9):
        for _ in reader.feed(data[at : at + 9]):
            pass


def _distribution(data: bytes) -> None:
    """What the registry reads of a request, one grammar after the other."""
    from sagong_registry import gate, grammar
    from sagong_registry.tokens import Tokens

    text = data.decode("utf-8", "surrogateescape")
    for named in (grammar.is_name, grammar.is_tag, grammar.is_digest):
        named(text)
    gate.scopes([text])
    Tokens(b"k" * 32).verify(text.encode("utf-8", "replace").decode(), 0.0)
    for read in (grammar.sent_span, grammar.page_limit):
        read(text)
    span = grammar.requested_span(text, 1000)
    assert span is None or 0 <= span.start < span.end <= 1000


def _pushed(data: bytes) -> None:
    from sagong_registry.documents import read

    facts = read(data, "")
    assert all(need.digest and need.size >= 0 for need in (*facts.blobs, *facts.manifests))


def _refused() -> type[Exception]:
    from sagong_registry.refusal import Refused

    return Refused


def _small_tar() -> bytes:
    """An archive of a directory, a file and links."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind in (
            ("a", tarfile.DIRTYPE), ("a/f", tarfile.REGTYPE), ("a/.wh.x", tarfile.REGTYPE),
            ("l", tarfile.SYMTYPE), ("h", tarfile.LNKTYPE), ("\u00e9" * 60, tarfile.REGTYPE),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "a/f"
            tar.addfile(info)
    return buffer.getvalue()


_TAR = _small_tar()
_REFUSAL = (InvalidArgument,)
_DESCRIBED = b'{"mediaType":"a/b","digest":"sha256:' + b"0" * 64 + b'","size":1}'
_POD = (
    b'{"apiVersion":"v1","kind":"Pod",'
    b'"spec":{"containers":[{"name":"a","ports":[{"containerPort":1}]}]}}'
)

_QUESTION = b"\x12\x34\1\0\0\1\0\0\0\0\0\0\3web\7default\0\0\1\0\1"

_ALL = [
    Target(
        "wire",
        _wire,
        _REFUSAL,
        (
            wire.encode([Envelope(1, Kind.CALL, 7, "a/1/b", 0, 0, "", wire.EMPTY)])[0],
            b"\xc1\xc1".join(
                wire.encode([Envelope(1, 2, 1, "", 0, 0, "", wire.pack_value("x" * 40_000))])
            ),
        ),
    ),
    Target("provider", receive, (), PROVIDER_SEEDS),
    Target("contracts", _contracts, (msgspec.MsgspecError,), (b"\0\0\xc0", b"\1\5\x81\xa1x\1")),
    Target(
        "manifest",
        lambda data: manifest.parse(data.decode(), where="fuzz"),
        (InvalidArgument, UnicodeDecodeError),
        (b'[plugin]\nname = "x"\nversion = "1"\nsummary = "s"\nclass = "a:B"\n',),
    ),
    Target("frames", _frame_reader, _REFUSAL, (pack(1, b"hello") + pack(18, b"\0\0\0\1"),)),
    Target("head", parse_head, (BadRequest,), (b"GET /a?b=c HTTP/1.1\r\nHost: x\r\nA: b",)),
    Target("chunks", _chunks, (BadRequest,), (b"5\r\nhello\r\n0\r\nA: b\r\n\r\n",)),
    Target("reference", _text(references.parse), _REFUSAL, (b"127.0.0.1:5000/a/b:c@sha256:00",)),
    Target("quantity", _text(quantity.parse), _REFUSAL, (b"1.5Gi", b"-100m", b"1e3")),
    Target("labels", _text(selectors.parse_labels), _REFUSAL, (b"a in (b,c),!d,e!=f",)),
    Target("fields", _text(selectors.parse_fields), _REFUSAL, (b"a=b,c!=d\\,",)),
    Target("platform", _text(lambda x: oci.parse_platform(x, "amd64")), _REFUSAL, (b"linux/a/v8",)),
    Target("spdy", _spdy, _REFUSAL, (b"\x80\x03\x00\x06\0\0\0\4\0\0\0\1",)),
    Target("protobuf", _protobuf, _REFUSAL, (b"\x0a\x0d\x0a\x07apps/v1\x12\x02ab\x12\x00",)),
    Target("pod-json", _pod("json"), _REFUSAL, (_POD,)),
    Target("pod-yaml", _pod("yaml"), _REFUSAL, (b"apiVersion: v1\nkind: Pod\nspec: {a: &a [*a]}",)),
    Target(
        "distribution",
        _distribution,
        (_refused(),),
        (b"bytes=5-9", b"0-9", b"repository:a/b:pull,push", b"library/busybox", b"e30.e30"),
    ),
    Target(
        "pushed-manifest",
        _pushed,
        (_refused(),),
        (
            b'{"schemaVersion":2,"config":' + _DESCRIBED + b',"layers":[' + _DESCRIBED + b"]}",
            b'{"schemaVersion":2,"manifests":[],"subject":' + _DESCRIBED + b"}",
        ),
    ),
    Target("names", _names, (), (_QUESTION,)),
    Target("dns", _dns, (), (_QUESTION, _QUESTION[:2] + b"\x81" + _QUESTION[3:])),
    Target(
        "dockerfile",
        _dockerfile,
        _REFUSAL,
        (
            b"# escape=`\nFROM a AS b\nRUN <<EOF `\n x\n$x\nEOF\nCOPY --from=b ['a', 'b'] c\n",
            b"FROM a\nENV a=${x:-${y:+\"b\"}} b='c'\nHEALTHCHECK --retries=1 CMD x ${x%%a*}\n",
        ),
    ),
    Target("mount-flags", _mount_flags, _REFUSAL, (b"type=cache,target=/a,mode=0700,id=x",)),
    Target("buildkit", _buildkit, _REFUSAL, (b"\x05\x0a\x01a\x22\x06\x0a\x01k\x12\x01v",)),
    *(Target(name, run, (SagongError,), seeds) for name, run, seeds in BUILDKIT),
    *(Target(*one) for one in CLUSTER),
    *(Target(*one) for one in ENGINE),
    Target("dockerignore", _dockerignore, _REFUSAL, (b"*\n!a/**/*.t?t\n[a-c]x\n#\n",)),
    Target("context", _context, (SagongError,), (b"a" + b"\0" * 511, b"\x1f\x8b\x08\0")),
    Target("monitor", _monitor, (ValueError,), (b"\0\0\0\x02{}",)),
    Target("tar", _tar, (SagongError,), (b"a" + b"\0" * 511, b"\0" * 1024)),
    Target("archive", _archive, (SagongError,), (_TAR, gzip.compress(_TAR), bz2.compress(_TAR))),
    Target(
        "challenge", _challenge, (), (b'Bearer realm="https://a/b",service=c, Basic realm="d"',)
    ),
    Target(
        "image-document",
        _image_document,
        (SagongError,),
        (b'{"history": [{"created_by": "a"}, {"empty_layer": true}], "config": {"Cmd": ["a"]}}',),
    ),
    *(
        Target(
            f"oci-{kind.__name__.lower()}",
            functools.partial(oci.decode, kind=kind, what="fuzz"),
            _REFUSAL,
            (b'{"schemaVersion":2,"layers":[]}',),
        )
        for kind in (oci.Manifest, oci.Index, oci.Config)
    ),
]
TARGETS = {target.name: target for target in _ALL}
