"""What `--link NAME:ALIAS` on the default network gives: a line of /etc/hosts and variables. Pure.

The variables are those of https://docs.docker.com/engine/network/links/ (environment variables).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sagong.model.numbers import natural

__all__ = ["Link"]

_OF_THE_IMAGE = ("HOME", "PATH")


@dataclass(frozen=True)
class Link:
    """Another container under an alias: its address, the ports it exposes, its variables."""

    name: str
    alias: str
    address: str
    ports: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    hostname: str = ""

    @property
    def hosts(self) -> str:
        """Its names on a line of /etc/hosts."""
        return " ".join(dict.fromkeys(filter(None, (self.alias, self.hostname, self.name))))

    def variables(self, container: str) -> Iterator[str]:
        """For the container of that name."""
        head = self.alias.upper().replace("-", "_")
        ports = sorted(_ports(self.ports), key=lambda port: (port[1] != "tcp", port[0]))
        for number, kind in sorted(ports, key=lambda port: port[0])[:1]:
            yield f"{head}_PORT={kind}://{self.address}:{number}"
        for number, kind in ports:
            port = f"{head}_PORT_{number}_{kind.upper()}"
            yield f"{port}={kind}://{self.address}:{number}"
            yield f"{port}_ADDR={self.address}"
            yield f"{port}_PORT={number}"
            yield f"{port}_PROTO={kind}"
        yield f"{head}_NAME=/{container}/{self.alias}"
        for entry in self.env:
            key, equals, value = entry.partition("=")
            if equals and key not in _OF_THE_IMAGE:
                yield f"{head}_ENV_{key}={value}"


def _ports(texts: Iterable[str]) -> Iterator[tuple[int, str]]:
    for text in texts:
        number, _, kind = text.partition("/")
        port = natural(number)
        if port is not None:
            yield port, kind or "tcp"
