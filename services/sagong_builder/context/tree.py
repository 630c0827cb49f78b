"""An archive's entries as a tree of names that links can't lead out of.

Names are parts of paths below a root that is the archive itself: `..` at the root stays there, and
links are followed inside only. So a context never names a file of the machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from sagong.errors import InvalidArgument, NotFound

__all__ = ["Entry", "Kind", "Tree"]

_LINKS = 255
_DEPTH = 256


class Kind(Enum):
    """What an entry is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    CHARACTER = "character"
    BLOCK = "block"
    FIFO = "fifo"


@dataclass(slots=True)
class Entry:
    """A file or a directory. `offset` is where its content lies in the archive.

    `extents` are (offset in the file, length) of a sparse file's stored parts. A directory is `implied`
    if the archive has names below it, but none of its own.
    """

    kind: Kind
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: float = 0.0
    link: str = ""
    offset: int = 0
    device: tuple[int, int] = (0, 0)
    extents: tuple[tuple[int, int], ...] | None = None
    xattrs: tuple[tuple[str, str], ...] = ()
    names: dict[str, Entry] | None = None
    implied: bool = False

    @property
    def is_directory(self) -> bool:
        """Whether it has names below."""
        return self.kind is Kind.DIRECTORY


def _directory() -> Entry:
    return Entry(Kind.DIRECTORY, names={})


def parts_of(path: str) -> list[str]:
    """The parts of a path."""
    return [part for part in path.split("/") if part not in ("", ".")]


@dataclass
class Tree:
    """All entries of an archive. `file` is the archive's, kept open while the tree is used."""

    root: Entry = field(default_factory=_directory)
    count: int = 0

    def put(self, path: str, entry: Entry) -> None:
        """Add an entry as an unpacker would: later ones replace earlier ones, directories stay."""
        parts = self._checked(path)
        if not parts:
            if entry.is_directory:
                entry.names = self.root.names
                self.root = entry
            return
        here = self.root
        for part in parts[:-1]:
            below = self._below(here).get(part)
            if below is None or not below.is_directory:
                below = Entry(Kind.DIRECTORY, names={}, implied=True)
                self._below(here)[part] = below
                self.count += 1
            here = below
        names = self._below(here)
        old = names.get(parts[-1])
        if entry.is_directory:
            entry.names = old.names if old is not None and old.is_directory else {}
        self.count += old is None
        names[parts[-1]] = entry

    def _checked(self, path: str) -> list[str]:
        parts = parts_of(path)
        if ".." in parts:
            raise InvalidArgument(f"the archive names {path[:200]!r}, which leads out of it")
        if len(parts) > _DEPTH:
            raise InvalidArgument(f"the archive names a path of more than {_DEPTH} parts")
        return parts

    @staticmethod
    def _below(entry: Entry) -> dict[str, Entry]:
        assert entry.names is not None
        return entry.names

    def get(self, path: str) -> Entry | None:
        """The entry itself, no links followed."""
        here = self.root
        for part in self._checked(path):
            below = here.names.get(part) if here.names is not None else None
            if below is None:
                return None
            here = below
        return here

    def remove(self, path: str) -> None:
        """Take an entry away; a missing one is no error."""
        *parents, name = parts_of(path) or [""]
        holder = self.get("/".join(parents))
        if holder is not None and holder.names is not None:
            holder.names.pop(name, None)

    def resolve(self, path: str) -> tuple[str, Entry]:
        """The real path and the entry, links followed inside; NotFound if there is none."""
        stack: list[tuple[str, Entry]] = [("", self.root)]
        todo = list(reversed(parts_of(path)))
        links = 0
        while todo:
            name = todo.pop()
            if name == "..":
                if len(stack) > 1:
                    stack.pop()
                continue
            here = stack[-1][1]
            found = here.names.get(name) if here.names is not None else None
            if found is None:
                raise NotFound(f"stat {path.lstrip('/')}: file does not exist")
            if found.kind is Kind.SYMLINK:
                links += 1
                if links > _LINKS:
                    raise InvalidArgument(f"too many levels of symbolic links: {path[:200]}")
                if found.link.startswith("/"):
                    del stack[1:]
                todo += reversed(parts_of(found.link))
                continue
            stack.append((name, found))
        return "/".join(name for name, _ in stack[1:]), stack[-1][1]

    def walk(self, start: Entry | None = None, prefix: str = "") -> Iterator[tuple[str, Entry]]:
        """All entries below one, sorted, directories before what is in them."""
        todo = [(prefix, start or self.root)]
        while todo:
            path, entry = todo.pop()
            if path != prefix or entry is not (start or self.root):
                yield path, entry
            if entry.names:
                below = f"{path}/" if path else ""
                todo += [(below + n, entry.names[n]) for n in sorted(entry.names, reverse=True)]
