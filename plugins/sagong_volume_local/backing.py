"""From a volume's options to what stands behind it. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from sagong.contracts.volume import Volume
from sagong.errors import InvalidArgument
from sagong.linux.mounts import flags_of

__all__ = ["Backing", "backing_of", "check_name"]

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")
_OPTIONS = ("type", "device", "o", "size")
_TYPE = re.compile(r"[a-z0-9_.-]+")


class Backing(NamedTuple):
    """`kind` is "directory" (our own), "bind" (a directory of the host) or "mount"."""

    kind: str
    type: str = ""
    device: str = ""
    flags: int = 0
    data: str = ""


def check_name(name: str) -> None:
    """A volume's name is a file's name, too."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"volume name {name!r}: 1 to 255 letters, digits, _ . and -, beginning with one of "
            "the former two"
        )


def backing_of(volume: Volume) -> Backing:
    """What the options ask for; InvalidArgument names the wrong one."""
    options = dict(volume.options)
    unknown = [key for key in options if key not in _OPTIONS]
    if unknown:
        raise InvalidArgument(
            f'create {volume.name}: invalid option: "{unknown[0]}"; known: {", ".join(_OPTIONS)}'
        )
    kind, device, words = (options.get(key, "") for key in ("type", "device", "o"))
    if not kind and not device:
        if words:
            raise InvalidArgument(_missing(volume, "device"))
        return Backing("directory")
    if not device or not kind:
        raise InvalidArgument(_missing(volume, "device" if not device else "type"))
    asked = [word for word in words.split(",") if word]
    if "bind" in asked or "rbind" in asked:
        return _bind(volume, device)
    if not _TYPE.fullmatch(kind) or kind == "none":
        raise InvalidArgument(f"volume {volume.name}: type {kind!r} is no filesystem's name")
    if kind == "tmpfs":
        # Else it would belong to whom the plugin runs as.
        asked = ["uid=0", "gid=0", *asked]
        if volume.capacity and not any(word.startswith("size=") for word in asked):
            asked.append(f"size={volume.capacity}")
    parsed = flags_of(asked)
    return Backing("mount", kind, device, parsed.flags, parsed.data)


def _missing(volume: Volume, option: str) -> str:
    """Each of type and device needs the other, and `o` both: in Docker's words."""
    return f'create {volume.name}: missing required option: "{option}"'


def _bind(volume: Volume, device: str) -> Backing:
    if not device.startswith("/") or ".." in device.split("/") or "\0" in device:
        raise InvalidArgument(
            f"volume {volume.name}: device {device!r} must be an absolute path without '..'"
        )
    return Backing("bind", device=device)


def limited(volume: Volume) -> int:
    """The most bytes that the volume may hold, 0 for no limit."""
    text = dict(volume.options).get("size", "")
    found = re.fullmatch(r"(\d+)([kmgt]?)b?", text.lower()) if text else None
    if text and found is None:
        raise InvalidArgument(f"volume {volume.name}: size {text!r}: a number with k, m, g or t")
    if found is None:
        return volume.capacity
    return int(found[1]) << (10 * ("", "k", "m", "g", "t").index(found[2]))
