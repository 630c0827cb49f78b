"""Podman with `sagong-runtime` as its runtime: what podman and conmon ask of one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from shutil import which

import pytest
from tests.conformance.runtime_rig import BUSYBOX, make_rootfs
from tests.system.platform.rig import wait_for
from tests.system.runtime_oci.bundles import program

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox (package busybox-static)"),
    pytest.mark.skipif(which("podman") is None, reason="needs podman (packages podman, conmon)"),
]

# The machine may forbid podman's own default of a million descriptors to any runtime. Locks in shared
# memory would be those of all podmans of the machine: whose first command it is frees them all.
CONFIGURATION = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
runtime = "sagong"
[engine.runtimes]
sagong = ["{runtime}"]
"""


class Podman:
    """Podman with a storage of its own."""

    def __init__(self, base: Path) -> None:
        config = base / "containers.conf"
        config.write_text(CONFIGURATION.format(runtime=program(base)))
        self._environment = {
            "CONTAINERS_CONF": str(config),
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }
        self._words = ["podman", "--root", f"{base}/s", "--runroot", f"{base}/r"]
        self._words += ["--tmpdir", f"{base}/t"]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Whatever comes of it."""
        return subprocess.run(
            [*self._words, *words],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def __call__(self, *words: str) -> str:
        """What it says when it must succeed."""
        done = self.run(*words)
        assert done.returncode == 0, f"{words}: {done.stderr}{done.stdout}"
        return done.stdout


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """With an image `box` of busybox, and no network, which is not the runtime's."""
    base = tmp_path_factory.mktemp("podman")
    rootfs = make_rootfs(base / "rootfs")
    archive = base / "rootfs.tar"
    subprocess.run(["tar", "-C", str(rootfs), "-cf", str(archive), "."], check=True)
    found = Podman(base)
    found("import", str(archive), "box")
    yield found
    found("rm", "--all", "--force", "--time", "0")
    assert str(base) not in Path("/proc/self/mountinfo").read_text()


RUN = ("run", "--network", "none")


def test_run_gives_output_and_code(podman: Podman) -> None:
    done = podman.run(*RUN, "--rm", "box", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)
    assert podman.run(*RUN, "--rm", "box", "nonsense").returncode == 127
    assert podman.run(*RUN, "--rm", "box", "/etc").returncode == 126
    assert podman("ps", "-aq") == ""


def test_a_life_with_exec_logs_pause_and_stop(podman: Podman) -> None:
    script = "trap 'exit 5' TERM; echo said; while :; do sleep 0.05; done"
    podman(*RUN, "-d", "--name", "one", "box", "sh", "-c", script)
    assert podman("exec", "one", "sh", "-c", "echo $$; hostname").split()[0] != "1"
    assert podman.run("exec", "one", "sh", "-c", "exit 4").returncode == 4
    assert podman.run("exec", "one", "nonsense").returncode == 127
    assert podman("exec", "-t", "one", "tty").strip() == "/dev/pts/0"
    wait_for(lambda: podman("logs", "one") == "said\n")
    podman("pause", "one")
    assert podman("inspect", "-f", "{{.State.Status}}", "one") == "paused\n"
    podman("unpause", "one")
    podman("stop", "--time", "20", "one")
    shown = podman("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.OCIRuntime}}", "one")
    assert shown == "exited 5 sagong\n"
    podman("start", "one")
    assert podman.run("kill", "one").returncode == 0
    podman("rm", "-f", "--time", "0", "one")
    assert podman("ps", "-aq") == ""


def test_systemd_in_a_container_has_its_hierarchy(podman: Podman) -> None:
    script = "grep -c ' /sys/fs/cgroup[/ ].* rw,' /proc/mounts; echo $container"
    found = podman(*RUN, "--rm", "--systemd", "always", "box", "sh", "-c", script).split()
    assert int(found[0]) >= 1 and found[1] == "podman"


def test_terminal_limits_user_namespace_and_read_only_root(podman: Podman) -> None:
    assert podman(*RUN, "--rm", "-t", "box", "tty").strip() == "/dev/pts/0"
    options = ("--memory", "64m", "--read-only", "--user", "5:6", "--hostname", "inner")
    found = podman(
        *RUN, "--rm", *options, "box", "sh", "-c", "id -u; hostname; touch /x || echo ro"
    )
    assert found.split() == ["5", "inner", "ro"]
    mapped = podman(*RUN, "--rm", "--uidmap", "0:100000:65536", "box", "cat", "/proc/self/uid_map")
    assert mapped.split() == ["0", "100000", "65536"]
