"""Where copied files go: the destination as the root filesystem has it."""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Sequence

from sagong.errors import InvalidArgument
from sagong_builder.copying import Item, Landing, Owner
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
    own_directories: bool = False,
) -> Landing:
    """The directory, or for one file its path; with the directories that are missing on the way.

    Above a copied directory they are root's, above a file the owner's: so Docker's classic builder has
    it. With `own_directories` all are the owner's.
    """
    one = items[0]
    if len(items) > 1 or path.endswith("/") or one.is_directory:
        there = await shop.stat(lease, path.rstrip("/") + "/.")
        if there is not None and not stat.S_ISDIR(there.mode):
            raise InvalidArgument(f"cannot copy to non-directory: {path}")
        if there is not None:
            return Landing(path)
        path = f"{await _followed(shop, lease, path.rstrip('/'))}/"
        # Named in any case: what is copied may be empty.
        new = await missing_directories(shop, lease, path, owner) or (path.rstrip("/"),)
        kept = own_directories and one.unpacked is None
        return Landing(path, new=new[-1:] if one.is_directory and not kept else new)
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
