"""Root of a user namespace alone, as whom podman calls a runtime for users: no devices, no cgroups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conformance.runtime_rig import BUSYBOX
from tests.system.runtime_oci.bundles import Bundle

from sagong.shim.user_namespace import make_user_namespace

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox (package busybox-static)"),
]

_MAPS = ((0, 0, 1), (1, 100000, 65535))


@pytest.fixture
def rootless(tmp_path: Path, made: tuple[Path, Path]) -> Iterator[Bundle]:
    """A bundle whose runtime is called in a user namespace, from a mount namespace of that."""
    rootfs, runtime = made
    space = make_user_namespace(_MAPS, _MAPS)
    words = f"nsenter --user=/proc/{os.getpid()}/fd/{space} --setuid 0 --setgid 0 unshare --mount"
    inner = tmp_path / "rootless"
    inner.write_text(f'#!/bin/sh\nexec {words} {runtime} "$@"\n')
    inner.chmod(0o755)
    found = Bundle(tmp_path, rootfs, inner)
    yield found
    found.clean()
    os.close(space)


def test_a_user_has_containers_without_cgroups(rootless: Bundle) -> None:
    script = "cat /proc/self/uid_map; echo x >/dev/null; head -c 1 /dev/zero | wc -c; echo $$"
    found = rootless.output(script, linux={"cgroupsPath": ""})
    assert [line.split() for line in found] == [
        ["0", "0", "1"],
        ["1", "100000", "65535"],
        ["1"],
        ["1"],
    ]


def test_a_users_container_lives_and_is_killed(rootless: Bundle) -> None:
    rootless.configure("sleep 1000", linux={"cgroupsPath": ""})
    rootless.create()
    rootless("start", "box")
    own = Path("/proc/self/cgroup").read_text()
    assert rootless("exec", "box", "cat", "/proc/self/cgroup") == own
    assert rootless("exec", "box", "sh", "-c", "ls -d /proc/[0-9]*").split()[0] == "/proc/1"
    for words in (("pause", "box"), ("update", "--pids-limit", "9", "box")):
        assert "box has no cgroup" in rootless.refused(*words)
    rootless("kill", "--all", "box", "KILL")
    rootless("delete", "--force", "box")


def test_limits_that_would_not_hold_are_refused(rootless: Bundle) -> None:
    limits = {"cgroupsPath": "", "resources": {"pids": {"limit": 9}}}
    rootless.configure("true", linux=limits)
    assert "linux.resources needs a cgroup" in rootless.refused("run", "box")
