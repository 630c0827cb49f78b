"""The archive parser against Python's tarfile and GNU tar, and against archives that lie."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from sagong.errors import InvalidArgument, ResourceExhausted, SagongError
from sagong_image_overlay.compression import Decompressor, compression_of
from sagong_image_overlay.entry import Entry, Kind, RecordReader, checked_name, encode
from sagong_image_overlay.parser import parse
from sagong_image_overlay.tarout import Member, encode_header
from sagong_image_overlay.tarstream import Bounds, TarStream


def stream(raw: bytes, *, whiteouts: bool = True, bounds: Bounds | None = None) -> TarStream:
    """The parser on bytes, in odd pieces."""
    pieces = (raw[at : at + 700] for at in range(0, len(raw), 700))
    return TarStream(pieces, whiteouts=whiteouts, bounds=bounds or Bounds())


def entries(raw: bytes, *, whiteouts: bool = True) -> list[tuple[Entry, bytes]]:
    """All entries with content."""
    reader = stream(raw, whiteouts=whiteouts)
    found = []
    while (entry := reader.next()) is not None:
        found.append((entry, b"".join(bytes(piece) for piece in reader.pieces())))
    assert reader.finish() == "sha256:" + hashlib.sha256(raw).hexdigest()
    return found


def tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar by Python."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def info(name: str, kind: bytes = tarfile.REGTYPE, **facts: object) -> tarfile.TarInfo:
    """A header."""
    made = tarfile.TarInfo(name)
    made.type = kind
    for key, value in facts.items():
        setattr(made, key, value)
    return made


PARTS = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]),
    min_size=1,
    max_size=40,
).filter(lambda part: part not in (".", "..") and len(part.encode()) < 200)
NAMES = st.lists(PARTS, min_size=1, max_size=6).map("/".join)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            NAMES,
            st.binary(max_size=3000),
            st.integers(0, 0o7777),
            st.integers(0, 2**31),
            st.integers(0, 2**33),
        ),
        max_size=8,
    ),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_reads_what_tarfile_writes(
    files: list[tuple[str, bytes, int, int, int]], form: int
) -> None:
    raw = tar(
        *((info(n, mode=mode, uid=uid, mtime=when), data) for n, data, mode, uid, when in files),
        form=form,
    )
    found = entries(raw, whiteouts=False)
    assert [(e.name.decode(), data, e.mode, e.uid, e.seconds) for e, data in found] == files


@settings(max_examples=60, deadline=None)
@given(
    NAMES,
    st.integers(0, 2**38),
    st.integers(0, 2**32 - 2),
    st.integers(-(2**32), 2**33),
    st.dictionaries(st.sampled_from([b"user.a", b"security.capability"]), st.binary(max_size=50)),
)
def test_tarfile_reads_our_headers(
    name: str, size: int, uid: int, when: int, xattrs: dict[bytes, bytes]
) -> None:
    member = Member(name.encode(), 0o100644, uid, uid, when, size)
    member.xattrs = list(xattrs.items())
    raw = encode_header(member)
    with tarfile.open(fileobj=io.BytesIO(raw + bytes(1024))) as archive:
        found = archive.next()
    assert found is not None
    assert (found.name, found.size, found.uid, found.mtime) == (name, size, uid, when)
    ours = stream(raw).next() if not name.rpartition("/")[2].startswith(".wh.") else None
    if ours is not None:
        assert (ours.name.decode(), ours.size, ours.uid) == (name, size, uid)
        assert dict(ours.xattrs) == xattrs


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=512, max_size=4096), st.integers(0, 511), st.integers(0, 255))
def test_damage_is_an_error_of_ours(raw: bytes, at: int, byte: int) -> None:
    good = bytearray(tar((info("a/b", mtime=5), b"text" * 200), (info("c"), b"")))
    good[at] = byte
    for data in (raw, bytes(good), bytes(good[: at + 512])):
        try:
            entries(data)
        except SagongError:
            continue


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_names_never_lead_out(raw: bytes) -> None:
    try:
        name = checked_name(raw)
    except InvalidArgument:
        return
    assert not name.startswith(b"/") and b"\0" not in name
    assert not {b"", b".", b".."} & set(name.split(b"/")) or name == b""


def test_gnu_tar_with_long_names_and_links(tmp_path: Path) -> None:
    deep = tmp_path / "tree" / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    (deep / "file").write_text("deep")
    os.symlink("t" * 300, deep / "link")
    os.link(deep / "file", deep / "hard")
    for form in ("gnu", "pax", "oldgnu"):
        command = ["tar", "-cf", "-", f"--format={form}", "-C", str(tmp_path / "tree"), "."]
        raw = subprocess.run(command, capture_output=True, check=True).stdout
        found = {entry.name: (entry, data) for entry, data in entries(raw)}
        base = b"d" * 120 + b"/" + b"e" * 120
        pair = [found[base + b"/file"], found[base + b"/hard"]]
        assert {entry.kind for entry, _ in pair} == {Kind.FILE, Kind.HARDLINK}
        assert found[base + b"/link"][0].link == b"t" * 300
        assert b"" in found  # the root itself


@pytest.mark.parametrize(
    "form", ["gnu", "posix --sparse-version=0.0", "posix --sparse-version=0.1"]
)
def test_sparse_files_of_gnu_tar(tmp_path: Path, form: str) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        for number in range(60):
            file.seek(number << 18)
            file.write(b"%02d" % number * 100)
        file.truncate(17 << 20)
    command = ["tar", "-cSf", "-", "-C", str(tmp_path), *f"--format={form}".split(), "sparse"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    ((entry, data),) = entries(raw)
    assert entry.name == b"sparse" and entry.size == 17 << 20
    assert entry.segments is not None
    whole, at = bytearray(entry.size), 0
    for offset, length in entry.segments:
        whole[offset : offset + length] = data[at : at + length]
        at += length
    assert bytes(whole) == (tmp_path / "sparse").read_bytes()


@pytest.mark.parametrize("name", ["../up", "a/../../up", "..", "a/..", "a/../b", "y" * 300])
def test_paths_that_lead_out_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgument):
        entries(tar((info(name), b"")))
    with pytest.raises(InvalidArgument):
        entries(tar((info("ok", tarfile.LNKTYPE, linkname=name), b"")))


def test_whiteouts_are_kinds_of_their_own() -> None:
    names = ["a/.wh.b", "a/.wh..wh..opq", ".wh.c", "a/.wh..wh.plnk"]
    raw = tar(*((info(name), b"") for name in names))
    kinds = [(entry.kind, entry.name) for entry, _ in entries(raw)]
    assert kinds == [
        (Kind.WHITEOUT, b"a/b"),
        (Kind.OPAQUE, b"a"),
        (Kind.WHITEOUT, b"c"),
        (Kind.PROGRESS, b""),
    ]
    for name in ("a/.wh.", "a/.wh..", "a/.wh..."):
        with pytest.raises(InvalidArgument):
            entries(tar((info(name), b"")))


def test_bounds_hold() -> None:
    raw = tar(*((info(f"f{number}"), b"x" * 100) for number in range(20)))
    for bounds in (Bounds(entries=19), Bounds(size=1999)):
        reader = stream(raw, bounds=bounds)
        with pytest.raises(ResourceExhausted):
            while reader.next() is not None:
                reader.content()


def test_impossible_devices_and_sizes_are_refused() -> None:
    with pytest.raises(InvalidArgument):
        entries(tar((info("dev", tarfile.CHRTYPE, devmajor=1 << 13, devminor=0), b"")))
    header = bytearray(info("big").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 12
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(InvalidArgument):
        entries(bytes(header) + bytes(1024))


def packed(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """The same bytes by every codec, and in two streams one after the other."""
    half = len(raw) // 2
    for name, pack in (
        ("gzip", gzip.compress),
        ("bzip2", bz2.compress),
        ("xz", lzma.compress),
        ("zstd", zstandard.ZstdCompressor().compress),
    ):
        yield name, pack(raw)
        yield name, pack(raw[:half]) + pack(raw[half:])
    yield "", raw


def decompressed(raw: bytes) -> bytes:
    """Through a file, as the parser has it."""
    with tempfile.TemporaryFile() as file:
        file.write(raw)
        file.seek(0)
        return b"".join(Decompressor(file.fileno()))


def test_every_compression_is_read() -> None:
    raw = os.urandom(300_000) + bytes(3_000_000)
    for name, data in packed(raw):
        assert compression_of(data[:8]) == name
        assert decompressed(data) == raw, name


def test_cut_and_damaged_data_are_errors() -> None:
    raw = os.urandom(200_000)
    for name, data in packed(raw):
        if not name:
            continue
        for cut in (1, 5, 20, 50, 100, len(data) // 3):
            with pytest.raises(InvalidArgument):
                decompressed(data[:-cut])
        if name == "zstd":
            continue  # it has no checksum by itself; the blob's digest tells
        damaged = bytearray(data)
        damaged[len(data) // 2] ^= 0xFF
        with pytest.raises(InvalidArgument):
            decompressed(bytes(damaged))


def test_gzip_padding_is_no_error() -> None:
    assert decompressed(gzip.compress(b"text") + bytes(512)) == b"text"


ENTRIES = st.builds(
    Entry,
    st.integers(0, 8),
    st.binary(max_size=100),
    st.binary(max_size=100),
    st.integers(0, 0o7777),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(-(2**33), 2**34),
    st.integers(0, 999_999_999),
    st.integers(0, 2**62),
    st.integers(0, 4095),
    st.integers(0, 2**20 - 1),
    st.lists(st.tuples(st.binary(min_size=1, max_size=20), st.binary(max_size=99))).map(tuple),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(ENTRIES, max_size=10))
def test_records_come_out_as_they_went_in(items: list[Entry]) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"".join(map(encode, items)))
        file.seek(0)
        reader = RecordReader(file.fileno())
        assert [reader.next() for _ in items] == items


def test_the_parser_ends_with_a_digest_or_an_error(tmp_path: Path) -> None:
    good = tar((info("file"), b"content"))
    for raw, kind in ((good, Kind.END), (b"rubbish" * 200, Kind.ERROR), (b"", Kind.ERROR)):
        source, target = tmp_path / "in", tmp_path / "out"
        source.write_bytes(raw)
        with source.open("rb") as reading, target.open("w+b") as writing:
            parse(reading.fileno(), writing.fileno(), whiteouts=True, bounds=Bounds())
            writing.seek(0)
            records = RecordReader(writing.fileno())
            while (entry := records.next()).kind < Kind.END:
                records.skip(entry.stored)
            assert entry.kind == kind
