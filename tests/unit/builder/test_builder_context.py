"""Contexts: archives indexed without being unpacked, links that stay inside, patterns, checksums."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from sagong.errors import InvalidArgument, NotFound, ResourceExhausted
from sagong.model.patterns import translated
from sagong_builder.context import Entry, Kind, Tree, open_archive
from sagong_builder.context.archive import Archive, begins_archive, is_archive
from sagong_builder.context.checksum import checksum
from sagong_builder.context.ignore import Ignore
from sagong_builder.spool import room


def member(name: str, content: bytes = b"", **facts: object) -> tuple[tarfile.TarInfo, bytes]:
    """A tar entry."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in facts.items():
        setattr(info, key, value)
    return info, content


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """A tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def opened(directory: Path, raw: bytes, limit: int = 1 << 30, entries: int = 1000) -> Archive:
    """Bytes as an archive."""
    source = directory / "source"
    source.write_bytes(raw)
    return open_archive(source, directory / "target", limit=limit, entries=entries)


SAMPLE = packed(
    member("./a.txt", b"hello", mode=0o644),
    member("dir", type=tarfile.DIRTYPE, mode=0o755),
    member("dir/b.txt", b"b" * 2000, mode=0o600),
    member("link", type=tarfile.SYMTYPE, linkname="dir/b.txt"),
    member("up", type=tarfile.SYMTYPE, linkname="../../etc/passwd"),
    member("absolute", type=tarfile.SYMTYPE, linkname="/dir"),
    member("hard", type=tarfile.LNKTYPE, linkname="a.txt"),
)


@pytest.mark.parametrize(
    "pack",
    [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress],
)
def test_an_archive_is_read_however_it_is_compressed(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    raw = pack(SAMPLE)
    assert is_archive(raw[:512])
    archive = opened(tmp_path, raw)
    assert b"".join(archive.content(archive.tree.resolve("dir/b.txt")[1])) == b"b" * 2000
    archive.close()
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_archive_is_told_from_what_is_none(tmp_path: Path) -> None:
    contents = {
        gzip.compress(SAMPLE): True, gzip.compress(SAMPLE)[:-20]: True, SAMPLE[:700]: True,
        zstandard.ZstdCompressor().compress(SAMPLE): True, lzma.compress(SAMPLE): True,
        gzip.compress(b"text" * 1000): False, b"text": False, b"\x1f\x8bno": False,
        gzip.compress(gzip.compress(SAMPLE)): False,
    }  # fmt: skip
    for raw, begins in contents.items():
        (tmp_path / "f").write_bytes(raw)
        assert begins_archive(tmp_path / "f") is begins


def test_links_are_followed_inside_only(tmp_path: Path) -> None:
    tree = opened(tmp_path, SAMPLE).tree
    assert tree.resolve("link")[0] == "dir/b.txt"
    assert tree.resolve("/absolute/b.txt")[0] == "dir/b.txt"
    assert tree.resolve("../../a.txt")[0] == "a.txt"
    with pytest.raises(NotFound, match="stat up: file does not exist"):
        tree.resolve("up")


def test_a_hard_link_is_the_same_file(tmp_path: Path) -> None:
    tree = opened(tmp_path, SAMPLE).tree
    assert tree.get("hard") is tree.get("a.txt")


def test_names_that_lead_out_are_names_inside(tmp_path: Path) -> None:
    raw = packed(
        member("../a", b"A"), member("/b/../../c", b"C"),
        member("../h", type=tarfile.LNKTYPE, linkname="../a"),
    )  # fmt: skip
    archive = opened(tmp_path, raw)
    assert [path for path, _ in archive.tree.walk()] == ["a", "c", "h"]
    assert archive.tree.get("h") is archive.tree.get("a")


def test_links_that_go_round_end() -> None:
    tree = Tree()
    tree.put("a", Entry(Kind.SYMLINK, link="b"))
    tree.put("b", Entry(Kind.SYMLINK, link="a"))
    with pytest.raises(InvalidArgument, match="too many levels of symbolic links"):
        tree.resolve("a")


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (packed(member("a/" * 300 + "x")), "more than 256 parts"),
        (packed(member("x", b"y" * 5000))[:2000], "ends within a file"),
        (gzip.compress(SAMPLE)[:-20], "the gzip archive is damaged"),
        (zstandard.ZstdCompressor().compress(SAMPLE)[:-1], "the zstd archive is damaged"),
        (b"no tar at all" * 100, "no tar, or is damaged"),
    ],
)
def test_a_bad_archive_is_refused(tmp_path: Path, raw: bytes, said: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        opened(tmp_path, raw)
    assert said in refusal.value.message
    assert not (tmp_path / "target").exists()


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResourceExhausted, match="unpacks to more than 1000 bytes"):
        opened(tmp_path, gzip.compress(SAMPLE), limit=1000)
    with pytest.raises(ResourceExhausted, match="more than 3 entries"):
        opened(tmp_path, SAMPLE, entries=3)


def test_padding_that_a_writer_left_out_is_no_damage(tmp_path: Path) -> None:
    raw = packed(member("x", b"y" * 700))
    archive = opened(tmp_path, raw[: 512 + 700])
    assert b"".join(archive.content(archive.tree.resolve("x")[1])) == b"y" * 700


def test_checksums_know_modes_owners_and_contents_but_no_times(tmp_path: Path) -> None:
    def total(**facts: object) -> str:
        archive = opened(tmp_path, packed(member("f", b"x", **{"mode": 0o644, **facts})))
        return checksum(archive, archive.tree.root)

    assert total(mtime=1) == total(mtime=2)
    assert len({total(), total(mode=0o755), total(uid=7), total(gid=7)}) == 4


RULES = """
# everything, but the source
*
!src
src/**/*.tmp
!src/keep/*.tmp
**/secret
"""


@pytest.mark.parametrize(
    ("path", "out"),
    [
        ("README", True),
        ("src", False),
        ("src/a.c", False),
        ("src/x.tmp", True),
        ("src/deep/er/x.tmp", True),
        ("src/keep/x.tmp", False),
        ("src/a/secret", True),
        ("src/a/secret/below", True),
    ],
)
def test_the_last_rule_that_fits_decides(path: str, out: bool) -> None:
    assert Ignore.read(RULES.encode()).excludes(path) is out


@pytest.mark.parametrize(
    ("pattern", "left_out", "kept"),
    [
        ("**.log", ("a.log", "d/e.log"), ("a.logs",)),
        ("**.lo?", ("d/.log",), ("a.log", "d/a.log")),
        ("a**b", ("ab", "ax/b"), ("axb",)),
        ("a**", ("a", "ab/c"), ("ba",)),
        ("**/a/**/**/b", ("a/b", "x/a/y/z/b"), ("a/xb",)),
        ("***", ("a", "b/c"), ()),
        ("/a /", ("a",), ("a ",)),
    ],
)
def test_two_stars_are_whole_directories(
    pattern: str, left_out: tuple[str, ...], kept: tuple[str, ...]
) -> None:
    ignore = Ignore.read(pattern.encode())
    assert [path for path in (*left_out, *kept) if ignore.excludes(path)] == list(left_out)


def test_an_excluded_directory_stays_for_what_is_taken_in_below(tmp_path: Path) -> None:
    archive = opened(tmp_path, SAMPLE)
    Ignore.read(b"*\n!dir/b.txt\n").apply(archive.tree)
    assert [path for path, _ in archive.tree.walk()] == ["dir", "dir/b.txt"]


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("*.txt", "a.txt", True),
        ("*.txt", "d/a.txt", False),
        ("a?c", "a/c", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("a\\*", "a*", True),
        ("a\\*", "ab", False),
        ("d/*/f*.c", "d/e/foo.c", True),
    ],
)
def test_patterns_of_sources(pattern: str, path: str, fits: bool) -> None:
    assert (translated(pattern).fullmatch(path) is not None) is fits


@pytest.mark.parametrize("pattern", ["[", "[a", "a\\", "[b-"])
def test_a_pattern_that_is_none_is_said(pattern: str) -> None:
    with pytest.raises(InvalidArgument, match="syntax error in pattern"):
        translated(pattern)


def test_a_strangers_pattern_can_not_make_the_search_long() -> None:
    # The wrong way takes years.
    assert translated("*a" * 30 + "b").fullmatch("a" * 4000) is None
    rule = Ignore.read(b"**/x*a*a*a*a*a*a*b")
    assert not rule.excludes("/".join(["x" + "a" * 200] * 20))


def test_a_full_disk_is_told_as_that() -> None:
    with pytest.raises(ResourceExhausted, match="No space left on device"), room():
        raise OSError(errno.ENOSPC, "write")
    with pytest.raises(FileNotFoundError), room():
        raise FileNotFoundError(errno.ENOENT, "a defect stays one")
