"""What streams run over: an upgraded connection seen as a pipe of bytes."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Pipe"]


class Pipe(Protocol):
    """Bytes each way; reading gives b"" once the peer is gone."""

    async def read(self) -> bytes:
        """The next bytes."""
        ...

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while the peer is slow."""
        ...

    async def close(self) -> None:
        """End the connection; again is no error."""
        ...
