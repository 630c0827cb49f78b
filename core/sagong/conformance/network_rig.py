"""The rig of slot `network`: a machine of its own, made of namespaces, and traffic in it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from sagong.conformance.candidate import Candidate
from sagong.conformance.network_lab import ELSEWHERE, NetworkLab
from sagong.conformance.network_probe import Nameserver, NamespaceProbe
from sagong.contracts.network import Network, NetworkRef, Networks, Subnet
from sagong.errors import SagongError
from sagong.linux import mounts, syscalls
from sagong.linux.syscalls import Namespace
from sagong.testing import local

__all__ = ["enter", "missing", "network_lab", "network_rig", "unmount_below"]

_PARENT = "lan0"
_ADDRESS = "198.51.100.1"
_MACHINE = (
    "link set lo up",
    "link add uplink type bridge",
    f"addr add {_ADDRESS}/24 dev uplink",
    "link set uplink up",
    "route add default via 198.51.100.254",
)
# A cable that leads nowhere, for networks that are the machine's own.
_CABLE = (f"link add {_PARENT} type bridge", f"link set {_PARENT} up")


def missing() -> str:
    """What a machine of namespaces needs and is not here."""
    if os.geteuid() != 0:
        return "it makes namespaces and interfaces: run it as root"
    return "" if shutil.which("ip") else "it makes interfaces by `ip`: install iproute2"


def enter() -> None:
    """Make this process a machine of its own, with an address and a default route."""
    syscalls.unshare(Namespace.NET | Namespace.MNT)
    mounts.set_propagation("/", "rprivate")
    _ip(_MACHINE)


def _ip(lines: Iterable[str]) -> None:
    for line in lines:
        subprocess.run(["ip", *line.split()], check=True)


@contextlib.asynccontextmanager
async def network_rig(candidate: Candidate) -> AsyncIterator[NetworkLab]:
    """Networks on the machine that this process has entered."""
    with tempfile.TemporaryDirectory(prefix="sagong-network-", dir="/tmp") as base:
        try:
            async with network_lab(candidate, Path(base)) as lab:
                yield lab
        finally:
            unmount_below(base)


@contextlib.asynccontextmanager
async def network_lab(candidate: Candidate, base: Path) -> AsyncIterator[NetworkLab]:
    """The candidate on directories below `base`; stopping it is the mild form of a crash."""
    _ip(_CABLE)
    async with contextlib.AsyncExitStack() as stack:
        running = await stack.enter_async_context(contextlib.AsyncExitStack())
        probe = NamespaceProbe()
        stack.callback(probe.close)
        stack.callback(Nameserver(_ADDRESS, ELSEWHERE).close)

        async def start() -> Networks:
            made = local(
                candidate.plugin, config=candidate.config, data=base / "data", run=base / "run"
            )
            networks: Networks = await running.enter_async_context(made)
            return networks

        async def restart() -> Networks:
            await running.aclose()
            return await start()

        networks = await start()
        parent = _PARENT if await _has_macvlan(networks) else ""
        yield NetworkLab(
            networks=networks,
            probe=probe,
            restart=restart,
            parent=parent,
            nameserver=_ADDRESS,
        )


async def _has_macvlan(networks: Networks) -> bool:
    """Whether the candidate has that driver built in, which it need not."""
    wanted = Network(
        id=secrets.token_hex(32),
        name="has-macvlan",
        driver="macvlan",
        subnets=(Subnet(subnet="203.0.113.0/24"),),
        options=(("parent", _PARENT),),
    )
    try:
        made = await networks.create(wanted)
    except SagongError:
        return False
    await networks.delete(NetworkRef(id=made.id))
    return True


def unmount_below(base: str) -> None:
    """Namespaces that are pinned there."""
    for entry in reversed(mounts.mount_table()):
        if entry.target.startswith(base):
            with contextlib.suppress(OSError):
                syscalls.umount(entry.target, mounts.MNT_DETACH)
