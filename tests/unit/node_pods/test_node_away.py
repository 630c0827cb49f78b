"""Who is to help to clean up after a container is away: it is tried again, and the node lives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.unit.node_pods.pod_lab import lab

from sagong.contracts.network import JoinRequest
from sagong.contracts.node import ContainerSpec, SandboxSpec, StartRequest
from sagong.errors import Unavailable
from sagong_node import lifecycle


def away(method: Any, times: list[str]) -> Any:
    """It fails as long as there are times."""

    async def attempted(*arguments: Any) -> Any:
        if times:
            times.pop()
            raise Unavailable("it is down")
        return await method(*arguments)

    return attempted


@pytest.mark.parametrize(("slot", "name"), [("runtime", "remove"), ("networks", "leave")])
async def test_one_that_removes_itself_is_gone_when_all_who_have_a_part_in_it_are_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slot: str, name: str
) -> None:
    monkeypatch.setattr(lifecycle, "_AGAIN", 0.01)
    async with lab(tmp_path) as node:
        await node.service.create_sandbox(
            SandboxSpec(id="s", owner="docker", network=JoinRequest(id="s"))
        )
        spec = ContainerSpec(
            id="c", name="k8s_c", sandbox="s", image=min(node.images.here), remove=True
        )
        await node.service.create(spec)
        await node.service.start(StartRequest(id="c"))
        times, provider = ["", ""], getattr(node, slot)
        monkeypatch.setattr(provider, name, away(getattr(provider, name), times))
        node.runtime._end("c", 0)
        await node.until(lambda: not times and "c" not in node.registry.containers)


async def test_an_end_that_a_new_node_finds_and_can_t_clean_up_hinders_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who came behind it in the list was taken to be running until the runtime was heard anew."""
    monkeypatch.setattr(lifecycle, "_AGAIN", 0.01)
    async with lab(tmp_path) as node:
        for id_ in ("c", "d"):
            network = JoinRequest(id=id_)
            await node.service.create_sandbox(SandboxSpec(id=id_, owner="docker", network=network))
            spec = ContainerSpec(
                id=id_, name=f"k8s_{id_}", sandbox=id_, image=min(node.images.here), remove=True
            )
            await node.service.create(spec)
            await node.service.start(StartRequest(id=id_))
        await node.registry.flushed()
        await node.kill()
        node.runtime._end("c", 0)
        node.runtime._end("d", 0)
        times = ["", "", "", ""]
        monkeypatch.setattr(node.networks, "leave", away(node.networks.leave, times))
        await node.start()
        await node.until(lambda: not times and not node.registry.containers)
