"""What directories HOST[:PORT] say of registries: whom to trust, who we are there, and mirrors.

Two layouts are read: `*.crt`, `NAME.cert` and `NAME.key` as Docker has them, and containerd's
`hosts.toml` (https://github.com/containerd/containerd/blob/main/docs/hosts.md). They are read before a
courier gives up its rights: keys are nobody's but root's.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from sagong.errors import InvalidArgument
from sagong_image_overlay.settings import Registries

__all__ = ["HostFiles", "Place", "Trust", "Ways", "read_hosts"]

T = TypeVar("T")
# That of hosts that have none.
_ANY = "_default"
_LIMIT = 1 << 20


@dataclass(frozen=True)
class Trust:
    """PEM texts: authorities beside the machine's, and client certificates with their keys."""

    authorities: tuple[str, ...] = ()
    clients: tuple[str, ...] = field(default=(), repr=False)

    def joined(self, other: Trust) -> Trust:
        """Both."""
        return Trust(self.authorities + other.authorities, self.clients + other.clients)

    def extend(self, context: ssl.SSLContext) -> None:
        """Add them to a context."""
        for text in self.authorities:
            context.load_verify_locations(cadata=text)
        for text in self.clients:
            # OpenSSL takes a client's certificate from a file only.
            with open(os.memfd_create("client"), "wb", buffering=0) as file:
                file.write(text.encode())
                context.load_cert_chain(f"/proc/self/fd/{file.fileno()}", password="")


@dataclass(frozen=True)
class Place:
    """Where a registry or a mirror of it is; `resolves` if it is believed what a tag means."""

    url: str
    trust: Trust = Trust()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    unverified: bool = False
    whole: bool = False
    resolves: bool = True


@dataclass(frozen=True)
class HostFiles:
    """A directory; `problem` is why it can't be used."""

    trust: Trust = Trust()
    mirrors: tuple[Place, ...] = ()
    server: Place | None = None
    problem: str = ""

    def checked(self) -> HostFiles:
        """Itself, or what is wrong with it: of interest to who asks that host alone."""
        if self.problem:
            raise InvalidArgument(self.problem)
        return self


@dataclass(frozen=True)
class Ways:
    """How registries are reached: the settings, and the directories by host."""

    settings: Registries
    hosts: Mapping[str, HostFiles] = field(default_factory=dict)

    def of(self, host: str) -> HostFiles:
        """The directory of a host."""
        return self.hosts.get(host, HostFiles()).checked()

    def mirroring(self, domain: str) -> HostFiles:
        """The directory that may name mirrors of a registry."""
        found = self.hosts.get(domain) or self.hosts.get(_ANY) or HostFiles()
        return found.checked()


class _Place(msgspec.Struct, kw_only=True):
    capabilities: tuple[Literal["pull", "resolve", "push"], ...] = ("pull", "resolve")
    ca: str | list[str] = []
    client: str | list[str | list[str]] = []
    skip_verify: bool = False
    override_path: bool = False
    header: dict[str, str | list[str]] = {}


class _Hosts(_Place, kw_only=True):
    server: str = ""
    host: dict[str, _Place] = {}


def read_hosts(tops: tuple[str, ...]) -> dict[str, HostFiles]:
    """All directories below these; of a host that several have, the first counts."""
    found: dict[str, HostFiles] = {}
    for top in tops:
        try:
            names = sorted(os.listdir(top))
        except OSError:
            continue
        for name in names:
            directory = Path(top, name)
            if name not in found and directory.is_dir():
                found[name] = _read(directory)
    return found


def _read(directory: Path) -> HostFiles:
    try:
        trust = Trust(
            tuple(_text(path) for path in sorted(directory.glob("*.crt"))),
            tuple(_docker_clients(directory)),
        )
        path = directory / "hosts.toml"
        if not path.exists():
            return HostFiles(trust)
        told = msgspec.toml.decode(_text(path), type=_Hosts)
        mirrors = tuple(
            _place(url, one, directory)
            for url, one in told.host.items()
            if "pull" in one.capabilities
        )
        return HostFiles(trust, mirrors, _place(told.server, told, directory))
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        return HostFiles(problem=f"{directory}: {error}")


def _docker_clients(directory: Path) -> Iterator[str]:
    for path in sorted(directory.glob("*.cert")):
        key = path.with_suffix(".key")
        if not key.exists():
            raise ValueError(f"missing key {key.name} for client certificate {path.name}")
        yield f"{_text(path)}\n{_text(key)}"
    for key in sorted(directory.glob("*.key")):
        if not key.with_suffix(".cert").exists():
            raise ValueError(f"missing client certificate {key.stem}.cert for key {key.name}")


def _place(url: str, told: _Place, directory: Path) -> Place:
    return Place(
        url,
        Trust(
            tuple(_text(directory / name) for name in _listed(told.ca)),
            tuple(_client(directory, names) for names in _listed(told.client)),
        ),
        {
            name: value if isinstance(value, str) else ", ".join(value)
            for name, value in told.header.items()
        },
        told.skip_verify,
        told.override_path,
        "resolve" in told.capabilities,
    )


def _listed(value: str | list[T]) -> list[str | T]:
    return [value] if isinstance(value, str) else [*value]


def _client(directory: Path, names: str | list[str]) -> str:
    """A file with certificate and key, or one of each."""
    return "\n".join(_text(directory / name) for name in _listed(names) if name)


def _text(path: Path) -> str:
    with path.open("rb") as file:
        raw = file.read(_LIMIT + 1)
    if len(raw) > _LIMIT:
        raise ValueError(f"{path.name} has more than {_LIMIT} bytes")
    return raw.decode()
