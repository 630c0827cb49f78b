"""Image configs: what a commit or an import adds to one; Dockerfile lines as changes."""

from __future__ import annotations

import hashlib
import re
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from sagong.errors import InvalidArgument
from sagong.model import oci

__all__ = [
    "Step",
    "apply_changes",
    "documented_config",
    "grown_config",
    "new_config",
    "squashed_config",
    "step_digest",
    "step_query",
]


_PLATFORM = ("os", "architecture", "variant")


@dataclass(frozen=True)
class Step:
    """One entry of the history: its layer (none if `diff_id` is empty) and who made it."""

    diff_id: str
    author: str = ""
    comment: str = ""
    created_by: str = ""
    config: bytes = b""


def _now() -> str:
    now = time.time_ns()
    base = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 1_000_000_000))
    return f"{base}.{now % 1_000_000_000:09d}Z"


def _decoded(raw: bytes, what: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise InvalidArgument(f"{what} is no JSON object: {error}") from None


def grown_config(raw: bytes, step: Step) -> bytes:
    """The config of an image made from another one's by a step."""
    config = _decoded(raw, "image config")
    created = _now()
    config["created"] = created
    config["author"] = step.author or config.get("author", "")
    if step.config:
        config["config"] = _decoded(step.config, "the new config")
    # Facts of the container that the parent was made of.
    for key in ("container", "container_config", "id", "parent", "parent_id"):
        config.pop(key, None)
    rootfs = config.setdefault("rootfs", {"type": "layers", "diff_ids": []})
    entry: dict[str, Any] = {"created": created}
    if step.author:
        entry["author"] = step.author
    if step.created_by:
        entry["created_by"] = step.created_by
    if step.comment:
        entry["comment"] = step.comment
    if step.diff_id:
        rootfs["diff_ids"] = [*(rootfs.get("diff_ids") or ()), step.diff_id]
    else:
        entry["empty_layer"] = True
    config["history"] = [*(config.get("history") or ()), entry]
    return _checked(config)


def new_config(platform: tuple[str, str, str], step: Step) -> bytes:
    """The config of an image that has nothing below it; `platform` is (os, architecture, variant)."""
    system, architecture, variant = platform
    config: dict[str, Any] = {
        "architecture": architecture,
        "os": system,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": []},
    }
    if variant:
        config["variant"] = variant
    return grown_config(msgspec.json.encode(config), step)


def documented_config(
    document: bytes, base: bytes, platform: tuple[str, str, str], diff_ids: Sequence[str]
) -> dict[str, Any]:
    """The config that a document describes: completed by the platform of `base` and the layers.

    Without a base (b"") the platform is the given (os, architecture, variant).
    """
    config = _decoded(document, "the config document")
    below = _decoded(base, "image config") if base else dict(zip(_PLATFORM, platform))
    if not any(key in config for key in _PLATFORM):
        config |= {key: below[key] for key in _PLATFORM if below.get(key)}
    for key, value in zip(_PLATFORM[:2], platform):
        config.setdefault(key, value)
    config["rootfs"] = {"type": "layers", "diff_ids": list(diff_ids)}
    _checked(config)
    return config


def _checked(config: dict[str, Any]) -> bytes:
    """The JSON of a config; InvalidArgument if nobody could read it as one."""
    raw = msgspec.json.encode(config)
    oci.decode(raw, oci.Config, "the image config")
    return raw


def squashed_config(raw: bytes, above: int, comment: str, diff_ids: Sequence[str]) -> bytes:
    """The config of an image whose history above the first `above` entries is one layer now."""
    config = _decoded(raw, "image config")
    config["created"] = _now()
    history = [dict(entry) for entry in config.get("history") or ()]
    for entry in history[above:]:
        entry["empty_layer"] = True
    config["history"] = [*history, {"created": config["created"], "comment": comment}]
    config["rootfs"] = {"type": "layers", "diff_ids": list(diff_ids)}
    return msgspec.json.encode(config)


# Dockerfile lines, as `docker import --change` takes them.


def apply_changes(config: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """The container config changed by Dockerfile lines; InvalidArgument for others."""
    result = dict(config)
    for line in changes:
        word, _, rest = line.strip().partition(" ")
        change = _CHANGES.get(word.upper())
        if change is None:
            raise InvalidArgument(f"{word or line} is not a valid change command")
        change(result, rest.strip())
    return result


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InvalidArgument(f"can't read {text!r}: {error}") from None


def _command(text: str) -> list[str]:
    """The JSON form, or a line for the shell."""
    found = _listed(text)
    return ["/bin/sh", "-c", text] if found is None else found


def _listed(text: str) -> list[str] | None:
    """The words of a JSON list; None if it is none."""
    try:
        return msgspec.json.decode(text, type=list[str])
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return None


def _pairs(text: str) -> list[tuple[str, str]]:
    words = _words(text)
    if words and "=" not in words[0]:
        return [(words[0], " ".join(words[1:]))]
    pairs = [word.partition("=") for word in words]
    if not pairs or not all(key and equals for key, equals, _ in pairs):
        raise InvalidArgument(f"{text!r} must be NAME=VALUE")
    return [(key, value) for key, _, value in pairs]


def _env(config: dict[str, Any], text: str) -> None:
    env = {entry.partition("=")[0]: entry for entry in config.get("Env") or ()}
    env.update((key, f"{key}={value}") for key, value in _pairs(text))
    config["Env"] = list(env.values())


def _label(config: dict[str, Any], text: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **dict(_pairs(text))}


def _expose(config: dict[str, Any], text: str) -> None:
    ports = dict(config.get("ExposedPorts") or {})
    for word in _words(text):
        if not re.fullmatch(r"\d{1,5}(-\d{1,5})?(/(tcp|udp|sctp))?", word):
            raise InvalidArgument(f"invalid containerPort: {word}")
        ports[word if "/" in word else f"{word}/tcp"] = {}
    config["ExposedPorts"] = ports


def _volume(config: dict[str, Any], text: str) -> None:
    paths = _listed(text) or _words(text)
    config["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in paths}}


def _setter(key: str, read: Callable[[str], Any]) -> Callable[[dict[str, Any], str], None]:
    def change(config: dict[str, Any], text: str) -> None:
        config[key] = read(text)

    return change


def _on_build(config: dict[str, Any], text: str) -> None:
    config["OnBuild"] = [*(config.get("OnBuild") or ()), text]


_CHANGES: dict[str, Callable[[dict[str, Any], str], None]] = {
    "CMD": _setter("Cmd", _command),
    "ENTRYPOINT": _setter("Entrypoint", _command),
    "ENV": _env,
    "EXPOSE": _expose,
    "LABEL": _label,
    "ONBUILD": _on_build,
    "STOPSIGNAL": _setter("StopSignal", str),
    "USER": _setter("User", str),
    "VOLUME": _volume,
    "WORKDIR": _setter("WorkingDir", str),
}


def step_digest(raw: bytes) -> bytes:
    """A digest of what step of a build a config says that it is; b"" if it says nothing."""
    try:
        step = msgspec.json.decode(raw, type=dict[str, Any]).get("container_config")
    except msgspec.DecodeError:
        return b""
    return _digest_of(step) if step else b""


def step_query(raw: bytes) -> bytes:
    """The same of a step alone; InvalidArgument if it is no JSON object."""
    try:
        return _digest_of(msgspec.json.decode(raw, type=dict[str, Any]))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"a build's step is not valid: {error}") from None


def _digest_of(step: object) -> bytes:
    return hashlib.sha256(msgspec.json.encode(step, order="sorted")).digest()
