"""Every process of the system holds what the reviewed table says, and nothing more.

The table is the review: a right that appears in a manifest must be put here, too, by somebody who
has thought about it.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sagong import manifest
from sagong.contracts.kernel import ProcessStatus
from sagong.sandbox import effective
from tests.system.instance import REPOSITORY, Instance, instance, local_slots

pytestmark = pytest.mark.root

# plugin → capabilities, network, groups of system calls beyond the plugins' own policy
REVIEWED: dict[str, tuple[set[str], str, set[str]]] = {
    "auth_rbac": (set(), "none", set()),
    "builder": (set(), "host", set()),
    "dns": (set(), "host", set()),
    "docker": (set(), "none", set()),
    "exporter": (set(), "none", set()),
    "image_overlay": (
        {
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_FOWNER",
            "CAP_FSETID",
            "CAP_MKNOD",
            "CAP_SETFCAP",
            "CAP_SYS_CHROOT",
        },
        "host",
        {"chroot", "quota"},
    ),
    "kube": (set(), "host", set()),
    "metrics_cgroup": (set(), "none", set()),
    "network_bridge": (
        {"CAP_BPF", "CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE"},
        "host",
        {"bpf"},
    ),
    "node": (
        {"CAP_CHOWN", "CAP_DAC_READ_SEARCH", "CAP_FOWNER"},
        "host",
        set(),
    ),
    "registry": (set(), "host", set()),
    "replication_kube": (set(), "none", set()),
    "runtime_linux": (set(), "none", set()),
    "runtime_oci": (set(), "none", set()),
    "scheduler_binpack": (set(), "none", set()),
    "scheduler_kube": (set(), "none", set()),
    "state_sqlite": (set(), "none", set()),
    "volume_local": (
        {
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_FOWNER",
            "CAP_FSETID",
            "CAP_MKNOD",
            "CAP_SETFCAP",
        },
        "host",
        {"quota"},
    ),
}

# plugin → what its deputy holds, in a process that does nothing else
DEPUTIES: dict[str, tuple[set[str], set[str]]] = {
    "network_bridge": (
        {"CAP_NET_ADMIN", "CAP_SETGID", "CAP_SETUID", "CAP_SYS_ADMIN"},
        {"mount", "namespace"},
    ),
    "volume_local": ({"CAP_SYS_ADMIN"}, {"mount", "quota"}),
}

CONFIGURATION = local_slots("skr", "10.213.0.0/24") + '[units.auth]\nplugin = "auth_rbac"\n'


def manifests() -> dict[str, manifest.Manifest]:
    """Of all first-party plugins and services."""
    found = {}
    for path in sorted(REPOSITORY.glob("*/sagong_*/plugin.toml")):
        read = manifest.parse(path.read_text(), where=str(path))
        found[read.plugin.name] = read
    return found


@pytest.mark.parametrize("name", sorted(manifests()))
def test_a_manifest_asks_for_what_was_reviewed(name: str) -> None:
    found = manifests()[name]
    capabilities, network, groups = REVIEWED[name]
    assert held(found.rights.capabilities, "plugin") <= capabilities
    assert found.rights.network.mode == network
    assert held(found.rights.seccomp, "plugin") <= groups
    deputy, calls = DEPUTIES.get(name, (set(), set()))
    assert held(found.rights.capabilities, "deputy") == deputy
    assert held(found.rights.seccomp, "deputy") == calls


def held(
    rights: Sequence[manifest.Capability] | Sequence[manifest.SeccompGroup], holder: str
) -> set[str]:
    """Names of what one of the two processes has."""
    return {
        right.group if isinstance(right, manifest.SeccompGroup) else right.name
        for right in rights
        if right.holder in (holder, "both")
    }


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    """The local slots in their sandboxes."""
    with instance(CONFIGURATION) as found:
        yield found


@pytest.fixture(scope="module")
def processes(running: Instance) -> list[ProcessStatus]:
    """All plugins' processes, also of those that start on demand."""
    for unit in running.wait_ready().units:
        running.pid(unit.name)
    return [p for unit in running.wait_ready().units for p in unit.processes]


def test_each_process_holds_what_its_manifest_says(
    running: Instance, processes: list[ProcessStatus]
) -> None:
    for process in processes:
        found = effective(process.pid)
        wanted, network, _ = REVIEWED[process.plugin]
        rights = manifests()[process.plugin].rights
        asked = held(rights.capabilities, "plugin") & wanted
        assert set(found.uids) == {process.uid}, process.plugin
        assert process.uid > 0
        assert set(found.permitted) == asked, process.plugin
        assert set(found.bounding) <= {c.name for c in rights.capabilities}, process.plugin
        assert found.no_new_privs
        assert found.seccomp_mode == 2
        assert {"mnt", "ipc", "uts"} <= set(found.own_namespaces), process.plugin
        assert ("net" in found.own_namespaces) == (network == "none"), process.plugin


def test_no_thread_has_kept_what_is_the_deputys(processes: list[ProcessStatus]) -> None:
    """Capabilities are each thread's own."""
    process = next(p for p in processes if p.plugin == "network_bridge")
    threads = [int(path.name) for path in Path(f"/proc/{process.pid}/task").iterdir()]
    assert len(threads) > 1
    for thread in threads:
        assert set(effective(thread).permitted) == REVIEWED["network_bridge"][0]


def test_a_deputy_holds_its_part_alone(processes: list[ProcessStatus]) -> None:
    for plugin, (wanted, _) in DEPUTIES.items():
        process = next(p for p in processes if p.plugin == plugin)
        (pid,) = children(process.pid, "-deputy")
        found = effective(pid)
        assert set(found.permitted) == set(found.effective) == wanted
        assert set(found.uids) == {process.uid}
        assert found.seccomp_filters > 1
        # The three streams, its end of the socket, its own namespace, a view of processes.
        assert len(list(Path(f"/proc/{pid}/fd").iterdir())) <= 6


def test_status_counts_the_memory_of_a_deputy_with_its_plugins(
    running: Instance, processes: list[ProcessStatus]
) -> None:
    process = next(p for p in processes if p.plugin == "volume_local")
    (deputy,) = children(process.pid, "-deputy")
    row = next(line for line in running.run("status").stdout.splitlines() if "volume_" in line)
    counted = float(row.split()[6])
    assert counted > 0.9 * sum(map(pss, (process.pid, deputy))) > 1.1 * pss(process.pid), row


def pss(pid: int) -> float:
    """A process's share of memory in MB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(text.partition("\nPss:")[2].split()[0]) * 1024 / 1e6


def test_a_plugin_whose_deputy_dies_is_started_anew(
    running: Instance, processes: list[ProcessStatus]
) -> None:
    before = next(p for p in processes if p.plugin == "network_bridge")
    os.kill(children(before.pid, "-deputy")[0], signal.SIGKILL)
    units = running.wait_ready(gone=before.pid).units
    (found,) = [p for u in units for p in u.processes if p.plugin == "network_bridge"]
    assert found.pid != before.pid
    (pid,) = children(found.pid, "-deputy")
    assert "CAP_SYS_ADMIN" in effective(pid).permitted


def children(pid: int, ending: str) -> list[int]:
    """Children whose title ends so."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    found = [int(word) for word in text.split()]
    titles = {}
    for child in found:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a program that has ended
            titles[child] = Path(f"/proc/{child}/cmdline").read_bytes().strip(b"\0.")
    return [n for n, title in titles.items() if title.decode().endswith(ending)]


def test_no_two_plugins_share_a_uid(processes: list[ProcessStatus]) -> None:
    uids = [process.uid for process in processes]
    assert len(set(uids)) == len(uids)


def test_a_plugin_sees_only_what_it_was_granted(
    running: Instance, processes: list[ProcessStatus]
) -> None:
    state = next(p for p in processes if p.plugin == "state_sqlite")
    root = Path(f"/proc/{state.pid}/root")
    assert not (root / "etc/shadow").exists()
    assert not (root / "home").exists()
    visible = root / str(running.paths.run).lstrip("/") / "slots"
    assert sorted(p.name for p in visible.iterdir()) == ["state-local"]
    data = root / str(running.paths.data).lstrip("/") / "plugins"
    assert [p.name for p in data.iterdir()] == ["state_sqlite@local"]


def test_the_effective_sandbox_is_shown_line_by_line(running: Instance) -> None:
    running.wait_ready()
    running.pid("image")
    shown = running.run("plugins", "show", "image_overlay").stdout
    assert "capability CAP_MKNOD (restores device nodes of layers)" in shown
    assert "unit image, generation" in shown
    assert "no new privileges  yes" in shown
    assert re.search(r"^seccomp +[1-9] filters", shown, re.M)
    capabilities = next(x for x in shown.splitlines() if x.startswith("capabilities "))
    assert "CAP_CHOWN" in capabilities
    assert "CAP_SYS_ADMIN" not in capabilities
    assert "it does not run now" in running.run("plugins", "show", "scheduler_kube").stdout
    network = running.run("plugins", "show", "network_bridge").stdout
    assert "capability CAP_SYS_ADMIN, held by the deputy alone (makes" in network


def test_each_line_of_a_sandbox_is_shown(running: Instance) -> None:
    """What the manifest says, what holds, and the deputy beside it."""
    running.pid("volume")
    shown = running.run("plugins", "show", "volume_local").stdout
    asked, _, held = shown.partition("\nunit volume, ")
    found = manifests()["volume_local"]
    for right in found.rights.capabilities:
        assert re.search(rf"^capability {right.name}\b", asked, re.M), right.name
    assert (
        "limits: memory 512M, 32 pids, 4096 files, 1 cores, tmp 64M, own directories unlim" in asked
    )
    own, _, deputy = held.partition("\nbeside it, sagong-volume-deputy:\n")
    for line in (
        r"uid +(\d+)/\1/\1/\1",
        r"capabilities +.*CAP_CHOWN",
        r"no new privileges  yes",
        r"seccomp +[2-9] filters",
        r"own namespaces +mnt, ipc, uts",
        r"open files +4096",
        r"size of a file +unlimited",
        r"limits +memory 512 MiB, processes 32, 1 cores, weight (8192|313)",
        r"listens on +unix:.*/slots/volume/bus/\d+/s",
        r"mount +rw .*run/mounts \(",
    ):
        assert re.search(f"^{line}", own, re.M), (line, own)
    assert not re.search(r"^capabilities .*CAP_SYS_ADMIN", own, re.M), own
    assert re.search(r"^capabilities +CAP_SYS_ADMIN$", deputy, re.M), deputy


def test_api_objects_and_streams_are_shown_too(running: Instance) -> None:
    shown = running.run("plugins", "show", "scheduler_kube", "docker").stdout
    assert re.search(r"^  may get, list, watch pods, nodes, .* of core$", shown, re.M), shown
    assert "connects to byte streams of runtime (" in shown
    assert "all cores" in shown
