"""What a container executes: its spec over its image's config. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from sagong.contracts.image import Image, ImageConfig
from sagong.contracts.node import Command
from sagong.errors import InvalidArgument

__all__ = ["Merged", "check_command", "completed", "merge", "merge_environment"]

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Merged(msgspec.Struct, frozen=True):
    """The command as it will be."""

    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str


def merge(command: Command, image: ImageConfig, hostname: str) -> Merged:
    """An own entrypoint drops the image's cmd, as Docker has it; an empty word resets it."""
    entrypoint = image.entrypoint or ()
    cmd = image.cmd or ()
    if command.entrypoint is not None:
        entrypoint, cmd = tuple(word for word in command.entrypoint if word), ()
    if command.cmd is not None:
        cmd = command.cmd
    args = (*entrypoint, *cmd)
    if not args:
        raise InvalidArgument("no command specified")
    base = [_PATH, f"HOSTNAME={hostname}"]
    if command.tty:
        base.append("TERM=xterm")
    env = merge_environment(base, image.env, command.env)
    return Merged(args, env, command.cwd or image.working_dir or "/", command.user or image.user)


def check_command(command: Command, image: Image | None) -> None:
    """Refuse a container that would have nothing to execute."""
    if image is not None:
        merge(command, image.config, "")


def merge_environment(*layers: Iterable[str]) -> tuple[str, ...]:
    """Later entries win, in place of the earlier; a bare name removes one."""
    found: dict[str, str] = {}
    for layer in layers:
        for entry in layer:
            name, equals, _ = entry.partition("=")
            if equals:
                found[name] = entry
            else:
                found.pop(name, None)
    return tuple(found.values())


def completed(environment: Iterable[str], **defaults: str) -> tuple[str, ...]:
    """With what it does not name itself, at its end."""
    given = tuple(environment)
    named = {entry.partition("=")[0] for entry in given}
    return (*given, *(f"{k}={v}" for k, v in defaults.items() if k not in named))
