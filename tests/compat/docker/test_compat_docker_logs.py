"""`docker logs` over rotated and packed files, of each driver that can be read."""

from __future__ import annotations

import gzip
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.compat.docker.docker_engine import IMAGE, Engine

pytestmark = pytest.mark.root

_OPTIONS = ("--log-opt", "max-size=4k", "--log-opt", "max-file=5", "--log-opt", "compress=true")
# It goes on when it is told so: who follows sees all that is rotated away, however late he reads.
_SCRIPT = "for i in $(seq 1 300); do echo line $i; [ $((i % 10)) = 0 ] && read go </turns/go; done"


def _packed(log: Path) -> list[Path]:
    """Once none is left that is not: the rotated files."""
    limit = time.monotonic() + 60
    while True:
        rotated = sorted(log.parent.glob(f"{log.name}.*"))
        if rotated and all(path.suffix == ".gz" for path in rotated):
            return rotated
        assert time.monotonic() < limit, rotated
        time.sleep(0.02)


def _followed(docker: Engine, go: Path) -> Iterator[str]:
    """What `docker logs -f` shows; the container goes on when ten lines are read."""
    command = ["docker", "logs", "-f", "chatty"]
    with (
        subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=docker.environment()
        ) as following,
        open(go, "rb+", buffering=0) as turn,
    ):
        assert following.stdout is not None
        for number, line in enumerate(following.stdout, 1):
            yield line.rstrip("\n")
            if number % 10 == 0:
                turn.write(b"on\n")


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_rotated_logs_are_packed_and_read_back(
    docker: Engine, open_path: Path, driver: str
) -> None:
    go = open_path / "go"
    os.mkfifo(go)
    shared = ("-v", f"{open_path}:/turns", "--log-driver", driver, *_OPTIONS)
    docker.ok("run", "-d", "--name", "chatty", *shared, IMAGE, "sh", "-c", _SCRIPT)
    wanted = [f"line {number}" for number in range(1, 301)]
    assert list(_followed(docker, go)) == wanted
    rotated = _packed(Path(docker.ok("inspect", "-f", "{{.LogPath}}", "chatty")))
    assert 1 < len(rotated) < 5
    assert all(b"line" in gzip.decompress(path.read_bytes()) for path in rotated)
    kept = docker.ok("logs", "chatty").splitlines()
    assert kept == wanted[-len(kept) :]
    assert len(kept) > 50
    assert docker.ok("logs", "--tail", "45", "chatty").splitlines() == wanted[-45:]
    stamped = docker.ok("logs", "-t", "chatty").splitlines()
    since = next(line.partition(" ")[0] for line in stamped if line.endswith(" line 271"))
    assert docker.ok("logs", "--since", since, "chatty").splitlines()[-30:] == wanted[-30:]
    docker.ok("rm", "chatty")
    assert not [path for path in rotated if path.exists()]


def test_options_that_cannot_be_are_refused_in_dockers_words(docker: Engine) -> None:
    for driver, options, said in (
        ("json-file", ("compress=true",), "compress cannot be true when max-file is less than 2"),
        ("json-file", ("compress=perhaps",), 'strconv.ParseBool: parsing "perhaps"'),
        ("json-file", ("max-size=0",), "max-size must be a positive number"),
        ("json-file", ("max-size=much",), "invalid size: 'much'"),
        ("json-file", ("max-file=0",), "max-file cannot be less than 1"),
        ("json-file", ("mode=non-blocking", "max-buffer-size=x"), "invalid size: 'x'"),
        ("local", ("tag=x",), "unknown log opt 'tag' for log driver local"),
        ("local", ("max-file=1",), "compression cannot be enabled when max file count is 1"),
        ("pigeon", (), 'error looking up logging plugin pigeon: plugin "pigeon" not found'),
    ):
        words = [word for option in options for word in ("--log-opt", option)]
        refused = docker.docker("create", "--log-driver", driver, *words, IMAGE)
        assert (refused.returncode, said in refused.stderr) == (1, True), (driver, options, refused)
