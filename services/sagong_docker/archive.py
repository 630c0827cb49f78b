"""`docker cp` and `docker export`: paths of containers as archives."""

from __future__ import annotations

import base64
import contextlib
import posixpath
import stat as modes
from collections.abc import AsyncIterator, Mapping

import msgspec

from sagong.call import leaving
from sagong.contracts.image import ArchiveRequest, PathStat, RootRef
from sagong.contracts.node import AccountQuery, ContainerStatus, Ref
from sagong.errors import InvalidArgument, NotFound, PermissionDenied, Unavailable
from sagong.http import Response
from sagong.uploading import uploading
from sagong_docker.ask import Ask
from sagong_docker.engine import Engine
from sagong_docker.moment import moment_text
from sagong_docker.record import ContainerRecord
from sagong_docker.refusal import empty
from sagong_docker.transport import sending, stream_down

__all__ = ["export", "extract", "go_mode", "provide_directory", "read", "stat"]

# An archive without entries: its end alone.
_EMPTY = bytes(1024)
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


async def _request(engine: Engine, ask: Ask) -> tuple[ContainerRecord, ArchiveRequest]:
    record = await engine.container(ask["id"])
    path = ask.text("path")
    if not path:
        raise InvalidArgument("bad parameter: missing path")
    _check_path(path)
    strict = ask.flag("noOverwriteDirNonDir")
    return record, ArchiveRequest(id=record.id, path=path, no_overwrite_dir_non_dir=strict)


def _check_path(path: str) -> None:
    """No path of Linux has a zero byte in it."""
    if "\0" in path:
        raise InvalidArgument(f"lstat {path}: invalid argument")


@contextlib.asynccontextmanager
async def _through_mounts(engine: Engine, request: ArchiveRequest) -> AsyncIterator[ArchiveRequest]:
    """The request with what is mounted in its container, seen as long as this lasts."""
    async with leaving(engine.node.show(Ref(id=request.id))) as stream:
        async for shown in stream:
            yield msgspec.structs.replace(request, mounts=shown.mounts)
            return
    raise Unavailable(f"the mounts of container {request.id} can't be seen now; try again")


async def _found(engine: Engine, given: str, request: ArchiveRequest) -> PathStat:
    """What is there; `given` is how the client calls the container."""
    try:
        found = await engine.images.stat(request)
    except NotFound:
        raise NotFound(f"Could not find the file {request.path} in container {given}") from None
    if request.path.endswith(("/", "/.")) and not modes.S_ISDIR(found.mode):
        raise InvalidArgument(f"lstat {request.path}: not a directory")
    return found


async def stat(engine: Engine, ask: Ask) -> Response:
    """What a path is."""
    _, request = await _request(engine, ask)
    async with _through_mounts(engine, request) as whole:
        found = await _found(engine, ask["id"], whole)
    return Response(200, b"", {_HEADER: _stat_header(found)})


async def read(engine: Engine, ask: Ask) -> None:
    """A path as a tar."""
    record, request = await _request(engine, ask)
    async with _through_mounts(engine, request) as whole:
        found = await _found(engine, ask["id"], whole)
        engine.note(record, "archive-path")
        headers = {"Content-Type": "application/x-tar", _HEADER: _stat_header(found)}
        await stream_down(ask.request, lambda: engine.images.read_archive(whole), headers)


async def extract(engine: Engine, ask: Ask) -> Response:
    """A tar into a directory."""
    record, request = await _request(engine, ask)
    async with _through_mounts(engine, request) as whole:
        found = await _found(engine, ask["id"], whole)
        status = await engine.status(record)
        _check_writable(record, status, found.real)
        if ask.flag("copyUIDGID"):
            whole = await _given_to_user(engine, status, whole)
        if ask.request.header("content-length") != "0":
            async with uploading(engine.images.upload, ask.request.chunks()) as token:
                await engine.images.write_archive(msgspec.structs.replace(whole, upload=token))
        await engine.node.refresh(Ref(id=record.id))
    engine.note(record, "extract-to-dir")
    return empty(200)


async def _given_to_user(
    engine: Engine, status: ContainerStatus, request: ArchiveRequest
) -> ArchiveRequest:
    """Docker gives all to the container's user; where none is named, the archive's owners stay."""
    image = status.image.config.user if status.image is not None else ""
    if not (status.spec.command.user or image):
        return request
    user = await engine.node.account(AccountQuery(id=status.spec.id))
    return msgspec.structs.replace(request, copy_uid_gid=True, uid=user.uid, gid=user.gid)


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


async def provide_directory(engine: Engine, id_: str, path: str) -> None:
    """A working directory is there from the creation on, and root's, as in Docker.

    What can't be one is told by the start.
    """
    request = ArchiveRequest(id=id_, path=path, make_path=True)
    with contextlib.suppress(InvalidArgument):
        try:
            await engine.images.stat(request)
        except NotFound:
            async with sending(engine.images, _EMPTY) as token:
                await engine.images.write_archive(msgspec.structs.replace(request, upload=token))


async def export(engine: Engine, ask: Ask) -> None:
    """The whole root filesystem as a tar."""
    record = await engine.container(ask["id"])
    engine.note(record, "export")
    headers = {"Content-Type": "application/octet-stream"}
    await stream_down(ask.request, lambda: engine.images.export(RootRef(id=record.id)), headers)
