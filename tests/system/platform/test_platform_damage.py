"""Damaged archives, lying registries, a port in use, a full disk: told, and nothing is left."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import json
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import sample_image
from tests.ports import free_port
from tests.system.instance import instance
from tests.system.platform.rig import (
    IMAGE,
    Platform,
    footprint,
    needs_docker,
    settled,
    wait_footprint,
    wait_for,
)

pytestmark = [pytest.mark.root, needs_docker]


def groups_of(at: Platform) -> set[str]:
    """Containers that have a control group."""
    return {Path(group).name for group in footprint(at.running)["cgroups"]}


@contextlib.contextmanager
def nothing_left(at: Platform) -> Iterator[None]:
    """Afterwards the machine is as before, and containers still run."""
    at("docker", "run", "--rm", "--name", "first", IMAGE, "true")
    running = at("docker", "ps", "-q", "--no-trunc").split()
    # The group of `first` goes a moment after the command.
    wait_for(lambda: groups_of(at) == set(running))
    before, images = settled(at.running), at("docker", "images", "-aq")
    yield
    assert at("docker", "run", "--rm", IMAGE, "echo", "well") == "well\n"
    wait_footprint(at.running, before)
    assert at("docker", "images", "-aq") == images


def test_a_port_in_use_is_named_and_the_container_can_start_later(whole: Platform) -> None:
    with nothing_left(whole):
        with socket.create_server(("0.0.0.0", free := free_port())):
            port = f"{free}:80"
            late = ("docker", "run", "-d", "--name", "late", "-p", port, IMAGE, "sleep", "60")
            assert "port is already allocated" in whole.refused(*late, code=125)
        whole("docker", "start", "late")
        later = ("docker", "run", "-d", "--name", "later", "-p", port, IMAGE, "sleep", "60")
        assert "port is already allocated" in whole.refused(*later, code=125)
        whole("docker", "rm", "-f", "late", "later")


def damaged(directory: Path) -> dict[str, tuple[bytes, str]]:
    """Archives of an image that are no longer whole, and what is said of them."""
    whole = sample_image.build(directory, "sagong.test/damaged:1").docker_archive.read_bytes()
    return {
        "truncated": (whole[:300_000], "ends in the middle of a file"),
        "rubbish": (b"rubbish" * 3000, "not a tar archive"),
        "cut gzip": (gzip.compress(whole, 1)[:200_000], "ends too early"),
        "empty": (b"", "empty"),
        "another layer": (_another_layer(directory), "0" * 64),
        "no manifest": (sample_image.layer({"f": "x"}), "manifest.json"),
    }


def _another_layer(directory: Path) -> bytes:
    """An image whose layer is not the one that its configuration names."""
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{0:064}"]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
    path = directory / "another.tar"
    sample_image.write_docker_archive(path, config, [sample_image.layer({"f": "x"})], ["x:1"])
    return path.read_bytes()


def test_damaged_archives_are_refused(whole: Platform, tmp_path: Path) -> None:
    archives = damaged(tmp_path)
    with nothing_left(whole):
        for name, (data, text) in archives.items():
            said = whole.refused("docker", "load", given=data)
            assert text in said, (name, said)
        whole("docker", "run", "-d", "--name", "box", IMAGE, "sleep", "60")
        for name in ("rubbish", "truncated"):
            whole.refused("docker", "cp", "-", "box:/tmp", given=archives[name][0])
        whole.refused("docker", "import", "-", "x:1", given=archives["cut gzip"][0])
        missing = whole.refused("docker", "cp", "box:/nosuch", ".")
        assert "Could not find the file /nosuch" in missing
        whole("docker", "rm", "-f", "box")


class Liar(http.server.BaseHTTPRequestHandler):
    """A registry: `locked` wants a login, `token` refuses the token, `wrong` gives other bytes."""

    def do_GET(self) -> None:
        """Answer as the repository's name has it."""
        realm = f'"http://{self.headers["Host"]}/realm"'
        if "locked" in self.path or self.path == "/v2/":
            self._say(401, {}, {"WWW-Authenticate": 'Basic realm="locked"'})
        elif self.path.startswith("/realm"):
            self._say(401, {"errors": [{"code": "UNAUTHORIZED", "message": "wrong"}]})
        elif "token" in self.path:
            self._say(401, {}, {"WWW-Authenticate": f"Bearer realm={realm}"})
        elif "/manifests/" in self.path:
            kind = "application/vnd.oci.image"
            config = {"mediaType": f"{kind}.config.v1+json", "size": 2, "digest": f"sha256:{0:064}"}
            manifest = {"mediaType": f"{kind}.manifest.v1+json", "config": config, "layers": []}
            self._say(
                200, {"schemaVersion": 2, **manifest}, {"Content-Type": manifest["mediaType"]}
            )
        else:
            self._say(200, {})

    do_HEAD = do_GET

    def _say(self, status: int, document: object, headers: dict[str, object] | None = None) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": len(body)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def liar() -> Iterator[str]:
    """Its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Liar)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_registries_that_refuse_or_lie(whole: Platform, liar: str) -> None:
    with nothing_left(whole):
        for name, text in (
            ("wrong", "verification failed for digest"),
            ("locked", "no basic auth credentials"),
            ("token", "unauthorized: wrong"),
        ):
            said = whole.refused("docker", "pull", f"{liar}/{name}:1")
            assert text in said, (name, said)
        login = ("docker", "login", "-u", "me", "--password-stdin", liar)
        assert "401 Unauthorized" in whole.refused(*login, given=b"wrong")
        nobody = ("docker", "login", "-u", "me", "--password-stdin", "127.0.0.1:1")
        assert "connection refused" in whole.refused(*nobody, given=b"x")


def test_a_full_disk_is_told_and_survived(tmp_path: Path) -> None:
    """The data directory is a small tmpfs; what does not fit is refused, the rest goes on."""
    root = Path(tempfile.mkdtemp(prefix="sgf-", dir="/tmp"))
    data = root / "lib"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=755", "full", data], check=True)
    try:
        with instance('profile = "docker"\n', root=root) as running:
            at = Platform(running, tmp_path)
            at("docker", "load", "-i", str(sample_image.build(tmp_path).docker_archive))
            at("docker", "run", "-d", "--name", "before", IMAGE, "sleep", "600")
            with nothing_left(at):
                _fill(at)
            at("docker", "rm", "-f", "before")
    finally:
        subprocess.run(["umount", "-l", data], check=False)
        shutil.rmtree(root, ignore_errors=True)


def _fill(at: Platform) -> None:
    """A container writes all there is; then nothing fits until it is removed."""
    fill = "dd if=/dev/zero of=/big bs=64k count=4000; echo full"
    told = at.run("docker", "run", "--name", "filler", IMAGE, "sh", "-c", fill)
    assert "No space left on device" in told.stderr and told.stdout == "full\n", told
    big = sample_image.layer({"f": "x" * (1 << 20)})
    said = at.refused("docker", "import", "-", "big:1", given=big)
    assert "no space left on device" in said.lower() or "is full" in said, said
    assert "is full" in at.refused("docker", "exec", "before", "true")
    # Refused at once, not when the call's time is over; and there is nothing left of it.
    assert "is full" in at.refused("docker", "create", "--name", "late", IMAGE, "true")
    assert "late" not in at("docker", "ps", "-a", "--format", "{{.Names}}")
    at("docker", "rm", "-f", "filler")
    assert at("docker", "run", "--rm", "--name", "late", IMAGE, "echo", "room") == "room\n"
    assert at("docker", "exec", "before", "echo", "here") == "here\n"
