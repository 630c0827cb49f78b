"""One client of a Docker API, in one process: what an engine does without command lines.

Containers are made and started over connections that stay, as programs do it that use the API.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

__all__ = ["started_together"]

_VERSION = "/v1.41"


class _Connection:
    """Requests one after the other; the body of each answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, socket: Path) -> _Connection:
        return cls(*await asyncio.open_unix_connection(str(socket)))

    async def post(self, path: str, document: dict[str, Any] | None = None) -> bytes:
        body = b"" if document is None else json.dumps(document).encode()
        head = f"POST {_VERSION}{path} HTTP/1.1\r\nHost: docker\r\nContent-Length: {len(body)}\r\n"
        kind = "Content-Type: application/json\r\n" if body else ""
        self._writer.write(f"{head}{kind}\r\n".encode() + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        status, _, rest = answer.decode().partition("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in rest.splitlines() if line)
        found = await self._reader.readexactly(int(fields.get("content-length", "0")))
        if status.split()[1] not in ("201", "204"):
            raise RuntimeError(f"POST {path}: {status}: {found.decode()}")
        return found

    def close(self) -> None:
        self._writer.close()


async def _work(socket: Path, left: list[dict[str, Any]]) -> None:
    connection = await _Connection.open(socket)
    while left:
        made = json.loads(await connection.post("/containers/create", left.pop()))
        await connection.post(f"/containers/{made['Id']}/start")
    connection.close()


async def _all(socket: Path, documents: list[dict[str, Any]], in_flight: int) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(_work(socket, documents))


def started_together(
    socket: Path, image: str, command: tuple[str, ...], count: int, in_flight: int
) -> float:
    """Containers a second, each made and started, so many of them at once."""
    documents: list[dict[str, Any]] = [
        {"Image": image, "Cmd": list(command), "HostConfig": {}} for _ in range(count)
    ]
    began = time.perf_counter()
    asyncio.run(_all(socket, documents, in_flight))
    return count / (time.perf_counter() - began)
