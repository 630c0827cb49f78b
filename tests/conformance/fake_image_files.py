"""The fake image store's filesystems: dictionaries of tar members, merged by overlay's rules."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from sagong.errors import InvalidArgument, NotFound

__all__ = [
    "Files",
    "Member",
    "apply_layer",
    "checked",
    "difference",
    "inside",
    "members_of",
    "pack",
    "read_upper",
]


@dataclass
class Member:
    """A file of any kind."""

    info: tarfile.TarInfo
    data: bytes = b""

    @property
    def mode(self) -> int:
        """st_mode."""
        kinds = {
            tarfile.DIRTYPE: stat.S_IFDIR,
            tarfile.SYMTYPE: stat.S_IFLNK,
            tarfile.CHRTYPE: stat.S_IFCHR,
            tarfile.FIFOTYPE: stat.S_IFIFO,
        }
        return kinds.get(self.info.type, stat.S_IFREG) | self.info.mode


def checked(name: str) -> str:
    """A relative path inside, or InvalidArgument."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidArgument(f"{name} leads out")
    return "/".join(parts)


def members_of(raw: bytes) -> list[Member]:
    """The members of a tar."""
    try:
        with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
            found = []
            for info in tar:
                file = tar.extractfile(info) if info.isreg() else None
                info.name = checked(info.name)
                found.append(Member(info, file.read() if file else b""))
            return found
    except tarfile.TarError as error:
        raise InvalidArgument(f"no archive: {error}") from None


def inside(root: Path, path: str) -> Path:
    """Where a path below `root` leads, links not leaving it."""
    found, todo = root, path.split("/")[::-1]
    while todo:
        part = todo.pop()
        if part == "..":
            found = found if found == root else found.parent
        elif part not in ("", "."):
            if not found.is_dir():
                raise InvalidArgument(f"not a directory: {found}")
            found = found / part
        if found.is_symlink():
            link = os.readlink(found)
            found = root if link.startswith("/") else found.parent
            todo += link.split("/")[::-1]
        if not found.exists():
            raise NotFound(f"no such file: {path}")
    return found


def directory(name: str) -> Member:
    """A directory that nobody described."""
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    return Member(info)


@dataclass
class Files:
    """A root filesystem: members by path."""

    table: dict[str, Member] = field(default_factory=dict)

    def drop(self, name: str) -> None:
        """Remove a path and all below it."""
        for key in [k for k in self.table if k == name or k.startswith(name + "/")]:
            del self.table[key]

    def put(self, name: str, member: Member) -> None:
        """Set a path; directories on the way are made."""
        parent = name.rpartition("/")[0]
        if parent and parent not in self.table:
            self.put(parent, directory(parent))
        old = self.table.get(name)
        if old is not None and not (old.info.isdir() and member.info.isdir()):
            self.drop(name)
        member.info.name = name
        self.table[name] = member

    def resolve(self, path: str, *, follow: bool = True) -> str:
        """The path with links resolved inside; NotFound for missing directories."""
        todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        here: list[str] = []
        for _ in range(1000):
            if not todo:
                return "/".join(here)
            part = todo.pop()
            if part == "..":
                here = here[:-1]
                continue
            found = self.table.get("/".join([*here, part]))
            if found is None and todo:
                raise NotFound(f"no such directory: {path}")
            if found is not None and found.info.issym() and (todo or follow):
                target = found.info.linkname
                here = [] if target.startswith("/") else here
                todo += [p for p in reversed(target.split("/")) if p not in ("", ".")]
            else:
                here.append(part)
        raise InvalidArgument("too many links")

    def get(self, path: str, *, follow: bool = True) -> tuple[str, Member]:
        """A member that must be there."""
        name = self.resolve(path, follow=follow)
        if name and name not in self.table:
            raise NotFound(f"no such file: {path}")
        return name, self.table.get(name) or directory("")


def apply_layer(files: Files, raw: bytes) -> None:
    """Put a layer over what is there."""
    for member in members_of(raw):
        name = member.info.name
        parent, _, base = name.rpartition("/")
        if parent:
            parent = files.resolve(parent)
            name = f"{parent}/{base}"
        if base == ".wh..wh..opq":
            for key in [k for k in files.table if k.startswith(parent + "/")]:
                del files.table[key]
        elif base.startswith(".wh."):
            files.drop(f"{parent}/{base[4:]}" if parent else base[4:])
        else:
            files.put(name, member)


def pack(files: dict[str, Member]) -> bytes:
    """A tar of members under the names that are the keys."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, member in files.items():
            info = member.info.replace(name=name, deep=False)
            info.size = len(member.data)
            tar.addfile(info, io.BytesIO(member.data))
    return buffer.getvalue()


def difference(before: Files, after: Files) -> bytes:
    """The layer that makes one root filesystem of another."""
    changed: dict[str, Member] = {}
    for name in before.table.keys() - after.table.keys():
        parent, _, base = name.rpartition("/")
        hidden = f"{parent}/.wh.{base}".lstrip("/")
        changed[hidden] = Member(tarfile.TarInfo(hidden))
    for name, member in after.table.items():
        old = before.table.get(name)
        if old is None or (old.data, old.mode) != (member.data, member.mode):
            changed[name] = member
    return pack(changed)


def write_out(files: Files, root: Path) -> None:
    """Make the files on disk (no hard links and devices: the suite does not look there)."""
    for name, member in files.table.items():
        path = root / name
        if member.info.isdir():
            path.mkdir(exist_ok=True)
        elif member.info.isreg():
            path.write_bytes(member.data)
        elif member.info.issym():
            path.symlink_to(member.info.linkname)


def read_upper(root: Path) -> dict[str, Member | None]:
    """What a writable layer has; None is a whiteout."""
    found: dict[str, Member | None] = {}
    for path in sorted(root.rglob("*")):
        facts = path.lstat()
        name = str(path.relative_to(root))
        if stat.S_ISCHR(facts.st_mode) and facts.st_rdev == 0:
            found[name] = None
            continue
        info = tarfile.TarInfo(name)
        info.mode, info.uid, info.gid = stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid
        info.mtime = int(facts.st_mtime)
        if stat.S_ISDIR(facts.st_mode):
            info.type = tarfile.DIRTYPE
        elif stat.S_ISLNK(facts.st_mode):
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
        data = path.read_bytes() if stat.S_ISREG(facts.st_mode) else b""
        info.size = len(data)
        found[name] = Member(info, data)
    return found
