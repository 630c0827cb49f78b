"""network_bridge and volume_local in their sandboxes, under the kernel: killed, swapped, at work."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from sagong import manifest
from sagong.contracts.kernel import SwapRequest
from sagong.contracts.network import (
    Attachment,
    JoinRequest,
    Network,
    Networks,
    PortMapping,
    SandboxRef,
)
from sagong.contracts.volume import PublishRequest, Volume, Volumes
from sagong.linux import capabilities
from sagong.operator import connect
from tests.system.instance import Instance, instance
from tests.system.network.outer import Server, machine, reached, shell

pytestmark = pytest.mark.root

CONFIGURATION = """
profile = "bare"
[units.network]
plugin = "network_bridge"
[units.network.settings]
pool_size = 2
[units.volume]
plugin = "volume_local"
"""
PACKAGES = {"network": "sagong_network_bridge", "volume": "sagong_volume_local"}
NETWORK = Network(id="5" * 64, name="front", ipv6=True)


def attached(name: str, *, port: int = 0) -> JoinRequest:
    ports = (PortMapping(container_port=80, host_port=port),) if port else ()
    wish = (Attachment(network=NETWORK.id, aliases=("web",)),)
    return JoinRequest(id=name, attachments=wish, ports=ports, names=(name,))


async def killed_at_any_time(base: Path) -> None:
    with instance(CONFIGURATION) as running:
        async with connect(running.paths) as operator:
            network = await operator.use(Networks)
            await network.create(NETWORK)
            first = await network.join(attached("first", port=8080))
            server = Server(first.path, 80, "first")
            for round_ in range(4):
                os.kill(running.pid("network"), signal.SIGKILL)
                name = f"round{round_}"
                sandbox = await network.join(attached(name))
                assert await network.inspect(SandboxRef(id="first")) == first
                address = first.endpoints[0].ipv4
                assert (await reached(sandbox.path, address, 80))[0] == "first"
                assert (await reached("", "127.0.0.1", 8080))[0] == "first"
            server.close()
            found = (await network.sandboxes()).sandboxes
            addresses = [s.endpoints[0].ipv4 for s in found]
            assert len(found) == 5 and len(set(addresses)) == 5
            for sandbox in found:
                await network.leave(SandboxRef(id=sandbox.id))


def test_a_killed_plugin_forgets_nothing() -> None:
    machine(killed_at_any_time)


async def swapped_under_load(base: Path) -> None:
    with instance(CONFIGURATION) as running:
        async with connect(running.paths) as operator:
            network = await operator.use(Networks)
            await network.create(NETWORK)
            stopping = asyncio.Event()
            longest = 0.0

            async def load(worker: int) -> int:
                nonlocal longest
                count = 0
                while not stopping.is_set():
                    name = f"w{worker}-{count}"
                    began = time.monotonic()
                    sandbox = await network.join(attached(name))
                    longest = max(longest, time.monotonic() - began)
                    assert sandbox.endpoints[0].network == NETWORK.id
                    await network.leave(SandboxRef(id=name))
                    count += 1
                return count

            workers = [asyncio.create_task(load(n)) for n in range(3)]
            for _ in range(3):
                await asyncio.sleep(0.2)
                async for _ in operator.kernel.swap(SwapRequest(unit="network")):
                    pass
            stopping.set()
            counts = await asyncio.gather(*workers)
            assert all(counts), counts
            assert not (await network.sandboxes()).sandboxes
            print(f"{sum(counts)} joins, longest {longest * 1000:.0f} ms")


def test_a_swap_under_load_fails_no_join() -> None:
    machine(swapped_under_load)


async def volume_at_work(base: Path) -> None:
    with instance(CONFIGURATION) as running:
        async with connect(running.paths) as operator:
            volumes = await operator.use(Volumes)
            tmpfs = (("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=64k"))
            await volumes.create(Volume(name="plain"))
            await volumes.create(Volume(name="fast", options=tmpfs))
            layer = running.paths.data / "plugins" / "image_overlay" / "layer"
            for name, subpath in (("plain", ""), ("plain", "a/b"), ("fast", ""), ("fast", "c")):
                request = PublishRequest(
                    name=name, owner="pod", subpath=subpath, seed=(str(layer),)
                )
                path = Path((await volumes.publish(request)).path)
                found = path.stat()
                assert (found.st_uid, found.st_mode & 0o777) in ((0, 0o755), (0, 0o777))
                program = path / "program"
                program.write_text("#!/bin/sh\necho works\n")
                program.chmod(0o755)
                done = await asyncio.to_thread(shell, "", str(program))
                assert done == "works\n", f"{path} runs no programs: {done}"
            os.kill(running.pid("volume"), signal.SIGKILL)
            assert Path((await volumes.publish(request)).path) == path
            assert (path / "program").exists()


def test_volumes_are_root_s_and_run_programs() -> None:
    machine(volume_at_work)


def effective(running: Instance, unit: str) -> dict[str, str]:
    text = Path(f"/proc/{running.pid(unit)}/status").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


async def least_rights(base: Path) -> None:
    with instance(CONFIGURATION) as running:
        for unit in ("network", "volume"):
            found = effective(running, unit)
            rights = manifest.load(PACKAGES[unit]).rights.capabilities
            own = capabilities.mask_of(c.name for c in rights if c.holder != "deputy")
            assert int(found["CapEff"], 16) == own, (unit, found["CapEff"])
            assert found["Uid"].split()[0] != "0" and found["NoNewPrivs"] == "1"
            assert found["Seccomp"] == "2"


def test_plugins_have_only_the_rights_of_their_manifests() -> None:
    machine(least_rights)
