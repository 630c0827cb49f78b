"""image_overlay inside the sandbox of its own manifest: it can do all its work with those rights."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.conformance.image_registry_server import running_registry

pytestmark = pytest.mark.root


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that other uids can go through."""
    with tempfile.TemporaryDirectory(prefix="sagong-cage-", dir="/var/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_the_manifest_s_rights_are_enough(directory: Path) -> None:
    for name in ("stage", "data", "run", "registry"):
        (directory / name).mkdir()
    with ExitStack() as stack:
        registry = ""
        if shutil.which("docker-registry"):
            registry = stack.enter_context(running_registry(directory / "registry"))
        paths = [str(directory / name) for name in ("stage", "data", "run")]
        done = subprocess.run(
            [sys.executable, "-m", "tests.system.image.image_cage", *paths, registry],
            capture_output=True,
            text=True,
            timeout=240,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
    assert done.stdout, done.stderr
    told = json.loads(done.stdout)
    assert "error" not in told, (told, done.stderr)
    assert told["uid"] != 0
    assert set(told["effective"]) <= {"CAP_CHOWN", "CAP_FOWNER"}
    assert told["changes"] == [["/secret", 0], ["/secret/new", 1]]
    assert told["committed"] == 3 and told["export"] > 0 and told["trash"] == []
    files = {name: found(told["lower"], name) for name in ("bin/setuid", "bin/wall", "dev-null")}
    assert stat.S_IMODE(files["bin/setuid"].st_mode) == 0o4755
    assert stat.S_IMODE(files["bin/wall"].st_mode) == 0o2755 and files["bin/wall"].st_gid == 5
    assert stat.S_ISCHR(files["dev-null"].st_mode)


def found(lower: list[str], name: str) -> os.stat_result:
    """Stat of a file in the topmost layer that has it."""
    for path in lower:
        if os.path.lexists(f"{path}/{name}"):
            return os.lstat(f"{path}/{name}")
    raise AssertionError(f"{name} is in none of {lower}")
