"""Operations that set what a process inherits besides its credentials: clocks, priorities, domain."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sagong.linux import syscalls
from sagong.shim.cgroups import container_cgroup
from sagong.shim.failure import StartError
from sagong_runtime_linux.operations import Stage

if TYPE_CHECKING:
    from sagong.linux.cgroup import Cgroup

__all__ = [
    "IO_CLASSES",
    "PERSONALITIES",
    "SCHEDULERS",
    "SCHEDULER_FLAGS",
    "GroupWrite",
    "MakeClocks",
    "SetIoPriority",
    "SetPersonality",
    "SetScheduler",
    "WriteGroup",
    "personality_of",
    "priorities_of",
    "write_group",
    "writes_of",
]

# personality(2), sched(7), ioprio_set(2), by the specification's names.
PERSONALITIES = {"LINUX": 0x0, "LINUX32": 0x8}
SCHEDULERS = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
SCHEDULER_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x1,
    "SCHED_FLAG_RECLAIM": 0x2,
    "SCHED_FLAG_DL_OVERRUN": 0x4,
    "SCHED_FLAG_KEEP_POLICY": 0x8,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_IO_CLASS_SHIFT = 13
_OF_A_PROCESS = 1
# Names of files in version 1 and 2 of the controller.
_CPU_FILES = {
    "burst": ("cpu.cfs_burst_us", "cpu.max.burst"),
    "idle": ("cpu.idle", "cpu.idle"),
}
# struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period.
_SCHED_ATTR = struct.Struct("=IIQiIQQQ")


class MakeClocks(NamedTuple):
    """A new time namespace, whose clocks are ahead by (clock, seconds, nanoseconds), and into it."""

    offsets: Sequence[tuple[str, int, int]]

    def describe(self) -> str:
        """For error messages."""
        return "making the time namespace"

    def apply(self, stage: Stage) -> None:
        """time_namespaces(7): only children are in it, unless setns(2) enters; offsets come before."""
        syscalls.unshare(syscalls.Namespace.TIME)
        text = "".join(f"{clock} {seconds} {nano}\n" for clock, seconds, nano in self.offsets)
        if text:
            offsets = os.open("/proc/self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(offsets, text.encode())
            finally:
                os.close(offsets)
        made = os.open("/proc/self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(made, syscalls.Namespace.TIME)
        finally:
            os.close(made)


class SetPersonality(NamedTuple):
    """The execution domain."""

    domain: int

    def describe(self) -> str:
        """For error messages."""
        return "setting the personality"

    def apply(self, stage: Stage) -> None:
        """personality(2)."""
        syscalls.call("personality", self.domain)


class SetIoPriority(NamedTuple):
    """Class and priority for the disk."""

    kind: int
    priority: int

    def describe(self) -> str:
        """For error messages."""
        return "setting process.ioPriority"

    def apply(self, stage: Stage) -> None:
        """ioprio_set(2)."""
        value = self.kind << _IO_CLASS_SHIFT | self.priority
        syscalls.call("ioprio_set", _OF_A_PROCESS, 0, value)


class SetScheduler(NamedTuple):
    """Policy, flags and the policy's parameters, in the order of struct sched_attr."""

    policy: int
    flags: int
    nice: int
    priority: int
    runtime: int
    deadline: int
    period: int

    def describe(self) -> str:
        """For error messages."""
        return "setting process.scheduler"

    def apply(self, stage: Stage) -> None:
        """sched_setattr(2)."""
        packed = _SCHED_ATTR.pack(_SCHED_ATTR.size, *self)
        syscalls.call("sched_setattr", 0, ctypes.create_string_buffer(packed, len(packed)), 0)


class GroupWrite(NamedTuple):
    """A value for a file of the container's own cgroup, and the key that asks for it.

    `first` is its name in version 1 of the controller, "" where that has none; `second` in version 2.
    """

    key: str
    controller: str
    first: str
    second: str
    value: str


class WriteGroup(NamedTuple):
    """Write files that the configuration names itself, or that few machines have."""

    path: str
    writes: Sequence[Sequence[str]]

    def describe(self) -> str:
        """For error messages."""
        return "setting cgroup limits"

    def apply(self, stage: Stage) -> None:
        """What can't be written is an error that names the key."""
        write_group(container_cgroup(stage.layout, self.path), self.writes)


def write_group(group: Cgroup, writes: Sequence[Sequence[str]]) -> None:
    """Write files of a cgroup."""
    for fields in writes:
        write = GroupWrite(*fields)
        old = write.first and group.layout.versions.get(write.controller) == 1
        directory = group.directory(write.controller if old else "unified")
        if directory is None:
            text = f"{write.key} needs cgroup version 2, which this machine does not use"
            raise StartError("unimplemented", f"invalid configuration: {text}")
        _put(write.key, f"{directory}/{write.first if old else write.second}", write.value)


def _put(key: str, path: str, value: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        text = f"{key}: there is no {path}: is its controller enabled?"
        raise StartError("failed_precondition", text) from None
    try:
        os.write(descriptor, value.encode())
    except OSError as error:
        text = f"{key}: write {value!r} to {path}: {os.strerror(error.errno or 0).lower()}"
        raise StartError("failed_precondition", text) from None
    finally:
        os.close(descriptor)


def writes_of(resources: dict[str, Any]) -> tuple[GroupWrite, ...]:
    """What of `linux.resources` is said in files themselves."""
    key = "linux.resources"
    found = [
        GroupWrite(
            f"{key}.hugepageLimits", "", "", f"hugetlb.{limit['pageSize']}.max", str(limit["limit"])
        )
        for limit in resources.get("hugepageLimits") or ()
    ]
    for device, limit in (resources.get("rdma") or {}).items():
        pairs = (("hca_handle", "hcaHandles"), ("hca_object", "hcaObjects"))
        words = [f"{name}={limit[given]}" for name, given in pairs if limit.get(given)]
        found.append(GroupWrite(f"{key}.rdma", "", "", "rdma.max", " ".join([device, *words])))
    for device in (resources.get("blockIO") or {}).get("weightDevice") or ():
        value = f"{device['major']}:{device['minor']} {device.get('weight') or 0}"
        files = ("blkio.bfq.weight_device", "io.bfq.weight")
        found.append(GroupWrite(f"{key}.blockIO.weightDevice", "blkio", *files, value))
    cpu = resources.get("cpu") or {}
    for name, files in _CPU_FILES.items():
        if cpu.get(name) is not None:
            found.append(GroupWrite(f"{key}.cpu.{name}", "cpu", *files, str(cpu[name])))
    for file, value in (resources.get("unified") or {}).items():
        if "/" in file or file.startswith("cgroup."):
            text = f"{key}.unified: {file!r} is no file of a controller"
            raise StartError("invalid_argument", text)
        found.append(GroupWrite(f"{key}.unified", "", "", file, value))
    return tuple(found)


def personality_of(linux: dict[str, Any]) -> list[SetPersonality]:
    """`linux.personality`; the specification knows no flags yet."""
    given = linux.get("personality")
    if not given:
        return []
    if given.get("flags"):
        raise StartError("invalid_argument", "linux.personality.flags: none is supported")
    domain = _named("linux.personality.domain", PERSONALITIES, given.get("domain") or "LINUX")
    return [SetPersonality(domain)]


def priorities_of(what: dict[str, Any]) -> list[Any]:
    """`scheduler` and `ioPriority` of a process."""
    found: list[Any] = []
    if given := what.get("scheduler"):
        policy = _named("process.scheduler.policy", SCHEDULERS, given.get("policy") or "")
        names = given.get("flags") or ()
        flags = sum(_named("process.scheduler.flags", SCHEDULER_FLAGS, name) for name in names)
        keys = ("nice", "priority", "runtime", "deadline", "period")
        found.append(SetScheduler(policy, flags, *(given.get(key) or 0 for key in keys)))
    if given := what.get("ioPriority"):
        kind = _named("process.ioPriority.class", IO_CLASSES, given.get("class") or "")
        found.append(SetIoPriority(kind, given.get("priority") or 0))
    return found


def _named(key: str, table: dict[str, int], name: str) -> int:
    if name not in table:
        raise StartError("invalid_argument", f"{key}: {name!r} is none of {', '.join(table)}")
    return table[name]
