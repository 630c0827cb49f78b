"""What a machine lacks is told in words, by what it really has."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sagong.cli.machine import lacks

pytestmark = pytest.mark.root

PRINT = "from sagong.cli.machine import lacks; print(*lacks({'image', 'network'}), sep='\\n')"


def found(*before: str) -> str:
    """What is told in a mount namespace of its own, after these commands there."""
    script = "; ".join([*before, f'exec {sys.executable} -c "{PRINT}"'])
    command = ["unshare", "--mount", "--net", "sh", "-ec", script]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_one_that_runs_sagong_lacks_nothing() -> None:
    assert list(lacks({"image", "network"})) == []


READ_ONLY = "mount --bind {0} {0}; mount -o remount,ro,bind {0} {0}"


@pytest.mark.parametrize(
    ("before", "told"),
    [
        (READ_ONLY.format("/proc/sys"), "/proc/sys is mounted read-only"),
        ("umount --recursive /sys/fs/cgroup", "no control groups are mounted; mount -t cgroup2"),
        (READ_ONLY.format("/sys/fs/cgroup"), "is mounted read-only"),
        ("mount --bind /dev/null /proc/filesystems", "no overlayfs"),
    ],
)
def test_what_is_missing_is_told_with_its_remedy(before: str, told: str) -> None:
    text = found(before)
    assert told in text
    assert all(line.startswith("this machine: ") for line in text.splitlines())


def test_rights_that_root_does_not_have_are_named() -> None:
    command = ["setpriv", "--bounding-set", "-net_admin,-mknod", "sh", "-c"]
    script = f'{sys.executable} -c "{PRINT}"'
    text = subprocess.run([*command, script], capture_output=True, text=True, check=True).stdout
    assert "root lacks CAP_MKNOD, CAP_NET_ADMIN here" in text


def test_what_no_unit_needs_is_not_missing() -> None:
    """Overlay filesystems are the image store's."""
    script = 'mount --bind /dev/null /proc/filesystems; exec {} -c "{}"'
    other = PRINT.replace("{'image', 'network'}", "{'state'}")
    command = ["unshare", "--mount", "sh", "-ec", script.format(sys.executable, other)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "\n"
