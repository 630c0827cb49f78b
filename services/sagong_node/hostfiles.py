"""resolv.conf, hosts and hostname of a container, and files given with its spec."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from sagong.contracts.network import Sandbox
from sagong.contracts.node import HostFile, SandboxSpec
from sagong.errors import Internal, ResourceExhausted
from sagong.failures import FULL
from sagong.linux.files import write_all

__all__ = ["hosts", "machine_resolv_conf", "resolv_conf", "write_files", "write_text", "writing"]

_LOCAL_HOSTS = "127.0.0.1\tlocalhost\n"
_LOCAL_HOSTS6 = """::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""
_PIECE = 16 << 10
_FALLBACK_NAMESERVERS = ("8.8.8.8", "8.8.4.4")


def resolv_conf(spec: SandboxSpec, network: Sandbox | None, machine: str) -> str:
    """The network's resolver, else the sandbox's own servers, else the machine's that it can reach.

    The resolver is asked for names without a dot as they are, unless somebody has said otherwise.
    """
    theirs = [line.split() for line in machine.splitlines()]
    search = spec.search or tuple(w for f in theirs if f[:1] == ["search"] for w in f[1:])
    options = spec.dns_options or tuple(w for f in theirs if f[:1] == ["options"] for w in f[1:])
    if network is not None and network.dns and not any(o.startswith("ndots:") for o in options):
        options = (*options, "ndots:0")
    lines = [f"nameserver {address}" for address in _nameservers(spec, network, theirs)]
    if search and search != (".",):
        lines.append(f"search {' '.join(search)}")
    if options:
        lines.append(f"options {' '.join(options)}")
    return "\n".join(lines) + "\n"


def _nameservers(
    spec: SandboxSpec, network: Sandbox | None, theirs: list[list[str]]
) -> Iterable[str]:
    if network is not None and network.dns:
        return (network.dns,)
    if spec.dns:
        return spec.dns
    known = [f[1] for f in theirs if f[:1] == ["nameserver"] and len(f) > 1]
    if network is not None and network.mode == "host":
        return known
    ipv6 = network is not None and any(endpoint.ipv6 for endpoint in network.endpoints)
    return [a for a in known if _reachable(a, ipv6=ipv6)] or _FALLBACK_NAMESERVERS


@functools.lru_cache(64)
def _reachable(address: str, *, ipv6: bool) -> bool:
    """Not the machine's loopback; of IPv6 only for who has it, and no neighbour of the machine."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if found.version == 6 and (found.is_link_local or not ipv6):
        return False
    return not found.is_loopback


def hosts(spec: SandboxSpec, network: Sandbox | None, hostname: str) -> str:
    """localhost, what was asked for, and the container's own name with each of its addresses.

    Who is on the machine's network has the machine's names, as in Docker and for pods.
    """
    lines = [f"{address}\t{names}" for address, names in spec.hosts]
    short = hostname.partition(".")[0]
    name = f"{hostname}.{spec.domainname} {hostname}" if spec.domainname else hostname
    if "." in hostname and not spec.domainname:
        name = f"{hostname} {short}"
    for endpoint in network.endpoints if network else ():
        lines += [f"{a}\t{name}" for a in (endpoint.ipv4, endpoint.ipv6) if a]
    theirs = _of_machine("/etc/hosts") if network is not None and network.mode == "host" else ""
    if theirs and not theirs.endswith("\n"):
        theirs += "\n"
    # Who has switched IPv6 off has no address of it.
    off = dict(spec.network.sysctls).get("net.ipv6.conf.all.disable_ipv6") == "1"
    own = _LOCAL_HOSTS if off else _LOCAL_HOSTS + _LOCAL_HOSTS6
    return (theirs or own) + "".join(f"{line}\n" for line in lines)


def machine_resolv_conf() -> str:
    """The machine's own, empty where there is none."""
    return _of_machine("/etc/resolv.conf")


def _of_machine(path: str) -> str:
    """A file of the machine, read for each start that needs it: no file object."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        # A buffer of more than the allocator keeps would be mapped anew each time.
        pieces = iter(lambda: os.read(descriptor, _PIECE), b"")
        return b"".join(pieces).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def writing(container: str) -> Iterator[None]:
    """What can't be written of a container's files is an error of its start: there is no room, most
    likely."""
    try:
        yield
    except OSError as error:
        text = (
            f"writing {error.filename or 'files'} of container {container[:12]}: {error.strerror}"
        )
        if error.errno in FULL:
            raise ResourceExhausted(f"{text}; make room there") from None
        raise Internal(text) from None


def write_text(path: str, text: str) -> None:
    """Write in place: the file may be bound into a running container, where a rename is unseen.

    It is the container's root's, as with Docker.
    """
    descriptor = _opened(path)
    try:
        write_all(descriptor, text.encode())
        os.fchmod(descriptor, 0o644)
        os.fchown(descriptor, 0, 0)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(descriptor)


def _opened(path: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o644)
    except PermissionError:
        # Written before, so root's; or the container has changed whose it is, and who may write.
        os.chown(path, os.geteuid(), -1)
        os.chmod(path, 0o644)
        return os.open(path, flags)


def write_files(directory: Path, files: Iterable[HostFile]) -> list[tuple[str, str]]:
    """Write the spec's files; (source, target) of each."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o711)
    written = []
    for number, file in enumerate(files):
        path = directory / f"{number}"
        # One of a start that did not come to its end may be read-only, or another user's.
        path.unlink(missing_ok=True)
        path.write_bytes(file.content)
        os.chown(path, file.uid, file.gid)
        path.chmod(file.mode)
        written.append((str(path), file.target))
    return written
