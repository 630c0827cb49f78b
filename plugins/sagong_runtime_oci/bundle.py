"""A bundle, completed and laid out in the fork that then becomes `create`.

The root filesystem is mounted in a mount namespace of this fork: the runtime takes it into the
container's, and it goes with the last of both. Nothing is ever mounted on the host.
"""

from __future__ import annotations

import json
import os
import socket
import stat
from typing import Any

from sagong.linux import mounts, overlay, process, syscalls
from sagong.shim import lean
from sagong.shim.failure import StartError, failed
from sagong.shim.user_namespace import become_mapped_root
from sagong_runtime_oci.binary import call
from sagong_runtime_oci.jobs import device_numbers
from sagong_runtime_oci.resources import resources_of

__all__ = ["lay_out"]

# Where the mapped root can walk to. Filled in a run's own mount namespace alone: on the host they are
# empty, and must be there, since `exec` changes to the root's place before it enters.
_MAPPED_ROOT = "/run/sagong-mapped/root"
_MAPPED_BINDS = "/run/sagong-mapped/binds"
_BIND_FLAGS = mounts.MS_BIND | mounts.MS_REC
_INIT_TARGET = "/dev/init"
_INITS = (
    "/usr/libexec/sagong/init",
    "/usr/bin/docker-init",
    "/usr/bin/tini-static",
    "/usr/bin/catatonit",
    "/usr/libexec/podman/catatonit",
)
# Of the host's /dev, what a privileged container gets from its own mounts instead.
_NOT_COPIED = frozenset({"pts", "shm", "mqueue", "fd", "ptmx", "console", "stdin", "stdout"})
_DEFAULT = frozenset({"null", "zero", "full", "random", "urandom", "tty"})


def lay_out(request: dict[str, Any], directory: str, root: str, held: dict[str, int]) -> None:
    """Write config.json into `directory` and mount the root; `held` are namespaces."""
    plan = json.loads(request["plan"])
    config = plan["config"]
    _check_sources(plan)
    _fill_namespaces(config["linux"]["namespaces"], held)
    if plan["init"]:
        _add_init(config, request["engine"]["init"])
    _add_devices(config, plan)
    limits = resources_of(plan["limits"], device_numbers)
    config["linux"]["resources"].update(limits)
    config["root"]["path"] = _mount_root(plan["root"], config, request, root, held.get("user"))
    _say_modes(config["mounts"], config["root"]["path"])
    with open(f"{directory}/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)


def _say_modes(wanted: list[dict[str, Any]], root: str) -> None:
    """Of every tmpfs: about one that is not said runtimes do not agree."""
    for mount in wanted:
        if mount["type"] == "tmpfs" and not any(o.startswith("mode=") for o in mount["options"]):
            mode = _mode_at(root, mount["destination"])
            mount["options"] = [*mount["options"], *([f"mode={mode:o}"] if mode else [])]


def _mode_at(root: str, path: str) -> int:
    """What is there has; 1777 where nothing is; 0 behind a link, which is left to the runtime."""
    place, mode = root, 0
    for part in path.strip("/").split("/"):
        place = f"{place}/{part}"
        try:
            mode = os.lstat(place).st_mode
        except OSError:
            return 0o1777
        if stat.S_ISLNK(mode):
            return 0
    return stat.S_IMODE(mode)


def _check_sources(plan: dict[str, Any]) -> None:
    for source in plan["make_sources"]:
        if not os.path.exists(source):
            os.makedirs(source, exist_ok=True)
    for source in plan["sources"]:
        if not os.path.lexists(source):
            raise StartError(
                "invalid_argument",
                f'invalid mount config for type "bind": bind source path does not exist: {source}',
            )


def _reachable(descriptor: int) -> str:
    """A path of a descriptor that this process, become the runtime, goes on to hold."""
    os.set_inheritable(descriptor, True)
    return f"/proc/{os.getpid()}/fd/{descriptor}"


def _fill_namespaces(namespaces: list[dict[str, str]], held: dict[str, int]) -> None:
    for entry in namespaces:
        if entry.get("path") == "":
            entry["path"] = _reachable(held[entry["type"]])


def _add_init(config: dict[str, Any], configured: str) -> None:
    """The program becomes an argument of a small init that is bound into the container's /dev."""
    program = configured or next((path for path in _INITS if os.path.exists(path)), "")
    if not program:
        raise StartError(
            "failed_precondition",
            "init needs a static program: install tini or catatonit, or set `init` of runtime_oci",
        )
    options = ["bind", "ro"]
    config["mounts"].append(
        {"destination": _INIT_TARGET, "type": "bind", "source": program, "options": options}
    )
    config["process"]["args"] = [_INIT_TARGET, "--", *config["process"]["args"]]


def _add_devices(config: dict[str, Any], plan: dict[str, Any]) -> None:
    devices: list[dict[str, Any]] = []
    rules = config["linux"]["resources"]["devices"]
    for source, target, access in plan["devices"]:
        for device in _nodes(source, target):
            devices.append(device)
            numbers = {"major": device["major"], "minor": device["minor"]}
            rules.append({"allow": True, "type": device["type"], **numbers, "access": access})
    if plan["all_devices"]:
        for name in sorted(set(os.listdir("/dev")) - _NOT_COPIED - _DEFAULT):
            devices += _nodes(f"/dev/{name}", f"/dev/{name}", strict=False)
    config["linux"]["devices"] = devices


def _nodes(source: str, target: str, *, strict: bool = True) -> list[dict[str, Any]]:
    """A device node of the host, or all of a directory."""
    try:
        found = os.stat(source) if strict else os.lstat(source)
    except FileNotFoundError:
        if not strict:
            return []
        raise StartError(
            "invalid_argument",
            f'error gathering device information while adding custom device "{source}": '
            "no such file or directory",
        ) from None
    if stat.S_ISDIR(found.st_mode):
        inner = (_nodes(f"{source}/{n}", f"{target}/{n}", strict=False) for n in os.listdir(source))
        return [device for devices in inner for device in devices]
    if not stat.S_ISCHR(found.st_mode) and not stat.S_ISBLK(found.st_mode):
        if strict:
            raise StartError("invalid_argument", f"{source} is not a device node")
        return []
    device = {
        "path": target,
        "type": "b" if stat.S_ISBLK(found.st_mode) else "c",
        "major": os.major(found.st_rdev),
        "minor": os.minor(found.st_rdev),
        "fileMode": stat.S_IMODE(found.st_mode),
        "uid": found.st_uid,
        "gid": found.st_gid,
    }
    return [device]


def _mount_root(
    wanted: list[Any],
    config: dict[str, Any],
    request: dict[str, Any],
    place: str,
    user: int | None,
) -> str:
    """Where the root is, seen from this process; a bind without a mapping stays where it is."""
    kind, source, options = wanted
    parsed = mounts.flags_of(options)
    if parsed.flags & mounts.MS_RDONLY:
        config["root"]["readonly"] = True
    if user is not None:
        return _mount_for_mapped(kind, source, parsed, config, request, user)
    if kind == "bind":
        return str(source)
    syscalls.unshare(syscalls.Namespace.MNT)
    _keep_from_host(place)
    if kind == "overlay":
        overlay.mount_overlay(source, place, parsed.flags & ~_BIND_FLAGS, parsed.data)
    else:
        syscalls.mount(source or kind, place, kind, parsed.flags & ~_BIND_FLAGS, parsed.data)
    return place


def _mount_for_mapped(
    kind: str,
    source: str,
    parsed: mounts.ParsedOptions,
    config: dict[str, Any],
    request: dict[str, Any],
    namespace: int,
) -> str:
    """Root and bind mounts with mapped ids, below a place that the mapped root can walk to."""
    for place in (_MAPPED_ROOT, _MAPPED_BINDS):
        os.makedirs(place, mode=0o755, exist_ok=True)
    syscalls.unshare(syscalls.Namespace.MNT)
    _keep_from_host(_MAPPED_ROOT)
    _attach(_mapped_root(namespace, kind, source, parsed, _MAPPED_ROOT), _MAPPED_ROOT)
    _attach(overlay.new_tmpfs(), _MAPPED_BINDS)
    mapped = json.loads(request["plan"])["mapped"]
    for number, mount in enumerate(config["mounts"]):
        if number in mapped:
            mount["source"] = _mapped_source(namespace, mount, f"{_MAPPED_BINDS}/{number}")
    _join_user_namespace(config, namespace, request["engine"])
    return _MAPPED_ROOT


def _mapped_source(namespace: int, mount: dict[str, Any], place: str) -> str:
    """A bind's source with mapped ids; filesystems that know no mapping stay as they are."""
    recursive = "bind" not in mount["options"]
    tree = overlay.leniently_mapped_tree(mount["source"], namespace, recursive=recursive)
    _make_target(place, directory=stat.S_ISDIR(os.fstat(tree).st_mode))
    _attach(tree, place)
    return place


def _make_target(place: str, *, directory: bool) -> None:
    """An empty mount point."""
    if directory:
        os.mkdir(place)
    else:
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def _keep_from_host(place: str) -> None:
    """The mount that holds the mount point must not hand ours on; all others stay as they are."""
    here = os.path.realpath(place)
    while not os.path.ismount(here):
        here = os.path.dirname(here)
    mounts.set_propagation(here, "slave")


def _attach(tree: int, place: str) -> None:
    try:
        syscalls.move_mount(tree, place)
    finally:
        os.close(tree)


def _join_user_namespace(config: dict[str, Any], namespace: int, engine: dict[str, Any]) -> None:
    """The one that owns the root: elsewhere set-user-id programs of it would have no effect."""
    linux = config["linux"]
    linux["namespaces"].append({"type": "user", "path": _reachable(namespace)})
    if _reads_maps(call(engine, "--version").decode("utf-8", "replace")):
        del linux["uidMappings"], linux["gidMappings"]


def _reads_maps(version: str) -> bool:
    """Whether maps of a namespace that is joined must not be given: runc refuses them since 1.2."""
    name, _, rest = version.partition(" version ")
    numbers = rest.split(".")
    return name == "runc" and numbers[0] == "1" and numbers[1] not in ("0", "1")


def _mapped_root(
    namespace: int, kind: str, source: str, parsed: mounts.ParsedOptions, place: str
) -> int:
    """A tree with mapped ids. Overlay acts on its layers as who mounted it: a fork as mapped root."""
    if kind == "bind":
        return overlay.mapped_tree(source, namespace, recursive=True)
    trees: dict[str, int] = {}
    try:
        if kind == "overlay":
            trees = overlay.mapped_layers(parsed.data, namespace)
    except ValueError as error:
        raise StartError("failed_precondition", str(error)) from None
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = lean.fork()
    if pid == 0:
        try:
            tree = _mount_mapped(namespace, trees, kind, parsed, place)
            process.send_descriptors(theirs, b"tree", (tree,))
        except OSError as error:
            found = failed(error, "mounting the root with mapped ids")
            theirs.send(json.dumps([found.code, found.message]).encode())
        finally:
            os._exit(0)
    theirs.close()
    for tree in trees.values():
        os.close(tree)
    said, descriptors = process.receive_descriptors(ours, 4096, 1)
    os.waitpid(pid, 0)
    ours.close()
    if not descriptors:
        killed = [
            "failed_precondition",
            "mounting the root with mapped ids: its process was killed",
        ]
        raise StartError(*(json.loads(said) if said else killed))
    return descriptors[0]


def _mount_mapped(
    namespace: int,
    trees: dict[str, int],
    kind: str,
    parsed: mounts.ParsedOptions,
    place: str,
) -> int:
    os.chdir(place)
    become_mapped_root(namespace)
    syscalls.unshare(syscalls.Namespace.MNT)
    ground = overlay.new_tmpfs()
    syscalls.move_mount(ground, ".")
    os.fchdir(ground)
    os.mkdir("root")
    flags = parsed.flags & ~_BIND_FLAGS
    if kind == "overlay":
        overlay.mount_overlay(kind, "root", flags, overlay.attach_layers(trees, parsed.data))
    else:
        syscalls.mount(kind, "root", kind, flags, parsed.data)
    return syscalls.open_tree("root", clone=True)
