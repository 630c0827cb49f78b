"""The workshop's roles: what a parser, a writer and a reader can still do."""

from __future__ import annotations

import errno
import json
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sagong.linux import capabilities, process
from sagong_image_overlay.confine import PARSER, READER, WRITER, Role, confine, preload

pytestmark = pytest.mark.root


def confined(role: Role, root: str, work: Callable[[], Any]) -> Any:
    """What `work` returns in a child that has taken on the role."""
    preload()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            status = open("/proc/self/status", encoding="ascii")  # noqa: SIM115
            confine(role, root)
            os.write(writing, json.dumps(work()).encode())
        finally:
            del status
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        raw = file.read()
    os.waitpid(child, 0)
    assert raw, "the confined process died"
    return json.loads(raw)


def tried(action: Callable[[], Any]) -> str:
    """ "done", or the name of the errno."""
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "done"


def attempts() -> dict[str, str]:
    """What hostile code would try first."""
    return {
        "open": tried(lambda: os.open("/", os.O_RDONLY)),
        "write": tried(lambda: os.open("/made", os.O_WRONLY | os.O_CREAT)),
        "socket": tried(socket.socket),
        "fork": tried(os.fork),
        "exec": tried(lambda: os.execv("/bin/true", ["true"])),
        "kill": tried(lambda: os.kill(1, 0)),
        "chroot": tried(lambda: os.chroot("/")),
        "setuid": tried(lambda: os.setuid(0)),
    }


def test_a_parser_can_do_nothing_but_read_and_write() -> None:
    with tempfile.TemporaryDirectory() as root:
        found = confined(PARSER, root, attempts)
        assert set(found.values()) <= {"EPERM", "EACCES"}, found
        assert os.listdir(root) == []


def test_a_parser_has_no_capability_and_no_uid_of_importance() -> None:
    def facts() -> list[int]:
        from sagong.linux import syscalls

        assert syscalls  # imported before: there are no files any more
        return []

    reading, writing = os.pipe()
    hold, release = os.pipe()
    preload()
    child = os.fork()
    if child == 0:
        confine(PARSER, "/var/empty" if os.path.isdir("/var/empty") else "/mnt")
        os.write(writing, b"x")
        os.read(hold, 1)
        os._exit(0)
    assert os.read(reading, 1) == b"x"
    status = process.status_facts(child)
    sets = capabilities.sets_of(child)
    assert (sets.effective, sets.permitted, sets.inheritable, sets.ambient) == (0, 0, 0, 0)
    assert status.no_new_privs and status.seccomp_mode == 2
    assert set(status.uids) == {65534} and status.groups == ()
    os.write(release, b"x")
    os.waitpid(child, 0)
    assert facts() == []


def test_a_writer_stays_in_its_directory() -> None:
    with tempfile.TemporaryDirectory() as root:
        found = confined(WRITER, root, attempts)
        assert found["write"] == "done" and found["open"] == "done"
        assert {found[key] for key in ("socket", "fork", "exec", "chroot", "setuid")} == {"EPERM"}
        assert os.listdir(root) == ["made"]

        def out() -> str:
            return tried(lambda: os.open("../../../../etc/passwd", os.O_RDONLY))

        assert confined(WRITER, root, out) == "ENOENT"


def test_a_reader_changes_nothing() -> None:
    with tempfile.TemporaryDirectory() as root:
        Path(root, "file").write_text("x")

        def work() -> list[str]:
            return [
                tried(lambda: os.open("/file", os.O_RDONLY)),
                tried(lambda: os.unlink("/file")),
                tried(lambda: os.mkdir("/new")),
                tried(lambda: os.chmod("/file", 0)),
                tried(lambda: os.rename("/file", "/other")),
                tried(lambda: os.open("/file", os.O_WRONLY)),
                tried(lambda: os.open("/new", os.O_RDONLY | os.O_CREAT)),
                tried(lambda: os.open("/", os.O_RDWR | os.O_TMPFILE)),
            ]

        assert confined(READER, root, work) == ["done", *["EPERM"] * 7]
