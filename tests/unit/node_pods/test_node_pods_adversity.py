"""What goes wrong around pods: lost races, deaths at bad moments, others' hands, defects."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import socket
from pathlib import Path
from typing import Any

import pytest
from tests.unit.node_pods.pod_lab import FakeObjects, Lab, container, lab, pod

from sagong.call import PassedOn
from sagong.contracts.node import RemoveRequest, StopRequest
from sagong.contracts.objects import Commit, CommitResult, Verb, Write
from sagong.contracts.streams import Address
from sagong.errors import Conflict, ResourceExhausted, Unavailable
from sagong_node.pods.ledger import Entry, Ledger
from sagong_node.streams import StreamServer


async def test_a_condition_that_another_wrote_meanwhile_is_not_lost(tmp_path: Path) -> None:
    node = Lab(tmp_path)
    original = node.objects.commit
    raced = False

    async def race(commit: Commit) -> CommitResult:
        nonlocal raced
        if not raced and any(w.subresource == "status" and w.name == "web" for w in commit.writes):
            raced = True
            document = json.loads(json.dumps(node.objects.pod("web")))
            document["status"]["conditions"] = [{"type": "example.com/x", "status": "True"}]
            node.objects.put(document)
        return await original(commit)

    node.objects.commit = race  # type: ignore[method-assign]
    await node.start()
    try:
        node.objects.put(pod())
        await node.until(lambda: node.phase("web") == "Running")
        assert raced
        assert node.condition("web", "example.com/x")["status"] == "True"
    finally:
        await node.stop()


async def test_an_api_server_that_is_away_is_waited_for(tmp_path: Path) -> None:
    node = Lab(tmp_path)
    original, failures = node.objects.commit, 3

    async def failing(commit: Commit) -> CommitResult:
        nonlocal failures
        if failures and any(w.name == "web" for w in commit.writes):
            failures -= 1
            raise Unavailable("kube is being replaced")
        return await original(commit)

    node.objects.commit = failing  # type: ignore[method-assign]
    await node.start()
    try:
        node.objects.put(pod())
        await node.until(lambda: node.phase("web") == "Running")
        assert failures == 0
    finally:
        await node.stop()


async def test_a_pod_that_was_being_deleted_when_the_node_died_goes(tmp_path: Path) -> None:
    node = Lab(tmp_path)
    await node.start()
    node.runtime.stubborn.add("main")
    node.objects.put(pod())
    await node.until(lambda: node.phase("web") == "Running")
    node.objects.delete("Pod", "web", grace=1)
    await node.until(lambda: ("main", 15) in node.runtime.signals)
    await node.kill()
    await node.start()
    try:
        await node.until(lambda: node.objects.pod("web") is None)
        assert node.runtime.running() == [] and node.registry.sandboxes == {}
    finally:
        await node.stop()


async def test_a_death_between_making_and_starting_starts_nothing_twice(tmp_path: Path) -> None:
    node = Lab(tmp_path)
    run, hold = node.runtime.run, asyncio.Event()

    async def held(spec: Any) -> Any:
        await hold.wait()
        return await run(spec)

    node.runtime.run = held  # type: ignore[method-assign]
    await node.start()
    node.objects.put(pod())
    await node.until(lambda: node.registry.containers)
    (before,) = node.registry.containers
    await node.kill()
    node.runtime.run = run  # type: ignore[method-assign]
    await node.start()
    try:
        await node.until(lambda: node.phase("web") == "Running")
        assert list(node.registry.containers) == [before]
        assert node.runtime.started == ["main"]
        assert node.container("web", "main")["restartCount"] == 0
    finally:
        await node.stop()


async def test_a_container_that_somebody_removed_counts_as_ended(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        node.objects.put(pod())
        await node.until(lambda: node.phase("web") == "Running")
        (id_,) = node.registry.containers
        await node.service.remove(RemoveRequest(id=id_, force=True))
        await node.until(lambda: node.container("web", "main")["restartCount"] == 1)
        assert node.runtime.running() == ["main"]


async def test_a_sandbox_that_was_lost_is_joined_anew(tmp_path: Path) -> None:
    node = Lab(tmp_path)
    await node.start()
    node.objects.put(pod())
    await node.until(lambda: node.phase("web") == "Running")
    await node.kill()
    # A reboot: no containers run, no namespaces are there.
    node.networks.joined.clear()
    node.runtime.containers.clear()
    await node.start()
    try:
        await node.until(lambda: node.container("web", "main")["restartCount"] == 1)
        await node.until(lambda: node.status("web")["podIP"] == "10.244.0.3")
        assert node.runtime.running() == ["main"]
    finally:
        await node.stop()


async def test_a_network_that_is_full_is_tried_again(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        join, failures = node.networks.join, 2

        async def full(request: Any) -> Any:
            nonlocal failures
            if failures:
                failures -= 1
                raise Conflict("port is already allocated")
            return await join(request)

        node.kubelet._around.node._ground._networks.join = full  # type: ignore[method-assign]
        node.objects.put(pod())
        await node.until(lambda: node.phase("web") == "Running")
        await node.until(lambda: "FailedCreatePodSandBox" in node.reasons())


async def test_a_defect_with_one_pod_leaves_the_others_alone(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        node.objects.put(pod("bad", container(resources={"limits": {"memory": "nonsense"}})))
        node.objects.put(pod("good"))
        await node.until(lambda: node.phase("good") == "Running")
        assert node.phase("bad") in ("", "Pending")
        node.objects.delete("Pod", "bad")
        await node.until(lambda: len(node.registry.sandboxes) == 1)


async def test_an_object_that_is_no_pod_does_not_end_the_node(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        broken = pod("broken")
        broken["spec"]["containers"] = "none"
        node.objects.put(broken)
        node.objects.put(pod("good"))
        await node.until(lambda: node.phase("good") == "Running")


async def test_random_deaths_restart_nothing_and_lose_nothing(tmp_path: Path) -> None:
    chance = random.Random(7)
    node = Lab(tmp_path)
    await node.start()
    alive: set[str] = set()
    for number in range(12):
        name = f"p{number}"
        node.objects.put(pod(name, container(f"c{number}"), terminationGracePeriodSeconds=1))
        alive.add(name)
        if chance.random() < 0.4 and len(alive) > 1:
            victim = sorted(alive)[chance.randrange(len(alive))]
            alive.discard(victim)
            node.objects.delete("Pod", victim, grace=1)
        if chance.random() < 0.5:
            await asyncio.sleep(chance.random() * 0.03)
            await node.kill()
            await node.start()
    try:
        await node.until(
            lambda: {n for (r, _, n) in node.objects.objects if r == "v1/pods"} == alive
        )
        await node.until(lambda: all(node.phase(name) == "Running" for name in alive))
        assert node.runtime.running() == sorted(f"c{name[1:]}" for name in alive)
        assert len(node.runtime.started) == len(set(node.runtime.started))
        await node.until(lambda: len(node.registry.sandboxes) == len(alive))
        assert len(node.networks.joined) == len(alive)
    finally:
        await node.stop()


async def test_events_that_are_not_surely_written_are_handed_over() -> None:
    dying, sent = FakeObjects(), asyncio.Event()

    async def never(commit: Commit) -> CommitResult:
        sent.set()
        return await asyncio.Future[CommitResult]()

    def event(name: str) -> Write:
        body = json.dumps({"metadata": {"name": name}, "reason": name}).encode()
        return Write(
            verb=Verb.CREATE, resource="v1/events", namespace="default", name=name, body=body
        )

    dying.commit = never  # type: ignore[method-assign]
    old = Ledger(dying, logging.getLogger(), manager="kubelet")
    writing = asyncio.create_task(old.run())
    old.event(event("in-flight"))
    await sent.wait()
    old.event(event("waiting"))
    writing.cancel()
    objects = FakeObjects()
    new = Ledger(objects, logging.getLogger(), manager="kubelet")
    new.inherit(old.hand_over())
    await new.write_out()
    assert [found["reason"] for found in objects.events] == ["in-flight", "waiting"]


async def test_what_was_handed_over_is_the_successors_alone() -> None:
    """Without an API server, where nobody knows it again, it was logged by both."""
    objects = FakeObjects()
    old = Ledger(objects, logging.getLogger(), manager="kubelet")
    old.event(Write(verb=Verb.CREATE, resource="v1/events", namespace="default", name="e"))
    assert [write.name for write in old.hand_over()] == ["e"]
    await old.write_out()
    assert objects.events == []


async def test_what_is_not_due_is_written_in_a_hurry_or_at_the_end(tmp_path: Path) -> None:
    objects, never = FakeObjects(), asyncio.get_running_loop().time() + 1000
    for name in ("one", "two"):
        objects.put(pod(name))

    def status(name: str) -> Entry:
        body = json.dumps({"status": {"phase": name}}).encode()
        patch = Write(
            verb=Verb.PATCH,
            resource="v1/pods",
            namespace="default",
            name=name,
            subresource="status",
            body=body,
        )
        return Entry(never, lambda: (patch,))

    def phase(name: str) -> str:
        found = objects.pod(name)
        return str(found and found["status"]["phase"])

    ledger = Ledger(objects, logging.getLogger(), manager="kubelet")
    writing = asyncio.create_task(ledger.run())
    ledger.put("one", status("one"))
    await asyncio.sleep(0.05)
    assert phase("one") == "Pending"
    async with asyncio.timeout(60):
        await ledger.hurry()
    assert phase("one") == "one"
    writing.cancel()
    ledger.put("two", status("two"))
    await ledger.write_out()
    assert phase("two") == "two"


async def test_who_had_nothing_to_write_hears_nothing_of_a_refusal() -> None:
    """He was told of no outcomes, looked for the first, and the node ended with him."""
    objects, heard = FakeObjects(), asyncio.Queue[str]()
    event = Write(verb=Verb.CREATE, resource="v1/events", namespace="default", name="e", body=b"{}")

    async def refuse(commit: Commit) -> CommitResult:
        raise ResourceExhausted("the disk is full")

    objects.commit = refuse  # type: ignore[method-assign]
    ledger = Ledger(objects, logging.getLogger(), manager="kubelet")
    ledger.put("nothing", Entry(0, lambda: (), lambda outcomes: heard.put_nowait("nothing")))
    ledger.put(
        "one", Entry(0, lambda: (event,), lambda outcomes: heard.put_nowait(outcomes[0].message))
    )
    writing = asyncio.create_task(ledger.run())
    assert await asyncio.wait_for(heard.get(), 60) == "the disk is full"
    assert heard.empty() and not writing.done()
    writing.cancel()


async def test_who_waits_for_an_end_during_a_swap_asks_the_successor(tmp_path: Path) -> None:
    node = Lab(tmp_path)
    await node.start()
    node.runtime.stubborn.add("main")
    try:
        node.objects.put(pod())
        await node.until(lambda: node.phase("web") == "Running")
        (id_,) = node.runtime.containers
        waiting = asyncio.create_task(node.service.stop(StopRequest(id=id_, seconds=60)))
        await node.until(lambda: ("main", 15) in node.runtime.signals)
        await node.swap()
        with pytest.raises(PassedOn):
            await waiting
        again = asyncio.create_task(node.service.stop(StopRequest(id=id_, seconds=60)))
        await node.until(lambda: node.registry.containers[id_].stopping is None)
        node.runtime.end("main")
        await again
        assert not node.registry.containers[id_].alive
        assert node.runtime.signals == [("main", 15)], "it got its signal twice"
    finally:
        await node.stop()


async def test_streams_of_a_predecessor_are_fetched_beside_its_successor(tmp_path: Path) -> None:
    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"said")
        await writer.drain()

    async def fetch(address: Address) -> bytes:
        reader, writer = await asyncio.open_unix_connection(address.path)
        writer.write(address.token.encode() + b"\n")
        try:
            return await reader.read()
        finally:
            writer.close()

    dead = tmp_path / "streams-dead.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(dead))
    old, new = StreamServer(tmp_path), StreamServer(tmp_path)
    await old.start()
    offered = old.offer(say, "raw")
    await new.start()
    await new.sweep()
    assert not dead.exists()
    assert await fetch(offered) == b"said"
    assert await fetch(new.offer(say, "raw")) == b"said"
    await old.stop()
    await new.stop()
    assert list(tmp_path.glob("*.sock")) == []
