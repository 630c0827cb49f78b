"""A machine for a test: a forked process in fresh network and mount namespaces, and probes in it.

`machine(story)` runs a coroutine function in such a process and raises here what failed there.
Inside, `sagong.conformance.network_probe` does things in sandboxes' namespaces.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from sagong.conformance.network_probe import Server, ask, dial, shell, within
from sagong.conformance.network_rig import enter, unmount_below
from sagong.contracts.network import Attachment, JoinRequest, PortMapping, Sandbox
from sagong.linux import mounts, syscalls
from sagong.testing import LocalHost, deputy_of
from sagong_network_bridge import NetworkBridge

T = TypeVar("T")
Story = Callable[..., Coroutine[Any, Any, None]]
_PATIENCE = 30.0


def machine(story: Story, *arguments: Any) -> None:
    """Run the story on a machine of its own; what it asserts is asserted here."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        code = 1
        try:
            enter()
            with tempfile.TemporaryDirectory(prefix="sgnet-", dir="/tmp") as base:
                try:
                    uvloop.run(story(Path(base), *arguments))
                finally:
                    unmount_below(base)
            code = 0
        except BaseException:
            os.write(writer, traceback.format_exc().encode()[-60000:])
        finally:
            os._exit(code)
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as stream:
            text = stream.read().decode()
        _, status = os.waitpid(pid, 0)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    assert status == 0, f"in the machine (status {status}):\n{text}"


def local_host(base: Path, config: Mapping[str, Any] | None = None) -> LocalHost:
    """The plugin's host, with the deputy that its manifest names."""
    return LocalHost(
        "network",
        data=base / "data",
        run=base / "run",
        config=config,
        deputy=deputy_of(NetworkBridge),
    )


@contextlib.asynccontextmanager
async def plugin(
    base: Path, config: Mapping[str, Any] | None = None
) -> AsyncIterator[NetworkBridge]:
    """The plugin on directories below `base`; may be made again on the same ones."""
    for name in ("data", "run"):
        (base / name).mkdir(exist_ok=True)
    candidate = NetworkBridge(host := local_host(base, config))
    try:
        await candidate.start()
        yield candidate
    finally:
        await candidate.stop()
        await host.close()


async def reached(*arguments: Any, **named: Any) -> tuple[str, str]:
    """`dial` for what must answer, however busy the machine is."""
    return await dial(*arguments, seconds=_PATIENCE, **named)


async def heard(wanted: str, *arguments: Any) -> str:
    """Who answers: waited for long if somebody is `wanted`, else as long as silence is believed."""
    return (await dial(*arguments, seconds=_PATIENCE if wanted else 0.5))[0]


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition; else say what is wrong."""
    for _ in range(1200):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(what)


async def joined(
    network: NetworkBridge, name: str, *networks: str, ports: tuple[PortMapping, ...] = (),
    aliases: tuple[str, ...] = (), **more: Any,
) -> Sandbox:  # fmt: skip
    """A sandbox on networks by id or name."""
    attachments = tuple(Attachment(network=one, aliases=aliases) for one in networks)
    request = JoinRequest(id=name, attachments=attachments, ports=ports, names=(name,), **more)
    return await network.join(request)


class World:
    """A neighbour of the machine: a namespace behind a cable, 192.0.2.2 and 2001:db8::2."""

    address, address6 = "192.0.2.2", "2001:db8::2"
    machine, machine6 = "192.0.2.1", "2001:db8::1"

    def __init__(self, base: Path) -> None:
        self.path = str(base / "world")
        Path(self.path).touch()
        name = f"w{os.getpid()}"
        for line in (
            f"ip netns add {name}",
            f"mount --bind /run/netns/{name} {self.path}",
            f"umount /run/netns/{name}",
            f"rm /run/netns/{name}",
        ):
            subprocess.run(line.split(), check=True)
        shell("", "ip link add cable type veth peer name plug")
        shell("", f"ip link set plug netns {self._holder()}")
        shell("", "ip addr add 192.0.2.1/24 dev cable; ip addr add 2001:db8::1/64 dev cable nodad")
        shell("", "ip link set cable up")
        shell(self.path, "ip addr add 192.0.2.2/24 dev plug; ip link set lo up")
        shell(self.path, "ip addr add 2001:db8::2/64 dev plug nodad; ip link set plug up")

    def _holder(self) -> int:
        """A process inside, for as long as the cable is plugged."""
        self._process = subprocess.Popen(["nsenter", f"--net={self.path}", "sleep", "60"])
        inside = Path(f"/proc/{self._process.pid}/ns/net")
        # Before it has entered, the cable would be plugged into the machine itself.
        while inside.stat().st_ino != Path(self.path).stat().st_ino:
            assert self._process.poll() is None
            time.sleep(0.01)
        return self._process.pid

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):
            syscalls.umount(self.path, mounts.MNT_DETACH)


__all__ = [
    "Server",
    "World",
    "ask",
    "dial",
    "heard",
    "joined",
    "machine",
    "plugin",
    "reached",
    "shell",
    "shutil",
    "sys",
    "until",
    "within",
]
