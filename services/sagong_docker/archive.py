"""`docker cp` and `docker export`: paths of containers as archives."""

from __future__ import annotations

import base64
import posixpath
import stat as modes
from collections.abc import Mapping

import msgspec

from sagong.contracts.image import ArchiveRequest, PathStat, RootRef
from sagong.contracts.node import ContainerStatus
from sagong.errors import InvalidArgument, NotFound, PermissionDenied
from sagong.http import Response
from sagong_docker.ask import Ask
from sagong_docker.bridge import opened
from sagong_docker.engine import Engine
from sagong_docker.moment import moment_text
from sagong_docker.record import ContainerRecord
from sagong_docker.refusal import empty
from sagong_docker.transport import stream_down, uploading

__all__ = ["export", "extract", "go_mode", "read", "stat"]

_HEADER = "X-Docker-Container-Path-Stat"
# Go's os.FileMode bits (pkg.go.dev/io/fs#FileMode) of Linux file types and special bits.
_TYPES: Mapping[int, int] = {
    modes.S_IFDIR: 1 << 31,
    modes.S_IFLNK: 1 << 27,
    modes.S_IFIFO: 1 << 25,
    modes.S_IFSOCK: 1 << 24,
    modes.S_IFCHR: 1 << 26 | 1 << 21,
    modes.S_IFBLK: 1 << 26,
}
_SPECIAL = ((modes.S_ISUID, 1 << 23), (modes.S_ISGID, 1 << 22), (modes.S_ISVTX, 1 << 20))


def go_mode(mode: int) -> int:
    """A Linux mode as Go's os.FileMode."""
    made = mode & 0o777 | _TYPES.get(modes.S_IFMT(mode), 0)
    for bit, go in _SPECIAL:
        if mode & bit:
            made |= go
    return made


def _stat_header(found: PathStat) -> str:
    view = {
        "name": found.name,
        "size": found.size,
        "mode": go_mode(found.mode),
        "mtime": moment_text(found.mtime),
        "linkTarget": found.link_target,
    }
    return base64.b64encode(msgspec.json.encode(view)).decode()


async def _request(
    engine: Engine, ask: Ask, upload: str = ""
) -> tuple[ContainerRecord, ArchiveRequest]:
    record = await engine.container(ask["id"])
    path = ask.text("path")
    if not path:
        raise InvalidArgument("bad parameter: missing path")
    status = await engine.status(record)
    return record, ArchiveRequest(
        id=record.id,
        path=path,
        upload=upload,
        no_overwrite_dir_non_dir=ask.flag("noOverwriteDirNonDir"),
        copy_uid_gid=ask.flag("copyUIDGID"),
        mounts=_mounts(status),
    )


def _mounts(status: ContainerStatus) -> tuple[tuple[str, str], ...]:
    return tuple(
        (target, source)
        for kind, _, source, target, *_ in status.mounts
        if kind in ("bind", "volume") and source
    )


async def _found(engine: Engine, record: ContainerRecord, request: ArchiveRequest) -> PathStat:
    try:
        found = await engine.images.stat(request)
    except NotFound:
        raise NotFound(
            f"Could not find the file {request.path} in container {record.name}"
        ) from None
    except InvalidArgument as error:
        raise _of_machine(request, error) from None
    if request.path.endswith(("/", "/.")) and not modes.S_ISDIR(found.mode):
        raise InvalidArgument(f"lstat {request.path}: not a directory")
    return found


def _of_machine(request: ArchiveRequest, error: InvalidArgument) -> InvalidArgument:
    """A bind mount is a directory of the machine, which this engine's sandbox does not show it."""
    place = posixpath.normpath("/" + request.path.lstrip("/"))
    for target, source in request.mounts:
        if "hidden" in error.message and f"{place}/".startswith(posixpath.normpath(target) + "/"):
            rest = place[len(posixpath.normpath(target)) :]
            return InvalidArgument(
                f"{request.path} is mounted from the machine: copy to or from {source}{rest} there"
            )
    return error


async def stat(engine: Engine, ask: Ask) -> Response:
    """What a path is."""
    record, request = await _request(engine, ask)
    found = await _found(engine, record, request)
    return Response(200, b"", {_HEADER: _stat_header(found)})


async def read(engine: Engine, ask: Ask) -> None:
    """A path as a tar."""
    record, request = await _request(engine, ask)
    found = await _found(engine, record, request)
    address = await engine.images.read_archive(request)
    engine.note(record, "archive-path")
    async with opened(address) as link:
        headers = {"Content-Type": "application/x-tar", _HEADER: _stat_header(found)}
        out = ask.request.stream(200, headers)
        while data := await link.read():
            await out.write(data)


async def extract(engine: Engine, ask: Ask) -> Response:
    """A tar into a directory."""
    record, request = await _request(engine, ask)
    await _found(engine, record, request)
    _check_writable(record, await engine.status(record), request.path)
    async with uploading(engine.images, ask.request) as token:
        await engine.images.write_archive(msgspec.structs.replace(request, upload=token))
    engine.note(record, "extract-to-dir")
    return empty(200)


def _check_writable(record: ContainerRecord, status: ContainerStatus, path: str) -> None:
    """Docker refuses what a container could not write itself; the innermost mount decides."""
    place = posixpath.normpath("/" + path.lstrip("/"))
    inside = [
        (len(target), writable)
        for _, _, _, target, _, writable, _ in status.mounts
        if f"{place}/".startswith(posixpath.normpath(target) + "/")
    ]
    if inside and not max(inside)[1]:
        raise PermissionDenied("mounted volume is marked read-only")
    if not inside and record.host.get("ReadonlyRootfs"):
        raise PermissionDenied("container rootfs is marked read-only")


async def export(engine: Engine, ask: Ask) -> None:
    """The whole root filesystem as a tar."""
    record = await engine.container(ask["id"])
    address = await engine.images.export(RootRef(id=record.id))
    engine.note(record, "export")
    await stream_down(ask.request, address, "application/octet-stream")
