"""Cgroups on the real machine: limits in force, freezing, killing, devices, removal."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sagong.linux import process, syscalls
from sagong.linux.cgroup import CONTROLLERS, Cgroup, layout_of_machine
from sagong.linux.cgroup_devices import DEFAULT_DEVICES, install_device_rules
from sagong.linux.cgroup_limits import CgroupLimits
from sagong.linux.cgroup_statistics import statistics

pytestmark = pytest.mark.root


@pytest.fixture
def group() -> Iterator[Cgroup]:
    layout = layout_of_machine()
    if layout.mode == "none":
        pytest.skip("the machine has no cgroups mounted")
    top = Cgroup(layout, f"sagong-groups-{os.getpid()}", (*CONTROLLERS, "unified"))
    made = Cgroup(layout, f"{top.path}/inner", top.controllers)
    made.create()
    try:
        yield made
    finally:
        made.kill()
        top.remove()


def inside(group: Cgroup, action: Callable[[], Any]) -> int:
    """A child that enters the group, acts, and sleeps unless the action ends it."""
    pid = os.fork()
    if pid == 0:
        try:
            group.enter()
            action()
            time.sleep(60)
        finally:
            os._exit(3)
    return pid


def wait_inside(group: Cgroup, pid: int) -> None:
    deadline = time.monotonic() + 60
    while pid not in group.pids():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_group_is_limited_frozen_killed_and_removed(group: Cgroup) -> None:
    group.create()
    group.limit(CgroupLimits(memory=64 << 20, cpu_shares=512, pids=10))
    pid = inside(group, lambda: None)
    wait_inside(group, pid)
    limit = time.monotonic() + 60
    while not (found := statistics(group)).pids:  # it goes into one hierarchy after the other
        assert time.monotonic() < limit
    assert (found.pids, found.pids_limit, found.memory_limit) == (1, 10, 64 << 20)
    group.freeze()
    assert group.frozen()
    group.thaw()
    assert not group.frozen()
    group.freeze()
    group.kill()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    group.remove()
    assert not group.exists()
    group.remove()
    group.kill()


def test_nobody_waits_for_a_group_that_is_gone(group: Cgroup) -> None:
    """Who paused what was ending waited five seconds for it to stand."""
    gone = Cgroup(group.layout, f"{group.path}/gone", group.controllers)
    assert not gone.halted()
    gone.thaw()
    with pytest.raises(FileNotFoundError):
        gone.freeze()
    gone.create()
    gone.freeze()
    assert gone.halted()
    gone.thaw()
    assert not gone.halted()


def test_groups_of_version_1_have_the_cpus_of_those_above_from_their_birth(group: Cgroup) -> None:
    if group.layout.versions.get("cpuset") != 1:
        pytest.skip("no cpuset hierarchy of version 1")
    above = Path(group.directory("cpuset") or "")
    files = ("cpuset.cpus", "cpuset.mems")
    wanted = [(above / name).read_text() for name in files]
    assert all(text.strip() for text in wanted)
    for flag in "10":
        # Without the flag, as of a group of somebody else's, they are copied.
        assert flag == "0" or (above / "cgroup.clone_children").read_text() == "1\n"
        (above / "cgroup.clone_children").write_text(flag)
        below = Cgroup(group.layout, f"{group.path}/{flag}", ("cpuset",))
        if flag == "1":
            (above / flag).mkdir()
        else:
            below.create()
        assert [(above / flag / name).read_text() for name in files] == wanted
        below.remove()


def test_version_1_freezer_alone_kills_what_is_frozen(group: Cgroup) -> None:
    if group.layout.versions.get("freezer") != 1:
        pytest.skip("no version 1 freezer here")
    old = Cgroup(group.layout, group.path, ("freezer",))
    pid = inside(old, lambda: None)
    wait_inside(old, pid)
    old.freeze()
    old.kill()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_memory_limits_move_up_and_down_with_swap(group: Cgroup) -> None:
    for size in (64 << 20, 256 << 20, 32 << 20, 512 << 20):
        group.limit(CgroupLimits(memory=size, memory_swap=size + (8 << 20)))
        assert statistics(group).memory_limit == size


def test_out_of_memory_is_counted(group: Cgroup) -> None:
    group.limit(CgroupLimits(memory=32 << 20, memory_swap=32 << 20))
    pid = inside(group, lambda: bytearray(b"x") * (128 << 20))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert statistics(group).oom_kills >= 1


def test_another_process_is_moved_in(group: Cgroup) -> None:
    pid = os.fork()
    if pid == 0:
        signal.pause()
    group.attach(pid)
    assert group.pids() == (pid,)
    group.kill()
    os.waitpid(pid, 0)
    with pytest.raises(OSError, match=r"write '\d+'") as caught:
        group.attach(pid)
    assert caught.value.filename.endswith("cgroup.procs")


def test_a_wrong_limit_names_file_and_value(group: Cgroup) -> None:
    with pytest.raises(OSError, match="write '99-100'") as caught:
        group.limit(CgroupLimits(cpuset_cpus="99-100"))
    assert caught.value.filename.endswith("cpuset.cpus")


def test_devices_are_denied_by_version_1_rules(group: Cgroup) -> None:
    if group.layout.versions.get("devices") != 1:
        pytest.skip("devices is not a version 1 controller here")
    group.limit(CgroupLimits(devices=("c 1:3 rwm",)))
    assert opened(group) == {"/dev/null": True, "/dev/zero": False}


def test_devices_are_denied_by_a_program_of_version_2(group: Cgroup) -> None:
    directory = group.directory("unified")
    if directory is None:
        pytest.skip("no version 2 hierarchy here")
    try:
        install_device_rules(directory, DEFAULT_DEVICES)
    except OSError as error:
        pytest.skip(f"the kernel has no device programs: {error}")
    assert opened(group) == {"/dev/null": True, "/dev/zero": True}
    install_device_rules(directory, ("c 1:3 rw",))
    assert opened(group) == {"/dev/null": True, "/dev/zero": False}
    install_device_rules(directory, ("a",))
    assert opened(group) == {"/dev/null": True, "/dev/zero": True}


def opened(group: Cgroup) -> dict[str, bool]:
    paths = ("/dev/null", "/dev/zero")
    read, write = os.pipe()

    def look() -> None:
        for path in paths:
            try:
                os.close(os.open(path, os.O_RDWR))
                os.write(write, b"1")
            except PermissionError:
                os.write(write, b"0")
        os._exit(0)

    pid = inside(group, look)
    os.waitpid(pid, 0)
    answer = os.read(read, 16).decode()
    os.close(read)
    os.close(write)
    return {path: digit == "1" for path, digit in zip(paths, answer, strict=True)}


def test_exit_status_of_a_stranger_is_told(group: Cgroup) -> None:
    """A grandchild that its own parent reaps: only a pidfd can tell us how it ended."""
    (read, write), (gate, known) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(known)
        grandchild = os.fork()
        if grandchild == 0:
            os.read(gate, 1)  # until it is known by a pidfd
            os._exit(9)
        os.write(write, str(grandchild).encode())
        os.waitpid(grandchild, 0)
        os._exit(0)
    pidfd = syscalls.pidfd_open(int(os.read(read, 16)))
    os.close(known)
    try:
        assert process.wait_ended(pidfd, 60)
        os.waitpid(child, 0)
        status = syscalls.exit_info(pidfd).status
        assert status is not None
        assert os.waitstatus_to_exitcode(status) == 9
    except OSError as error:
        pytest.skip(f"PIDFD_GET_INFO needs Linux 6.15: {error}")
    finally:
        for descriptor in (pidfd, read, write, gate):
            os.close(descriptor)
