"""Bundles for `sagong-runtime`, and the program as anybody would call it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.conformance.runtime_rig import SOURCES

CAPABILITIES = ["CAP_CHOWN", "CAP_KILL", "CAP_MKNOD", "CAP_SETUID", "CAP_SETGID"]
SAFE = ["nosuid", "noexec", "nodev"]
MOUNTS: list[dict[str, Any]] = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
    {"destination": "/dev/pts", "type": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*SAFE, "ro"]},
]
NAMESPACES = ("pid", "network", "ipc", "uts", "mount")


def program(directory: Path, sources: str = SOURCES) -> Path:
    """An executable file that is `sagong-runtime` of these sources."""
    path = directory / "sagong-runtime"
    text = f"import sys; sys.path[:0] = {sources.split(':')}; "
    text += "from sagong_runtime_linux.oci.entry import main; main()"
    # As a package would install it: without what Python reads for its own site.
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S -c "{text}" "$@"\n')
    path.chmod(0o755)
    return path


class Bundle:
    """A bundle with a root filesystem, its configuration, and containers made of it."""

    def __init__(self, directory: Path, rootfs: Path, runtime: Path) -> None:
        self.directory = directory
        self.rootfs = rootfs
        self.runtime = runtime
        self.root = directory / "state"
        self.cgroup = f"/sagong-test-{directory.name[-20:]}"
        self.made: list[str] = []

    def configure(self, script: str = "true", **changes: Any) -> dict[str, Any]:
        """Write config.json; `process` and `linux` are merged, other keys replaced."""
        capabilities = dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES)
        process = {
            "args": ["sh", "-c", script],
            "cwd": "/",
            "env": ["PATH=/bin"],
            "capabilities": capabilities,
            **changes.pop("process", {}),
        }
        linux = {
            "namespaces": [{"type": kind} for kind in NAMESPACES],
            "cgroupsPath": f"{self.cgroup}/box",
            **changes.pop("linux", {}),
        }
        config = {
            "ociVersion": "1.1.0",
            "root": {"path": str(self.rootfs)},
            "mounts": MOUNTS,
            "process": process,
            "linux": linux,
            **changes,
        }
        (self.directory / "config.json").write_text(json.dumps(config))
        return config

    def call(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """The program, whatever comes of it."""
        return subprocess.run(
            [str(self.runtime), "--root", str(self.root), *words],
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=60,
            **options,
        )

    def __call__(self, *words: str, **options: Any) -> str:
        """What it says when it must succeed."""
        done = self.call(*words, **options)
        assert done.returncode == 0, f"{words}: {done.stderr}{done.stdout}"
        return done.stdout

    def refused(self, *words: str, **options: Any) -> str:
        """What it says when it must fail."""
        done = self.call(*words, **options)
        assert done.returncode == 1, (words, done)
        return done.stderr

    def output(self, script: str, **changes: Any) -> list[str]:
        """Lines that a script writes in a container that is run and gone."""
        self.configure(script, **changes)
        done = self.call("run", "box")
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout.splitlines()

    def create(self, name: str = "box", *options: str) -> None:
        """Create a container that `clean` removes; its streams are nobody's."""
        self.made.append(name)
        null = subprocess.DEVNULL
        with open(self.directory / "stderr", "w+") as said:
            done = subprocess.run(
                [str(self.runtime), "--root", str(self.root), "create", *options, name],
                cwd=self.directory,
                stdin=null,
                stdout=null,
                stderr=said,
                timeout=60,
            )
            said.seek(0)
            assert done.returncode == 0, said.read()

    def state(self, name: str = "box") -> dict[str, Any]:
        """The state as JSON."""
        return json.loads(self("state", name))  # type: ignore[no-any-return]

    def clean(self) -> None:
        """Nothing stays."""
        for name in self.made:
            self.call("delete", "--force", name)
        assert self("list", "--quiet") == ""
        assert str(self.directory) not in Path("/proc/self/mountinfo").read_text()
        for top in Path("/sys/fs/cgroup").iterdir():
            group = top / self.cgroup.lstrip("/")
            if group.exists():
                assert not [child for child in group.iterdir() if child.is_dir()], str(group)
                os.rmdir(group)
