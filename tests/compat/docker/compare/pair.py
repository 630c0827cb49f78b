"""Two engines side by side: Docker Engine and ours, each with the same image.

Docker Engine is the one in `$PATH`, or another: `$SAGONG_DOCKERD` holds directories (separated by
colons) of its programs, which go before `$PATH`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests import sample_image
from tests.compat.docker.compare.dialogue import Scenario, get, post, tell
from tests.compat.docker.compare.shape import Difference, compared, shape
from tests.ports import free_port
from tests.system.instance import instance

__all__ = ["Pair", "missing", "pair"]

# In namespaces of its own Docker Engine may have its bridge, its rules and its mounts.
_UNSHARE = ["unshare", "--net", "--mount", "sh", "-ec"]
_BEGIN = 'ip link set lo up; mount --make-rprivate /; exec "$@"'


@dataclass(frozen=True)
class Pair:
    """The sockets, what scenarios may name from their first step on, Docker Engine's version."""

    theirs: Path
    ours: Path
    given: dict[str, str]
    engine: str

    def differences(self, scenario: Scenario) -> list[Difference]:
        """Tell both, at the same time; nothing if Docker Engine is too old for it."""
        if int(self.given["version"].rpartition(".")[2]) < scenario.since:
            return []
        with ThreadPoolExecutor(2) as both:
            told = both.map(lambda e: tell(e, scenario, self.given), (self.theirs, self.ours))
            left, right = told
        found: list[Difference] = []
        for (step, theirs), (_, ours) in zip(left, right, strict=True):
            if not step.quiet:
                found.extend(compared(step, shape(step, theirs), shape(step, ours)))
        return found


def _path() -> str:
    return ":".join(filter(None, (os.environ.get("SAGONG_DOCKERD", ""), os.environ["PATH"])))


def missing() -> str:
    """Why the comparison can't be made here; "" when it can."""
    if os.geteuid() != 0:
        return "needs root"
    wanted = ("dockerd", "docker", "unshare", "ip")
    absent = [p for p in wanted if shutil.which(p, path=_path()) is None]
    return f"needs {', '.join(absent)}" if absent else ""


@contextlib.contextmanager
def pair() -> Iterator[Pair]:
    """Both engines, with the sample image."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="sgc-") as name:
        directory = Path(name)
        shared = directory / "shared"
        shared.mkdir()
        (shared / "file").write_text("shared\n")
        sample = sample_image.build(directory)
        given = {
            "image": sample_image.NAME,
            "image_id": sample.image_id,
            "shared": str(shared),
            "port": str(free_port()),
        }
        with dockerd(directory) as theirs, instance('profile = "docker"\n') as running:
            asked = tell(theirs, Scenario("version", (get("/version").of(""),)), given)
            version = json.loads(asked[0][1].body)
            given["version"] = f"v{version['ApiVersion']}"
            made = Pair(theirs, running.paths.run / "docker.sock", given, version["Version"])
            load = Scenario("load", (post("/images/load", sample.docker_archive.read_bytes()),))
            for engine in (made.theirs, made.ours):
                tell(engine, load, given)
            yield made


@contextlib.contextmanager
def dockerd(directory: Path) -> Iterator[Path]:
    """Docker Engine; its socket."""
    sock = directory / "docker.sock"
    group = f"/{directory.name}"
    command = ["dockerd", f"--data-root={directory}/data", f"--exec-root={directory}/exec"]
    command += [f"--pidfile={directory}/pid", f"--host=unix://{sock}", f"--cgroup-parent={group}"]
    with (directory / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(
            [*_UNSHARE, _BEGIN, "dockerd", *command],
            stdout=log,
            stderr=log,
            env={**os.environ, "PATH": _path()},
        )
    try:
        limit = time.monotonic() + 60
        while not _listens(sock):
            said = (directory / "dockerd.log").read_text()[-3000:]
            assert process.poll() is None and time.monotonic() < limit, said
            time.sleep(0.05)
        yield sock
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _remove_groups(directory.name)


def _listens(sock: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as link:
        link.connect(str(sock))
        return True
    return False


def _remove_groups(name: str) -> None:
    for path in [*Path("/sys/fs/cgroup").glob(f"*/{name}"), *Path("/sys/fs/cgroup").glob(name)]:
        for found, _, _ in os.walk(path, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(found)
