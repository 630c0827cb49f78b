"""A bundle's config.json, read and checked before anything is done."""

from __future__ import annotations

import json
import os
from typing import Any

from sagong.shim.failure import StartError

__all__ = ["check_process", "load_config", "load_json", "rootfs_of"]


# What would be silently left out otherwise: each would be a limit or a promise that does not hold.
_UNSUPPORTED = (
    "linux.intelRdt",
    "linux.netDevices",
    "linux.memoryPolicy",
    "linux.resources.network",
    "linux.resources.cpu.burst",
    "linux.resources.cpu.idle",
    "linux.resources.cpu.realtimePeriod",
    "linux.resources.cpu.realtimeRuntime",
    "linux.resources.blockIO.leafWeight",
    "linux.resources.blockIO.weightDevice",
)


def _given(found: Any, path: str) -> Any:
    """What stands at a path of keys."""
    for key in path.split("."):
        found = (found or {}).get(key)
    return found


def load_json(path: str) -> dict[str, Any]:
    """An object from a file ("-" is the standard input)."""
    try:
        with open(0 if path == "-" else path, "rb") as file:
            found = json.loads(file.read())
    except FileNotFoundError:
        raise StartError("not_found", f"{path}: no such file or directory") from None
    except ValueError as error:
        raise StartError("invalid_argument", f"{path}: {error}") from None
    if not isinstance(found, dict):
        raise StartError("invalid_argument", f"{path}: a JSON object is needed")
    return found


def load_config(bundle: str) -> dict[str, Any]:
    """The configuration of a bundle; StartError names the key that is wrong."""
    config = load_json(f"{bundle}/config.json")
    version = str(config.get("ociVersion") or "")
    if version.partition(".")[0] != "1":
        raise StartError("invalid_argument", f"ociVersion {version!r} is not supported: only 1.x")
    if not (config.get("root") or {}).get("path"):
        raise StartError("invalid_argument", "root.path is missing")
    if "process" not in config:
        raise StartError("invalid_argument", "process is missing")
    check_process(config["process"])
    for path in _UNSUPPORTED:
        if _given(config, path):
            raise StartError("unimplemented", f"{path} is not supported")
    for mount in config.get("mounts") or ():
        if not mount.get("destination"):
            raise StartError("invalid_argument", "mounts: an entry has no destination")
    for kind, entries in (config.get("hooks") or {}).items():
        for hook in entries or ():
            if not os.path.isabs(hook.get("path") or ""):
                text = f"hooks.{kind}: path {hook.get('path')!r} must be absolute"
                raise StartError("invalid_argument", text)
    return config


def check_process(what: dict[str, Any]) -> None:
    """Refuse a process that can't be."""
    if what.get("execCPUAffinity"):
        raise StartError("unimplemented", "process.execCPUAffinity is not supported")
    if not what.get("args"):
        raise StartError("invalid_argument", "process.args is empty")
    cwd = what.get("cwd") or ""
    if not cwd.startswith("/"):
        raise StartError("invalid_argument", f"process.cwd {cwd!r} must be an absolute path")
    for text in (*what["args"], *(what.get("env") or ())):
        if "\0" in text:
            raise StartError("invalid_argument", f"NUL byte in {text!r}")


def rootfs_of(config: dict[str, Any], bundle: str) -> str:
    """Where the root filesystem is."""
    path = os.path.realpath(os.path.join(bundle, config["root"]["path"]))
    if not os.path.isdir(path):
        raise StartError("not_found", f"root.path {path}: no such directory")
    return path
