"""An image in the making: the config as steps change it, and the documents that are kept of it.

The documents have what Docker's classic builder writes: `container_config` holds what the step was,
so that the step is found again (`cached`), and the history says it in one line; or in BuildKit's words,
with a digest of what it was beside them. Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from sagong.contracts.image import Image
from sagong.model import oci

__all__ = ["DEFAULT_SHELL", "Draft", "environment_of", "quoted", "same_step", "step_key"]

DEFAULT_SHELL = ("/bin/sh", "-c")
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT = (
    "User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels",
    "StopSignal", "Healthcheck", "OnBuild", "Shell", "ArgsEscaped",
)  # fmt: skip
_BUILDKIT = "buildkit.dockerfile.v0"
_STEP = "sagong.step"


def step_key(entry: Mapping[str, Any]) -> str:
    """What an entry of a history was, for who looks for the same step."""
    return entry.get(_STEP) or _digest(entry.get("created_by") or "")


def same_step(entry: Mapping[str, Any], step: Sequence[str]) -> bool:
    """Whether an entry of a history is of this step."""
    return step_key(entry) == _digest(" ".join(step))


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def quoted(words: Sequence[str] | None) -> str:
    """Words as Docker's history shows them: `["a" "b"]`."""
    return "[" + " ".join(json.dumps(word, ensure_ascii=False) for word in words or ()) + "]"


def environment_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Env as a mapping."""
    pairs = (entry.partition("=") for entry in config.get("Env") or ())
    return {name: value for name, _, value in pairs}


@dataclass
class Draft:
    """`image` is what the next step begins from; "" is nothing (Dockerfile's scratch).

    So many entries of the history are the `inherited` ones of the image that all began from, which has
    so many `layers`.
    """

    platform: oci.Platform
    image: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[Any] = field(default_factory=list)
    author: str = ""
    cmd_set: bool = False
    inherited: int = 0
    layers: int = 0

    @classmethod
    def scratch(cls, platform: oci.Platform, directory: str = "") -> Draft:
        """From nothing."""
        return cls(platform, config={"Env": [_PATH], "WorkingDir": directory})

    def begin(self, image: Image, *, author: bool = True) -> None:
        """From an image; its triggers are the caller's to run. Its `author` may be this one's, too."""
        document = msgspec.json.decode(image.raw, type=dict[str, Any])
        config = {k: v for k, v in (document.get("config") or {}).items() if k in _KEPT and v}
        if not any(name == "PATH" for name in environment_of(config)):
            config["Env"] = [_PATH, *(config.get("Env") or ())]
        self.config = config
        self.author = str(document.get("author") or "") if author else ""
        self.platform = oci.Platform(
            architecture=image.architecture or self.platform.architecture,
            os=image.os or self.platform.os,
            variant=image.variant,
        )
        self.cmd_set = False
        self.advance(image)

    def advance(self, image: Image) -> None:
        """Go on from what a step made."""
        self.image = image.id
        self.history = msgspec.json.decode(image.history or b"[]", type=list[Any] | None) or []

    @property
    def shell(self) -> tuple[str, ...]:
        """What lines are given to."""
        return tuple(self.config.get("Shell") or DEFAULT_SHELL)

    @property
    def environment(self) -> dict[str, str]:
        """Env."""
        return environment_of(self.config)

    def set_environment(self, name: str, value: str) -> None:
        """Set a variable in its place."""
        found = self.environment
        found[name] = value
        self.config["Env"] = [f"{key}={text}" for key, text in found.items()]

    def mark_escaped(self, *, escaped: bool) -> None:
        """A mark at CMD that tells Windows that words need no more quotes; BuildKit sets it always."""
        self.config.pop("ArgsEscaped", None)
        if escaped:
            self.config["ArgsEscaped"] = True

    def note(self, comment: str, *, single: bool = False) -> tuple[str, ...]:
        """What a step that runs no command is, as Docker's history has it."""
        if single:
            return (*self.shell, f"#(nop) {comment}")
        return (*self.shell, "#(nop) ", comment)

    def step_config(self, step: Sequence[str]) -> dict[str, Any]:
        """`container_config` of a step: the config with the step as its command."""
        return {**self.kept_config(), "Cmd": list(step)}

    def kept_config(self) -> dict[str, Any]:
        """The config without what is empty."""
        return {k: v for k, v in self.config.items() if v not in (None, "", [], {})}

    def document(
        self,
        step: Sequence[str],
        container: str,
        created: str,
        *,
        empty: bool = False,
        told: str = "",
        buildkit: bool = False,
    ) -> bytes:
        """The config of the step's image, without its layers; `container` is the step's id.

        `empty`: the step adds no layer. The history says what is `told`, or else the step itself, as
        Docker's classic builder or as `buildkit`.
        """
        line = " ".join(step)
        entry: dict[str, Any] = {"created": created, "created_by": told or line}
        if empty:
            entry["empty_layer"] = True
        if told not in ("", line):
            entry[_STEP] = _digest(line)
        if buildkit:
            entry["comment"] = _BUILDKIT
        elif self.author:
            entry["author"] = self.author
        document: dict[str, Any] = {
            "created": created,
            "architecture": self.platform.architecture,
            "os": self.platform.os,
            "config": self.kept_config(),
            "container": container,
            "container_config": self.step_config(step),
            "history": [*self.history, entry],
        }
        if self.author:
            document["author"] = self.author
        if self.platform.variant:
            document["variant"] = self.platform.variant
        return msgspec.json.encode(document)

    def dated(self, raw: bytes, created: str) -> bytes:
        """The document of its image as if all was made at one time, without what is by chance."""
        document = msgspec.json.decode(raw, type=dict[str, Any])
        for name in ("container", "container_config", "rootfs"):
            document.pop(name, None)
        made = [{**entry, "created": created} for entry in self.history[self.inherited :]]
        document["created"] = created
        document["history"] = [*self.history[: self.inherited], *made]
        return msgspec.json.encode(document)
