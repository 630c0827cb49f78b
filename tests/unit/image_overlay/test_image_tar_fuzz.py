"""The archive parser on headers that a fuzzer has bent: records that hold, or an error of ours."""

from __future__ import annotations

import io
import tarfile
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagong.errors import InvalidArgument, SagongError
from sagong_image_overlay.entry import Entry, Kind, RecordReader
from sagong_image_overlay.parser import parse
from sagong_image_overlay.tarstream import Bounds, TarStream

BLOCK = 512
ENDING = bytes(2 * BLOCK)


def header(name: bytes, size: int = 0, kind: bytes = b"0", *, link: bytes = b"") -> bytes:
    """A ustar header."""
    head = name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + b"%011o\0" % size
    head += (
        b"00000000000\0" + b" " * 8 + kind + link.ljust(100, b"\0") + b"ustar\x0000" + bytes(247)
    )
    return summed(head)


def summed(raw: bytes) -> bytes:
    """The header with a checksum that is right."""
    blank = raw[:148] + b" " * 8 + raw[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


def padded(data: bytes) -> bytes:
    """Up to the next block."""
    return data + bytes(-len(data) % BLOCK)


def records(*pairs: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    """A PAX header."""
    body = b""
    for key, value in pairs:
        rest = len(key) + len(value) + 3
        length = rest + len(str(rest))
        length = rest + len(str(length))
        body += b"%d %s=%s\n" % (length, key, value)
    return header(b"pax", len(body), kind) + padded(body)


def entries(raw: bytes) -> list[tuple[Entry, bytes]]:
    """What the parser reads."""
    reader = TarStream(iter([raw]), whiteouts=True, bounds=Bounds())
    found = []
    while (entry := reader.next()) is not None:
        found.append((entry, b"".join(bytes(piece) for piece in reader.pieces())))
    return found


def test_global_records_say_nothing_of_entries() -> None:
    """Docker and containerd ignore them; one that moved every file would be seen by neither."""
    raw = records((b"path", b"etc/shadow"), (b"uid", b"5"), kind=b"g") + header(b"f") + ENDING
    ((entry, _),) = entries(raw)
    assert (entry.name, entry.uid) == (b"f", 0)


def test_of_several_names_the_same_one_counts_as_for_docker() -> None:
    long = header(b"long", 5, b"L") + padded(b"gnu\0\0")
    pax = records((b"path", b"pax"))
    for raw, name in (
        (long + pax + header(b"f"), b"gnu"),
        (pax + long + header(b"f"), b"gnu"),
        (records((b"path", b"first"), (b"uid", b"7")) + pax + header(b"f"), b"pax"),
        (pax + records((b"comment", b"x"), kind=b"g") + header(b"f"), b"f"),
    ):
        ((entry, _),) = entries(raw + ENDING)
        assert (entry.name, entry.uid) == (name, 0)


def test_empty_records_take_nothing_away() -> None:
    pairs = ((b"path", b""), (b"mtime", b""), (b"uid", b""), (b"SCHILY.xattr.user.empty", b""))
    ((entry, _),) = entries(records(*pairs) + header(b"f") + ENDING)
    assert entry.name == b"f" and entry.xattrs == ((b"user.empty", b""),)


def test_only_files_have_data() -> None:
    """What follows a directory, a link or a device that tells a size is the next header."""
    for kind in (b"1", b"2", b"3", b"4", b"5", b"6"):
        raw = header(b"odd", BLOCK, kind, link=b"x") + header(b"next") + ENDING
        assert [entry.name for entry, _ in entries(raw)] == [b"odd", b"next"]


def test_a_slash_makes_a_directory_only_of_old_headers() -> None:
    ((old, _),) = entries(header(b"a/", kind=b"\0") + ENDING)
    ((new, data),) = entries(header(b"a/", 4) + padded(b"text") + ENDING)
    assert (old.kind, new.kind, data) == (Kind.DIRECTORY, Kind.FILE, b"text")


def field(raw: bytes, at: int, value: bytes) -> bytes:
    """A header with a field as it is given."""
    return summed(raw[:at] + value + raw[at + len(value) :])


SPARSE = ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"s"))
ODD: dict[str, bytes] = {
    "an owner that means as it is": field(header(b"f"), 108, b"\x80\0\0\0\xff\xff\xff\xff"),
    "an owner beyond 32 bits": records((b"uid", b"4294967296")) + header(b"f"),
    "a negative owner": records((b"gid", b"-1")) + header(b"f"),
    "an owner with an underscore": records((b"uid", b"1_0")) + header(b"f"),
    "a size with a prefix": field(header(b"f"), 124, b"0o000000010\0"),
    "a size with a sign": field(header(b"f"), 124, b"-0000000010\0"),
    "a time of negative nanoseconds": records((b"mtime", b"1.-5")) + header(b"f"),
    "a name with a zero": records((b"path", b"a\0b")) + header(b"f"),
    "a link with a zero": records((b"linkpath", b"a\0b")) + header(b"f", kind=b"2"),
    "a link to nothing": header(b"f", kind=b"2"),
    "a hard link out of it": header(b"f", kind=b"1", link=b"a/../../b"),
    "a sparse file below zero": records((b"GNU.sparse.realsize", b"-1"), *SPARSE)
    + header(b"f", BLOCK)
    + padded(b"0\n"),
    "a sparse map that overlaps": records((b"GNU.sparse.realsize", b"9"), *SPARSE)
    + header(b"f", BLOCK + 4)
    + padded(b"2\n0\n2\n1\n2\n")
    + padded(b"text"),
    "a sparse map below zero": records((b"GNU.sparse.realsize", b"9"), *SPARSE)
    + header(b"f", BLOCK)
    + padded(b"-2\n"),
    "a sparse map without end": records((b"GNU.sparse.realsize", b"9"), *SPARSE)
    + header(b"f", BLOCK)
    + b"9" * BLOCK,
    "records that overlap": header(b"pax", 20, b"x") + padded(b"19 path=abc\n9 uid=5\n"),
    "a label that is too long": header(b"label", 1 << 30, b"V"),
    "a path without end": records((b"path", b"d/" * 2100)) + header(b"f"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_headers_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgument):
        entries(ODD[name] + ENDING)


def by_tarfile() -> bytes:
    """What an honest writer makes of long names, links and attributes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind in (("d/" * 60 + "f", b"0"), ("l", b"2"), ("h", b"1"), ("c", b"3")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mtime = kind, "t" * 130, 1.5
            info.pax_headers = {"SCHILY.xattr.user.a": "b"}
            archive.addfile(info)
    return buffer.getvalue()


def old_sparse() -> bytes:
    """GNU's own header of a sparse file: two pieces of four bytes."""
    raw = bytearray(header(b"s", 8, b"S"))
    raw[257:265] = b"ustar  \0"
    raw[386:434] = b"".join(b"%011o\0" % number for number in (0, 4, 1024, 4))
    raw[483:495] = b"%011o\0" % 2048
    return summed(bytes(raw)) + padded(b"textmore")


SEEDS = (
    by_tarfile(),
    old_sparse() + ENDING,
    records((b"GNU.sparse.realsize", b"4096"), *SPARSE)
    + header(b"f", BLOCK + 4)
    + padded(b"1\n1000\n4\n")
    + padded(b"text")
    + ENDING,
    records((b"GNU.sparse.size", b"99"), (b"GNU.sparse.map", b"0,4,90,0"), (b"mtime", b"1.5"))
    + header(b"f", 4)
    + padded(b"text")
    + ENDING,
    header(b"n", 200, b"L") + padded(b"n" * 200) + header(b"a/.wh.b") + ENDING,
)
TOKENS = (
    b"\xff",
    b"\x80",
    b"0",
    b"9",
    b"-",
    b"/",
    b"..",
    b"\0",
    b"=",
    b"\n",
    b",",
    b".wh.",
    b"S",
    b"x",
)


@st.composite
def bent(draw: st.DrawFn) -> bytes:
    """An archive with some bytes changed, whose checksums are right all the same."""
    raw = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        token = draw(st.sampled_from(TOKENS))
        at = draw(st.integers(0, len(raw) - 1 - BLOCK))
        raw[at : at + len(token)] = token
    for at in range(0, len(raw) - BLOCK, BLOCK):
        if raw[at + 257 : at + 262] == b"ustar":
            raw[at : at + BLOCK] = summed(bytes(raw[at : at + BLOCK]))
    return bytes(raw)


@settings(max_examples=400, deadline=None)
@given(bent())
def test_bent_archives_end_with_a_digest_or_an_error(raw: bytes) -> None:
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as target:
        source.write(raw)
        source.seek(0)
        bounds = Bounds(entries=1000, size=1 << 20)
        parse(source.fileno(), target.fileno(), whiteouts=True, bounds=bounds)
        target.seek(0)
        told = RecordReader(target.fileno())
        while (entry := told.next()).kind < Kind.END:
            assert not entry.name.startswith(b"/") and b".." not in entry.name.split(b"/")
            assert 0 <= entry.uid < (1 << 32) - 1 and 0 <= entry.size <= 1 << 20
            try:
                told.skip(entry.stored)
            except SagongError:
                return  # an error in the middle of a file goes by another pipe
        assert entry.kind in (Kind.END, Kind.ERROR)
