"""A small correct image store in memory: what the image suite accepts beside image_overlay.

It keeps layers as tars and writes root filesystems to a temporary directory. It speaks to no
registry.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
import tarfile
from pathlib import Path
from typing import Any

from tests.conformance.fake_image_files import (
    Files,
    Member,
    difference,
    inside,
    members_of,
    pack,
    read_upper,
    write_out,
)
from tests.conformance.fake_image_store import FakeStore, Lease, Stored, digest, full

from sagong.contracts.image import (
    ArchiveRequest,
    Change,
    ChangeList,
    CommitRequest,
    DeriveRequest,
    DirectoryList,
    Image,
    PathStat,
    Prepared,
    PrepareRequest,
    RootRef,
    SquashRequest,
)
from sagong.contracts.runtime import Mount
from sagong.contracts.streams import Address
from sagong.errors import InvalidArgument, NotFound

__all__ = ["FakeImages", "Lease", "Stored", "full"]


class FakeImages(FakeStore):
    """The fake; `disk` outlives a restart."""

    def lease(self, identity: str) -> Lease:
        """A lease that must be there."""
        if identity not in self.leases:
            raise NotFound(f"nothing is lent to {identity}")
        return self.leases[identity]

    async def prepare(self, request: PrepareRequest) -> Prepared:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,127}", request.id):
            raise InvalidArgument("no container id")
        if request.storage_size:
            raise InvalidArgument("no quotas")
        lease = self.leases.get(request.id)
        if lease is None:
            lease = self.lend(request)
        lower = self.top / f"image-{lease.image.id[7:]}"
        upper = str(lease.root / "diff")
        options = [f"lowerdir={lower}"]
        if not lease.readonly:
            options += [f"upperdir={upper}", f"workdir={lease.root / 'work'}"]
        merged = self.merged(lease).table
        root = Mount(target="/", kind="overlay", options=tuple(options))
        if request.subpath:
            lower = inside(lower, request.subpath)
            root = Mount(target="/", kind="bind", source=str(lower))
        return Prepared(
            root=root,
            lower=(str(lower),),
            upper="" if lease.readonly else upper,
            image=lease.described,
            passwd=merged["etc/passwd"].data if "etc/passwd" in merged else b"",
            group=merged["etc/group"].data if "etc/group" in merged else b"",
        )

    def lend(self, request: PrepareRequest) -> Lease:
        """Make a lease."""
        image = self.find(request.image) if request.image else Stored(b"{}", [])
        described = self.describe(image) if request.image else Image(id="", architecture="amd64")
        if request.platform not in ("", f"linux/{described.architecture}"):
            raise NotFound(f"{request.image} does not match the platform")
        root = self.top / f"c-{request.id}"
        lower = self.top / f"image-{image.id[7:]}"
        files = image.files()
        if not lower.exists():
            lower.mkdir()
            write_out(files, lower)
        for name in ("diff", "work"):
            (root / name).mkdir(parents=True)
        lease = Lease(image, described, root, request.readonly, files)
        self.leases[request.id] = lease
        return lease

    async def release(self, root: RootRef) -> None:
        lease = self.leases.pop(root.id, None)
        if lease is not None:
            shutil.rmtree(lease.root)

    def merged(self, lease: Lease) -> Files:
        """The image with the container's changes."""
        files = Files(dict(lease.files.table))
        for name, member in read_upper(lease.root / "diff").items():
            if member is None:
                files.drop(name)
                continue
            if self.opaque(lease, name):
                files.drop(name)
            files.put(name, member)
        return files

    def opaque(self, lease: Lease, name: str) -> bool:
        """Whether a directory of the upper layer hides what is below."""
        path = lease.root / "diff" / name
        return path.is_dir() and "user.overlay.opaque" in os.listxattr(path)

    async def changes(self, root: RootRef) -> ChangeList:
        lease = self.lease(root.id)
        before = lease.files.table
        changes = []
        for name, member in sorted(read_upper(lease.root / "diff").items()):
            kind = 2 if member is None else 0 if name in before else 1
            changes.append(Change(path="/" + name, kind=kind))
        return ChangeList(changes=tuple(changes))

    def documented(self, document: bytes, base: bytes, layers: list[bytes]) -> dict[str, Any]:
        """The config that a document describes."""
        try:
            config: dict[str, Any] = {"architecture": "amd64", "os": "linux"} | dict(
                json.loads(document)
            )
        except (ValueError, TypeError) as error:
            raise InvalidArgument(f"no JSON object: {error}") from None
        command = (config.get("config") or {}).get("Cmd") or []
        whole = document.lstrip().startswith(b"{")
        if (
            not whole
            or not isinstance(command, list)
            or not isinstance(config.get("history", []), list)
        ):
            raise InvalidArgument("no config of an image")
        config["rootfs"] = {"type": "layers", "diff_ids": [digest(raw) for raw in layers]}
        return config

    async def derive(self, request: DeriveRequest) -> Image:
        parent = self.find(request.parent) if request.parent else Stored(b"{}", [])
        layers = parent.layers
        if request.layers_of:
            whole = self.find(request.layers_of).layers
            if not 0 <= request.layers <= len(whole):
                raise InvalidArgument(f"it has {len(whole)} layers")
            layers = whole[: request.layers]
        config = self.documented(request.document, parent.config, layers)
        above = parent.id if request.parent else ""
        image = Stored(json.dumps(config).encode(), layers, above)
        return self.describe(self.keep(image, [request.reference] if request.reference else []))

    async def squash(self, request: SquashRequest) -> Image:
        whole, base = self.find(request.image), Stored(b"{}", [])
        config = json.loads(whole.config)
        known = 0
        if request.base:
            base = self.find(request.base)
            known = len(json.loads(base.config)["history"])
        if whole.layers[: len(base.layers)] != base.layers:
            raise InvalidArgument("not below")
        for entry in config["history"][known:]:
            entry["empty_layer"] = True
        config["history"].append({"comment": "squashed"})
        layers = [*base.layers, difference(base.files(), whole.files())]
        config["rootfs"]["diff_ids"] = [digest(raw) for raw in layers]
        image = Stored(json.dumps(config).encode(), layers, base.id if request.base else "")
        return self.describe(self.keep(image, [request.reference] if request.reference else []))

    async def commit(self, request: CommitRequest) -> Image:
        if request.consume and request.id in self.consumed:
            return self.describe(self.images[self.consumed[request.id]])
        lease = self.lease(request.container)
        members: dict[str, Member] = {}
        for name, member in read_upper(lease.root / "diff").items():
            parent, _, base = name.rpartition("/")
            if member is None:
                name = f"{parent}/.wh.{base}"
                member = Member(tarfile.TarInfo(name))
            members[name] = member
        for path in sorted((stub.strip("/") for stub in request.stubs), reverse=True):
            found = members.get(path)
            below = any(name.startswith(f"{path}/") for name in members)
            if found is not None and not found.info.size and not below:
                del members[path]
        layer = pack(members)
        parent = lease.image.id if lease.described.id else ""
        if request.document:
            layers = [*lease.image.layers, *([layer] if members else [])]
            config = self.documented(request.document, lease.image.config, layers)
            config["history"][-1].pop("empty_layer", None)
            if not members:
                config["history"][-1]["empty_layer"] = True
            image = self.keep(Stored(json.dumps(config).encode(), layers, parent), [])
            if request.consume:
                self.consumed[request.id] = image.id
                await self.release(RootRef(id=request.container))
            return self.describe(image)
        config = json.loads(lease.image.config)
        config["rootfs"]["diff_ids"].append(digest(layer))
        config["history"].append({"comment": request.comment})
        config["author"] = request.author
        if request.config:
            config["config"] = json.loads(request.config)
        raw = json.dumps(config).encode()
        image = Stored(raw, [*lease.image.layers, layer], lease.image.id)
        self.keep(image, [request.reference] if request.reference else [])
        return self.describe(image)

    def mounted(self, request: ArchiveRequest) -> Path | None:
        """The place on a volume that a path means."""
        for target, source in request.mounts:
            if request.path == target or request.path.startswith(target + "/"):
                return Path(source + request.path.removeprefix(target))
        return None

    async def stat(self, request: ArchiveRequest) -> PathStat:
        files = self.merged(self.lease(request.id))
        volume = self.mounted(request)
        if volume is not None:
            facts = volume.stat()
            return PathStat(name=volume.name, size=facts.st_size, mode=facts.st_mode, mtime=0)
        name, member = files.get(request.path, follow=request.path.endswith("/"))
        target = ""
        if stat.S_ISLNK(member.mode):
            with contextlib.suppress(NotFound):
                target = "/" + files.resolve(request.path)
        return PathStat(
            name=name.rpartition("/")[2],
            size=len(member.data),
            mode=member.mode,
            mtime=member.info.mtime,
            link_target=target,
            real=self._real(files, request.path),
            uid=member.info.uid,
            gid=member.info.gid,
        )

    @staticmethod
    def _real(files: Files, path: str) -> str:
        with contextlib.suppress(NotFound, InvalidArgument):
            return "/" + files.resolve(path)
        return ""

    async def directory(self, request: ArchiveRequest) -> DirectoryList:
        files = self.merged(self.lease(request.id))
        name, member = files.get(request.path)
        if not member.info.isdir():
            raise InvalidArgument("not a directory")
        prefix = f"{name}/" if name else ""
        below = {key for key in files.table if key.startswith(prefix) and key != name}
        names = sorted({key[len(prefix) :].partition("/")[0] for key in below})
        told = [
            await self.stat(ArchiveRequest(id=request.id, path=f"/{prefix}{one}")) for one in names
        ]
        return DirectoryList(entries=tuple(told))

    async def read_archive(self, request: ArchiveRequest) -> Address:
        files = self.merged(self.lease(request.id))
        name, _ = files.get(request.path, follow=request.path.endswith(("/", "/.")))
        base = "" if request.path.endswith("/.") else name.rpartition("/")[2]
        chosen = {
            (base + key[len(name) :]).lstrip("/"): member
            for key, member in files.table.items()
            if key == name or key.startswith(name + "/")
        }
        return self.offer(pack({key or ".": member for key, member in chosen.items()}))

    async def export(self, root: RootRef) -> Address:
        return self.offer(pack(self.merged(self.lease(root.id)).table))

    async def write_archive(self, request: ArchiveRequest) -> None:
        lease = self.lease(request.id)
        members = members_of(await self.taken(request.upload))
        volume = self.mounted(request)
        if volume is not None:
            for member in members:
                (volume / member.info.name).write_bytes(member.data)
            return
        if request.make_path:
            self.make_path(lease, request)
        base, target = self.merged(lease).get(request.path)
        if not target.info.isdir():
            raise InvalidArgument("extraction point is not a directory")
        for member in members:
            if request.copy_uid_gid:
                member.info.uid, member.info.gid = request.uid, request.gid
            self.extract(lease, base, member, strict=request.no_overwrite_dir_non_dir)

    def make_path(self, lease: Lease, request: ArchiveRequest) -> None:
        """Missing directories of the path."""
        here = ""
        for part in request.path.strip("/").split("/"):
            files = self.merged(lease)
            here = files.resolve(f"{here}/{part}")
            known = files.table.get(here)
            if known is None:
                (lease.root / "diff" / here).mkdir(parents=True)
                os.chown(lease.root / "diff" / here, request.uid, request.gid)
            elif not known.info.isdir():
                raise InvalidArgument("not a directory")

    def extract(self, lease: Lease, base: str, member: Member, *, strict: bool) -> None:
        """One member into the upper layer."""
        files = self.merged(lease)
        wanted = f"{base}/{member.info.name}".lstrip("/")
        parent, _, last = wanted.rpartition("/")
        name = f"{files.resolve(parent)}/{last}".lstrip("/")
        old = files.table.get(name)
        if strict and old is not None and old.info.isdir() != member.info.isdir():
            raise InvalidArgument("cannot overwrite a directory with a non-directory or back")
        path = lease.root / "diff" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = os.path.lexists(path) and stat.S_ISCHR(path.lstat().st_mode)
        if os.path.lexists(path) and not path.is_dir():
            path.unlink()
        elif path.is_dir() and not member.info.isdir():
            shutil.rmtree(path)
        if member.info.isdir():
            path.mkdir(exist_ok=True)
            os.chown(path, member.info.uid, member.info.gid)
            if hidden:
                os.setxattr(path, "user.overlay.opaque", b"y")
        elif member.info.issym():
            path.symlink_to(member.info.linkname)
        else:
            data = member.data
            if member.info.islnk():
                data = files.get(f"{base}/{member.info.linkname}")[1].data
            path.write_bytes(data)
            os.chown(path, member.info.uid, member.info.gid)
