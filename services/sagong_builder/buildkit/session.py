"""Sessions: connections over which the builder asks its client for files, credentials and secrets."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import urllib.parse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from sagong.contracts.image import Credentials
from sagong.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SagongError,
    Unimplemented,
)
from sagong.model import references
from sagong_builder.buildkit import messages as m
from sagong_builder.buildkit.content import ContentStore
from sagong_builder.buildkit.filesync import Received, Root, receive_files, send_files
from sagong_builder.buildkit.rpc import Call, Connection
from sagong_builder.kept import KeptContext
from sagong_builder.mounting import MountSpec
from sagong_builder.shop import Shop

__all__ = ["Session", "Sessions", "carry"]

_PATIENCE = 20.0
_SECRET_LIMIT = 1 << 20
_HUB = "https://index.docker.io/v1/"
_NAME = re.compile(r"[\w.:/@+-]{1,200}\Z")


class Session:
    """One client. It lends what its exposed methods say.

    `shared_key` is the same for all builds of one directory; "" if the client has none. Sockets for
    commands are made in the directory `sockets`.
    """

    def __init__(
        self, connection: Connection, methods: Iterable[str], shared_key: str, sockets: Path
    ) -> None:
        self._connection = connection
        self.shared_key = shared_key
        self._sockets = sockets
        self._methods = {method.lower() for method in methods}

    def lends(self, method: str) -> bool:
        """Whether a method was exposed."""
        return method.lower() in self._methods

    async def files(
        self,
        shop: Shop,
        name: str,
        *,
        excludes: Iterable[str] = (),
        follow: Iterable[str] = (),
        kept: KeptContext | None = None,
    ) -> Received:
        """A directory of the client's, without what is excluded; only what is followed, if given.

        A kept context of the same directory is gone on with: what has not changed is not sent.
        """
        metadata = [
            *_headers("dir-name", [name]),
            *_headers("exclude-patterns", excludes),
            *_headers("followpaths", follow),
        ]
        call = self._connection.open("/moby.filesync.v1.FileSync/DiffCopy", metadata)
        try:
            settings = shop.settings
            return await receive_files(
                call,
                shop.spool.new_file(),
                limit=settings.context_limit,
                entries=settings.entries_limit,
                kept=kept,
            )
        finally:
            call.cancel()

    async def upload(self, shop: Shop, path: str) -> Path:
        """What the client sends on a path of its own (a context from its standard input)."""
        call = self._connection.open("/moby.upload.v1.Upload/Pull", [("urlpath", path)])
        file = shop.spool.new_file()
        size = 0
        try:
            with file.open("wb", buffering=0) as out:
                while (piece := await call.receive(m.Bytes)) is not None:
                    size += len(piece.data)
                    if size > shop.settings.context_limit:
                        raise InvalidArgument("the context is larger than the limit")
                    out.write(piece.data)
        except BaseException:
            file.unlink(missing_ok=True)
            raise
        finally:
            call.cancel()
        return file

    def _receiving(self, exporter: int) -> Call:
        method = "/moby.filesync.v1.FileSend/DiffCopy"
        if not self.lends(method):
            raise FailedPrecondition("the client takes no files: give --output a destination")
        return self._connection.open(method, [("buildkit-attachable-exporter-id", str(exporter))])

    async def put_files(self, exporter: int, roots: Sequence[Root]) -> int:
        """Write files where the client's exporter of this number wants them; their bytes."""
        call = self._receiving(exporter)
        try:
            return await send_files(call, roots)
        finally:
            call.cancel()

    async def put_bytes(self, exporter: int, pieces: Iterable[bytes]) -> int:
        """Write one file where the client's exporter of this number wants it; its size."""
        call = self._receiving(exporter)
        sent = 0
        try:
            for piece in pieces:
                sent += len(piece)
                await call.send(m.Bytes(data=piece))
            call.end()
            while await call.receive(m.Bytes) is not None:
                continue
        finally:
            call.cancel()
        return sent

    def store(self, name: str) -> ContentStore:
        """A content store that the client lends to this build."""
        return ContentStore(self._connection, name)

    async def credentials(self, reference: str) -> Credentials:
        """For the registry of a reference; empty ones if the client has none."""
        if not self.lends("/moby.filesync.v1.Auth/Credentials"):
            return Credentials()
        domain = references.parse(reference).domain
        host = "registry-1.docker.io" if domain == references.DEFAULT_DOMAIN else domain
        try:
            found = await self._connection.ask(
                "/moby.filesync.v1.Auth/Credentials",
                m.CredentialsRequest(host=host),
                m.CredentialsResponse,
            )
        except SagongError:
            return Credentials()
        # Without a name it is what the registry's token server gave at the login.
        return Credentials(
            username=found.username,
            password=found.secret if found.username else "",
            identity="" if found.username else found.secret,
            server=_HUB if host == "registry-1.docker.io" else host,
        )

    # What commands are lent: see `sagong_builder.keys`.

    async def secret(self, mount: MountSpec) -> bytes | None:
        """A secret by its name."""
        try:
            found = await self._connection.ask(
                "/moby.buildkit.secrets.v1.Secrets/GetSecret",
                m.SecretRequest(id=mount.id),
                m.SecretResponse,
            )
        except (NotFound, Unimplemented):
            # It is not there, or the client lends none at all.
            found = None
        except SagongError:
            if mount.required:
                raise
            found = None
        if found is None:
            if mount.required:
                raise NotFound(f"secret {mount.id}: not found")
            return None
        if len(found.data) > _SECRET_LIMIT:
            raise InvalidArgument(f"secret {mount.id} has more than {_SECRET_LIMIT} bytes")
        return found.data

    async def agent(self, mount: MountSpec, stack: contextlib.AsyncExitStack) -> str | None:
        """A socket beside the spool's whose connections are the client's agent."""
        try:
            await self._connection.ask(
                "/moby.sshforward.v1.SSH/CheckAgent", m.SecretRequest(id=mount.id), m.Empty
            )
        except SagongError as error:
            if mount.required:
                raise FailedPrecondition(
                    f"no SSH key {mount.id} forwarded: {error.message}"
                ) from None
            return None
        path = self._sockets / f"ssh-{secrets.token_hex(6)}"
        server = await asyncio.start_unix_server(
            lambda reader, writer: self._forward(mount.id, reader, writer), path
        )
        path.chmod(0o666)
        stack.callback(path.unlink, missing_ok=True)
        stack.callback(server.close)
        return str(path)

    async def _forward(
        self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        call = self._connection.open(
            "/moby.sshforward.v1.SSH/ForwardAgent", [("buildkit.ssh.id", name)]
        )

        try:
            await carry(call, reader, writer, call.end)
        finally:
            call.cancel()


async def carry(
    call: Call,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    ended: Callable[[], None] = lambda: None,
) -> None:
    """Bytes of a connection as messages of a call, both ways, until the peer sends no more.

    `ended` is called when the connection has no more.
    """

    async def up() -> None:
        while data := await reader.read(1 << 15):
            await call.send(m.Bytes(data=data))
        ended()

    sending = asyncio.create_task(up())
    try:
        while (piece := await call.receive(m.Bytes)) is not None:
            writer.write(piece.data)
            await writer.drain()
    except (SagongError, OSError):
        pass
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.close()


def _headers(key: str, values: Iterable[str]) -> list[tuple[str, str]]:
    """Values of one key; if any is no plain text all are quoted, and that is said."""
    texts = list(values)
    if all(text.isascii() and text.isprintable() and text == text.strip() for text in texts):
        return [(key, text) for text in texts]
    return [*((key, urllib.parse.quote_plus(text)) for text in texts), (f"{key}-encoded", "1")]


class Sessions:
    """All sessions of this process by the names that their clients gave them."""

    def __init__(self) -> None:
        self._table: dict[str, Session] = {}
        self._changed = asyncio.Event()

    async def serve(self, name: str, session: Session, connection: Connection) -> None:
        """A session until its client closes it."""
        if not _NAME.match(name) or name in self._table:
            raise InvalidArgument(f"the session needs a name of its own, not {name[:80]!r}")
        self._table[name] = session
        self._changed.set()
        try:
            await connection.run()
        finally:
            self._table.pop(name, None)

    async def wait(self, name: str) -> Session:
        """A session, which may begin a moment after the build that names it."""
        try:
            async with asyncio.timeout(_PATIENCE):
                while name not in self._table:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise FailedPrecondition(f"no active session for {name[:80]}") from None
        return self._table[name]
