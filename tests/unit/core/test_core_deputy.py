"""Deputies: what is asked and answered, what fails, and what a manifest may say of them."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.unit.core.obliging_deputy import Dawdle, Fail, Open, Reach

from sagong.deputy import Line, Post, deputation, hire
from sagong.errors import InvalidArgument
from sagong.manifest import parse

SERVE = "tests.unit.core.obliging_deputy:serve"


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """To a deputy in a process of its own; it ends when the line does."""
    (tmp_path / "file").write_text("content")
    channel, child = hire(SERVE, Post(tmp_path, tmp_path, tmp_path, {"place": "here"}))
    with channel:
        yield Line(channel)
    assert child.wait(60) == 0


def test_descriptors_come_back(line: Line) -> None:
    (descriptor,) = line.ask(Open("file"))
    with os.fdopen(descriptor) as file:
        assert file.read() == "content"
    assert not os.get_inheritable(line.ask(Open("file"))[0])


def test_an_error_comes_back_with_its_words_and_nothing_else(line: Line) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileExistsError, match="here: as you wish"):
        line.ask(Fail(errno.EEXIST))
    with pytest.raises(FileNotFoundError, match="no such thing"):
        line.ask(Open("no such thing"))
    with pytest.raises(OSError, match="Invalid value"):
        line.ask(msgspec.defstruct("Stranger", [], tag=True)())
    assert len(os.listdir("/proc/self/fd")) <= before


def test_it_calls_only_what_it_is_for(line: Line) -> None:
    with pytest.raises(PermissionError):
        line.ask(Reach())
    line.ask(Open("file"))


def test_who_takes_long_keeps_nobody_waiting(line: Line) -> None:
    with pytest.raises(TimeoutError, match=r"no answer within 0\.2 s"):
        line.wait(Dawdle(2.0), 0.2)
    line.wait(Dawdle(0.0), 10.0)
    line.ask(Open("file"))


MANIFEST = """
[plugin]
name = "x"
version = "1"
summary = "a plugin"
class = "sagong_x:X"
[rights]
capabilities = [
    { name = "CAP_SYS_ADMIN", holder = "deputy", why = "it mounts" },
    { name = "CAP_NET_ADMIN", holder = "both", why = "both do" },
    { name = "CAP_CHOWN", why = "its files" },
]
seccomp = [{ group = "mount", holder = "deputy", why = "it mounts" }]
[deputy]
function = "sagong_x.deputy:serve"
why = "a test"
"""


def test_who_is_gone_before_his_answer_is_no_defect(tmp_path: Path) -> None:
    """A plugin was killed: its deputy ended with a traceback."""
    (tmp_path / "file").write_text("content")
    channel, child = hire(SERVE, Post(tmp_path, tmp_path, tmp_path, {"place": "here"}))
    with channel:
        channel.send(msgspec.msgpack.encode(Open("file")))
    assert child.wait(60) == 0


def test_who_is_gone_before_he_reads_his_answer_is_no_defect(tmp_path: Path) -> None:
    """His end of the channel is reset then: the deputy ended with a traceback."""
    (tmp_path / "file").write_text("content")
    channel, child = hire(SERVE, Post(tmp_path, tmp_path, tmp_path, {"place": "here"}))
    with channel:
        channel.send(msgspec.msgpack.encode(Open("file")))
        assert select.select([channel], [], [], 60)[0]
    assert child.wait(60) == 0


def test_rights_are_parted_as_the_manifest_says() -> None:
    found = parse(MANIFEST, where="x")
    parted = deputation(found, confined=True)
    assert parted is not None and parted.plugin is not None and parted.deputy is not None
    assert parted.plugin.capabilities == ("CAP_NET_ADMIN", "CAP_CHOWN")
    assert parted.deputy.capabilities == ("CAP_SYS_ADMIN", "CAP_NET_ADMIN")
    assert parted.plugin.filter != parted.deputy.filter
    free = deputation(found, confined=False)
    assert free is not None and free.plugin is None and free.deputy is None


def test_a_holder_needs_a_deputy() -> None:
    with pytest.raises(InvalidArgument, match=r"needs a \[deputy\]"):
        parse(MANIFEST.partition("[deputy]")[0], where="x")
    with pytest.raises(InvalidArgument, match="only a plugin with a class"):
        parse(MANIFEST.replace('class = "sagong_x:X"', 'command = ["x"]'), where="x")
    with pytest.raises(InvalidArgument, match=r"deputy\.why"):
        parse(MANIFEST.replace('"a test"', '""'), where="x")
