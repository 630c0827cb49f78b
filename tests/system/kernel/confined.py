"""Stories of plugins in the sandboxes of their manifests, with one right left out: what fails then?

`run(plugin, without)` forks, applies the sandbox, and plays the plugin's story in it; "" means that it
went well. Each story does what the rights of the manifest are for, and looks at what came of it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import stat
import tempfile
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from sagong import manifest
from sagong.contracts.image import PullRequest
from sagong.contracts.network import Attachment, JoinRequest, PortMapping, SandboxRef, UserNamespace
from sagong.contracts.node import HostFile
from sagong.contracts.volume import PublishRequest, UnpublishRequest, Volume, VolumeRef
from sagong.deputy import Post, appoint, deputation
from sagong.errors import SagongError
from sagong.linux import mounts, syscalls
from sagong.linux.quota import has_quotas
from sagong.linux.syscalls import Namespace
from sagong.manifest import Manifest, size_bytes
from sagong.sandbox import PathGrant, ProcessLimits, Rights, plan, probe
from sagong.testing import LocalHost

__all__ = ["STORIES", "drops", "run"]

UID = 58941
_SECONDS = 60


def rights_of(name: str, base: Path) -> Rights:
    """The manifest's, on directories below `base`."""
    found = manifest.load(f"sagong_{name}")
    asked, limits = found.rights, found.limits
    places = {"{run}": f"{base}/run", "{data}": f"{base}/lib", "{etc}": f"{base}/etc"}

    def filled(path: str) -> str:
        for word, place in places.items():
            path = path.replace(word, place)
        return path

    return Rights(
        name=name,
        uid=UID,
        gid=UID,
        capabilities=tuple(c.name for c in asked.capabilities),
        data=f"{base}/lib/plugins/{name}",
        run=f"{base}/run/own",
        paths=tuple(PathGrant(filled(p.path), p.access, p.shared, p.optional) for p in asked.paths),
        network=asked.network.mode,
        seccomp=tuple(s.group for s in asked.seccomp),
        limits=ProcessLimits(memory=size_bytes(limits.memory), pids=limits.pids),
    )


def drops(name: str) -> list[str]:
    """Names of all rights of the machine that a manifest grants, and of each half of double ones."""
    asked = manifest.load(f"sagong_{name}").rights
    found = [f"capability {c.name}" for c in asked.capabilities]
    found += [f"group {s.group}" for s in asked.seccomp]
    found += [f"path {p.path}" for p in asked.paths]
    found += [f"device {d.path}" for d in asked.devices]
    found += ["network host"] if asked.network.mode == "host" else []
    both = [f"capability {c.name}" for c in asked.capabilities if c.holder == "both"]
    both += [f"group {s.group}" for s in asked.seccomp if s.holder == "both"]
    found += [f"{right} of the {half}" for right in both for half in ("plugin", "deputy")]
    # What is shared with the machine's mounts can't be for reading alone.
    written = [p.path for p in asked.paths if p.access == "write" and not p.shared]
    return found + [f"writing path {path}" for path in written]


def parted(found: Manifest, without: str) -> Manifest:
    """The manifest where a right that plugin and deputy hold is only the other's."""
    right, _, half = without.partition(" of the ")
    if not half:
        return found
    other, name = {"plugin": "deputy", "deputy": "plugin"}[half], right.partition(" ")[2]
    rights = found.rights
    return msgspec.structs.replace(
        found,
        rights=msgspec.structs.replace(
            rights,
            capabilities=tuple(
                msgspec.structs.replace(c, holder=other) if c.name == name else c
                for c in rights.capabilities
            ),
            seccomp=tuple(
                msgspec.structs.replace(s, holder=other) if s.group == name else s
                for s in rights.seccomp
            ),
        ),
    )


def dropped(rights: Rights, without: str, places: list[str]) -> Rights:
    """The same without one; a path is named as in the manifest, by its place among `places`."""
    kind, _, name = without.partition(" ")
    if " of the " in name:
        return rights  # of the sandbox; within it they are parted otherwise
    match kind:
        case "capability":
            kept = tuple(c for c in rights.capabilities if c != name)
            return replace(rights, capabilities=kept)
        case "group":
            return replace(rights, seccomp=tuple(g for g in rights.seccomp if g != name))
        case "path":
            number = places.index(name)
            return replace(rights, paths=rights.paths[:number] + rights.paths[number + 1 :])
        case "writing":
            number = places.index(name.removeprefix("path "))
            read = rights.paths[number]._replace(access="read")
            return replace(
                rights, paths=(*rights.paths[:number], read, *rights.paths[number + 1 :])
            )
        case "network":
            return replace(rights, network="none")
    return rights


def run(name: str, without: str = "") -> str:
    """What went wrong, "" for nothing. All is in namespaces of its own, so nothing is left."""
    with tempfile.TemporaryDirectory(prefix="sagong-story-", dir="/var/tmp") as base:
        os.chmod(base, 0o755)
        return _apart(name, without, Path(base))


def _apart(name: str, without: str, base: Path) -> str:
    """In a process of its own."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(_SECONDS)
            _play(name, without, base)
            code = 0
        except BaseException:
            os.write(writer, traceback.format_exc()[-4000:].encode())
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        text = stream.read().decode(errors="replace")
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return "" if code == 0 else text or f"ended with {code}"


def _play(name: str, without: str, base: Path) -> None:
    """On a machine of its own: fresh mounts and network, the loopback up."""
    syscalls.unshare(Namespace.MNT | Namespace.NET)
    mounts.set_propagation("/", "rprivate")
    os.system("ip link set lo up")
    syscalls.mount("story", str(base), "tmpfs", 0, "mode=755,size=64m")
    prepare, story = STORIES[name]
    _directories(base, name)
    prepare(base)
    rights = rights_of(name, base)
    places = [p.path for p in manifest.load(f"sagong_{name}").rights.paths]
    rights = dropped(rights, without, places)
    plan(rights, probe(stage=f"{base}/stage"), descriptors=None).apply()
    os.umask(0o022)
    _appoint(name, base, without)
    asyncio.run(story(base))


# The socket to the deputy of the plugin whose story is played, if it has one.
_DEPUTIES: list[socket.socket] = []


def _appoint(name: str, base: Path, without: str) -> None:
    """As the plugin's process does it: rights are parted before there are threads."""
    found = deputation(parted(manifest.load(f"sagong_{name}"), without), confined=True)
    if found is not None:
        post = Post(base / "lib/plugins" / name, base / "run/own", base / "run", {})
        _DEPUTIES.append(appoint(found, post, "sagong-story-deputy").channel)


def _directories(base: Path, name: str) -> None:
    for place in ("stage", "etc/seccomp", "lib/plugins", "run/netns", "run/mounts"):
        (base / place).mkdir(parents=True, exist_ok=True)
    for place in ("run/netns", "run/mounts"):
        mounts.bind(str(base / place), str(base / place))
        mounts.set_propagation(str(base / place), "shared")
        os.chown(base / place, UID, UID)


@asynccontextmanager
async def hosted(kind: Callable[[Any], Any], base: Path, name: str) -> AsyncIterator[Any]:
    """The plugin's class, started."""
    host = LocalHost(
        name,
        data=base / "lib/plugins" / name,
        run=base / "run/own",
        deputy=_DEPUTIES[0] if _DEPUTIES else "",
    )
    host.root = base / "run"
    made = kind(host)
    try:
        await _step(made, "start")
        yield made
    finally:
        await _step(made, "stop")
        await host.close()


async def _step(made: Any, name: str) -> None:
    """A step of its life, if it has it."""
    if hasattr(made, name):
        await getattr(made, name)()


# volume_local


def _image_content(base: Path) -> None:
    """A layer with all that images have, of other users."""
    layer = base / "lib/plugins/image_overlay/layer"
    (layer / "closed").mkdir(parents=True)
    for name, uid, gid, mode in (
        ("secret", 1234, 5678, 0o600),
        ("wall", 0, 5, 0o2755),
        ("ping", 0, 0, 0o755),
        ("closed/file", 7, 8, 0o000),
    ):
        (layer / name).write_text(name)
        os.chown(layer / name, uid, gid)
        os.chmod(layer / name, mode)
    # Version 2 of vfs_cap_data: effective CAP_NET_RAW.
    value = (0x02000001).to_bytes(4, "little") + (1 << 13).to_bytes(4, "little") + bytes(12)
    os.setxattr(layer / "ping", "security.capability", value)
    os.mknod(layer / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.chmod(layer / "closed", 0o700)


async def _volumes(base: Path) -> None:
    from sagong_volume_local import VolumeLocal

    layer = base / "lib/plugins/image_overlay/layer"
    async with hosted(VolumeLocal, base, "volume_local") as volumes:
        await volumes.create(Volume(name="v"))
        seeded = PublishRequest(name="v", owner="o", seed=(str(layer),))
        path = Path((await volumes.publish(seeded)).path)
        for name, uid, gid, mode in (
            ("secret", 1234, 5678, 0o600),
            ("wall", 0, 5, 0o2755),
            ("closed/file", 7, 8, 0),
        ):
            found = os.lstat(path / name)
            seen = (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode))
            assert seen == (uid, gid, mode), (name, seen)
        assert os.getxattr(path / "ping", "security.capability")
        assert stat.S_ISCHR(os.lstat(path / "null").st_mode)
        options = (("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m"))
        await volumes.create(Volume(name="t", options=options))
        memory = Path((await volumes.publish(PublishRequest(name="t", owner="o"))).path)
        assert os.statvfs(memory).f_blocks * os.statvfs(memory).f_frsize == 1 << 20
        assert not has_quotas(base / "lib/plugins/volume_local")
        await volumes.unpublish(UnpublishRequest(owner="o"))
        await volumes.delete(VolumeRef(name="v"))


# network_bridge


async def _networks(base: Path) -> None:
    from sagong_network_bridge import NetworkBridge

    async with hosted(NetworkBridge, base, "network_bridge") as networks:
        ports = (PortMapping(container_port=80, host_port=80, host_ip="127.0.0.1"),)
        request = JoinRequest(
            id="s",
            attachments=(Attachment(network="bridge"),),
            ports=ports,
            sysctls=(("net.ipv4.ip_unprivileged_port_start", "0"),),
        )
        joined = await networks.join(request)
        assert Path(joined.path).parent == base / "run/netns", joined.path
        assert Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1"
        await _owned(networks)
        await _loopback(networks)
        await networks.leave(SandboxRef(id="s"))


async def _owned(networks: Any) -> None:
    """A network namespace that belongs to a user namespace with other ids."""
    ids = ((0, 200000, 65536),)
    request = JoinRequest(
        id="u",
        attachments=(Attachment(network="bridge"),),
        user_namespace=UserNamespace(uid_map=ids, gid_map=ids),
    )
    joined = await networks.join(request)
    assert Path(joined.user_path).stat().st_dev != Path(joined.user_path).parent.stat().st_dev
    await networks.leave(SandboxRef(id="u"))


def _hierarchies(base: Path) -> None:
    """Whether the machine has what the program for [::1] is attached to."""
    if any(entry.kind == "cgroup2" for entry in mounts.mount_table()):
        (base / "run/own").mkdir()
        (base / "run/own/has cgroup2").touch()


async def _loopback(networks: Any) -> None:
    """The program for [::1], where the kernel has such: loaded behind the start, before a join ends."""
    if networks._host.run.joinpath("has cgroup2").exists():
        assert len(networks._loopback._descriptors) == 3


# node


def _foreign_log(base: Path) -> None:
    """As monitors write them: root's alone."""
    log = base / "lib/plugins/node/log"
    log.parent.mkdir(parents=True)
    log.write_text("said")
    os.chmod(log, 0o600)
    (base / "etc/seccomp/profile.json").write_text("{}")


async def _files(base: Path) -> None:
    """The parts of the node that need its rights: files of containers, logs of monitors."""
    from sagong_node.hostfiles import write_files

    assert (base / "lib/plugins/node/log").read_text() == "said"
    assert (base / "etc/seccomp/profile.json").read_text() == "{}"
    directory = base / "lib/plugins/node/files"
    write_files(directory, [HostFile(target="/x", content=b"x", uid=12, gid=13, mode=0o4750)])
    found = os.lstat(directory / "0")
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (12, 13, 0o4750)
    await _probed()


async def _probed() -> None:
    """A probe goes out into the machine's network; nobody listens there."""
    from sagong_node.pods.probing import http_get

    try:
        await http_get("http://127.0.0.1:9/", ())
    except OSError as error:
        assert error.errno == errno.ECONNREFUSED, error


# metrics_cgroup


async def _counters(base: Path) -> None:
    from sagong_metrics_cgroup import MetricsCgroup

    async with hosted(MetricsCgroup, base, "metrics_cgroup") as metrics:
        found = await _answer(metrics.machine())
        assert all(size > 0 for _, size, _ in found.disks)
        assert found.disks
        assert found.memory_total > 0
        assert list(Path("/sys/fs/cgroup").iterdir()), "no control groups are seen"


# image_overlay


async def _images(base: Path) -> None:
    from tests.system.image.image_cage import story

    told = await story(base / "lib/plugins/image_overlay", base / "run/own", "")
    lower = [Path(path) for path in told["lower"]]
    files = {n: _found(lower, n) for n in ("bin/setuid", "bin/wall", "bin/ping", "dev-null")}
    assert stat.S_IMODE(os.lstat(files["bin/setuid"]).st_mode) == 0o4755
    assert stat.S_IMODE(os.lstat(files["bin/wall"]).st_mode) == 0o2755
    assert os.lstat(files["bin/wall"]).st_gid == 5
    assert os.getxattr(files["bin/ping"], "security.capability")
    assert stat.S_ISCHR(os.lstat(files["dev-null"]).st_mode)
    assert told["committed"] == 3 and told["export"] > 0 and told["trash"] == []
    for place in ("/etc/docker/certs.d", f"{base}/etc/certs.d"):
        assert os.listdir(place) == ["registry.test"], place
    await _pulled(base)
    # What `docker cp` writes into a volume, lying there or mounted.
    for place in ("lib/plugins/volume_local", "run/mounts"):
        (base / place / "copied").write_text("copied")


def _found(lower: list[Path], name: str) -> Path:
    return next(path / name for path in lower if os.path.lexists(path / name))


async def _pulled(base: Path) -> None:
    """It goes out into the machine's network; no registry is there."""
    from sagong_image_overlay import ImageOverlay

    async with hosted(ImageOverlay, base, "image_overlay") as images:
        try:
            async for _ in images.pull(PullRequest(id="q", reference="127.0.0.1:9/a/b:v1")):
                pass
        except SagongError as error:
            assert "refused" in error.message, error.message


def _authorities(base: Path) -> None:
    (base / "lib/plugins/volume_local").mkdir()
    os.chown(base / "lib/plugins/volume_local", UID, UID)
    for place in ("/etc/docker/certs.d", f"{base}/etc/certs.d"):
        Path(place).mkdir(parents=True, exist_ok=True)
        syscalls.mount("certs", place, "tmpfs", 0, "mode=755")
        Path(place, "registry.test").mkdir()


async def _answer(found: Any) -> Any:
    return await found if asyncio.iscoroutine(found) else found


# docker


def _certificates(base: Path) -> None:
    (base / "etc/docker").mkdir()
    (base / "etc/docker/cert.pem").write_text("certificate")


async def _machine(base: Path) -> None:
    """It reads the listener's certificate, and what containers may ask of this machine."""
    from sagong_docker.machine import this_machine

    assert (base / "etc/docker/cert.pem").read_text() == "certificate"
    assert this_machine().cpus == Path("/sys/devices/system/cpu/online").read_text().strip()
    assert list(Path("/sys/fs/cgroup").iterdir()), "no control groups are seen"


Prepare = Callable[[Path], None]


def _accounts(base: Path) -> None:
    """A file of accounts, as an administrator lays it."""
    directory = base / "etc/registry"
    directory.mkdir(parents=True, mode=0o755)
    (directory / "htpasswd").write_text("alice:$2y$05$" + "a" * 53 + "\n")
    for path in (directory, directory / "htpasswd"):
        path.chmod(0o755)


async def _registry(base: Path) -> None:
    """It reads its accounts, and asks an upstream on the machine's loopback: nobody is there."""
    import logging

    from sagong_registry.accounts import Accounts
    from sagong_registry.settings import Upstream
    from sagong_registry.upstream import Client

    log = logging.getLogger("registry")
    assert "alice" in Accounts(dict, str(base / "etc/registry/htpasswd"), log)
    client = Client(Upstream(url="http://127.0.0.1:1"), log)
    try:
        await client.digest("app", "v1")
    except SagongError as error:
        cause = error.__context__
        found = getattr(cause, "os_error", cause)
        assert isinstance(found, OSError) and found.errno == errno.ECONNREFUSED, found
    finally:
        await client.close()


STORIES: dict[str, tuple[Prepare, Callable[[Path], Coroutine[Any, Any, None]]]] = {
    "volume_local": (_image_content, _volumes),
    "network_bridge": (_hierarchies, _networks),
    "image_overlay": (_authorities, _images),
    "docker": (_certificates, _machine),
    "node": (_foreign_log, _files),
    "registry": (_accounts, _registry),
    "metrics_cgroup": (lambda base: None, _counters),
}
