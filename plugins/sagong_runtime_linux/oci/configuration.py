"""A bundle's config.json, read and checked before anything is done."""

from __future__ import annotations

import json
import os
from typing import Any

from sagong.shim.failure import StartError

__all__ = ["check_process", "check_supported", "load_config", "load_json", "rootfs_of"]


_NO_ID = (1 << 32) - 1

# What would be silently left out otherwise: each would be a limit or a promise that does not hold.
_UNSUPPORTED = (
    "linux.intelRdt",
    "linux.netDevices",
    "linux.memoryPolicy",
    "linux.resources.network",
    "linux.resources.cpu.realtimePeriod",
    "linux.resources.cpu.realtimeRuntime",
    "linux.resources.blockIO.leafWeight",
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
    _check_version(str(config.get("ociVersion") or ""))
    if not (config.get("root") or {}).get("path"):
        raise StartError("invalid_argument", "root.path is missing")
    if config.get("process"):
        check_process(config["process"])
    check_supported(config)
    for mount in config.get("mounts") or ():
        _check_mount(mount, bundle)
    for kind, entries in (config.get("hooks") or {}).items():
        for hook in entries or ():
            _check_hook(kind, hook)
    for key, value in (config.get("annotations") or {}).items():
        if not key or not isinstance(value, str):
            raise StartError("invalid_argument", f"annotations: {key!r} must name a string")
    return config


def check_supported(config: dict[str, Any]) -> None:
    """Refuse keys that would be left out silently."""
    for path in _UNSUPPORTED:
        if _given(config, path):
            raise StartError("unimplemented", f"{path} is not supported")


def _check_version(version: str) -> None:
    """Semantic versioning 2.0.0; all of 1.x are compatible."""
    numbers = version.partition("+")[0].partition("-")[0].split(".")
    if len(numbers) != 3 or not all(number.isdigit() for number in numbers) or numbers[0] != "1":
        raise StartError("invalid_argument", f"ociVersion {version!r} is not supported: only 1.x.y")


def _check_mount(mount: dict[str, Any], bundle: str) -> None:
    """Sources of binds may be relative to the bundle: they are absolute from here on."""
    if not mount.get("destination"):
        raise StartError("invalid_argument", "mounts: an entry has no destination")
    options = mount.get("options") or ()
    if mount.get("type") != "bind" and "bind" not in options and "rbind" not in options:
        return
    if mount.get("source"):
        mount["source"] = os.path.join(bundle, mount["source"])
    elif "remount" not in options:
        text = f"mounts: the bind mount at {mount['destination']} has no source"
        raise StartError("invalid_argument", text)


def _check_hook(kind: str, hook: dict[str, Any]) -> None:
    if not os.path.isabs(hook.get("path") or ""):
        text = f"hooks.{kind}: path {hook.get('path')!r} must be absolute"
        raise StartError("invalid_argument", text)
    timeout = hook.get("timeout")
    if timeout is not None and timeout <= 0:
        raise StartError("invalid_argument", f"hooks.{kind}: timeout must be greater than zero")


def check_process(what: dict[str, Any]) -> None:
    """Refuse a process that can't be."""
    if what.get("execCPUAffinity"):
        raise StartError("unimplemented", "process.execCPUAffinity is not supported")
    if not what.get("args"):
        raise StartError("invalid_argument", "process.args is empty")
    cwd = what.get("cwd") or ""
    if not cwd.startswith("/"):
        raise StartError("invalid_argument", f"process.cwd {cwd!r} must be an absolute path")
    for key in ("args", "env"):
        texts = what.get(key) or []
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise StartError("invalid_argument", f"process.{key} must be a list of strings")
    _check_user(what.get("user") or {})
    for text in (*what["args"], *(what.get("env") or ())):
        if "\0" in text:
            raise StartError("invalid_argument", f"NUL byte in {text!r}")


def _check_user(user: dict[str, Any]) -> None:
    """To the kernel -1 means that the id stays as it is: root's."""
    given: list[tuple[str, Any]] = [(key, user[key]) for key in ("uid", "gid") if key in user]
    given += [("additionalGids", one) for one in user.get("additionalGids") or ()]
    for key, number in given:
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < _NO_ID:
            text = f"process.user.{key} {number!r} must be a number from 0 to {_NO_ID - 1}"
            raise StartError("invalid_argument", text)


def rootfs_of(config: dict[str, Any], bundle: str) -> str:
    """Where the root filesystem is."""
    path = os.path.realpath(os.path.join(bundle, config["root"]["path"]))
    if not os.path.isdir(path):
        raise StartError("not_found", f"root.path {path}: no such directory")
    return path
