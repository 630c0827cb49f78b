"""Framing between plugin, launcher and monitors; words of refused programs; the loop."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagong.shim.directory import RunDirectory, read_record, write_record
from sagong.shim.failure import StartError, reason
from sagong.shim.lifelines import Lifelines
from sagong.shim.loop import READ, Loop
from sagong.shim.messages import MessageReader, answer, encode, failure
from sagong_runtime_linux.program import environment_of, find_program, replace_process


@given(cuts=st.lists(st.integers(1, 20), max_size=20))
def test_messages_survive_any_cut(cuts: list[int]) -> None:
    """However the stream is cut into reads."""
    data = (
        encode({"n": 1, "op": "x", "text": "é" * 9}) + answer(1, {"a": 2}) + failure(2, "gone", "m")
    )
    reader = MessageReader()
    found: list[dict[str, Any]] = []
    for cut in [*cuts, len(data)]:
        found += reader.feed(data[:cut])
        data = data[cut:]
    found += reader.feed(data)
    assert [m["n"] for m in found] == [1, 1, 2]
    assert found[2]["error"] == {"code": "gone", "message": "m"}


@pytest.mark.parametrize("raw", [b"\xff\xff\xff\xff", b"\0\0\0\x02[]", b"\0\0\0\x02{]"])
def test_nonsense_is_an_error(raw: bytes) -> None:
    """Absurd lengths, what is no object, what is no JSON."""
    with pytest.raises(ValueError):
        list(MessageReader().feed(raw))


def test_records_are_whole_or_absent(tmp_path: Path) -> None:
    """And unknown ones are None."""
    path = str(tmp_path / "r.json")
    assert read_record(path) is None
    write_record(path, {"a": 1})
    write_record(path, {"a": 2})
    assert read_record(path) == {"a": 2}
    assert os.listdir(tmp_path) == ["r.json"]


def test_socket_paths_are_short() -> None:
    """Unix socket paths end at 107 bytes, ids have 64."""
    directory = RunDirectory("/run/sagong/slots/runtime/run/runtime_linux")
    paths = {directory.monitor_socket(f"{n:064x}") for n in range(100)}
    assert len(paths) == 100
    assert max(map(len, paths)) <= 107


def test_program_is_found_as_by_a_shell(tmp_path: Path) -> None:
    """In the first directory of the path that has it, executable."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a/tool").write_text("")
    (tmp_path / "b/tool").write_text("")
    (tmp_path / "b/tool").chmod(0o755)
    path = f"{tmp_path}/a:{tmp_path}/b"
    assert find_program("tool", path) == f"{tmp_path}/b/tool"
    assert find_program(f"{tmp_path}/b/tool", "") == f"{tmp_path}/b/tool"


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("nope", "not_found", 'exec: "nope": executable file not found in $PATH'),
        ("/nope", "not_found", 'exec: "/nope": stat /nope: no such file or directory'),
        ("/etc", "failed_precondition", 'exec: "/etc": is a directory'),
        ("/etc/passwd", "failed_precondition", 'exec: "/etc/passwd": permission denied'),
        ("", "not_found", 'exec: "": executable file not found in $PATH'),
    ],
)
def test_refusals_are_in_dockers_words(name: str, code: str, text: str) -> None:
    """The docker CLI derives its exit code from them."""
    with pytest.raises(StartError) as caught:
        find_program(name, "/nowhere")
    assert caught.value.code == code
    assert text in caught.value.message


def test_format_error_is_told(tmp_path: Path) -> None:
    """A file that is no program."""
    path = tmp_path / "x"
    path.write_bytes(b"\0\1\2")
    path.chmod(0o755)
    with pytest.raises(StartError, match="exec format error"):
        replace_process(str(path), ["x"], {})


def test_environment_takes_the_last_of_a_name() -> None:
    """And adds HOME only when it is missing."""
    found = environment_of(["A=1", "A=2", "HOME=/h", "NOVALUE"])
    assert found == {"A": "2", "HOME": "/h"}
    assert "HOME" in environment_of([])


def test_loop_runs_timers_in_order() -> None:
    """Cancelled ones not at all; descriptors are served; stop ends it."""
    loop = Loop()
    seen: list[str] = []
    reader, writer = os.pipe()

    def take(_: int) -> None:
        seen.append(os.read(reader, 9).decode())
        loop.later(0.0, loop.stop)

    def late() -> None:
        seen.append("late")
        os.write(writer, b"data")

    loop.add(reader, READ, take)
    loop.later(0.002, late)
    loop.later(0.001, lambda: seen.append("later"))
    loop.later(0.0, lambda: seen.append("early"))
    loop.later(0.0, lambda: seen.append("never")).cancel()
    loop.run()
    loop.drop(reader)
    loop.drop(reader)
    loop.close()
    for descriptor in (reader, writer):
        os.close(descriptor)
    assert seen == ["early", "later", "late", "data"]


def test_lifelines_are_kept_replaced_and_bequeathed() -> None:
    """A monitor inherits its own; all others are closed in it."""
    kept = Lifelines()
    ends = [os.pipe() for _ in range(3)]
    kept.keep("one", "a", ends[0][1])
    kept.keep("one", "a", ends[1][1])
    kept.keep("two", "b", ends[2][1])
    assert os.read(ends[0][0], 1) == b"", "the older one was not closed"
    assert kept.bequeath("one") == {"a": ends[1][1]}
    assert os.read(ends[2][0], 1) == b""
    for descriptor in (*(reader for reader, _ in ends), ends[1][1]):
        os.close(descriptor)


def test_reasons_keep_values_with_colons() -> None:
    """Devices and limits hold some; the kernel's words come once, behind the path."""
    refused = OSError(19, "write '1:3 1048576': No such device", "/sys/fs/cgroup/x")
    assert reason(refused) == "write '1:3 1048576' /sys/fs/cgroup/x: no such device"
    assert reason(OSError(1, "clone: Operation not permitted")) == "clone: operation not permitted"
