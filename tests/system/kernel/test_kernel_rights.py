"""Every process of the system holds what the reviewed table says, and nothing more.

The table is the review: a right that appears in a manifest must be put here, too, by somebody who
has thought about it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sagong import manifest
from sagong.contracts.kernel import ProcessStatus
from sagong.sandbox import effective
from tests.system.instance import REPOSITORY, Instance, instance

pytestmark = pytest.mark.root

# plugin → capabilities, network, groups of system calls beyond the plugins' own policy
REVIEWED: dict[str, tuple[set[str], str, set[str]]] = {
    "auth_rbac": (set(), "none", set()),
    "dns": (set(), "host", set()),
    "docker": (set(), "host", set()),
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
        {"chroot"},
    ),
    "kube": (set(), "host", set()),
    "metrics_cgroup": (set(), "none", set()),
    "network_bridge": (
        {"CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE", "CAP_SYS_ADMIN"},
        "host",
        {"bpf", "mount", "namespace"},
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
    # Mounting and overriding permissions together are as good as root: it is one of the two that
    # hold CAP_SYS_ADMIN, beside the network, and parses nothing from outside.
    "volume_local": (
        {
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_FOWNER",
            "CAP_FSETID",
            "CAP_MKNOD",
            "CAP_SETFCAP",
            "CAP_SYS_ADMIN",
        },
        "host",
        {"mount", "quota"},
    ),
}

CONFIGURATION = """
profile = "bare"
[units.state-local]
plugin = "state_sqlite"
instance = "local"
[units.image]
plugin = "image_overlay"
[units.runtime]
plugin = "runtime_linux"
settings = { cgroup_parent = "{cgroup}" }
[units.volume]
plugin = "volume_local"
[units.metrics]
plugin = "metrics_cgroup"
[units.auth]
plugin = "auth_rbac"
[units.node]
"""


def manifests() -> dict[str, manifest.Manifest]:
    """Of all first-party plugins and services."""
    found = {}
    for path in sorted(REPOSITORY.glob("*/sagong_*/plugin.toml")):
        read = manifest.parse(path.read_text(), where=str(path))
        found[read.plugin.name] = read
    return found


@pytest.mark.parametrize("name", sorted(manifests()))
def test_a_manifest_asks_for_what_was_reviewed(name: str) -> None:
    rights = manifests()[name].rights
    capabilities, network, groups = REVIEWED[name]
    assert {c.name for c in rights.capabilities} <= capabilities
    assert rights.network.mode == network
    assert {s.group for s in rights.seccomp} <= groups


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    """The local slots in their sandboxes."""
    with instance(CONFIGURATION) as found:
        yield found


@pytest.fixture(scope="module")
def processes(running: Instance) -> list[ProcessStatus]:
    """All plugins' processes."""
    return [p for unit in running.wait_ready().units for p in unit.processes]


def test_each_process_holds_what_its_manifest_says(
    running: Instance, processes: list[ProcessStatus]
) -> None:
    for process in processes:
        found = effective(process.pid)
        wanted, network, _ = REVIEWED[process.plugin]
        asked = {c.name for c in manifests()[process.plugin].rights.capabilities} & wanted
        assert set(found.uids) == {process.uid}, process.plugin
        assert process.uid > 0
        assert set(found.permitted) == asked, process.plugin
        assert set(found.bounding) <= asked, process.plugin
        assert found.no_new_privs
        assert found.seccomp_mode == 2
        assert {"mnt", "ipc", "uts"} <= set(found.own_namespaces), process.plugin
        assert ("net" in found.own_namespaces) == (network == "none"), process.plugin


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
    shown = running.run("plugins", "show", "image_overlay").stdout
    assert "capability CAP_MKNOD (restores device nodes of layers)" in shown
    assert "unit image, generation" in shown
    assert "no new privileges  yes" in shown
    assert re.search(r"^seccomp +[1-9] filters", shown, re.M)
    capabilities = next(x for x in shown.splitlines() if x.startswith("capabilities "))
    assert "CAP_CHOWN" in capabilities
    assert "CAP_SYS_ADMIN" not in capabilities
    assert "it does not run now" in running.run("plugins", "show", "network_bridge").stdout
