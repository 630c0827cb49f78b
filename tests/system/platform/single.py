"""An instance of profile `single` for tests, with its two command lines."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable

from tests.system.instance import Instance, environment

__all__ = ["Platform", "configuration", "wait_for"]


def configuration(port: int, subnet: str, services: str) -> str:
    """sagong.toml with ranges and ports of its own, so that several run side by side."""
    return f"""
profile = "single"
[units.kube]
listens = {{ api = "tcp:127.0.0.1:{port}", pods = "tcp:{subnet}.1:6443" }}
settings = {{ service_ranges = ["{services}"] }}
[units.node.settings]
name = "tested"
pod_cidr = "{subnet}.0/24"
cluster_cidrs = ["{subnet}.0/24"]
service_cidrs = ["{services}"]
cluster_dns = ["{subnet}.1"]
[units.dns]
listens = {{ udp = "udp:{subnet}.1:53", tcp = "tcp:{subnet}.1:53" }}
"""


class Platform:
    """Its two command lines; every command has a bound, since some ignore SIGTERM."""

    def __init__(self, running: Instance) -> None:
        self.running = running
        self._environment = {
            **environment(),
            "DOCKER_HOST": f"unix://{running.paths.run}/docker.sock",
            "KUBECONFIG": str(running.paths.etc / "kubeconfig"),
        }

    def __call__(self, *words: str, check: bool = True, given: bytes = b"") -> str:
        """Run docker or kubectl; its output."""
        done = self.done(*words, given=given)
        output = done.stdout.decode(errors="replace")
        assert not check or done.returncode == 0, f"{words}: {done.stderr.decode()}{output}"
        return output

    def done(self, *words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run; all that came of it."""
        return subprocess.run(
            words, env=self._environment, capture_output=True, input=given, timeout=60
        )

    def code(self, *words: str) -> int:
        """Run; the exit status."""
        return self.done(*words).returncode

    def refusal(self, *words: str) -> str:
        """What a command that fails says."""
        done = self.done(*words)
        assert done.returncode != 0, done.stdout
        return done.stderr.decode().strip()

    def swap(self, unit: str) -> None:
        """Replace a unit by itself."""
        self.running.run("swap", unit, "--quiet")

    def address(self) -> str:
        """The web service's cluster address."""
        return self("kubectl", "get", "svc", "web", "-o", "jsonpath={.spec.clusterIP}")


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until a function is true."""
    limit = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, AssertionError):
            if condition():
                return
        assert time.monotonic() < limit, "not in time"
        time.sleep(0.1)
