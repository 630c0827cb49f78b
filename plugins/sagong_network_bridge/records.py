"""What survives: networks on disk, sandboxes and rules until reboot, each in a file of its own.

A file is written beside its place and renamed, so it is there wholly or not at all. Networks are
synchronised to the disk before anybody is told; what dies with the machine's memory needs no disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from sagong.contracts.network import JoinRequest, Network, Rules, Sandbox
from sagong.errors import Internal
from sagong.linux.files import replace_file, synchronise

__all__ = ["NetworkRecord", "Records", "SandboxRecord"]

R = TypeVar("R", bound=msgspec.Struct)


class NetworkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A network and its interface."""

    network: Network
    bridge: str = ""
    parent: str = ""


class SandboxRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A sandbox: what was asked, what it got, its interfaces' names on the host by network."""

    request: JoinRequest
    sandbox: Sandbox
    pin: str = ""
    veths: dict[str, str] = {}
    resolver_port: int = 0


class Records:
    """The files below `data` and `run`."""

    def __init__(self, data: Path, run: Path) -> None:
        self._networks = data / "networks"
        self._sandboxes = run / "sandboxes"
        self._rules = run / "rules"
        for directory in (self._networks, self._sandboxes):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def networks(self) -> Iterator[NetworkRecord]:
        """All networks."""
        return _all(self._networks, NetworkRecord)

    def sandboxes(self) -> Iterator[SandboxRecord]:
        """All sandboxes."""
        return _all(self._sandboxes, SandboxRecord)

    def keep_network(self, record: NetworkRecord) -> None:
        """Write it durably."""
        _write(self._networks / record.network.id, record, durable=True)

    def drop_network(self, identity: str) -> None:
        """Remove it durably."""
        (self._networks / identity).unlink(missing_ok=True)
        synchronise(str(self._networks))

    def keep_sandbox(self, record: SandboxRecord) -> None:
        """Write it."""
        _write(self._sandboxes / file_name(record.sandbox.id), record, durable=False)

    def drop_sandbox(self, identity: str) -> None:
        """Remove it."""
        (self._sandboxes / file_name(identity)).unlink(missing_ok=True)

    def rules(self) -> Rules | None:
        """The rules applied last."""
        try:
            return msgspec.msgpack.decode(self._rules.read_bytes(), type=Rules)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def keep_rules(self, rules: Rules) -> None:
        """Write them."""
        _write(self._rules, rules, durable=False)


def file_name(identity: str) -> str:
    """An id as a file's name, whatever its bytes; long ones would not fit in hexadecimal."""
    if identity.isascii() and identity.replace("-", "").isalnum() and len(identity) <= 128:
        return identity
    import hashlib

    return "." + hashlib.sha256(identity.encode()).hexdigest()


def _write(path: Path, value: msgspec.Struct, *, durable: bool) -> None:
    content, beside = msgspec.msgpack.encode(value), str(path.with_name(f"{path.name}~"))
    replace_file(str(path), content, beside=beside, durable=durable)


def _all(directory: Path, kind: type[R]) -> Iterator[R]:
    for path in sorted(directory.iterdir()):
        if path.name.endswith("~"):
            path.unlink()
            continue
        try:
            yield msgspec.msgpack.decode(path.read_bytes(), type=kind)
        except msgspec.DecodeError as error:
            raise Internal(f"{path} is damaged: {error}; remove it to go on without") from None
