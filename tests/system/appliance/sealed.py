"""An instance on a machine whose root filesystem can only be read, but for the instance's directory."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import sample_image
from tests.system.instance import REPOSITORY, Instance, environment, turn

__all__ = ["EXAMPLE", "Sealed", "prepared", "sealed"]

EXAMPLE = REPOSITORY / "examples" / "05-appliance"
# The kernel's own filesystems stay as they are on any machine. A bind mount has flags of its own.
_SEAL = """
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
awk '{print $5}' /proc/self/mountinfo | while read -r at; do
    case $at in
        /proc*|/sys*|/dev*|"$1"*) ;;
        *) mount -o remount,bind,ro "$at" 2>/dev/null || true ;;  # other tests' come and go
    esac
done
if touch "$2" 2>/dev/null; then exit 3; fi
echo sealed
exec sleep infinity
"""


@dataclass(frozen=True)
class Sealed(Instance):
    """Its command line runs inside, where the platform is."""

    holder: int = 0

    def run(
        self, *words: str, check: bool = True, seconds: float = 180.0
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line on it."""
        inside = ["nsenter", "-m", "-t", str(self.holder), "--"]
        return subprocess.run(
            [*inside, sys.executable, "-m", "sagong.cli", "--root", str(self.root), *words],
            env=environment(),
            capture_output=True,
            text=True,
            check=check,
            timeout=seconds,
        )

    def start(self) -> None:
        """Until all serves."""
        with turn():
            started = self.run("up", "--seconds", "90", check=False)
        assert started.returncode == 0, started.stderr + self.logs()

    @property
    def node_log(self) -> str:
        """What service `node` has told."""
        return (self.paths.run / "log" / "node.log").read_text()

    def pod_log(self, pod: str) -> str:
        """What a pod's containers have written."""
        logs = self.paths.data / "plugins" / "node" / "logs"
        return "".join(path.read_text() for path in logs.glob(f"*_{pod}_*/*/*.log"))

    def wait(self, part: str, count: int = 1, seconds: float = 60.0) -> None:
        """Wait until `node` has told that so often."""
        limit = time.monotonic() + seconds
        while self.node_log.count(part) < count:
            assert time.monotonic() < limit, f"never told: {part}\n{self.logs()}"
            time.sleep(0.02)


def prepared(root: Path) -> None:
    """The example's files as they are, and the image that they name."""
    shutil.copytree(EXAMPLE / "etc", root / "etc")
    (root / "etc" / "images").mkdir()
    sample = sample_image.build(root / "sample")
    sample.docker_archive.rename(root / "etc" / "images" / "busybox.tar")
    shutil.rmtree(root / "sample")


@contextlib.contextmanager
def sealed() -> Iterator[Sealed]:
    """Prepared, not started; taken away with all that it has made."""
    root = Path(tempfile.mkdtemp(prefix="sgt-", dir="/tmp"))
    root.chmod(0o755)
    prepared(root)
    command = ["unshare", "-m", "sh", "-c", _SEAL, "seal", str(root), str(REPOSITORY / ".touched")]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    running = Sealed(root, holder=holder.pid)
    try:
        assert holder.stdout.readline() == "sealed\n"
        yield running
        running.run("down", "--all", check=False)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
        shutil.rmtree(root, ignore_errors=True)
