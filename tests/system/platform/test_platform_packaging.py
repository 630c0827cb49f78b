"""`packaging/up` on an instance of its own: it swaps; again changes nothing; `down` leaves nothing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.ports import free_port
from tests.system.instance import REPOSITORY, Instance
from tests.system.platform.rig import Platform, needs_docker, needs_kubectl, wait_for

from sagong import manifest

pytestmark = [pytest.mark.root, needs_docker, needs_kubectl]

KEPT = (
    "deployments,replicasets,pods,services,configmaps,secrets,serviceaccounts,namespaces,endpoints"
)


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory below which nothing is yet."""
    made = Path(tempfile.mkdtemp(prefix="sgt-", dir="/tmp"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        _run("down", "--root", str(made), "--purge", check=False)
        shutil.rmtree(made, ignore_errors=True)


def _run(name: str, *words: str, check: bool = True) -> str:
    """A script of `packaging`; what it prints."""
    script = str(REPOSITORY / "packaging" / name)
    # Some people's files are nobody else's; plugins' users are to find theirs.
    done = subprocess.run(
        [script, *words], capture_output=True, text=True, timeout=240, umask=0o077
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _picture(at: Platform) -> dict[str, list[str]]:
    """All that could have changed: processes, images, and objects with their revisions.

    Who falls asleep and wakes meanwhile lawfully has another process, and was not restarted.
    """
    objects = json.loads(at("kubectl", "get", KEPT, "-A", "-o", "json"))["items"]
    units = at.running.status().units
    lasting = [u for u in units if not manifest.load(f"sagong_{u.plugin}").life.on_demand]
    return {
        "objects": sorted(
            " ".join((o["kind"], m["name"], m["uid"], m["resourceVersion"]))
            for o in objects
            for m in (o["metadata"],)
        ),
        "processes": sorted(f"{p.unit} {p.pid}" for u in lasting for p in u.processes),
        "restarts": sorted(f"{u.name} {u.restarts}" for u in units),
        "images": at("docker", "images", "-aq", "--no-trunc").split(),
        "containers": at("docker", "ps", "-aq", "--no-trunc").split(),
    }


@pytest.mark.timeout(600)
def test_up_again_changes_nothing_and_down_leaves_nothing(root: Path, tmp_path: Path) -> None:
    port = str(free_port())
    first = _run("up", "--root", str(root), "--port", port)
    assert "hello from web-" in first
    _assert_replaced(first)
    at = Platform(Instance(root), tmp_path)
    at("kubectl", "rollout", "status", "deploy/web", "--timeout=55s")
    wait_for(lambda: _picture(at) == _picture(at))
    before = _picture(at)
    assert _run("up", "--root", str(root), "--port", "1", check=False) == "", "of another port"
    again = _run("up", "--root", str(root), "--port", port)
    assert "hello from web-" in again and "Replaced" not in again
    assert _picture(at) == before
    pids = [p.pid for unit in at.running.status().units for p in unit.processes]
    others = root / "lib/of-somebody-else"
    others.touch()
    _run("down", "--root", str(root), "--purge")
    paths = at.running.paths
    assert list(root.rglob("*")) == [others.parent, others]
    assert str(root) not in Path("/proc/self/mountinfo").read_text()
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{paths.cgroup.strip('/')}*"))
    links = [p.name for p in Path("/sys/class/net").iterdir()]
    assert [n for n in links if n.startswith((f"{paths.prefix}-", f"{paths.prefix}v"))] == []
    assert f" {paths.prefix}" not in _tables()
    assert [pid for pid in pids if str(root) in _command(pid)] == []


def _assert_replaced(said: str) -> None:
    """Six parts were swapped under load; of what was called meanwhile nothing failed."""
    assert len(re.findall(r"^  sagong swap [a-z- ]+ serves after \d", said, re.MULTILINE)) == 6, (
        said
    )
    told = re.search(r"^(\d+) calls meanwhile \((.*)\), 0 failed$", said, re.MULTILINE)
    assert told and int(told[1]) > 20, said
    for client in ("web service", "Kubernetes API", "Docker API", "containers run"):
        assert re.search(rf"{client} [1-9]", told[2]), said


def _tables() -> str:
    return subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
