"""Log drivers: what is written, how it rotates, and that it can be read back."""

from __future__ import annotations

import gzip
import json
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.small_disk import mounted, small_disk

from sagong import logfiles
from sagong.shim.logs import LogWriter, Piece, encoder, open_log
from sagong.shim.replay import Replay

NOW = 1_600_000_000_123_456_789


def test_json_entry_is_dockers() -> None:
    """Key order, escapes of < > & and control characters, nine decimals."""
    line = encoder("json-file")(Piece(1, b'a\t<b> & "c" \\ \xe2\x80\xa8', True), NOW)
    assert line == (
        b'{"log":"a\\u0009\\u003cb\\u003e \\u0026 \\"c\\" \\\\ \\u2028\\n","stream":"stdout",'
        b'"time":"2020-09-13T12:26:40.123456789Z"}\n'
    )


def test_broken_text_is_replaced() -> None:
    """JSON can't hold bytes that are no UTF-8."""
    entry = json.loads(encoder("json-file")(Piece(2, b"a\xffb", False), NOW))
    assert entry["log"] == "a\ufffdb"
    assert entry["stream"] == "stderr"


def test_attributes_are_sorted() -> None:
    """With the tag among them."""
    entry = json.loads(
        encoder("json-file", (("z", "1"), ("a", "2")), "name")(Piece(1, b"", True), 0)
    )
    assert list(entry["attrs"]) == ["a", "tag", "z"]


@pytest.mark.parametrize("driver", ["json-file", "cri"])
@settings(deadline=None)
@given(
    texts=st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"")), min_size=1),
    attributes=st.sampled_from([(), (("a", "<b>"),)]),
)
def test_lines_at_once_are_the_same_as_one_by_one(
    driver: str, texts: list[bytes], attributes: tuple[tuple[str, str], ...]
) -> None:
    """Whatever stands in them."""
    encode = encoder(driver, attributes)
    block = b"".join(text + b"\n" for text in texts)
    single = [encode(Piece(2, text, True), NOW) for text in texts]
    assert encode.lines(2, block, NOW) == b"".join(single)


def test_cri_entry() -> None:
    """Whole lines are F, parts are P."""
    encode = encoder("cri")
    assert encode(Piece(1, b"x y", True), NOW) == b"2020-09-13T12:26:40.123456789Z stdout F x y\n"
    assert b" stderr P " in encode(Piece(2, b"x", False), NOW)


def test_unknown_driver_names_the_known() -> None:
    """So that a typing error is found."""
    with pytest.raises(ValueError, match="json-file, cri, local, none"):
        encoder("syslog")


def test_none_keeps_no_file(tmp_path: Path) -> None:
    """Nor does a driver without a path."""
    assert open_log({"driver": "none", "path": str(tmp_path / "x")}) is None
    assert open_log({"driver": "cri", "path": ""}) is None


@pytest.mark.parametrize("driver", ["json-file", "cri", "local"])
@settings(deadline=None)
@given(
    chunks=st.lists(
        st.tuples(st.sampled_from([1, 2]), st.text(st.characters(codec="utf-8"), max_size=80)),
        max_size=12,
    )
)
def test_what_is_written_is_read_back(
    driver: str, chunks: list[tuple[int, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Each stream's bytes, whatever the cuts; what has no newline is still told."""
    path = tmp_path_factory.mktemp("log") / "c.log"
    writer = LogWriter(str(path), encoder(driver), max_size=0, max_files=1)
    wanted = {1: b"", 2: b""}
    for stream, text in chunks:
        wanted[stream] += text.encode()
        writer.write(stream, text.encode())
    read = {1: b"", 2: b""}
    replay = Replay(driver, str(path), "")
    for stream, data in replay:
        read[stream] += data
    replay.close()
    for stream in (1, 2):
        assert read[stream] + writer.partial(stream) == wanted[stream]
    writer.finish()


def test_long_lines_are_cut(tmp_path: Path) -> None:
    """Above 16 KiB, as Docker and containerd do."""
    path = tmp_path / "c.log"
    writer = LogWriter(str(path), encoder("cri"), max_size=0, max_files=1)
    for _ in range(5):
        writer.write(1, b"x" * 8192)
    writer.write(1, b"end\n")
    writer.finish()
    marks = [
        (line.split(b" ")[2], len(line.split(b" ", 3)[3]))
        for line in path.read_bytes().splitlines()
    ]
    assert marks == [(b"P", 16384), (b"P", 16384), (b"F", 8195)]


def test_rotation_keeps_sizes_and_counts(tmp_path: Path) -> None:
    """The newest lines are in the newest file; one file alone is emptied."""
    path = tmp_path / "c.log"
    writer = LogWriter(str(path), encoder("cri"), max_size=1000, max_files=2)
    for number in range(100):
        writer.write(1, b"line %d\n" % number)
    writer.finish()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.log", "c.log.1"]
    assert all(p.stat().st_size <= 1000 for p in tmp_path.iterdir())
    assert path.read_bytes().splitlines()[-1].endswith(b"line 99")
    single = tmp_path / "d.log"
    writer = LogWriter(str(single), encoder("cri"), max_size=200, max_files=1)
    for number in range(50):
        writer.write(1, b"line %d\n" % number)
    writer.finish()
    assert single.stat().st_size <= 200
    assert not (tmp_path / "d.log.1").exists()


def test_replay_goes_over_rotated_files(tmp_path: Path) -> None:
    """From the oldest on, and on into a file that came while it was reading."""
    path = tmp_path / "c.log"
    writer = LogWriter(str(path), encoder("cri"), max_size=500, max_files=50)
    for number in range(20):
        writer.write(1, b"%d\n" % number)
    replay = Replay("cri", str(path), "")
    first = replay.next()
    assert first is not None
    for number in range(20, 40):
        writer.write(1, b"%d\n" % number)
    rest = [data for _, data in replay]
    read = b"".join([data for _, data in first] + rest).split()
    assert [int(word) for word in read][:20] == list(range(20))
    assert int(read[-1]) == 39
    replay.close()
    writer.finish()


@pytest.mark.parametrize("driver", ["json-file", "cri", "local"])
def test_what_was_rotated_is_packed_and_read_back(driver: str, tmp_path: Path) -> None:
    """As gzip; not a line is lost, whoever is faster."""
    path = tmp_path / "c.log"
    encode = encoder(driver)
    writer = LogWriter(str(path), encode, max_size=1000, max_files=50, compress=True)
    for number in range(200):
        writer.write(1, b"line %d\n" % number)
    limit = time.monotonic() + 60
    while [p for p in tmp_path.iterdir() if p.suffix not in (".gz", ".log")]:
        assert time.monotonic() < limit, list(tmp_path.iterdir())
        time.sleep(0.01)
    assert len(list(tmp_path.glob("c.log.*.gz"))) > 5
    assert gzip.decompress((tmp_path / "c.log.1.gz").read_bytes()).count(b"line") > 5
    replay = Replay(driver, str(path), "")
    read = b"".join(data for _, data in replay)
    replay.close()
    assert read == b"".join(b"line %d\n" % number for number in range(200))
    writer.finish()
    logfiles.remove(str(path), 50, packed=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", range(4))
def test_a_log_is_whole_in_the_midst_of_a_rotation(missing: int, tmp_path: Path) -> None:
    """Who read it between two moves of its files was shown the newer ones alone."""
    path = tmp_path / "c.log"
    names = [path.name, *(f"{path.name}.{number}" for number in range(1, 4))]
    del names[missing]
    for name in names:
        (tmp_path / name).write_text(name)
    files = logfiles.open_files(str(path))
    read = [file.read(100).decode() for file in files]
    for file in files:
        file.close()
    assert read == names[::-1]


def test_a_packed_file_is_the_file_that_it_was(tmp_path: Path) -> None:
    """Readers know where they stand by the inode, and an offset before it was packed."""
    old, path = tmp_path / "c.log.1", tmp_path / "c.log"
    old.write_bytes(b"0123456789" * 100)
    path.write_bytes(b"new")
    inode = old.stat().st_ino
    logfiles.pack(str(path), 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.log", "c.log.1.gz"]
    packed, present = logfiles.open_files(str(path))
    assert (packed.inode, present.inode) == (inode, path.stat().st_ino)
    packed.seek(995)
    assert (packed.read(100), packed.read(100)) == (b"56789", b"")
    packed.close()
    present.close()


def test_replay_is_of_one_run(tmp_path: Path) -> None:
    """Entries before the run's start are left out."""
    path = tmp_path / "c.log"
    path.write_bytes(
        b"2020-01-01T00:00:00.000000000Z stdout F old\n2021-01-01T00:00:00.000000000Z stdout F new\n"
    )
    replay = Replay("cri", str(path), "2020-06-01T00:00:00.000000000Z")
    assert list(replay) == [(1, b"new\n")]
    replay.close()


def test_full_disk_loses_lines_only() -> None:
    """The container must not stop for its log."""
    writer = LogWriter("/dev/full", encoder("cri"), max_size=0, max_files=1)
    writer.write(1, b"line\n")
    assert writer.lost > 0
    writer.finish()


@pytest.mark.root
@pytest.mark.parametrize("driver", ["json-file", "cri", "local"])
def test_a_disk_that_gets_full_leaves_no_half_of_a_line(driver: str, tmp_path: Path) -> None:
    """What is written after it has room again is read, as is what was written before."""
    with small_disk(tmp_path, "64k"):
        path = tmp_path / "c.log"
        writer = LogWriter(str(path), encoder(driver), max_size=0, max_files=1)
        writer.write(1, b"before\n")
        filler = tmp_path / "filler"
        filler.write_bytes(bytes(40 << 10))
        while not writer.lost:
            writer.write(1, b"x" * 900 + b"\n" + b"y" * 1500 + b"\n")
        filler.unlink()
        writer.write(1, b"after\n")
        writer.finish()
        replay = Replay(driver, str(path), "")
        lines = b"".join(data for _, data in replay).split(b"\n")
        replay.close()
    assert (lines[0], lines[-2], lines[-1]) == (b"before", b"after", b"")
    assert {line[:1] + b"%d" % len(line) for line in lines[1:-2]} <= {b"x900", b"y1500"}


@pytest.mark.root
def test_where_no_file_can_be_made_a_log_goes_on_in_the_one_it_has(tmp_path: Path) -> None:
    """Its monitor ended of it, with the output of all its containers."""
    with mounted(tmp_path, "-t", "tmpfs", "-o", "nr_inodes=3", "small"):
        path, filler = tmp_path / "c.log", tmp_path / "filler"
        writer = LogWriter(str(path), encoder("cri"), max_size=200, max_files=3)
        filler.touch()
        for number in range(20):
            writer.write(1, b"%d\n" % number)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["c.log", "filler"]
        filler.unlink()
        writer.write(1, b"rotated\n")
        writer.finish()
        replay = Replay("cri", str(path), "")
        read = b"".join(data for _, data in replay).split()
        replay.close()
        assert read == [*(b"%d" % number for number in range(20)), b"rotated"]
        assert path.read_bytes().endswith(b"rotated\n")
        assert path.stat().st_size < 200


@pytest.mark.parametrize("files", [1, 3])
def test_a_log_whose_directory_was_taken_away_hinders_nobody(files: int, tmp_path: Path) -> None:
    place = tmp_path / "logs"
    place.mkdir()
    writer = LogWriter(str(place / "c.log"), encoder("cri"), max_size=200, max_files=files)
    shutil.rmtree(place)
    for number in range(20):
        writer.write(1, b"%d\n" % number)
    writer.finish()


def test_damaged_lines_are_left_out(tmp_path: Path) -> None:
    """One of CRI's whose second word was no text ended the reading."""
    path = tmp_path / "c.log"
    whole = b"2026-01-01T00:00:00.1Z stdout F hello\n"
    path.write_bytes(b"2026-01-01T00:00:00.1Z \x80 F x\n" + whole + b"\x80 stdout F x\nstdout\n")
    replay = Replay("cri", str(path), "")
    assert list(replay) == [(1, b"hello\n")]
    replay.close()
