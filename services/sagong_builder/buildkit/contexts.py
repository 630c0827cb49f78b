"""A build's files: the Dockerfile, the context when an instruction wants it, further contexts."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import posixpath
from collections.abc import Awaitable, Callable

from sagong.errors import InvalidArgument, NotFound
from sagong_builder.buildkit.frontend import Wish
from sagong_builder.buildkit.progress import Graph
from sagong_builder.buildkit.session import Session
from sagong_builder.context import Archive, Tree
from sagong_builder.context.ignore import Ignore
from sagong_builder.fetched import fetched_context, read_file
from sagong_builder.kept import KeptContext, KeptContexts
from sagong_builder.reading import ALL, Paths, covers
from sagong_builder.shop import Shop

__all__ = ["Contexts", "left_out"]

_SESSION_URL = "http://buildkit-session/"
_IGNORE = ".dockerignore"
# Paths travel in a header: so many at most, else all is sent.
_FOLLOWED = 64

Had = tuple[Archive, Paths]
"""What is here of a context, and of which paths that is all."""


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
        # By the names of further contexts; "" is the context.
        self._had: dict[str, Had] = {}
        self._ignored: bytes | None = None
        self._lock = asyncio.Lock()

    async def dockerfile(self) -> bytes:
        """Of its own directory, or of a context that is no directory of the client's."""
        name = self._wish.request.dockerfile
        if not self._wish.own_dockerfile:
            raw = read_file(await self.context(ALL), name)
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

    async def context(self, paths: Paths) -> Archive:
        """The context, with these paths."""
        return await self._having("", paths, self._got)

    async def _having(
        self, name: str, paths: Paths, get: Callable[[Paths], Awaitable[Had]]
    ) -> Archive:
        """What was got before, if the paths are in it; who wants more later gets all."""
        async with self._lock:
            had = self._had.get(name)
            if had is None:
                some = 0 < len(paths) <= _FOLLOWED and "" not in paths
                had = await get(paths if some else ALL)
            elif not covers(had[1], paths):
                had = await get(ALL)
            self._had[name] = had
            return had[0]

    async def _got(self, paths: Paths) -> Had:
        source = self._wish.context
        if source.startswith(_SESSION_URL):
            with self._graph.step_of_ours("[internal] load remote build context"):
                path = await self._session.upload(self._shop, source[len(_SESSION_URL) - 1 :])
                return self._meant(self._closed(await self._shop.opened(path))), ALL
        if source:
            with self._graph.step_of_ours(f"[internal] load remote build context {source}"):
                name = self._wish.request.dockerfile
                archive = await fetched_context(self._shop, source, name, self._stack)
                return self._meant(self._closed(archive)), ALL
        ignored = await self._ignore()
        with self._graph.step_of_ours("[internal] load build context"):
            return await self._directory(self._wish.context_name, ignored, paths), paths

    async def ignored(self) -> bytes | None:
        """What says which files a context of the client's has not; None of one from elsewhere."""
        async with self._lock:
            return None if self._wish.context else await self._ignore()

    async def _ignore(self) -> bytes:
        if self._ignored is None:
            with self._graph.step_of_ours("[internal] load .dockerignore"):
                self._ignored = await self._ignore_file(self._wish.context_name) or b""
        return self._ignored

    async def _directory(self, name: str, ignored: bytes | None, paths: Paths) -> Archive:
        """Of a directory of the client's what these paths need, links among it."""
        excludes = Ignore.read(ignored or b"").patterns
        follow = () if paths == ALL else tuple(sorted(paths))
        key = (self._session.shared_key, name, *follow)
        kept = None
        if self._session.shared_key:
            place = self._shop.spool.new_file()
            kept = await asyncio.to_thread(self._kept.take, key, place)
        came = await self._session.files(
            self._shop, name, excludes=excludes, follow=follow, kept=kept
        )
        self._graph.status(f"transferring {name}:", came.sent, done=True)
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
        try:
            archive = (await self._session.files(self._shop, name, follow=[_IGNORE])).archive
        except NotFound:
            return None  # a client that lends no such directory; a build may need none
        try:
            raw = read_file(archive, _IGNORE)
            self._graph.status("transferring context:", len(raw or b""), done=True)
            return raw
        finally:
            archive.close()

    async def further(self, name: str, source: str, paths: Paths) -> Archive:
        """A further context, with these paths: a directory of the client's, a git repository, a URL's
        archive or file."""
        return await self._having(name, paths, functools.partial(self._opened, name, source))

    async def _opened(self, name: str, source: str, paths: Paths) -> Had:
        kind, _, rest = source.partition(":")
        if kind == "local":
            with self._graph.step_of_ours(f"[context {name}] load .dockerignore"):
                ignored = await self._ignore_file(rest)
            with self._graph.step_of_ours(f"[context {name}] load from client"):
                return await self._directory(rest, ignored, paths), paths
        if kind in ("git", "http", "https"):
            with self._graph.step_of_ours(f"[context {name}] {source}"):
                archive = await fetched_context(self._shop, source, "context", self._stack)
                return self._closed(archive), ALL
        raise InvalidArgument(
            f"context {name}: {kind[:40]} is not supported: give a directory, a git or HTTP URL, or "
            "docker-image://NAME (`docker load` makes an image of an archive or OCI layout)"
        )


def left_out(ignored: bytes | None) -> Callable[[str], bool] | None:
    """Whether a path is none of the context's; None where lines take files back in, or there are none.

    The whole context is left out only by what leaves out everything.
    """
    rules = Ignore.read(ignored or b"")
    if not rules.patterns or any(pattern.startswith("!") for pattern in rules.patterns):
        return None
    whole = any(pattern in ("*", "**", "**/*") for pattern in rules.patterns)
    return lambda path: whole if path == "." else rules.excludes(path)
