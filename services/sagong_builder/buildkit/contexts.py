"""A build's files: the Dockerfile, the context when an instruction wants it, further contexts."""

from __future__ import annotations

import asyncio
import contextlib
import posixpath

from sagong.errors import InvalidArgument, NotFound
from sagong_builder.build import fetched_context, read_file
from sagong_builder.buildkit.frontend import Wish
from sagong_builder.buildkit.progress import Graph
from sagong_builder.buildkit.session import Session
from sagong_builder.context import Archive, Tree
from sagong_builder.context.patterns import Ignore
from sagong_builder.kept import KeptContext, KeptContexts
from sagong_builder.shop import Shop

__all__ = ["Contexts"]

_SESSION_URL = "http://buildkit-session/"
_IGNORE = ".dockerignore"


class Contexts:
    """Of one build; with the stack, what was opened is closed, or kept for the next build."""

    def __init__(
        self,
        shop: Shop,
        session: Session,
        wish: Wish,
        graph: Graph,
        kept: KeptContexts,
        stack: contextlib.AsyncExitStack,
    ) -> None:
        self._shop = shop
        self._session = session
        self._wish = wish
        self._graph = graph
        self._kept = kept
        self._stack = stack
        self._context: Archive | None = None
        self._further: dict[str, Archive] = {}
        self._ignored: bytes | None = None
        self._lock = asyncio.Lock()

    async def dockerfile(self) -> bytes:
        """Of its own directory, or of a context that is no directory of the client's."""
        name = self._wish.request.dockerfile
        if not self._wish.own_dockerfile:
            raw = read_file(await self.context(), name)
        else:
            title = f"[internal] load build definition from {posixpath.basename(name)}"
            with self._graph.step_of_ours(title):
                raw = await self._of_client(name)
                self._graph.status("transferring dockerfile:", len(raw or b""), done=True)
        if raw is None:
            raise NotFound(f"failed to read dockerfile: open {name}: no such file or directory")
        return raw

    async def _of_client(self, name: str) -> bytes | None:
        wanted = [name, f"{name}.dockerignore", *(["dockerfile"] if name == "Dockerfile" else [])]
        place = self._wish.dockerfile_name
        archive = (await self._session.files(self._shop, place, follow=wanted)).archive
        try:
            self._ignored = read_file(archive, f"{name}.dockerignore")
            found = read_file(archive, name)
            return read_file(archive, "dockerfile") if found is None and len(wanted) > 2 else found
        finally:
            archive.close()

    async def context(self) -> Archive:
        """The context, got once."""
        async with self._lock:
            if self._context is None:
                self._context = await self._got()
            return self._context

    async def _got(self) -> Archive:
        source = self._wish.context
        if source.startswith(_SESSION_URL):
            with self._graph.step_of_ours("[internal] load remote build context"):
                path = await self._session.upload(self._shop, source[len(_SESSION_URL) - 1 :])
                return self._meant(self._closed(await self._shop.opened(path)))
        if source:
            with self._graph.step_of_ours(f"[internal] load remote build context {source}"):
                name = self._wish.request.dockerfile
                archive = await fetched_context(self._shop, source, name, self._stack)
                return self._meant(self._closed(archive))
        if self._ignored is None:
            with self._graph.step_of_ours("[internal] load .dockerignore"):
                self._ignored = await self._ignore_file(self._wish.context_name)
        with self._graph.step_of_ours("[internal] load build context"):
            return await self._directory(self._wish.context_name, self._ignored)

    async def _directory(self, name: str, ignored: bytes | None) -> Archive:
        excludes = Ignore.read(ignored or b"").patterns
        key = (self._session.shared_key, name)
        kept = None
        if self._session.shared_key:
            place = self._shop.spool.new_file()
            kept = await asyncio.to_thread(self._kept.take, key, place)
        came = await self._session.files(self._shop, name, excludes=excludes, kept=kept)
        self._graph.status("transferring context:", came.sent, done=True)
        if not self._session.shared_key:
            return self._closed(came.archive)
        context = KeptContext(came.archive.path, came.files, description=name)
        if kept is not None:
            context.id, context.created_at, context.uses = kept.id, kept.created_at, kept.uses
        self._stack.push_async_callback(asyncio.to_thread, self._kept.put, key, context)
        self._stack.callback(came.archive.release)
        return came.archive

    def _meant(self, archive: Archive) -> Archive:
        """Of what was fetched the directory that is the context."""
        if self._wish.directory:
            archive.tree = Tree(root=archive.tree.resolve(self._wish.directory)[1])
        return archive

    def _closed(self, archive: Archive) -> Archive:
        """The archive, closed with the build."""
        self._stack.callback(archive.close)
        return archive

    async def _ignore_file(self, name: str) -> bytes | None:
        archive = (await self._session.files(self._shop, name, follow=[_IGNORE])).archive
        try:
            raw = read_file(archive, _IGNORE)
            self._graph.status("transferring context:", len(raw or b""), done=True)
            return raw
        finally:
            archive.close()

    async def further(self, name: str, source: str) -> Archive:
        """A further context: a directory of the client's, a git repository, a URL's archive or file."""
        async with self._lock:
            if name not in self._further:
                self._further[name] = await self._opened(name, source)
            return self._further[name]

    async def _opened(self, name: str, source: str) -> Archive:
        kind, _, rest = source.partition(":")
        if kind == "local":
            with self._graph.step_of_ours(f"[context {name}] load .dockerignore"):
                ignored = await self._ignore_file(rest)
            with self._graph.step_of_ours(f"[context {name}] load from client"):
                return await self._directory(rest, ignored)
        if kind in ("git", "http", "https"):
            with self._graph.step_of_ours(f"[context {name}] {source}"):
                archive = await fetched_context(self._shop, source, "context", self._stack)
                return self._closed(archive)
        raise InvalidArgument(
            f"context {name}: {kind[:40]} is not supported: give a directory, a git or HTTP URL, or "
            "docker-image://NAME (`docker load` makes an image of an archive or OCI layout)"
        )
