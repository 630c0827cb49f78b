"""From a bundle's configuration to a plan of operations; pure, no look at the machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from sagong.linux import capabilities, mounts
from sagong.linux.cgroup_devices import DEFAULT_DEVICES
from sagong.shim.failure import StartError
from sagong.shim.rlimits import RLIMITS
from sagong_runtime_linux import device_operations as devices
from sagong_runtime_linux import mount_operations as tree
from sagong_runtime_linux import process_operations as process
from sagong_runtime_linux import user_operations as user
from sagong_runtime_linux.oci import attributes
from sagong_runtime_linux.oci import operations as oci
from sagong_runtime_linux.oci import tree_operations as trees
from sagong_runtime_linux.oci.attributes import personality_of, priorities_of, writes_of
from sagong_runtime_linux.oci.bind_planning import (
    Change,
    changes_of,
    is_bind,
    is_of_host,
    mount_name,
    open_sources,
    plain_options,
)
from sagong_runtime_linux.oci.filters import flags_of
from sagong_runtime_linux.oci.notifying import FlaggedFilter, NotifyingFilter
from sagong_runtime_linux.oci.resources import limits_from

__all__ = [
    "Ways",
    "exec_plan",
    "maps_of",
    "mask_of",
    "may_be_traced",
    "missing_capabilities",
    "namespaces_of",
    "own_mounts",
    "run_plan",
]

_KINDS = ("network", "pid", "ipc", "uts", "cgroup", "mount", "user", "time")
_ENTERED = ("ipc", "uts", "network", "cgroup", "time")
_UNLIMITED = 2**63 - 1
# The others have labels of their own, or none.
_LABELLED = ("tmpfs", "devpts")
_FILESYSTEM_DEFAULT = {"proc": "proc", "sysfs": "sysfs", "tmpfs": "tmpfs", "mqueue": "mqueue"}
# What of the kernel's parameters belongs to a namespace, and to which.
_SYSCTLS = (
    ("net.", "network"),
    ("fs.mqueue.", "ipc"),
    ("kernel.msg", "ipc"),
    ("kernel.shm", "ipc"),
    ("kernel.sem", "ipc"),
    ("kernel.domainname", "uts"),
    ("user.", "user"),
)


class Ways(NamedTuple):
    """How some steps of a start are done, as the caller of the runtime asked.

    `confined`: he has no right to devices, being root of a user namespace alone.
    """

    no_pivot: bool = False
    no_new_keyring: bool = False
    confined: bool = False


_USUAL = Ways()


def namespaces_of(config: dict[str, Any]) -> dict[str, str]:
    """Kinds that are new ("") or entered by their path; those not named are the host's."""
    found: dict[str, str] = {}
    for entry in (config.get("linux") or {}).get("namespaces") or ():
        kind = entry["type"]
        if kind not in _KINDS:
            raise StartError("invalid_argument", f"linux.namespaces: {kind!r} is not supported")
        if kind in found:
            raise StartError("invalid_argument", f"linux.namespaces: {kind!r} is named twice")
        found[kind] = entry.get("path") or ""
    return found


def run_plan(
    config: dict[str, Any],
    *,
    cgroup: str,
    unit: str,
    rootfs: str,
    hierarchies: Sequence[tuple[str, str, str]],
    code: str,
    state: dict[str, Any],
    bounding: int,
    ways: Ways = _USUAL,
) -> list[Any]:
    """All between the fork and the moment when the program could be executed.

    `unit` is the scope that systemd is to make of the cgroup, `code` the compiled seccomp filter as
    base64, `state` what createContainer hooks are told.
    """
    spaces = namespaces_of(config)
    _check_spaces(config, spaces)
    own, mapped = own_mounts(config), "user" in spaces
    linux, what = config.get("linux") or {}, config.get("process") or {}
    way = "chroot" if not own else "move" if ways.no_pivot else "pivot"
    hooks = (config.get("hooks") or {}).get("createContainer") or ()
    return [
        *([process.Unshare(("mount",))] if own else _enter_mounts(spaces)),
        *open_sources(config, in_user_namespace=mapped),
        *([tree.SetPropagation("/", "rslave")] if own else []),
        oci.OpenRoot(rootfs) if mapped else oci.BindRoot(rootfs, not own),
        *_group(cgroup, unit, linux.get("resources") or {}, ways),
        *_oom_score(what),
        *_enter(spaces),
        *(_user_entry(spaces) if mapped else ()),
        *_make(config, spaces),
        *((oci.PlaceRootTree(),) if mapped else ()),
        oci.EnterRoot(),
        *_mounts(
            config,
            hierarchies,
            "" if "cgroup" in spaces else cgroup,
            mapped=mapped or ways.confined,
        ),
        oci.LeaveRoot(),
        oci.RunHooks("createContainer", tuple(hooks), state),
        oci.BecomeRoot(way),
        *_restrictions(config),
        tree.DetachOldRoot() if way == "pivot" else oci.CloseOldRoot(),
        *([] if ways.no_new_keyring else [process.JoinKeyring(f"_ses.{state['id']}")]),
        *_process(what, code, bounding, linux),
    ]


def own_mounts(config: dict[str, Any]) -> bool:
    """Whether the container has a mount namespace that nobody else is in."""
    return namespaces_of(config).get("mount", "?") == ""


def _check_spaces(config: dict[str, Any], spaces: dict[str, str]) -> None:
    """Refuse what would change the host, or nothing, for want of a namespace."""
    linux = config.get("linux") or {}
    if "user" in spaces and not own_mounts(config):
        text = "linux.namespaces: a user namespace needs a new mount namespace"
        raise StartError("invalid_argument", text)
    if "user" not in spaces and (linux.get("uidMappings") or linux.get("gidMappings")):
        raise StartError("invalid_argument", "linux.uidMappings need a user namespace")
    if spaces.get("time") != "" and _offsets(config):
        raise StartError("invalid_argument", "linux.timeOffsets needs a new time namespace")
    for key in ("hostname", "domainname"):
        if config.get(key) and "uts" not in spaces:
            raise StartError("invalid_argument", f"{key} needs a uts namespace")
    for name in linux.get("sysctl") or ():
        path = name.replace("/", ".")
        needed = next((kind for prefix, kind in _SYSCTLS if path.startswith(prefix)), None)
        if needed is None:
            raise StartError("invalid_argument", f"linux.sysctl: {name} is in no namespace")
        if needed not in spaces:
            raise StartError("invalid_argument", f"linux.sysctl: {name} needs {needed} namespace")


def _enter_mounts(spaces: dict[str, str]) -> list[Any]:
    return [process.EnterNamespace("mount", spaces["mount"])] if spaces.get("mount") else []


def exec_plan(
    config: dict[str, Any], what: dict[str, Any], *, cgroup: str, code: str, bounding: int
) -> list[Any]:
    """What a further process in the container does before its program is executed."""
    late = may_be_traced(config)
    kinds = [kind for kind in namespaces_of(config) if kind != "pid" or late]
    terminal = _terminal(what, console="") if what.get("terminal") else []
    return [
        *([process.EnterCgroup(cgroup)] if cgroup else []),
        *_oom_score(what, config["process"]),
        process.EnterProcess(tuple(kinds)),
        *([] if own_mounts(config) else [oci.EnterRootOf()]),
        *((user.BecomeMappedRoot(),) if "user" in kinds else ()),
        *((user.ForkInside(),) if late else ()),
        *terminal,
        *_process(what, code, bounding, config.get("linux") or {}, create=False),
    ]


def may_be_traced(config: dict[str, Any]) -> bool:
    """Whether a program in the container's pid namespace may trace one that comes from outside.

    From another user namespace it may not.
    """
    spaces = namespaces_of(config)
    if "pid" not in spaces or "user" in spaces:
        return False
    sets = (config.get("process") or {}).get("capabilities") or {}
    tracing = mask_of(["CAP_SYS_PTRACE"], -1)
    return bool(spaces["pid"]) or bool(mask_of(sets.get("bounding"), -1) & tracing)


def maps_of(source: dict[str, Any]) -> tuple[tuple[tuple[int, int, int], ...], ...]:
    """Maps of uids and gids as (inside, outside, count)."""
    tables = (source.get(key) or () for key in ("uidMappings", "gidMappings"))
    return tuple(tuple((e["containerID"], e["hostID"], e["size"]) for e in t) for t in tables)


def _oom_score(what: dict[str, Any], former: dict[str, Any] | None = None) -> list[Any]:
    score = what.get("oomScoreAdj", (former or {}).get("oomScoreAdj"))
    return [] if score is None else [process.SetOomScore(score)]


def _enter(spaces: dict[str, str]) -> list[Any]:
    """Namespaces by their paths; the pid namespace is entered by the fork."""
    return [process.EnterNamespace(k, spaces[k]) for k in _ENTERED if spaces.get(k)]


def _user_entry(spaces: dict[str, str]) -> list[Any]:
    return [
        process.EnterNamespace("user"),
        user.BecomeMappedRoot(),
        process.Unshare(("mount",)),
        *((user.ForkIntoPids(),) if spaces.get("pid") == "" else ()),
    ]


def _make(config: dict[str, Any], spaces: dict[str, str]) -> list[Any]:
    new = tuple(kind for kind in _ENTERED if spaces.get(kind) == "" and kind != "time")
    made: list[Any] = [process.Unshare(new)] if new else []
    if spaces.get("time") == "":
        made.append(attributes.MakeClocks(_offsets(config)))
    if spaces.get("network") == "":
        made.append(process.LoopbackUp())
    if "uts" in spaces and (config.get("hostname") or config.get("domainname")):
        made.append(
            process.SetHostname(config.get("hostname") or "", config.get("domainname") or "")
        )
    return made


def _offsets(config: dict[str, Any]) -> tuple[tuple[str, int, int], ...]:
    """`timeOffsets` by clocks."""
    given = (config.get("linux") or {}).get("timeOffsets") or {}
    return tuple((c, o.get("secs") or 0, o.get("nanosecs") or 0) for c, o in given.items())


def _group(cgroup: str, unit: str, resources: dict[str, Any], ways: Ways) -> list[Any]:
    limits, writes = limits_from(resources, DEFAULT_DEVICES), writes_of(resources)
    if ways.confined:
        limits.pop("devices")
    if not cgroup:
        _check_unlimited(limits, writes)
        return []
    return [
        *([oci.JoinScope(unit)] if unit else []),
        process.MakeCgroup(cgroup, limits),
        *([attributes.WriteGroup(cgroup, writes)] if writes else []),
    ]


def _check_unlimited(limits: dict[str, Any], writes: Sequence[Any]) -> None:
    """Limits that would not hold."""
    if writes or limits:
        raise StartError(
            "failed_precondition",
            "linux.resources needs a cgroup, which nobody but root has without --systemd-cgroup "
            "or a linux.cgroupsPath",
        )


def _mounts(
    config: dict[str, Any],
    hierarchies: Sequence[tuple[str, str, str]],
    cgroup: str,
    *,
    mapped: bool,
) -> list[Any]:
    found: list[Any] = []
    late: list[Any] = []
    what, label = config.get("process") or {}, (config.get("linux") or {}).get("mountLabel") or ""
    supplied, bound = False, False
    supply = [oci.SupplyDevices("/dev", mapped), *_nodes(config, mapped=mapped)]
    for number, mount in enumerate(config.get("mounts") or ()):
        target = "/" + mount["destination"].lstrip("/")
        ours = target.rstrip("/") == "/dev"
        if is_bind(mount) and "remount" in (mount.get("options") or ()):
            own, below = changes_of(mount["options"])
            found.append(trees.ChangeMount(target, *own))
            found += [trees.ChangeMount(target, *below, recursive=True)] * (below != Change())
            continue
        if is_bind(mount) or is_of_host(mount):
            found.append(tree.AttachTree(mount_name(number, mount), target))
            bound |= ours
            continue
        options = list(mount.get("options") or ())
        if ours:
            late += _late(target, options)
            options = [option for option in options if option not in ("ro", "rro")]
        found += _filesystem({**mount, "options": options}, target, hierarchies, cgroup, label)
        if ours:
            found += supply
            supplied = True
    if not supplied:
        found += _nodes(config, mapped=mapped) if bound else supply
    if what.get("terminal"):
        found += _terminal(what, console="" if bound else "/dev/console")
    return found + late


def _late(target: str, options: Sequence[str]) -> list[Any]:
    """Where devices are made can be read-only after that alone."""
    own, below = changes_of(options)
    read_only = mounts.MOUNT_ATTR_RDONLY
    found: list[Any] = []
    if own.set & read_only:
        found.append(trees.ChangeMount(target, read_only, 0))
    if below.set & read_only:
        found.append(trees.ChangeMount(target, read_only, 0, recursive=True))
    return found


def _filesystem(
    mount: dict[str, Any],
    target: str,
    hierarchies: Sequence[tuple[str, str, str]],
    cgroup: str,
    label: str,
) -> list[Any]:
    options = list(mount.get("options") or ())
    parsed = mounts.flags_of(plain_options(options))
    kind = mount.get("type") or ""
    data = parsed.data
    if label and kind in _LABELLED:
        data = f'{data},context="{label}"'.lstrip(",")
    if kind == "cgroup":
        return [tree.MountCgroups(target, parsed.flags, hierarchies, cgroup)]
    if "tmpcopyup" in (mount.get("options") or ()):
        made: list[Any] = [oci.CopyUp(target, parsed.flags, data)]
    else:
        source = mount.get("source") or _FILESYSTEM_DEFAULT.get(kind, kind)
        made = [tree.MountFilesystem(kind, source, target, parsed.flags, data)]
    _, below = changes_of(options)
    made += [trees.ChangeMount(target, *below, recursive=True)] * (below != Change())
    spread = [name for name in options if name in mounts.PROPAGATIONS]
    return made + [tree.SetPropagation(target, name) for name in spread]


def _nodes(config: dict[str, Any], *, mapped: bool) -> list[Any]:
    return [
        oci.MakeNode(
            entry["path"],
            entry["type"],
            entry.get("major", 0),
            entry.get("minor", 0),
            entry.get("fileMode", 0o666) & 0o7777,
            entry.get("uid", 0),
            entry.get("gid", 0),
            mapped,
        )
        for entry in (config.get("linux") or {}).get("devices") or ()
        # It stays the link into the container's own devpts, as with runc.
        if os.path.normpath(entry["path"]) not in ("/dev/ptmx", "/dev/console")
    ]


def _terminal(what: dict[str, Any], *, console: str) -> list[Any]:
    size = what.get("consoleSize") or {}
    ids = what.get("user") or {}
    return [
        devices.OpenTerminal(
            "/dev/pts/ptmx",
            console,
            size.get("height", 0),
            size.get("width", 0),
            ids.get("uid", 0),
            ids.get("gid", 0),
        )
    ]


def _restrictions(config: dict[str, Any]) -> list[Any]:
    """Kernel parameters first: /proc/sys may become read-only after."""
    linux = config.get("linux") or {}
    spread = linux.get("rootfsPropagation")
    if spread and spread not in mounts.PROPAGATIONS:
        raise StartError("invalid_argument", f"linux.rootfsPropagation {spread!r} is unknown")
    return [
        *(process.WriteSysctl(k, str(v)) for k, v in (linux.get("sysctl") or {}).items()),
        *(tree.ReadOnlyPath(path) for path in linux.get("readonlyPaths") or ()),
        *(tree.MaskPath(path) for path in linux.get("maskedPaths") or ()),
        *((tree.SetPropagation("/", spread),) if spread else ()),
        *((tree.ReadOnlyRoot(),) if (config.get("root") or {}).get("readonly") else ()),
    ]


def mask_of(names: Sequence[str] | None, bounding: int) -> int:
    """A set of capabilities; what the machine lacks or nobody knows is left out, as runc does."""
    mask = 0
    for name in names or ():
        try:
            mask |= 1 << capabilities.number_of(name)
        except ValueError:
            continue
    return mask & bounding


def missing_capabilities(what: dict[str, Any], bounding: int) -> list[str]:
    """What is asked for and can't be granted: unknown, or beyond what the runtime itself has."""
    sets = what.get("capabilities") or {}
    names = dict.fromkeys(name for group in sets.values() for name in group or ())
    return [name for name in names if not mask_of([name], bounding)]


def _process(
    what: dict[str, Any], code: str, bounding: int, linux: dict[str, Any], *, create: bool = True
) -> list[Any]:
    """From the finished tree of mounts to the moment before exec."""
    found: list[Any] = [*_labels(what), *priorities_of(what), *personality_of(linux)]
    cwd = what.get("cwd") or "/"
    found.append(process.ChangeDirectory(cwd, create))
    found += _rlimits(what.get("rlimits") or ())
    ids = what.get("user") or {}
    found.append(process.SetUmask(ids.get("umask", 0o022)))
    forbidden = bool(what.get("noNewPrivileges"))
    filtered = _filter(linux["seccomp"], code) if code else []
    found += [process.ForbidNewPrivileges()] if forbidden else filtered
    found += [_identity(what, ids, bounding), process.ChangeDirectory(cwd, final=True)]
    return found + (filtered if forbidden else [])


def _filter(policy: dict[str, Any], code: str) -> list[Any]:
    kind = NotifyingFilter if policy.get("listenerPath") else FlaggedFilter
    return [kind(code, flags_of(policy))]


def _identity(what: dict[str, Any], ids: dict[str, Any], bounding: int) -> oci.TakeIdentity:
    sets = what.get("capabilities") or {}
    names = ("inheritable", "permitted", "effective", "bounding", "ambient")
    masks = [mask_of(sets.get(name), bounding) for name in names]
    # The kernel refuses ambient ones that are not inheritable, too; runc leaves them out.
    masks[4] &= masks[0] & masks[1]
    groups = tuple(ids.get("additionalGids") or ())
    return oci.TakeIdentity(ids.get("uid", 0), ids.get("gid", 0), groups, *masks)


def _labels(what: dict[str, Any]) -> list[Any]:
    names = (("apparmor", "apparmorProfile"), ("selinux", "selinuxLabel"))
    return [process.Confine(module, what[key]) for module, key in names if what.get(key)]


def _rlimits(limits: Sequence[dict[str, Any]]) -> list[process.SetRlimit]:
    kinds = [limit["type"] for limit in limits]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise StartError("invalid_argument", f"process.rlimits: {kind} is there twice")
    return [_rlimit(limit) for limit in limits]


def _rlimit(limit: dict[str, Any]) -> process.SetRlimit:
    name = limit["type"].removeprefix("RLIMIT_").lower()
    if name not in RLIMITS:
        raise StartError("invalid_argument", f"process.rlimits: {limit['type']} is unknown")
    values = (-1 if limit[key] > _UNLIMITED else limit[key] for key in ("soft", "hard"))
    return process.SetRlimit(name, *values)
