"""Dockerfile lines that change an image's config (`docker commit --change`). Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from sagong.errors import InvalidArgument

__all__ = ["apply_changes"]

Config = dict[str, Any]
# What is quoted or escaped is matched first, and stays.
_VARIABLE = re.compile(
    r"'[^']*'|\\.|\$(?P<plain>[A-Za-z_][A-Za-z0-9_]*)"
    r"|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(:(?P<way>[-+])(?P<word>[^}]*))?\}",
    re.ASCII | re.DOTALL,
)
_AS_THEY_ARE = frozenset(("CMD", "ENTRYPOINT", "HEALTHCHECK", "ONBUILD"))


def apply_changes(config: Config, lines: Iterable[str]) -> Config:
    """The config after all lines; variables in them are those of the config so far."""
    changed = dict(config)
    for line in (part for text in lines for part in text.splitlines()):
        if not line.strip():
            continue
        word, _, rest = line.strip().partition(" ")
        apply = _INSTRUCTIONS.get(word.upper())
        if apply is None:
            raise InvalidArgument(f"{word} is not a valid change command")
        if word.upper() not in _AS_THEY_ARE:
            rest = _expanded(rest, changed.get("Env") or ())
        apply(changed, rest.strip())
    return changed


def _expanded(text: str, env: Iterable[str]) -> str:
    """`$NAME`, `${NAME}`, `${NAME:-word}` and `${NAME:+word}` replaced, but in single quotes."""
    values = dict(entry.partition("=")[::2] for entry in env)

    def value(found: re.Match[str]) -> str:
        name = found["plain"] or found["name"]
        if name is None:
            return found[0]
        given = values.get(name, "")
        match found["way"]:
            case "-":
                return given or found["word"]
            case "+":
                return found["word"] if given else ""
        return given

    return _VARIABLE.sub(value, text)


def _command(text: str) -> list[str]:
    if text.startswith("["):
        try:
            return msgspec.json.decode(text, type=list[str])
        except msgspec.DecodeError:
            pass
    return ["/bin/sh", "-c", text]


def _pairs(text: str) -> list[tuple[str, str]]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InvalidArgument(f"malformed change {text!r}: {error}") from None
    if words and "=" not in words[0]:
        key, _, value = text.partition(" ")
        return [(key, value.strip())]
    return [(key, value) for key, _, value in (word.partition("=") for word in words)]


def _env(config: Config, text: str) -> None:
    env = dict(entry.partition("=")[::2] for entry in config.get("Env") or ())
    env.update(_pairs(text))
    config["Env"] = [f"{key}={value}" for key, value in env.items()]


def _labels(config: Config, text: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **dict(_pairs(text))}


def _expose(config: Config, text: str) -> None:
    ports: Config = {word if "/" in word else f"{word}/tcp": {} for word in text.split()}
    config["ExposedPorts"] = {**(config.get("ExposedPorts") or {}), **ports}


def _volumes(config: Config, text: str) -> None:
    words = _command(text) if text.startswith("[") else text.split()
    config["Volumes"] = {**(config.get("Volumes") or {}), **{word: {} for word in words}}


def _entrypoint(config: Config, text: str) -> None:
    config["Entrypoint"] = _command(text)


def _cmd(config: Config, text: str) -> None:
    config["Cmd"] = _command(text)


def _text(key: str) -> Callable[[Config, str], None]:
    def apply(config: Config, text: str) -> None:
        config[key] = text

    return apply


def _onbuild(config: Config, text: str) -> None:
    config["OnBuild"] = [*(config.get("OnBuild") or ()), text]


def _healthcheck(config: Config, text: str) -> None:
    word, _, rest = text.partition(" ")
    if word.upper() == "NONE":
        config["Healthcheck"] = {"Test": ["NONE"]}
        return
    if word.upper() != "CMD":
        raise InvalidArgument("HEALTHCHECK in a change takes NONE or CMD without options")
    shell = not rest.strip().startswith("[")
    test = ["CMD-SHELL", rest.strip()] if shell else ["CMD", *_command(rest.strip())]
    config["Healthcheck"] = {"Test": test}


_INSTRUCTIONS: dict[str, Callable[[Config, str], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _labels,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _text("StopSignal"),
    "USER": _text("User"),
    "VOLUME": _volumes,
    "WORKDIR": _text("WorkingDir"),
}
