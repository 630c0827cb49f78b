"""Cgroups without root: layouts from texts, limits as writes, device programs, statistics."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from sagong.linux.cgroup import Cgroup, CgroupLayout, Hierarchy, discover, enter
from sagong.linux.cgroup_devices import DEFAULT_DEVICES, device_program, parse_rule
from sagong.linux.cgroup_limits import CgroupLimits, LimitWrite, limit_writes, weight_of_shares
from sagong.linux.cgroup_statistics import DeviceIo, statistics

V1 = dict.fromkeys(("cpu", "cpuset", "memory", "devices", "blkio", "pids"), 1)
V2 = dict.fromkeys(V1, 2)

LIMITS = CgroupLimits(
    memory=64 << 20,
    memory_swap=96 << 20,
    memory_reservation=32 << 20,
    memory_swappiness=10,
    oom_kill_disable=True,
    cpu_shares=1024,
    cpu_quota=50000,
    cpu_period=100000,
    cpuset_cpus="0-1",
    pids=100,
    io_weight=500,
    io_read_bps=(("8:0", 1 << 20),),
    io_write_iops=(("8:0", 10),),
    devices=("c 1:3 rwm",),
)


def written(limits: CgroupLimits, versions: dict[str, int]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for write in limit_writes(limits, versions):
        found.setdefault(write.file, []).append(write.value)
    return found


def test_limits_of_version_1() -> None:
    assert written(LIMITS, V1) == {
        "memory.limit_in_bytes": ["67108864"],
        "memory.memsw.limit_in_bytes": ["100663296"],
        "memory.soft_limit_in_bytes": ["33554432"],
        "memory.swappiness": ["10"],
        "memory.oom_control": ["1"],
        "cpu.shares": ["1024"],
        "cpu.cfs_period_us": ["100000"],
        "cpu.cfs_quota_us": ["50000"],
        "cpuset.cpus": ["0-1"],
        "pids.max": ["100"],
        "blkio.weight": ["500"],
        "blkio.bfq.weight": ["500"],
        "blkio.throttle.read_bps_device": ["8:0 1048576"],
        "blkio.throttle.write_iops_device": ["8:0 10"],
        "devices.deny": ["a"],
        "devices.allow": ["c 1:3 rwm"],
    }


def test_limits_of_version_2() -> None:
    assert written(LIMITS, V2) == {
        "memory.max": ["67108864"],
        "memory.swap.max": ["33554432"],
        "memory.low": ["33554432"],
        "cpu.weight": ["39"],
        "cpu.max": ["50000 100000"],
        "cpuset.cpus": ["0-1"],
        "pids.max": ["100"],
        "io.bfq.weight": ["500"],
        "io.weight": ["default 4950"],
        "io.max": ["8:0 rbps=1048576", "8:0 wiops=10"],
    }


def test_minus_one_lifts_a_limit_and_none_leaves_it() -> None:
    lifted = CgroupLimits(memory=-1, memory_swap=-1, cpu_quota=-1, pids=-1)
    assert written(lifted, V1) == {
        "memory.limit_in_bytes": ["-1"],
        "memory.memsw.limit_in_bytes": ["-1"],
        "cpu.cfs_quota_us": ["-1"],
        "pids.max": ["max"],
    }
    assert written(lifted, V2) == {
        "memory.max": ["max"],
        "memory.swap.max": ["max"],
        "cpu.max": ["max 100000"],
        "pids.max": ["max"],
    }
    assert limit_writes(CgroupLimits(), V1) == ()
    assert limit_writes(CgroupLimits(), {}) == ()


def test_a_limit_without_its_controller_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="pids"):
        limit_writes(CgroupLimits(pids=1), {"memory": 1})


def test_the_range_of_shares_maps_to_the_range_of_weights() -> None:
    assert [weight_of_shares(n) for n in (0, 2, 1024, 262144, 999999)] == [1, 1, 39, 10000, 10000]


HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""
HYBRID_OWN = "3:name=systemd:/init\n2:memory:/a/b\n1:cpu,cpuacct:/\n0::/u\n"


def test_hybrid_layout_is_found() -> None:
    layout = discover(HYBRID, HYBRID_OWN, {"/sys/fs/cgroup/unified": ""})
    assert layout.mode == "hybrid"
    assert layout.versions == {"cpu": 1, "cpuacct": 1, "memory": 1}
    assert layout.of("memory") == Hierarchy(
        1, frozenset({"memory"}), "/sys/fs/cgroup/memory", "/a/b"
    )
    assert layout.of("unified").own == "/u"  # type: ignore[union-attr]
    assert layout.of("devices") is None
    assert len(layout.select(("cpu", "cpuacct", "memory", "pids"))) == 2


def test_a_mount_of_version_2_that_another_one_hides_is_passed_over() -> None:
    """The kernel did not start: it looked for a file in a directory that was not there."""
    hidden = HYBRID.replace("cgroup/unified rw", "hidden rw") + (
        "42 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    )
    layout = discover(hidden, HYBRID_OWN, {"/sys/fs/cgroup/unified": ""})
    assert layout.of("unified").mount == "/sys/fs/cgroup/unified"  # type: ignore[union-attr]


def test_hierarchies_whose_controllers_are_none_of_ours_are_told_apart() -> None:
    """One of them was known, with the path of nobody."""
    others = HYBRID + (
        "36 31 0:33 / /sys/fs/cgroup/net_cls rw - cgroup cgroup rw,net_cls,net_prio\n"
        "37 31 0:34 / /sys/fs/cgroup/hugetlb rw - cgroup cgroup rw,hugetlb\n"
        "38 31 0:35 / /sys/fs/cgroup/gone rw - cgroup cgroup rw,xattr\n"
    )
    own = HYBRID_OWN + "5:net_cls,net_prio:/n\n6:hugetlb:/h\n"
    layout = discover(others, own, {"/sys/fs/cgroup/unified": ""})
    unknown = {h.mount: h.own for h in layout.hierarchies if not (h.controllers or h.name)}
    assert unknown == {
        "/sys/fs/cgroup/net_cls": "/n",
        "/sys/fs/cgroup/hugetlb": "/h",
        "/sys/fs/cgroup/gone": "/",
        "/sys/fs/cgroup/unified": "/u",
    }
    assert layout.versions == {"cpu": 1, "cpuacct": 1, "memory": 1}


def test_entering_closes_all_descriptors_also_of_groups_that_refuse(tmp_path: Path) -> None:
    (tmp_path / "tasks").touch()
    opened = [os.open(tmp_path / "tasks", os.O_RDONLY), os.open(tmp_path / "tasks", os.O_WRONLY)]
    with pytest.raises(OSError, match="Bad file descriptor"):
        enter(opened)
    for descriptor in opened:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_version_2_layout_is_found_below_a_partial_mount() -> None:
    text = "30 23 0:26 /x.slice /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
    controllers = {"/sys/fs/cgroup": "cpuset cpu io memory pids"}
    layout = discover(text, "0::/x.slice/y.service\n", controllers)
    assert layout.mode == "v2"
    wanted = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids")
    assert layout.versions == dict.fromkeys(wanted, 2)
    assert layout.of("unified").own == "/y.service"  # type: ignore[union-attr]
    group = Cgroup(layout, "sagong/x")
    assert group.directory("blkio") == "/sys/fs/cgroup/sagong/x"


def test_a_machine_without_cgroups_has_none() -> None:
    layout = discover("22 27 0:21 / /proc rw - proc proc rw\n", "", {})
    assert layout.mode == "none"
    assert layout.versions == {}


def made(top: Path, files: dict[str, str]) -> Cgroup:
    """A directory that looks like a version 2 group."""
    for name, text in files.items():
        (top / "g").mkdir(exist_ok=True)
        (top / "g" / name).write_text(text)
    names = frozenset({"cpu", "memory", "pids", "blkio", "cpuacct"})
    return Cgroup(CgroupLayout((Hierarchy(2, names, str(top), "/"),)), "g")


def test_statistics_of_version_2(tmp_path: Path) -> None:
    group = made(
        tmp_path,
        {
            "cpu.stat": "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_throttled 4\n",
            "memory.current": "1000\n",
            "memory.max": "max\n",
            "memory.stat": "anon 10\ninactive_file 300\n",
            "memory.events": "max 7\noom_kill 1\n",
            "pids.current": "3\n",
            "pids.max": "64\n",
            "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
        },
    )
    found = statistics(group)
    assert (found.cpu_total, found.cpu_user, found.cpu_throttled_periods) == (5000, 3000, 4)
    assert (found.memory_usage, found.memory_limit, found.memory_inactive_file) == (1000, 0, 300)
    assert (found.memory_failures, found.oom_kills) == (7, 1)
    assert (found.pids, found.pids_limit) == (3, 64)
    assert found.io == (DeviceIo("8:0", 1, 2, 3, 4),)


def test_statistics_of_a_group_that_is_gone_are_zero(tmp_path: Path) -> None:
    found = statistics(Cgroup(made(tmp_path, {}).layout, "gone"))
    assert found.memory_usage == found.cpu_total == 0


def test_creating_in_version_2_passes_controllers_down(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "a"):
        directory.mkdir(exist_ok=True)
        (directory / "cgroup.controllers").write_text("memory pids\n")
        (directory / "cgroup.subtree_control").write_text("")
    group = Cgroup(made(tmp_path, {}).layout, "a/b", ("memory",))
    group.create()
    assert (tmp_path / "a/b").is_dir()
    # A plain file keeps the last write, at its beginning.
    assert "+pids" in (tmp_path / "a/cgroup.subtree_control").read_text()


def run_device_program(code: bytes, kind: int, major: int, minor: int, access: int) -> int:
    """Execute the BPF instructions that device rules use."""
    registers = [0] * 11
    context = struct.pack("=III", access << 16 | kind, major, minor)
    program = list(struct.iter_unpack("=BBhi", code))
    place = 0
    while True:
        operation, pair, offset, value = program[place]
        target, source = pair & 15, pair >> 4
        place += 1
        match operation:
            case 0x61:
                registers[target] = struct.unpack_from("=I", context, offset)[0]
            case 0xB7:
                registers[target] = value
            case 0xBF:
                registers[target] = registers[source]
            case 0x57:
                registers[target] &= value
            case 0x77:
                registers[target] >>= value
            case 0x55:
                place += offset if registers[target] != value else 0
            case 0x95:
                return registers[0]
            case _:
                raise AssertionError(f"instruction {operation:#x}")


MAKE, READ, WRITE = 1, 2, 4
BLOCK, CHARACTER = 1, 2


@pytest.mark.parametrize(
    ("device", "allowed"),
    [
        ((CHARACTER, 1, 3, READ | WRITE), 1),
        ((CHARACTER, 10, 200, MAKE), 1),
        ((CHARACTER, 10, 200, READ), 0),
        ((CHARACTER, 10, 200, MAKE | READ), 0),
        ((CHARACTER, 136, 77, READ | WRITE), 1),
        ((BLOCK, 8, 0, MAKE), 1),
        ((BLOCK, 8, 0, READ), 0),
        ((BLOCK, 1, 3, READ), 0),
        ((CHARACTER, 1, 1, READ), 0),
    ],
)
def test_the_default_device_program_decides(device: tuple[int, ...], allowed: int) -> None:
    assert run_device_program(device_program(DEFAULT_DEVICES), *device) == allowed


def test_a_rule_for_all_devices_allows_all() -> None:
    assert run_device_program(device_program(["a"]), BLOCK, 8, 0, 7) == 1
    assert device_program(["c 1:3 r", "a", "b 8:0 r"]) == device_program(["c 1:3 r", "a"])
    assert run_device_program(device_program([]), CHARACTER, 1, 3, READ) == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "c",
        "c 1:3",
        "x 1:3 r",
        "c 1-3 r",
        "c 1:3 q",
        "c a:3 r",
        "c ²:3 r",
        "c 1:4294967295 r",
        "c 1:" + "9" * 5000 + " r",
    ],
)
def test_bad_device_rules_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="device rule"):
        parse_rule(text)


def test_optional_files_are_marked() -> None:
    writes = limit_writes(CgroupLimits(io_weight=10), V1)
    assert writes[0] == LimitWrite("blkio", "blkio.weight", "10", True)
