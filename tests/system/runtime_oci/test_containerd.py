"""containerd and Docker Engine with `sagong-runtime` as their runtime, by their own clients."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import which

import pytest
from tests import sample_image
from tests.system.runtime_oci.bundles import program

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(which("ctr") is None, reason="needs containerd (package containerd)"),
]

_SECONDS = 60.0
# None of the plugins that would look for a network or a kubelet.
_CONFIGURATION = """
version = 2
root = "{base}/root"
state = "{base}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "{base}/sock"
[ttrpc]
address = "{base}/ttrpc"
"""
FOREVER = "trap 'exit 5' TERM; echo said; while :; do sleep 0.05; done"


class Client:
    """A command line and the server that it speaks with."""

    def __init__(self, base: Path, words: list[str], server: list[str]) -> None:
        self.base = base
        self._words = words
        self._log = log = base / "log"
        with log.open("wb") as output:
            self._server = subprocess.Popen(server, stdout=output, stderr=output)

    def wait_ready(self, *words: str) -> None:
        """Until the server answers."""
        limit = time.monotonic() + _SECONDS
        while self.run(*words).returncode:
            assert time.monotonic() < limit and self._server.poll() is None, self._log.read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """As a service is stopped."""
        self._server.send_signal(signal.SIGTERM)
        self._server.wait(_SECONDS)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Whatever comes of it."""
        return subprocess.run(
            [*self._words, *words],
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

    def typed(self, *words: str) -> tuple[str, int]:
        """On a terminal: what was shown, and the exit status."""
        pid, master = pty.fork()
        if pid == 0:
            os.execvp(self._words[0], [*self._words, *words])
        shown = b""
        while select.select([master], [], [], _SECONDS)[0]:
            try:
                data = os.read(master, 4096)
            except OSError:
                break
            shown += data
        os.close(master)
        return shown.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def wait_until(holds: Callable[[], bool]) -> None:
    """Both tell of an end a moment later."""
    limit = time.monotonic() + _SECONDS
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.05)


def nothing_is_left(base: Path) -> None:
    """Of containers' mounts and records."""
    assert f"{base}/state/" not in Path("/proc/self/mountinfo").read_text()
    names = {path.name for path in base.glob("rt/*/*")}
    assert names <= {"empty", "filters"}, names


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> sample_image.Sample:
    """An image of busybox."""
    return sample_image.build(tmp_path_factory.mktemp("box"))


@pytest.fixture(scope="module")
def ctr(tmp_path_factory: pytest.TempPathFactory, box: sample_image.Sample) -> Iterator[Client]:
    """containerd with everything of its own, and its client."""
    base = tmp_path_factory.mktemp("ctr")
    config = base / "config.toml"
    config.write_text(_CONFIGURATION.format(base=base))
    program(base)
    words = ["ctr", "--address", f"{base}/sock"]
    found = Client(base, words, ["containerd", "--config", str(config)])
    try:
        found.wait_ready("version")
        found("images", "import", str(box.docker_archive))
        yield found
    finally:
        found.stop()
    nothing_is_left(base)


def words_of(ctr: Client, *options: str) -> list[str]:
    """`ctr run` with our runtime."""
    binary = ("--runc-binary", f"{ctr.base}/sagong-runtime", "--runc-root", f"{ctr.base}/rt")
    return ["run", *binary, *options, sample_image.NAME]


def test_containerd_runs_it(ctr: Client) -> None:
    done = ctr.run(*words_of(ctr, "--rm"), "a", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)
    limits = ("--memory-limit", "67108864", "--cpus", "0.5", "--seccomp", "--read-only")
    script = (
        "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>&1; grep Seccomp: /proc/self/status; touch /x"
    )
    found = ctr.run(*words_of(ctr, "--rm", *limits), "a", "sh", "-c", script)
    assert "Seccomp:\t2" in found.stdout and "Read-only" in found.stderr
    failed = ctr.run(*words_of(ctr, "--rm"), "a", "nonsense")
    assert 'create failed: exec: "nonsense": executable file not found in $PATH' in failed.stderr
    assert "runc" not in failed.stderr
    shown, code = ctr.typed(*words_of(ctr, "--rm", "--tty"), "a", "sh", "-c", "tty; exit 3")
    assert ("/dev/pts/0" in shown, code) == (True, 3)
    assert ctr("tasks", "list", "-q") == ctr("containers", "list", "-q") == ""


def test_a_task_of_containerd_lives_as_asked(ctr: Client) -> None:
    ctr(*words_of(ctr, "--detach", "--memory-limit", "67108864"), "b", "sh", "-c", FOREVER)

    def status() -> str:
        return ctr("tasks", "list").split()[-1]

    assert status() == "RUNNING"
    inner = ctr.run("tasks", "exec", "--exec-id", "1", "b", "sh", "-c", "echo in; exit 4")
    assert (inner.stdout, inner.returncode) == ("in\n", 4)
    missing = ctr.run("tasks", "exec", "--exec-id", "2", "b", "nonsense")
    assert "not found in $PATH" in missing.stderr
    shown, _ = ctr.typed("tasks", "exec", "--exec-id", "3", "--tty", "b", "tty")
    assert "/dev/pts/0" in shown
    assert len(ctr("tasks", "ps", "b").splitlines()) >= 2
    counted = ctr("tasks", "metrics", "b")
    assert "67108864" in counted and "pids.current" in counted
    ctr("tasks", "pause", "b")
    assert status() == "PAUSED"
    ctr("tasks", "resume", "b")
    refused = ctr.run("tasks", "checkpoint", "b")
    assert refused.returncode and "checkpoint" in refused.stderr and "CRIU" in refused.stderr
    assert status() == "RUNNING"
    ctr("tasks", "kill", "--signal", "SIGTERM", "b")
    wait_until(lambda: status() == "STOPPED")
    assert "exit code 5" in ctr.run("tasks", "delete", "b").stderr
    ctr("containers", "delete", "b")


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory, box: sample_image.Sample) -> Iterator[Client]:
    """A real dockerd whose default runtime is ours; no network, which is not the runtime's."""
    if which("dockerd") is None or which("docker") is None:
        pytest.skip("needs dockerd (packages docker.io, docker-cli)")
    base = tmp_path_factory.mktemp("dd")
    runtime = program(base)
    host = f"unix://{base}/sock"
    server = [
        *("dockerd", "--data-root", f"{base}/data", "--exec-root", f"{base}/exec", "-H", host),
        *("--pidfile", f"{base}/pid", "--storage-driver", "vfs", "--bridge", "none"),
        *("--iptables=false", "--ip6tables=false", "--cgroup-parent", f"/{base.name}-docker"),
        *("--exec-opt", "native.cgroupdriver=cgroupfs"),
        *("--add-runtime", f"sagong={runtime}", "--default-runtime", "sagong"),
    ]
    found = Client(base, ["docker", "-H", host], server)
    try:
        found.wait_ready("info")
        found("load", "-i", str(box.docker_archive))
        yield found
    finally:
        left = found("ps", "-aq").split()
        if left:
            found("rm", "-f", *left)
        found.stop()
    for group in Path("/sys/fs/cgroup").glob(f"*/{base.name}-docker"):
        group.rmdir()
    assert str(base) not in Path("/proc/self/mountinfo").read_text()


def test_docker_engine_runs_it(docker: Client) -> None:
    image = sample_image.NAME
    assert "sagong" in docker("info", "-f", "{{.DefaultRuntime}}")
    done = docker.run("run", "--rm", image, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)
    assert docker.run("run", "--rm", image, "nonsense").returncode == 127
    assert docker.run("run", "--rm", image, "/etc").returncode == 126
    options: tuple[str, ...] = (
        "--user",
        "1000",
        "--cap-drop",
        "ALL",
        "--read-only",
        "--tmpfs",
        "/t",
    )
    options += ("--security-opt", "no-new-privileges", "--ulimit", "nofile=100:200")
    options += ("--oom-score-adj", "100", "--shm-size", "1m", "--device", "/dev/fuse")
    script = (
        "id -u; ulimit -n; cat /proc/self/oom_score_adj; grep -c . /proc/self/mountinfo >/dev/null"
    )
    script += (
        " && grep CapBnd /proc/self/status; touch /t/a && echo made; test -c /dev/fuse && echo c"
    )
    found = docker("run", "--rm", *options, image, "sh", "-c", script)
    assert found.split() == ["1000", "100", "100", "CapBnd:", "0" * 16, "made", "c"]
    whole = docker(
        "run", "--rm", "--privileged", image, "sh", "-c", "mount -t tmpfs x /tmp; df /tmp"
    )
    assert "tmpfs" in whole or "x " in whole
    oom = ("--memory", "20m", "--memory-swap", "20m")
    docker.run("run", "--name", "oom", *oom, image, "sh", "-c", "a=x; while :; do a=$a$a; done")
    ended = ("inspect", "-f", "{{.State.OOMKilled}} {{.State.ExitCode}}", "oom")
    wait_until(lambda: docker(*ended) == "true 137\n")


def test_a_container_of_docker_engine_lives_as_asked(docker: Client) -> None:
    image = sample_image.NAME
    docker("run", "-d", "--init", "--memory", "64m", "--name", "box", image, "sh", "-c", FOREVER)
    wait_until(lambda: docker("logs", "box") == "said\n")
    inner = docker.run("exec", "box", "sh", "-c", "echo in; exit 4")
    assert (inner.stdout, inner.returncode) == ("in\n", 4)
    assert docker("exec", "-t", "box", "tty").strip() == "/dev/pts/0"
    assert "docker-init" in docker("top", "box")
    docker("update", "--memory", "128m", "--memory-swap", "-1", "box")
    assert "128MiB" in docker("stats", "--no-stream", "box")
    docker("pause", "box")
    assert docker("inspect", "-f", "{{.State.Status}}", "box") == "paused\n"
    docker("unpause", "box")
    docker("stop", "-t", "60", "box")
    shown = docker("inspect", "-f", "{{.State.ExitCode}} {{.HostConfig.Runtime}}", "box")
    assert shown == "5 sagong\n"
    docker("restart", "-t", "0", "box")
    wait_until(lambda: docker("logs", "box") == "said\nsaid\n")
