"""What Docker's API must give back as it was given, kept in the state. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from sagong.contracts.node import ContainerStatus

__all__ = ["ContainerRecord", "ExecRecord", "NetworkRecord", "foreign"]


class ContainerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A container of Docker's; `config`, `host` and `networking` are the create body's parts.

    `links` are those of the default network: the other containers' ids by alias.
    """

    id: str
    name: str
    created: int
    config: dict[str, Any]
    host: dict[str, Any]
    networking: dict[str, Any] = {}
    links: dict[str, str] = {}
    owner: str = "docker"

    @property
    def tty(self) -> bool:
        """Whether its output is raw."""
        return bool(self.config.get("Tty"))

    @property
    def image(self) -> str:
        """The image as it was named."""
        return str(self.config.get("Image") or "")

    @property
    def labels(self) -> dict[str, str]:
        """Its labels as given."""
        return dict(self.config.get("Labels") or {})

    @property
    def left(self) -> frozenset[str]:
        """Networks that it was disconnected from, by name and id: its mode may still name one."""
        return frozenset(self.networking.get("Left") or ())


class ExecRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An exec that was made; it is run by its start."""

    id: str
    container: str
    body: dict[str, Any]


class NetworkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a network's create body had beyond the contract's fields."""

    id: str
    name: str
    created: int
    body: dict[str, Any]


def foreign(status: ContainerStatus, owner: str) -> ContainerRecord:
    """A record of a container that was not made by Docker's API (a pod's)."""
    spec = status.spec
    command = spec.command
    config: dict[str, Any] = {
        "Image": spec.image,
        "Tty": command.tty,
        "OpenStdin": command.stdin,
        "Env": list(command.env),
        "Entrypoint": list(command.entrypoint) if command.entrypoint is not None else None,
        "Cmd": list(command.cmd) if command.cmd is not None else None,
        "User": command.user,
        "WorkingDir": command.cwd,
        "Labels": dict(spec.labels),
    }
    name = spec.name or spec.id
    created = round(status.created_at * 1e9)
    return ContainerRecord(
        id=spec.id, name=name, created=created, config=config, host={}, owner=owner
    )
