"""`sagong status`, `top`, `metrics`, `trace` and `logs` on a running system."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import sample_image
from tests.ports import free_port
from tests.system.instance import Instance, environment, instance

pytestmark = pytest.mark.root


PORT = free_port()
CONFIGURATION = f"""
profile = "docker"
[units.image]
idle_seconds = 0.0
[units.runtime]
idle_seconds = 0.0
[units.exporter]
idle_seconds = 0.0
listens = {{ metrics = "tcp:127.0.0.1:{PORT}" }}
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    """A container engine with the exporter."""
    with instance(CONFIGURATION) as found:
        found.wait_ready()
        yield found


def measured(running: Instance) -> dict[str, Any]:
    """What all say of themselves; where there is no processor left, some do not do it in time."""
    limit = time.monotonic() + 60
    while (report := json.loads(running.run("metrics", "--json").stdout)).get("silent"):
        assert time.monotonic() < limit, report["silent"]
    return dict(report)


def test_every_process_reports_what_it_did(running: Instance) -> None:
    report = measured(running)
    units = {p["unit"] for p in report["processes"]}
    assert {"kernel", "state-local", "image", "runtime", "network", "docker", "exporter"} <= units
    kernel = next(p for p in report["processes"] if p["unit"] == "kernel")
    assert {"kernel/1/attend", "kernel/1/done"} & {m["method"] for m in kernel["methods"]}
    table = running.run("status").stdout
    assert "CALLS" in table
    assert "kernel/1/" in running.run("top", "--total").stdout
    assert "calls/s" in running.run("top", "-n", "1", "-d", "0.1").stdout


def test_prometheus_is_served_by_the_exporter(running: Instance) -> None:
    text, limit = "", time.monotonic() + 60
    # Who does not answer soon, for want of a processor, is left out of a page.
    while 'sagong_process_cpu_seconds_total{unit="image"' not in text:
        assert time.monotonic() < limit, text
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=30) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            text = answer.read().decode()
    assert 'sagong_unit_up{unit="exporter",plugin="exporter"} 1' in text
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://127.0.0.1:{PORT}/", timeout=30)


def test_containers_are_counted_by_cadvisors_names(running: Instance, tmp_path: Path) -> None:
    if shutil.which("docker") is None:
        pytest.skip("needs docker")

    def docker(*words: str) -> str:
        command = ["docker", "-H", f"unix://{running.paths.run}/docker.sock", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout.strip()

    def scraped() -> dict[str, str]:
        page = f"http://127.0.0.1:{PORT}/metrics/cadvisor"
        with urllib.request.urlopen(page, timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        about = [line.split(" ", 3) for line in lines if line.startswith("#")]
        for told, kind in zip(about[::2], about[1::2]):
            assert told[1:3] == ["HELP", kind[2]] and told[3], "as promtool wants it"
        return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))

    docker("load", "-i", str(sample_image.build(tmp_path).docker_archive))
    assert scraped() == {}
    one = docker("run", "-d", "--name", "one", sample_image.NAME, "sleep", "1000")
    two = docker("run", "-d", "--network", "container:one", sample_image.NAME, "sleep", "1000")
    gateway = "$(ip route | cut -d' ' -f3 | head -n1)"
    docker("exec", "one", "sh", "-c", f"ping -c 3 -i 0.05 -s 1000 {gateway}")
    labels = f'id="{one}",name="one",image="{sample_image.NAME}"'
    sent = f'container_network_transmit_bytes_total{{interface="eth0",{labels}}}'
    wanted, limit = (f'container_processes{{id="{two}"', sent), time.monotonic() + 60
    while not all(series in "".join(found := scraped()) for series in wanted):
        assert time.monotonic() < limit, f"{wanted} are not measured: {found}"
        time.sleep(0.05)
    assert int(found[sent]) > 3000
    assert float(found[f"container_cpu_usage_seconds_total{{{labels}}}"]) > 0
    assert not any("network" in series and two in series for series in found)
    docker("rm", "-f", one, two)
    assert scraped() == {}


def test_a_request_is_followed_through_the_system(running: Instance) -> None:
    def get(path: str, name: str = "") -> str:
        docker = f"{running.paths.run}/docker.sock"
        header = ["-H", f"X-Request-Id: {name}"] if name else []
        command = ["curl", "-s", "--unix-socket", docker, *header, f"http://d{path}"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    running.run("trace", "--on")
    get("/images/none/json", "story")
    get("/networks")
    running.run("trace", "--off")
    get("/images/later/json", "after")
    own = running.run("trace", "--id", "story").stdout
    assert "GET /images/none/json" in own
    assert "✗ 404" in own
    assert "  image: image/1/inspect ✗ not_found" in own
    assert "/networks" not in own
    listed = running.run("trace", "--list").stdout
    assert "GET /networks" in listed
    assert "later" not in listed
    missing = running.run("trace", "--id", "nobody", check=False)
    assert missing.returncode == 2
    assert "trace --list" in missing.stderr


def test_a_command_is_traced(running: Instance) -> None:
    if shutil.which("docker") is None:
        pytest.skip("needs the docker command line")
    traced = subprocess.run(
        [
            *(sys.executable, "-m", "sagong.cli", "--root", str(running.root), "trace"),
            *("docker", "-H", f"unix://{running.paths.run}/docker.sock", "image", "inspect", "no"),
        ],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert traced.returncode == 1, traced.stderr
    assert "GET /v1." in traced.stdout
    assert "image: image/1/inspect" in traced.stdout


def test_processes_started_while_tracing_are_traced(running: Instance) -> None:
    running.run("trace", "--on")
    running.run("swap", "image")
    subprocess.run(
        [
            *("curl", "-s", "-o", "/dev/null", "-H", "X-Request-Id: afterwards"),
            *("--unix-socket", f"{running.paths.run}/docker.sock", "http://d/images/none/json"),
        ],
        check=True,
    )
    running.run("trace", "--off")
    assert "image: image/1/inspect" in running.run("trace", "--id", "afterwards").stdout


def test_logs_are_read_by_slot_and_as_json(running: Instance) -> None:
    lines = [json.loads(x) for x in running.run("logs", "--json").stdout.splitlines()]
    wanted = {"log": "kernel", "message": "unit serves", "level": "info"}
    assert any(wanted.items() <= line.items() for line in lines)
    assert all(x["log"] in ("state-local",) for x in _logs(running, "state"))
    assert {x["log"] for x in _logs(running, "all")} >= {"kernel"}
    missing = running.run("logs", "nothing", check=False)
    assert missing.returncode == 2
    assert "there are:" in missing.stderr


def _logs(running: Instance, name: str) -> list[dict[str, str]]:
    text = running.run("logs", name, "--json").stdout
    return [json.loads(line) for line in text.splitlines()]
