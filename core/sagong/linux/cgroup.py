"""Control groups of version 1, 2 and both: found, made, limited, frozen, killed, removed."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, lru_cache, partial
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from sagong.linux.cgroup_devices import install_device_rules
from sagong.linux.cgroup_limits import CgroupLimits, LimitWrite, limit_writes
from sagong.linux.mounts import MountEntry, parse_mountinfo

__all__ = [
    "CONTROLLERS",
    "Cgroup",
    "CgroupLayout",
    "Hierarchy",
    "delegate",
    "discover",
    "enter",
    "layout_of_machine",
]

# Names of version 1; of version 2's, `io` is listed here as blkio. Devices, freezer and cpuacct
# are built into version 2.
CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids")
_FROM_V2 = {"io": "blkio"}
_TO_V2 = {"blkio": "io"}
_BUILT_IN = frozenset({"devices", "freezer", "cpuacct"})
# Of a group that was removed: also between opening a file of it and using that.
_GONE = frozenset({errno.ENOENT, errno.ENODEV})
_FREEZE = "cgroup.freeze"
_RETRY_SECONDS = 0.002
_READ_SIZE = 64 << 10


class Hierarchy(NamedTuple):
    """A mounted hierarchy. `own` is the path of this process in it, as seen from the mount."""

    version: int
    controllers: frozenset[str]
    mount: str
    own: str
    name: str = ""

    def directory(self, path: str) -> str:
        """The directory of the cgroup `path` (relative to the mount)."""
        return f"{self.mount}/{path.strip('/')}".rstrip("/")


class CgroupLayout:
    """The hierarchies of a machine; alike when these are."""

    # No dataclass here and below: what makes them costs every lean process more than all else here.

    def __init__(self, hierarchies: tuple[Hierarchy, ...]) -> None:
        self.hierarchies = hierarchies

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CgroupLayout) and self.hierarchies == other.hierarchies

    def __hash__(self) -> int:
        return hash(self.hierarchies)

    @cached_property
    def mode(self) -> str:
        """ "v1", "v2", "hybrid" (v1 controllers, and v2 for tracking) or "none"."""
        versions = {h.version for h in self.hierarchies}
        return {frozenset({1}): "v1", frozenset({2}): "v2", frozenset({1, 2}): "hybrid"}.get(
            frozenset(versions), "none"
        )

    def of(self, controller: str) -> Hierarchy | None:
        """The hierarchy that has a controller, or "unified" for the v2 one."""
        return self._holders.get(controller)

    @cached_property
    def _holders(self) -> dict[str, Hierarchy]:
        found: dict[str, Hierarchy] = {}
        for hierarchy in self.hierarchies:
            unified = ("unified",) if hierarchy.version == 2 else ()
            for name in (*hierarchy.controllers, *unified):
                found.setdefault(name, hierarchy)
        return found

    @cached_property
    def versions(self) -> dict[str, int]:
        """1 or 2 for each controller that the machine offers."""
        found = {c: self.of(c) for c in CONTROLLERS}
        return {c: h.version for c, h in found.items() if h is not None}

    def groups(self, pattern: str) -> set[str]:
        """Paths of the groups that match a pattern (`/sagong.*`), in whatever hierarchy."""
        found = (
            (hierarchy, path)
            for hierarchy in self.hierarchies
            for path in glob.iglob(hierarchy.directory(pattern))
        )
        return {path.removeprefix(h.mount) for h, path in found if os.path.isdir(path)}

    def derived(self) -> CgroupLayout:
        """Itself, with all that is derived from it computed now: a fork server's forks share it."""
        self.offered(CONTROLLERS)
        _ = self.mode
        return self

    def offered(self, controllers: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
        """Those of the controllers that the machine offers, with their versions."""
        if controllers not in self._offers:
            chosen = self.select(controllers)
            found = ((c, v) for c, v in self.versions.items() if self.of(c) in chosen)
            self._offers[controllers] = tuple(found)
        return self._offers[controllers]

    @cached_property
    def _offers(self) -> dict[tuple[str, ...], tuple[tuple[str, int], ...]]:
        return {}

    @cached_property
    def _selections(self) -> dict[tuple[str, ...], tuple[Hierarchy, ...]]:
        """What was selected before: a fork server selects once for all its forks."""
        return {}

    def select(self, controllers: Iterable[str]) -> tuple[Hierarchy, ...]:
        """The different hierarchies of these controllers; those not offered are left out."""
        names = tuple(controllers)
        if names not in self._selections:
            found = [self.of(name) for name in names]
            if "named" in names:
                found += [h for h in self.hierarchies if h.name]
            self._selections[names] = tuple(dict.fromkeys(h for h in found if h is not None))
        return self._selections[names]


def _own_paths(text: str) -> dict[str, str]:
    """/proc/PID/cgroup as path by controller, by "name=…", and "" for version 2."""
    paths: dict[str, str] = {}
    for line in filter(None, text.split("\n")):
        _, names, path = line.split(":", 2)
        paths.update((name, path) for name in names.split(","))
    return paths


def _below_mount(path: str, entry: MountEntry) -> str:
    """A cgroup path as seen from a mount that may show a subtree only."""
    root = entry.root.rstrip("/")
    return path[len(root) :] or "/" if path == root or path.startswith(root + "/") else path


def discover(mountinfo: str, cgroup: str, v2_controllers: dict[str, str]) -> CgroupLayout:
    """The layout from the texts of mountinfo and cgroup, and cgroup.controllers by v2 mount.

    A mount of version 2 that is not among those can't be seen: another one is on top of it.
    """
    own = _own_paths(cgroup)
    found: dict[str, Hierarchy] = {}
    for entry in parse_mountinfo(mountinfo):
        if entry.kind == "cgroup2" and entry.target in v2_controllers:
            names = v2_controllers[entry.target].split()
            has = frozenset(_FROM_V2.get(name, name) for name in names)
            # The built-in ones count only when nobody holds the controllers as version 1.
            has |= _BUILT_IN if has & {"memory", "pids", "cpu"} else frozenset()
            place = _below_mount(own.get("", "/"), entry)
            found.setdefault("2", Hierarchy(2, has, entry.target, place))
        elif entry.kind == "cgroup":
            has = frozenset(entry.super_options) & frozenset(CONTROLLERS)
            named = next((o[5:] for o in entry.super_options if o.startswith("name=")), "")
            key = min(has, default=f"name={named}") if has or named else _unknown(entry, own)
            place = _below_mount(own.get(key, "/"), entry)
            found.setdefault(key, Hierarchy(1, has, entry.target, place, named))
    return CgroupLayout(tuple(found.values()))


def _unknown(entry: MountEntry, own: dict[str, str]) -> str:
    """What tells a hierarchy from others whose controllers are none of ours, such as net_cls."""
    return next((o for o in entry.super_options if o in own), entry.target)


def _read(path: str) -> str:
    """All of a file, by descriptor: a text file object costs more than the reading."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(descriptor, _READ_SIZE):
            parts.append(part)
    except OSError as error:
        raise OSError(error.errno, f"read: {os.strerror(error.errno or 0)}", path) from None
    finally:
        os.close(descriptor)
    return b"".join(parts).decode("utf-8", "replace")


def layout_of_machine() -> CgroupLayout:
    """The layout that this process sees."""
    mountinfo = _read("/proc/self/mountinfo")
    unified = [m.target for m in parse_mountinfo(mountinfo) if m.kind == "cgroup2"]
    controllers = {}
    for target in unified:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            controllers[target] = _read(f"{target}/cgroup.controllers")
    return discover(mountinfo, _read("/proc/self/cgroup"), controllers)


def _write(path: str, *texts: str) -> None:
    """A write(2) for each text, as the kernel wants it; OSError names the path and the value."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for text in texts:
            try:
                os.write(descriptor, text.encode())
            except OSError as error:
                reason = f"write {text!r}: {os.strerror(error.errno or 0)}"
                raise OSError(error.errno, reason, path) from None
    finally:
        os.close(descriptor)


class Cgroup:
    """A cgroup by its path (`sagong/pods/x`) in the hierarchies of the chosen controllers.

    `controllers` may also name "unified": on hybrid machines the v2 hierarchy has no controller but
    freezes and kills a whole group with one write. "named" are all hierarchies without controllers, in
    which others (runc) make groups, too.
    """

    def __init__(
        self, layout: CgroupLayout, path: str, controllers: tuple[str, ...] = CONTROLLERS
    ) -> None:
        self.layout = layout
        self.path = path
        self.controllers = controllers

    @cached_property
    def hierarchies(self) -> tuple[Hierarchy, ...]:
        """Where this group has a directory."""
        return self.layout.select(self.controllers)

    def directory(self, controller: str) -> str | None:
        """The directory in the hierarchy of a controller, or None when it has none."""
        hierarchy = self.layout.of(controller)
        if hierarchy is None or hierarchy not in self.hierarchies:
            return None
        return hierarchy.directory(self.path)

    def create(self) -> None:
        """Make the directories, with parents; existing ones are no error."""
        for hierarchy in self.hierarchies:
            path = self.path.strip("/")
            if _make(hierarchy, path) and hierarchy.version == 2:
                _delegate_above(self.layout, path)

    def exists(self) -> bool:
        """Whether any of its directories is there."""
        return any(os.path.isdir(h.directory(self.path)) for h in self.hierarchies)

    def attach(self, pid: int) -> None:
        """Move a process in, with all its threads; OSError ESRCH when it has ended."""
        for hierarchy in self.hierarchies:
            _write(f"{hierarchy.directory(self.path)}/cgroup.procs", str(pid))

    def entrances(self) -> tuple[int, ...]:
        """Descriptors through which a single-threaded process enters by writing "0" to each.

        They work after the cgroup mounts are out of sight; `enter` uses and closes them.
        """
        opened: list[int] = []
        try:
            for h in self.hierarchies:
                # Writing one's own thread is six times cheaper than cgroup.procs (version 1).
                name = "tasks" if h.version == 1 else "cgroup.procs"
                path = f"{h.directory(self.path)}/{name}"
                opened.append(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
        except OSError:
            for descriptor in opened:
                os.close(descriptor)
            raise
        return tuple(opened)

    def enter(self) -> None:
        """Move the calling, single-threaded process in."""
        enter(self.entrances())

    def limit(self, limits: CgroupLimits) -> None:
        """Put limits into force; those that are None stay as they are."""
        offered = self.layout.offered(self.controllers)
        writes = _ordered(self, _planned(limits, offered))
        # One file may take many writes: each rule of the devices is one.
        late: list[tuple[LimitWrite, ...]] = []
        for _, same in groupby(writes, key=attrgetter("controller", "file", "optional")):
            group = tuple(same)
            try:
                _apply(self, group)
            except OSError as error:
                # The old quota may be too much of the new period, for the groups above: quota first.
                if error.errno != errno.EINVAL or group[0].file != "cpu.cfs_period_us":
                    raise
                late.append(group)
        for group in late:
            _apply(self, group)
        if limits.devices is not None and ("devices", 2) in offered:
            directory = self.directory("devices")
            if directory is not None:
                install_device_rules(directory, limits.devices)

    def pids(self) -> tuple[int, ...]:
        """All processes in this group and below it."""
        found: set[int] = set()
        for hierarchy in self.hierarchies[:1]:
            for directory in _tree(hierarchy.directory(self.path)):
                found.update(_pids_in(directory))
        return tuple(sorted(found))

    def freeze(self, *, seconds: float = 5.0) -> None:
        """Stop all its processes and wait until they stand; else TimeoutError, and they go on.

        OSError ENOENT or ENODEV when the group is gone, or goes meanwhile.
        """
        directory = self._freezer()
        try:
            _write(*_freezing(directory, wanted=True))
            _wait_until(lambda: _stands(directory), seconds, directory, "freeze")
        except TimeoutError:
            self.thaw()
            raise

    def thaw(self, *, seconds: float = 5.0) -> None:
        """Let them go on; a group that is gone is no error."""
        directory = self._freezer()
        try:
            _write(*_freezing(directory, wanted=False))
        except OSError as error:
            if error.errno not in _GONE:
                raise
        _wait_until(lambda: not _frozen(directory), seconds, directory, "thaw")

    def _freezer(self) -> str:
        directory = self.directory("unified") or self.directory("freezer")
        if directory is None:
            raise OSError(errno.ENOSYS, "freeze: no freezer cgroup here", self.path)
        return directory

    def frozen(self) -> bool:
        """Whether all its processes stand."""
        directory = self.directory("unified") or self.directory("freezer")
        return directory is not None and _frozen(directory)

    def halted(self) -> bool:
        """Whether they were told to stand, even if some do not yet: nobody who stands can die."""
        directory = self.directory("unified") or self.directory("freezer")
        if directory is None:
            return False
        told = (_read_present(f"{directory}/{name}") for name in ("freezer.self_freezing", _FREEZE))
        return any(text.strip() == "1" for text in told)

    def kill(self, *, seconds: float = 5.0) -> None:
        """SIGKILL to all in and below, until none is left; a missing group is no error."""
        directory = self.directory("unified")
        if directory and os.path.exists(f"{directory}/cgroup.kill"):
            try:
                _write(f"{directory}/cgroup.kill", "1")
            except OSError as error:
                if error.errno not in _GONE:
                    raise
        _wait_until(lambda: not self._kill_once(), seconds, self.path, "kill")

    def _kill_once(self) -> bool:
        pids = self.pids()
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if pids and self.halted() and self.directory("unified") is None:
            self.thaw()
        return bool(pids)

    def remove(self, *, seconds: float = 2.0) -> None:
        """Remove the directories and those below; waits for the dying; missing is no error."""
        for hierarchy in self.hierarchies:
            top = hierarchy.directory(self.path)
            if _removed(top):
                continue  # most have nothing below
            for directory in sorted(_tree(top), reverse=True):
                _wait_until(partial(_removed, directory), seconds, directory, "rmdir")


def enter(entrances: Iterable[int]) -> None:
    """Move the calling process through descriptors of `Cgroup.entrances`, and close them all."""
    left = list(entrances)
    try:
        for descriptor in left:
            os.write(descriptor, b"0")
    finally:
        for descriptor in left:
            os.close(descriptor)


def _make(hierarchy: Hierarchy, path: str) -> bool:
    """Make a directory with its parents; False when it was there."""
    directory = hierarchy.directory(path)
    try:
        os.mkdir(directory, 0o755)
    except FileExistsError:
        return False
    except FileNotFoundError:
        _make(hierarchy, os.path.dirname(path))
        return _make(hierarchy, path)
    if hierarchy.version == 1 and "cpuset" in hierarchy.controllers:
        _fill_cpuset(directory, hierarchy.mount)
    return True


def _fill_cpuset(directory: str, root: str) -> None:
    """A new group gets its parent's CPUs and memory nodes, and those below it get theirs at birth.

    The kernel gives both or none: none also where a sibling has some for itself. Source:
    cgroup-v1/cgroups in the kernel's documentation, clone_children.
    """
    if _read(f"{directory}/cpuset.mems").strip():
        return
    for name in ("cpuset.cpus", "cpuset.mems"):
        _inherit(directory, name, root)
    _write(f"{directory}/cgroup.clone_children", "1")


def _inherit(directory: str, name: str, root: str) -> str:
    """A v1 cpuset begins empty, and no process can enter until it names CPUs and memory nodes.

    Those above may be empty, too, at the moment when somebody else has just made them.
    """
    value = _read(f"{directory}/{name}").strip()
    if not value and directory != root:
        value = _inherit(os.path.dirname(directory), name, root)
        _write(f"{directory}/{name}", value)
    return value


def delegate(layout: CgroupLayout, path: str) -> tuple[str, ...]:
    """Give the children of a v2 group its controllers; those the kernel refused are returned.

    The group must hold no process of its own ("no internal processes"), except the root.
    """
    unified = layout.of("unified")
    if unified is None:
        return ()
    directory = unified.directory(path)
    refused = []
    for name in _read(f"{directory}/cgroup.controllers").split():
        try:
            _write(f"{directory}/cgroup.subtree_control", f"+{name}")
        except OSError:
            refused.append(name)
    return tuple(refused)


def _delegate_above(layout: CgroupLayout, path: str) -> None:
    """A v2 group has the controllers that all groups above it pass on; refusals show in `limit`."""
    above = ""
    for part in ("", *path.split("/")[:-1]):
        above = f"{above}/{part}".rstrip("/")
        delegate(layout, above)


@lru_cache(64)
def _planned(limits: CgroupLimits, offered: tuple[tuple[str, int], ...]) -> tuple[LimitWrite, ...]:
    """Most containers have the same limits."""
    return limit_writes(limits, dict(offered))


def _ordered(group: Cgroup, writes: tuple[LimitWrite, ...]) -> list[LimitWrite]:
    """Memory + swap may never be below memory (v1): raise the first before the second."""
    ordered = list(writes)
    files = [write.file for write in ordered]
    swap = "memory.memsw.limit_in_bytes"
    if swap in files and "memory.limit_in_bytes" in files:
        directory = group.directory("memory")
        at = files.index(swap)
        wanted = int(ordered[at].value)
        try:
            now = int(_read(f"{directory}/{swap}"))
        except FileNotFoundError:
            return ordered
        if wanted < 0 or wanted > now:
            ordered.insert(files.index("memory.limit_in_bytes"), ordered.pop(at))
    return ordered


def _apply(group: Cgroup, writes: tuple[LimitWrite, ...]) -> None:
    """Writes to one file."""
    first = writes[0]
    directory = group.directory(first.controller)
    try:
        _write(f"{directory}/{first.file}", *(write.value for write in writes))
    except FileNotFoundError:
        if not first.optional:
            raise


def _pids_in(directory: str) -> list[int]:
    return [int(line) for line in _read_present(f"{directory}/cgroup.procs").split()]


def _read_present(path: str) -> str:
    """A group's file, empty if the group is gone: also between open and read, then it is ENODEV."""
    try:
        return _read(path)
    except OSError as error:
        if error.errno in _GONE:
            return ""
        raise


def _tree(top: str) -> Iterator[str]:
    """The directory and all below it; nothing if it is missing."""
    for directory, _, _ in os.walk(top):
        yield directory


def _freezing(directory: str, *, wanted: bool) -> tuple[str, str]:
    """The file that has processes stand or go on, and what to write there."""
    if os.path.exists(f"{directory}/{_FREEZE}"):
        return f"{directory}/{_FREEZE}", "1" if wanted else "0"
    return f"{directory}/freezer.state", "FROZEN" if wanted else "THAWED"


def _stands(directory: str) -> bool:
    """As `_frozen`, of a group that is there."""
    if not os.path.isdir(directory):
        raise OSError(errno.ENOENT, "freeze: the group is gone", directory)
    return _frozen(directory)


def _frozen(directory: str) -> bool:
    if os.path.exists(f"{directory}/cgroup.events"):
        return "frozen 1" in _read_present(f"{directory}/cgroup.events")
    return _read_present(f"{directory}/freezer.state").strip() == "FROZEN"


def _removed(directory: str) -> bool:
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def _wait_until(condition: Callable[[], bool], seconds: float, path: str, purpose: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(errno.ETIMEDOUT, f"{purpose}: not done in {seconds} s", path)
        time.sleep(_RETRY_SECONDS)
