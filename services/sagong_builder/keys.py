"""Secrets and SSH agents of the client: who speaks BuildKit's protocol lends them, others have none."""

from __future__ import annotations

import contextlib
from typing import Protocol

from sagong.errors import InvalidArgument
from sagong_builder.mounting import MountSpec

__all__ = ["Keys", "NoKeys"]


class Keys(Protocol):
    """What the client lends to commands."""

    async def secret(self, mount: MountSpec) -> bytes | None:
        """A secret; None if there is none and it is not required."""
        ...

    async def agent(self, mount: MountSpec, stack: contextlib.AsyncExitStack) -> str | None:
        """The path of a socket that leads to the client's agent, until the stack is left."""
        ...


class NoKeys:
    """Of clients that can't lend anything."""

    async def secret(self, mount: MountSpec) -> bytes | None:
        """None."""
        return self._none(mount, "secret")

    async def agent(self, mount: MountSpec, stack: contextlib.AsyncExitStack) -> str | None:
        """None."""
        self._none(mount, "SSH agent")
        return None

    @staticmethod
    def _none(mount: MountSpec, what: str) -> None:
        if mount.required:
            raise InvalidArgument(
                f"{what} {mount.id}: not found: the classic builder is lent no secrets; build with "
                "BuildKit (docker buildx build)"
            )
