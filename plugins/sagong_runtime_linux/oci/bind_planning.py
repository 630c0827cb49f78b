"""Mounts whose source lies on the host: cloned before the root changes, with their attributes; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sagong.linux import mounts
from sagong.shim.failure import StartError
from sagong_runtime_linux.oci import tree_operations as trees
from sagong_runtime_linux.oci.operations import PrepareFilesystem

__all__ = [
    "RECURSIVE_OPTIONS",
    "Change",
    "changes_of",
    "is_bind",
    "is_of_host",
    "mapping_of",
    "mount_name",
    "open_sources",
    "plain_options",
]

_OF_KERNEL = ("", "proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "none")
_ATIME = mounts.MOUNT_ATTR__ATIME


class Change(NamedTuple):
    """Attributes of a mount to be set and cleared (MOUNT_ATTR_*)."""

    set: int = 0
    clear: int = 0

    def then(self, other: Change) -> Change:
        """Both; what was said last holds."""
        return Change(self.set & ~other.clear | other.set, self.clear & ~other.set | other.clear)


# Times of access are one value of several bits: who sets it clears the others.
_TIMES = {
    "noatime": mounts.MOUNT_ATTR_NOATIME,
    "strictatime": mounts.MOUNT_ATTR_STRICTATIME,
    **dict.fromkeys(("atime", "relatime", "norelatime", "nostrictatime"), 0),
}
_OPPOSITES = {
    "ro": "rw",
    "nosuid": "suid",
    "nodev": "dev",
    "noexec": "exec",
    "nosymfollow": "symfollow",
    "nodiratime": "diratime",
}
_CHANGES = {
    **{name: Change(set=bit) for name, bit in mounts.ATTRIBUTES.items()},
    **{_OPPOSITES[name]: Change(clear=bit) for name, bit in mounts.ATTRIBUTES.items()},
    **{name: Change(set=bits, clear=_ATIME) for name, bits in _TIMES.items()},
}
_RECURSIVE = {f"r{name}": change for name, change in _CHANGES.items()}
RECURSIVE_OPTIONS = frozenset(_RECURSIVE)
_MAPPED = frozenset({"idmap", "ridmap"})


def changes_of(options: Sequence[str]) -> tuple[Change, Change]:
    """What options say of the mount itself, and of all below it, too."""
    own, below = Change(), Change()
    for option in options:
        own = own.then(_CHANGES.get(option, Change()))
        below = below.then(_RECURSIVE.get(option, Change()))
    return own, below


def plain_options(options: Sequence[str]) -> list[str]:
    """Those that mount(2) gets, as flags or as the filesystem's own."""
    ours = RECURSIVE_OPTIONS | _MAPPED | {"tmpcopyup"}
    return [option for option in options if option not in ours]


def is_of_host(mount: dict[str, Any]) -> bool:
    """Whether only the host's paths tell what is to be mounted: overlays, devices, networks."""
    return mount.get("type", "") not in _OF_KERNEL and not is_bind(mount)


def is_bind(mount: dict[str, Any]) -> bool:
    """Whether a part of the host's tree is shown."""
    return mount.get("type") == "bind" or bool({"bind", "rbind"} & set(mount.get("options") or ()))


def mount_name(number: int, mount: dict[str, Any]) -> str:
    """By which a mount's parts are known in the stage."""
    return f"{number}:{mount['destination']}"


def mapping_of(number: int, mount: dict[str, Any], *, in_user_namespace: bool) -> str:
    """The stage's name of the user namespace whose ids a mount shows; "" for none."""
    given = [key for key in ("uidMappings", "gidMappings") if mount.get(key)]
    if len(given) == 1:
        text = f"mounts: {mount['destination']} has {given[0]} alone: uids and gids are mapped together"
        raise StartError("invalid_argument", text)
    if given:
        return mount_name(number, mount)
    if not _MAPPED & set(mount.get("options") or ()):
        return ""
    if not in_user_namespace:
        text = f"mounts: {mount['destination']}: idmap needs mappings, or a user namespace"
        raise StartError("invalid_argument", text)
    return "user"


def open_sources(config: dict[str, Any], *, in_user_namespace: bool) -> list[Any]:
    """Operations that have all trees of the host at hand."""
    found: list[Any] = []
    for number, mount in enumerate(config.get("mounts") or ()):
        name, options = mount_name(number, mount), list(mount.get("options") or ())
        mapping = mapping_of(number, mount, in_user_namespace=in_user_namespace)
        if is_of_host(mount):
            parsed = mounts.flags_of(plain_options(options))
            what = (mount["type"], mount.get("source") or "", parsed.flags, parsed.data)
            found.append(PrepareFilesystem(name, *what))
        elif is_bind(mount) and "remount" not in options:
            found.append(trees.CloneTree(name, mount.get("source") or "", "rbind" in options))
        else:
            if mapping:
                text = f"mounts: {mount['destination']}: ids of {mount.get('type')} can't be mapped"
                raise StartError("invalid_argument", text)
            continue
        found += [trees.SpreadTree(name, spread) for spread in _spreads(mount, options)]
        if mapping:
            found.append(trees.MapTree(name, mapping, "ridmap" in options))
        own, below = changes_of(options)
        if below != Change():
            found.append(trees.ChangeTree(name, *below, recursive=True))
        if is_bind(mount) and own != Change():
            found.append(trees.ChangeTree(name, *own))
    return found


def _spreads(mount: dict[str, Any], options: Sequence[str]) -> list[str]:
    """What of the host's is shown is private, unless told otherwise."""
    named = [name for name in options if name in mounts.PROPAGATIONS]
    return named or (["rprivate"] if is_bind(mount) else [])
