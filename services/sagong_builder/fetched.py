"""Contexts that are fetched (a git repository, a tar, a lone Dockerfile), and files read of any."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

from sagong.errors import InvalidArgument, NotFound
from sagong_builder.context import Archive, Entry, Kind, Tree
from sagong_builder.context.archive import is_archive
from sagong_builder.context.ignore import Ignore
from sagong_builder.fetching import download, is_url
from sagong_builder.repositories import clone, git_source
from sagong_builder.shop import Shop

__all__ = ["fetched_context", "read_file"]

_DOCKERFILE_LIMIT = 16 << 20
_HEAD = 512


async def fetched_context(
    shop: Shop, remote: str, dockerfile: str, stack: contextlib.AsyncExitStack
) -> Archive:
    """A context from a git repository, or a tar or a lone Dockerfile from a URL."""
    settings = shop.settings
    path = stack.enter_context(shop.spool.file())
    repository = git_source(remote)
    if repository is not None:
        await clone(repository, path)
    elif is_url(remote):
        got = await download(
            remote, path, limit=settings.context_limit, seconds=settings.fetch_seconds
        )
        if not is_archive(_head(path)):
            if got.content_type.startswith("text/") or path.stat().st_size <= _DOCKERFILE_LIMIT:
                return _lone_dockerfile(path, shop.spool.new_file(), dockerfile)
            raise InvalidArgument(f"{remote} is neither a tar nor a Dockerfile")
    else:
        raise InvalidArgument(f"remote URL {remote[:200]!r} is neither git's nor HTTP's")
    archive = await shop.opened(path)
    ignored = read_file(archive, ".dockerignore")
    if ignored is not None:
        kept = archive.tree.get(dockerfile)
        await asyncio.to_thread(Ignore.read(ignored).apply, archive.tree)
        if kept is not None:
            archive.tree.put(dockerfile, kept)
    return archive


def _lone_dockerfile(path: Path, target: Path, name: str) -> Archive:
    os.rename(path, target)
    archive = Archive(target, target.open("rb"), Tree())
    archive.tree.put(name, Entry(Kind.FILE, 0o600, size=target.stat().st_size))
    return archive


def _head(path: os.PathLike[str]) -> bytes:
    with open(path, "rb") as file:
        return file.read(_HEAD)


def read_file(archive: Archive, name: str) -> bytes | None:
    """A file of the context, if it is there; links are followed inside."""
    try:
        _, entry = archive.tree.resolve(name)
    except NotFound:
        return None
    if entry.kind is not Kind.FILE:
        raise InvalidArgument(f"{name} of the context is no file")
    if entry.size > _DOCKERFILE_LIMIT:
        raise InvalidArgument(f"{name} of the context has more than {_DOCKERFILE_LIMIT} bytes")
    return b"".join(archive.content(entry))
