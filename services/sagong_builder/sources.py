"""Sources of COPY and ADD: the context, other stages, images, URLs, repositories, here-documents."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import posixpath
import stat
import urllib.parse
from dataclasses import replace
from pathlib import Path

from sagong.errors import InvalidArgument, NotFound, SagongError
from sagong.model.patterns import has_wildcard
from sagong_builder.context import Archive, Entry, Kind, Tree
from sagong_builder.context.archive import begins_archive, is_archive
from sagong_builder.copying import Item, kept_name, missing_source, select
from sagong_builder.dialect import CLASSIC, Dialect
from sagong_builder.dockerfile import Expander, Instruction
from sagong_builder.fetching import download, is_url
from sagong_builder.origins import Origins
from sagong_builder.repositories import GitSource, clone, git_source
from sagong_builder.shop import Lease, Shop

__all__ = ["Sources", "merges", "unpacks"]

_HEAD = 512


class Sources:
    """Finds the files; what is opened for them is closed with a stack of the caller's."""

    def __init__(self, shop: Shop, origins: Origins, dialect: Dialect = CLASSIC) -> None:
        self._dialect = dialect
        self._shop = shop
        self._origins = origins

    async def items(
        self, instruction: Instruction, expander: Expander, stack: contextlib.AsyncExitStack
    ) -> list[Item]:
        """All sources of an instruction."""
        *sources, target = instruction.words
        target = expander.word(target)
        documents = {h.word: h for h in instruction.heredocs}
        items: list[Item] = []
        for word in sources:
            heredoc = documents.get(word)
            if heredoc is not None:
                text = heredoc.content
                text = expander.text(text) if heredoc.expand else text
                items.append(self._text(heredoc.name, text, stack))
            else:
                found = expander.word(word)
                items += await self._source(instruction, found, target, expander, stack)
        if not items and not self._may_be_none(sources, expander):
            raise NotFound(f"{instruction.keyword} failed: no source files were specified")
        several = len(items) > 1 or len(sources) > 1
        if self._dialect.merge_directories and all(merges(i, instruction) for i in items):
            several = False
        if several and not target.endswith("/") and target not in (".", ".."):
            raise InvalidArgument(
                f"When using {instruction.keyword} with more than one source file, the destination "
                "must be a directory and end with a /"
            )
        return items

    def _may_be_none(self, sources: list[str], expander: Expander) -> bool:
        wild = all(has_wildcard(expander.word(word)) for word in sources)
        return wild and self._dialect.empty_wildcards

    async def _source(
        self,
        instruction: Instruction,
        word: str,
        target: str,
        expander: Expander,
        stack: contextlib.AsyncExitStack,
    ) -> list[Item]:
        if instruction.keyword == "ADD" and (git_source(word) is not None or is_url(word)):
            return [await self._remote(instruction, word, target, expander, stack)]
        if "checksum" in instruction.flags:
            raise InvalidArgument("checksum requires HTTP(S) or Git sources")
        origin = instruction.flag("from")
        if self._dialect.inside:
            word = inside(word)
        parents = instruction.switch("parents")
        try:
            archive, path, above = await self._archive(origin, word, stack)
            items = await asyncio.to_thread(
                select,
                archive,
                path,
                parents=parents,
                excludes=instruction.flags.get("exclude", ()),
            )
            if not parents or not above:
                return items
            return [replace(i, name=kept_name(word, posixpath.join(above, i.name))) for i in items]
        except NotFound as error:
            if "file does not exist" not in error.message:
                raise
            raise missing_source(f"{instruction.keyword} failed: ", word, origin, error) from None
        except InvalidArgument as error:
            if error.message.startswith("forbidden path"):
                raise InvalidArgument(f"{instruction.keyword} failed: {error.message}") from None
            raise

    async def archive(
        self, origin: str, word: str, stack: contextlib.AsyncExitStack
    ) -> tuple[Archive, str]:
        """The archive that holds what the word names, and the word in it.

        Of a stage or image only that part is read; without an origin it is the context.
        """
        archive, path, _ = await self._archive(origin, word, stack)
        return archive, path

    async def _archive(
        self, origin: str, word: str, stack: contextlib.AsyncExitStack
    ) -> tuple[Archive, str, str]:
        """With the directory of the stage or image that is the archive's root; "" is all of it."""
        if not origin:
            return await self._origins.context(), word, ""
        files = await self._origins.files(origin)
        if files is not None:
            return files, word, ""
        image = await self._origins.image(origin)
        lease = await stack.enter_async_context(self._shop.lent(image, readonly=True))
        path = "/" + posixpath.normpath("/" + word).lstrip("/")
        above = _fixed_part(path)
        found = await self._resolved(lease, above)
        if found is None:
            raise NotFound(f"stat {word.lstrip('/')}: file does not exist")
        real, mode = found
        is_directory = stat.S_ISDIR(mode)
        archive = await self._shop.read(lease, f"{real}/." if is_directory else real)
        stack.callback(archive.close)
        rest = path[len(above) :].lstrip("/") if is_directory else posixpath.basename(path)
        archive.tree = _placed(archive.tree, "" if is_directory else rest)
        return archive, rest, above if is_directory else posixpath.dirname(path)

    async def _resolved(self, lease: Lease, path: str) -> tuple[str, int] | None:
        """The path with a last link followed, and its mode."""
        if path == "/":
            return "/", stat.S_IFDIR
        facts = await self._shop.stat(lease, path)
        if facts is None:
            return None
        if not stat.S_ISLNK(facts.mode):
            return path, facts.mode
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), facts.link_target))
        followed = await self._shop.stat(lease, target)
        return None if followed is None else (target, followed.mode)

    async def _remote(
        self,
        instruction: Instruction,
        word: str,
        target: str,
        expander: Expander,
        stack: contextlib.AsyncExitStack,
    ) -> Item:
        repository = git_source(word)
        if repository is not None:
            return await self._repository(_told(repository, instruction, expander), stack)
        return await self._download(instruction, word, target, expander, stack)

    async def _repository(self, source: GitSource, stack: contextlib.AsyncExitStack) -> Item:
        path = stack.enter_context(self._shop.spool.file())
        try:
            commit = await clone(source, path)
        except InvalidArgument as error:
            raise InvalidArgument(f"ADD failed: {error.message}") from None
        archive = await self._shop.opened(path)
        stack.callback(archive.close)
        # A history is packed anew each time, and may be packed otherwise: the commit says what it is.
        known = _of_commit(source, commit) if source.keep else ""
        return Item(archive, archive.tree.root, "", known=known)

    async def _download(
        self,
        instruction: Instruction,
        url: str,
        target: str,
        expander: Expander,
        stack: contextlib.AsyncExitStack,
    ) -> Item:
        path = stack.enter_context(self._shop.spool.file())
        settings = self._shop.settings
        try:
            got = await download(
                url, path, limit=settings.context_limit, seconds=settings.fetch_seconds
            )
        except SagongError as error:
            raise type(error)(f"ADD failed: {error.message}") from None
        wanted = expander.word(instruction.flag("checksum"))
        if wanted and wanted != (found := await asyncio.to_thread(_digest, path)):
            raise InvalidArgument(f"ADD failed: digest mismatch {found}: {wanted[:100]}")
        name = urllib.parse.unquote(posixpath.basename(urllib.parse.urlsplit(url).path))
        name = name or got.name or self._dialect.unnamed
        if target.endswith("/") and not name:
            raise InvalidArgument(f"ADD failed: cannot determine filename from url: {url}")
        entry = Entry(Kind.FILE, 0o600, size=path.stat().st_size, mtime=got.mtime)
        archive = _plain(path)
        stack.callback(archive.close)
        return Item(archive, entry, name)

    def _text(self, name: str, content: str, stack: contextlib.AsyncExitStack) -> Item:
        path = stack.enter_context(self._shop.spool.file())
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
        archive = _plain(path)
        stack.callback(archive.close)
        facts = path.stat()
        return Item(
            archive, Entry(Kind.FILE, 0o644, size=facts.st_size, mtime=facts.st_mtime), name
        )

    async def unpacked(
        self, item: Item, instruction: Instruction, stack: contextlib.AsyncExitStack
    ) -> Item:
        """The item, opened when it is an archive that ADD unpacks."""
        if not unpacks(instruction) or item.entry.kind is not Kind.FILE:
            return item
        head = b"".join(item.archive.content(replace(item.entry, size=min(item.entry.size, _HEAD))))
        if not is_archive(head):
            return item
        path = stack.enter_context(self._shop.spool.file())
        await asyncio.to_thread(_store, item, path)
        if not await asyncio.to_thread(begins_archive, path):
            # gzip that holds no tar is a file as any other.
            return item
        try:
            archive = await self._shop.opened(path)
        except InvalidArgument as error:
            raise InvalidArgument(f"ADD failed: {item.name}: {error.message}") from None
        stack.callback(archive.close)
        return replace(item, unpacked=archive)


def unpacks(instruction: Instruction) -> bool:
    """Whether archives are unpacked: those that are fetched only where that is asked for."""
    if instruction.keyword != "ADD" or "unpack" in instruction.flags:
        return instruction.keyword == "ADD" and instruction.switch("unpack")
    return not instruction.heredocs and not any(is_url(word) for word in instruction.words[:-1])


def merges(item: Item, instruction: Instruction) -> bool:
    """Whether it is the content that is copied: a directory's, or an archive's that ADD unpacks."""
    if item.is_directory or not unpacks(instruction) or item.entry.kind is not Kind.FILE:
        return item.is_directory
    head = replace(item.entry, size=min(item.entry.size, _HEAD))
    return is_archive(b"".join(item.archive.content(head)))


def _told(source: GitSource, instruction: Instruction, expander: Expander) -> GitSource:
    """The repository as its URL and the flags of ADD say; they may not contradict."""
    flags = instruction.flags
    commit = expander.word(instruction.flag("checksum"))
    if commit and source.commit and commit != source.commit:
        raise InvalidArgument(f'ADD failed: checksum mismatch "{commit}" != "{source.commit}"')
    keep = instruction.switch("keep-git-dir") if "keep-git-dir" in flags else source.keep
    if source.keep is not None and keep is not source.keep:
        raise InvalidArgument("ADD failed: inconsistent keep-git-dir configuration")
    return replace(source, commit=commit or source.commit, keep=keep)


def _of_commit(source: GitSource, commit: str) -> str:
    """What stands for the content of a repository that comes with its history."""
    parts = (source.url, source.reference, source.directory, str(source.submodules), commit)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def inside(word: str) -> str:
    """A path without what would lead out of the context: `../../a` is `a`."""
    parts = word.lstrip("/").split("/")
    depth = lead = 0
    for at, part in enumerate(parts):
        depth += 0 if part in ("", ".") else -1 if part == ".." else 1
        if depth < 0:
            depth, lead = 0, at + 1
    return "/".join(parts[lead:]) if lead else word


def _fixed_part(path: str) -> str:
    """The directory above the first wildcard; all of a path that has none."""
    parts = path.split("/")
    fixed = next((n for n, part in enumerate(parts) if has_wildcard(part)), len(parts))
    return "/".join(parts[:fixed]) or "/"


def _placed(tree: Tree, name: str) -> Tree:
    """A directory's archive has its names at the top; a file's only one, whatever that is called."""
    if not name:
        return tree
    placed = Tree()
    for entry in (tree.root.names or {}).values():
        placed.put(name, entry)
    return placed


def _plain(path: Path) -> Archive:
    """A file as an archive of nothing but its bytes."""
    return Archive(path, path.open("rb"), Tree())


def _store(item: Item, target: Path) -> None:
    with target.open("wb") as file:
        for piece in item.archive.content(item.entry):
            file.write(piece)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
