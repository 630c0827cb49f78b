"""Cgroups of containers: where they are, how they are made and limited."""

from __future__ import annotations

import os
import stat
from typing import Any

from sagong.linux.cgroup import CONTROLLERS, Cgroup, CgroupLayout, delegate
from sagong.linux.cgroup_limits import CgroupLimits
from sagong.shim.failure import StartError

__all__ = ["container_cgroup", "make_cgroup", "resolved_limits"]

_DEVICE_FIELDS = ("io_read_bps", "io_write_bps", "io_read_iops", "io_write_iops")


def container_cgroup(layout: CgroupLayout, path: str) -> Cgroup:
    """The container's cgroup in all hierarchies that have controllers.

    Not in a hybrid machine's v2 one: entering that costs a grace period of the kernel (10 ms and
    more), while a thread enters version 1 in microseconds.
    """
    return Cgroup(layout, path, CONTROLLERS)


def make_cgroup(group: Cgroup) -> None:
    """Create it; in version 2 each ancestor must hand its controllers down."""
    if group.layout.mode == "v2":
        parts = group.path.strip("/").split("/")[:-1]
        Cgroup(group.layout, "/".join(parts), group.controllers).create()
        for depth in range(len(parts) + 1):
            delegate(group.layout, "/".join(parts[:depth]))
    group.create()


def resolved_limits(limits: dict[str, Any]) -> CgroupLimits:
    """Limits from a message; devices given by path get their numbers here, on the host."""
    fields = dict(limits)
    for name in _DEVICE_FIELDS:
        if name in fields:
            fields[name] = tuple((_device_numbers(d), v) for d, v in fields[name])
    if fields.get("devices") is not None:
        rules: list[str] = []
        for rule in fields["devices"]:
            rules += _device_rules(rule)
        fields["devices"] = tuple(rules)
    return CgroupLimits(**fields)


def _device_numbers(device: str) -> str:
    if not device.startswith("/"):
        return device
    number = os.stat(device).st_rdev
    return f"{os.major(number)}:{os.minor(number)}"


def _device_rules(rule: str) -> list[str]:
    """A rule, or `/dev/x rwm`, which becomes one, or one for each node in a directory."""
    if not rule.startswith("/"):
        return [rule]
    path, _, access = rule.rpartition(" ")
    try:
        nodes = _nodes(path, os.stat(path))
    except FileNotFoundError:
        raise _no_device(path, "no such file or directory") from None
    if not nodes:
        raise _no_device(path, "not a device node")
    return [f"{kind} {os.major(number)}:{os.minor(number)} {access}" for kind, number in nodes]


def _no_device(path: str, why: str) -> StartError:
    text = f'error gathering device information while adding custom device "{path}": {why}'
    return StartError("invalid_argument", text)


def _nodes(path: str, found: os.stat_result) -> list[tuple[str, int]]:
    """Kind and number of a device, or of each that is in a directory, whatever else is there."""
    if stat.S_ISDIR(found.st_mode):
        inner: list[tuple[str, int]] = []
        for name in sorted(os.listdir(path)):
            try:
                inner += _nodes(f"{path}/{name}", os.lstat(f"{path}/{name}"))
            except FileNotFoundError:
                continue
        return inner
    kinds = (("b", stat.S_ISBLK(found.st_mode)), ("c", stat.S_ISCHR(found.st_mode)))
    return [(kind, found.st_rdev) for kind, is_it in kinds if is_it]
