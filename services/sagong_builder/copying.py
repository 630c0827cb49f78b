"""What COPY and ADD copy: sources chosen from a tree, where they land, and the tar that carries them.

Pure but for the reading of archives. Paths of the root filesystem are resolved by its owner (slot
`image`), inside of it; so neither a context nor a stage leads a copy out of its place.
"""

from __future__ import annotations

import hashlib
import posixpath
import tarfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from sagong.errors import InvalidArgument, NotFound
from sagong.model.numbers import natural
from sagong.model.patterns import has_wildcard, translated
from sagong_builder.context.archive import Archive
from sagong_builder.context.checksum import checksum
from sagong_builder.context.ignore import Ignore
from sagong_builder.context.tree import Entry, Kind, Tree
from sagong_builder.modes import Change, read_mode

__all__ = [
    "Item",
    "Landing",
    "Owner",
    "destination",
    "kept_name",
    "label",
    "members",
    "missing_source",
    "owner_of",
    "select",
    "written",
]

_TYPES = {
    Kind.FILE: tarfile.REGTYPE,
    Kind.DIRECTORY: tarfile.DIRTYPE,
    Kind.SYMLINK: tarfile.SYMTYPE,
    Kind.CHARACTER: tarfile.CHRTYPE,
    Kind.BLOCK: tarfile.BLKTYPE,
    Kind.FIFO: tarfile.FIFOTYPE,
}


@dataclass(frozen=True)
class Item:
    """One source: its entry and the name that it has at the destination ("": its content goes there).

    `unpacked` is the archive that it is, when ADD unpacks it. `known` stands for its content where
    that is known by something shorter.
    """

    archive: Archive
    entry: Entry
    name: str
    unpacked: Archive | None = None
    known: str = ""

    @property
    def is_directory(self) -> bool:
        """Whether its content is copied rather than itself."""
        return self.entry.is_directory or self.unpacked is not None


@dataclass(frozen=True)
class Owner:
    """Who owns what is copied, and what is done to modes.

    With `kept` all belongs to whom it belonged; with `unpacked` what ADD unpacks is owned, too.
    """

    uid: int = 0
    gid: int = 0
    change: Change | None = None
    kept: bool = False
    unpacked: bool = False

    @property
    def of_unpacked(self) -> Owner:
        """What is unpacked is as it was packed: --chmod never changes it, --chown where it may."""
        return replace(self, change=None) if self.unpacked else Owner(kept=True)


@dataclass(frozen=True)
class Landing:
    """Where items go: `path` is their directory, or with `single` the one file's own path.

    `new` are directories that are made on the way, the upper ones first; the last one's `mtime` is in
    seconds, 0 for now. `standing` is the directory as it is to be, where it is there already.
    """

    path: str
    single: bool = False
    new: tuple[str, ...] = ()
    mtime: float = 0.0
    standing: Entry | None = None


def destination(directory: str, word: str) -> str:
    """The absolute destination; its trailing slash tells that it is a directory."""
    joined = posixpath.join("/", directory, word) if word else posixpath.join("/", directory)
    path = posixpath.normpath(joined)
    path = "/" + path.lstrip("/")
    ends = word.endswith(("/", "/.", "/..")) or word in (".", "..", "")
    return path + "/" if ends and path != "/" else path


# Choosing.


def select(
    archive: Archive, word: str, *, parents: bool = False, excludes: Iterable[str] = ()
) -> list[Item]:
    """The items of one source word; NotFound if it names nothing."""
    cleaned = posixpath.normpath("/" + word).lstrip("/") if word else ""
    if posixpath.normpath(word.lstrip("/") or ".").startswith("../") or word in ("..", "/.."):
        raise InvalidArgument(f"forbidden path outside the build context: {word} ()")
    excluding = Ignore.read("\n".join(excludes).encode())
    if has_wildcard(cleaned):
        found = _matching(archive.tree, cleaned, deep=parents)
    else:
        found = [(cleaned, archive.tree.resolve(cleaned)[1])]
    items = []
    for path, entry in found:
        # Of a directory the content is copied: what is left out is told from there.
        if excluding.rules and not entry.is_directory and excluding.excludes(path):
            continue
        if parents:
            name = kept_name(word, path)
        else:
            name = "" if entry.is_directory else posixpath.basename(path)
        items.append(Item(archive, _without(entry, excluding), name))
    return items


def _matching(tree: Tree, pattern: str, *, deep: bool) -> list[tuple[str, Entry]]:
    rule = translated(pattern, deep=deep)
    found = []
    for path, _ in tree.walk():
        if rule.fullmatch(path):
            found.append((path, tree.resolve(path)[1]))
    return found


def kept_name(word: str, path: str) -> str:
    """With --parents: the path below the pivot `/./`, or all of it."""
    before, pivot, _ = word.partition("/./")
    # The part above may have wildcards: its names count, not what they are.
    above = posixpath.normpath("/" + before).strip("/") if pivot else ""
    parts = path.strip("/").split("/")
    return "/".join(parts[len(above.split("/")) if above else 0 :])


def _without(entry: Entry, excluding: Ignore) -> Entry:
    """The entry without what is excluded; its own tree stays as it is."""
    if not excluding.rules or not entry.is_directory:
        return entry
    copied = _copied(entry)
    excluding.apply(Tree(root=copied))
    return copied


def _copied(entry: Entry) -> Entry:
    if entry.names is None:
        return entry
    return replace(entry, names={name: _copied(below) for name, below in entry.names.items()})


def label(items: list[Item]) -> str:
    """What is copied in Docker's history: `file:HASH`, `dir:HASH`, `multi:HASH`."""
    parts = []
    for item in items:
        kind = "dir" if item.entry.is_directory else "file"
        content = item.known or checksum(item.archive, item.entry, item.name)
        parts.append(f"{kind}:{content}")
    if len(parts) == 1:
        return parts[0]
    return "multi:" + hashlib.sha256(",".join(parts).encode()).hexdigest()


# Owners.


def owner_of(
    text: str, mode: str, passwd: bytes, group: bytes, *, own_group: bool = False
) -> Owner:
    """--chown and --chmod; names are those of the image.

    A user without a group means the group of that name, or with `own_group` the user's own.
    """
    change = read_mode(mode) if mode else None
    if not text:
        return Owner(change=change)
    user, _, grouped = text.partition(":")
    uid = _number(user, passwd, "user", "uid") if user else 0
    if own_group and not grouped and natural(user) is None:
        gid = _number(user, passwd, "user", "gid", field=3)
    else:
        gid = _number(grouped or user, group, "group", "gid")
    return Owner(uid, gid, change)


def _number(name: str, table: bytes, kind: str, what: str, field: int = 2) -> int:
    number = natural(name)
    if number is not None:
        if number > 2**31 - 1:
            raise InvalidArgument(f"{what} {name} is larger than 2147483647")
        return number
    for line in table.decode("utf-8", "replace").splitlines():
        fields = line.split(":")
        if fields[0] == name and len(fields) > field:
            number = natural(fields[field])
            if number is not None:
                return number
    raise InvalidArgument(
        "unable to convert uid/gid chown string to host mapping: "
        f"can't find {what} for {kind} {name}: no such {kind}: {name}"
    )


# Carrying.


@dataclass
class _Carrier:
    seen: dict[int, str] = field(default_factory=dict)

    def info(self, path: str, entry: Entry, owner: Owner) -> tarfile.TarInfo:
        member = tarfile.TarInfo(path)
        member.type = _TYPES[entry.kind]
        member.mode = entry.mode
        if owner.change is not None and entry.kind is not Kind.SYMLINK:
            member.mode = owner.change(entry.mode, entry.is_directory)
        member.uid, member.gid = (entry.uid, entry.gid) if owner.kept else (owner.uid, owner.gid)
        member.mtime = entry.mtime
        member.linkname = entry.link
        member.devmajor, member.devminor = entry.device
        if entry.kind is Kind.FILE:
            first = self.seen.setdefault(id(entry), path)
            if first != path:
                member.type, member.linkname = tarfile.LNKTYPE, first
            else:
                member.size = entry.size
        if entry.xattrs and member.type != tarfile.LNKTYPE:
            member.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in entry.xattrs}
        return member


Member = tuple[tarfile.TarInfo, Iterator[bytes] | None]


def members(items: list[Item], landing: Landing, owner: Owner) -> Iterator[Member]:
    """The headers and contents of what is copied, by paths from the root."""
    carrier = _Carrier()
    now = time.time()
    for path in landing.new:
        when = landing.mtime if path == landing.new[-1] else 0.0
        made = Entry(Kind.DIRECTORY, 0o755, mtime=when or now)
        yield carrier.info(path.strip("/"), made, Owner(owner.uid, owner.gid)), None
    if landing.standing is not None:
        yield carrier.info(landing.path.strip("/"), landing.standing, Owner(kept=True)), None
    for item in items:
        # Hard links are within what one source names.
        carrier.seen.clear()
        yield from _item_members(item, landing, owner, carrier)


def _item_members(
    item: Item, landing: Landing, owner: Owner, carrier: _Carrier
) -> Iterator[Member]:
    archive, root = item.archive, item.entry
    if item.unpacked is not None:
        archive, root, owner = item.unpacked, item.unpacked.tree.root, owner.of_unpacked
    base = landing.path.strip("/")
    if not landing.single and item.unpacked is None:
        base = f"{base}/{item.name}".strip("/")
    if not item.is_directory:
        yield from _one(archive, base, root, owner, carrier)
        return
    if item.unpacked is not None and landing.single and not owner.kept:
        made = Entry(Kind.DIRECTORY, 0o755, mtime=time.time())
        yield carrier.info(base, made, owner), None
    for path, entry in Tree(root=root).walk():
        # What is there already stays as it is: a directory with its mode, a link that leads to one.
        if item.unpacked is not None and entry.implied:
            continue
        yield from _one(archive, f"{base}/{path}".lstrip("/"), entry, owner, carrier)


def _one(
    archive: Archive, path: str, entry: Entry, owner: Owner, carrier: _Carrier
) -> Iterator[Member]:
    member = carrier.info(path, entry, owner)
    yield member, archive.content(entry) if member.isreg() and member.size else None


def written(found: Iterable[Member]) -> Iterator[bytes]:
    """The tar, in pieces."""
    block = tarfile.BLOCKSIZE
    for member, content in found:
        yield member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        if content is not None:
            yield from content
            yield bytes(-member.size % block)
    yield bytes(2 * block)


def missing_source(what: str, word: str, origin: str, error: NotFound) -> NotFound:
    """A source that is not there, in the words of Docker's classic builder; its details have what
    BuildKit's are made of. `what` wants it, `origin` is where it was looked for ("": the context)."""
    return NotFound(
        f"{what}file not found in build context or excluded by .dockerignore: {error.message}",
        detail={
            "missing": "/" + posixpath.normpath(f"/{word}").lstrip("/"),
            "origin": origin or "context",
        },
    )
