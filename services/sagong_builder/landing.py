"""Where copied files go: the destination as the root filesystem has it."""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Sequence

from sagong.contracts.image import PathStat
from sagong.errors import InvalidArgument
from sagong_builder.context.tree import Entry, Kind
from sagong_builder.copying import Item, Landing, Owner
from sagong_builder.dialect import CLASSIC, Dialect
from sagong_builder.shop import Lease, Shop

__all__ = ["land", "missing_directories"]

_LINKS = 40


async def land(
    shop: Shop,
    lease: Lease,
    items: Sequence[Item],
    path: str,
    owner: Owner,
    *,
    dialect: Dialect = CLASSIC,
) -> Landing:
    """The directory, or for one file its path; with the directories that are missing on the way.

    Above a copied directory they are root's, above a file the owner's: so Docker's classic builder has
    it, which gives what an archive is unpacked into to root, too. The dialect may give all of them to
    the owner, and the age of what is copied last to the directory that it goes into.
    """
    own_directories = dialect.own_directories
    one, last = items[0], items[-1]
    dated = dialect.dated_directories and last.entry.is_directory and not last.name
    if len(items) > 1 or path.endswith("/") or one.is_directory:
        there = await shop.stat(lease, path.rstrip("/") + "/.")
        if there is not None and not stat.S_ISDIR(there.mode):
            raise InvalidArgument(f"cannot copy to non-directory: {path}")
        if there is not None:
            # The root itself is in no layer.
            return _dated(there, last.entry.mtime) if dated and there.real != "/" else Landing(path)
        if one.unpacked is not None and not own_directories:
            return Landing(f"{await _followed(shop, lease, path.rstrip('/'))}/")
        path = f"{await _followed(shop, lease, path.rstrip('/'))}/"
        # Named in any case: what is copied may be empty.
        new = await missing_directories(shop, lease, path, owner) or (path.rstrip("/"),)
        kept = own_directories and one.unpacked is None
        new = new[-1:] if one.is_directory and not kept else new
        return Landing(path, new=new, mtime=last.entry.mtime if dated else 0.0)
    there = await shop.stat(lease, path)
    if there is None:
        new = await missing_directories(shop, lease, posixpath.dirname(path), owner)
        return Landing(path, single=True, new=new)
    if stat.S_ISLNK(there.mode) and there.link_target:
        # A link stays, and what it leads to is written.
        followed = posixpath.normpath(posixpath.join(posixpath.dirname(path), there.link_target))
        there = await shop.stat(lease, followed)
        path = followed
    return Landing(path, single=there is None or not stat.S_ISDIR(there.mode))


def _dated(there: PathStat, mtime: float) -> Landing:
    """A directory that is there and becomes as old as what is copied into it."""
    entry = Entry(
        Kind.DIRECTORY, stat.S_IMODE(there.mode), uid=there.uid, gid=there.gid, mtime=mtime
    )
    return Landing(f"{there.real}/", standing=entry)


async def _followed(shop: Shop, lease: Lease, path: str) -> str:
    """Where a link leads whose end is not there yet: that is made, and the link stays."""
    for _ in range(_LINKS):
        there = await shop.stat(lease, path)
        if there is None or not stat.S_ISLNK(there.mode) or not there.link_target:
            return path
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), there.link_target))
        path = "/" + path.lstrip("/")
    raise InvalidArgument(f"too many levels of symbolic links: {path[:200]}")


async def missing_directories(shop: Shop, lease: Lease, path: str, owner: Owner) -> tuple[str, ...]:
    """Directories that must be made, the upper ones first; root's are made without being named."""
    missing: list[str] = []
    path = path.rstrip("/")
    while (owner.uid or owner.gid) and path:
        if await shop.stat(lease, path + "/.") is not None:
            break
        missing.append(path)
        path = posixpath.dirname(path).rstrip("/")
    return tuple(reversed(missing))
