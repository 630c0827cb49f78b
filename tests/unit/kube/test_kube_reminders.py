"""Reminders of the contract `objects`: whoever sleeps is woken once, by what it has not dealt with."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.conformance.fake_state import FakeState
from tests.unit.kube.kube_lab import Lab, lab

from sagong import call
from sagong.conformance.scheduler_lab import node, pod
from sagong.contracts.objects import (
    Commit,
    GetRequest,
    ListRequest,
    Objects,
    ObjectWatch,
    Reminder,
    Silence,
    Verb,
    Write,
)
from sagong.errors import NotFound
from sagong.testing import awaited, local
from sagong_scheduler_kube import SchedulerKube

MAPS, LEASES, PODS = "v1/configmaps", "coordination.k8s.io/v1/leases", "v1/pods"
FOR_EVER = 3600.0


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[Lab]:
    async with lab(FakeState()) as made:
        yield made


async def wait_until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.002)


async def write(at: Lab, resource: str, name: str, verb: Verb = Verb.CREATE, **more: Any) -> int:
    """Make or change an object; the revision."""
    metadata = {"name": name, "namespace": "default"}
    body = json.dumps({"metadata": metadata, **more}).encode()
    one = Write(verb=verb, resource=resource, namespace="default", name=name, body=body)
    (outcome,) = (
        await at.kube.commit(Commit(id=random.randbytes(8).hex(), writes=(one,)))
    ).outcomes
    assert not outcome.error, outcome
    return outcome.revision


async def renew(at: Lab, second: int, verb: Verb = Verb.UPDATE) -> int:
    """A lease and its renewals."""
    stamp = f"2026-01-01T00:00:{second:02}.000000Z"
    spec = {"holderIdentity": "a", "leaseDurationSeconds": 40, "renewTime": stamp}
    return await write(at, LEASES, "l", verb, spec=spec)


def woken(at: Lab) -> list[str]:
    found: list[str] = at.kube._host.woken  # type: ignore[attr-defined]
    return found


async def remind(at: Lab, unit: str = "sleeper", **what: Any) -> None:
    with call.serving(call.Call(caller=unit, uid=4711)):
        await at.kube.remind(Reminder(**what))


def after(revision: int, resource: str = MAPS) -> ObjectWatch:
    return ObjectWatch(resource=resource, namespace="default", revision=revision)


async def test_the_first_change_wakes_once() -> None:
    async with served() as at:
        revision = await write(at, MAPS, "a")
        await remind(at, watches=(after(revision),))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not woken(at), "what it has dealt with is no news"
        await write(at, MAPS, "b")
        await write(at, MAPS, "c")
        await wait_until(lambda: bool(woken(at)))
        await write(at, MAPS, "d")
        assert woken(at) == ["sleeper"]
        assert len(at.kube._assembly.store.watchers) == 0


async def test_what_has_happened_since_wakes_at_once() -> None:
    async with served() as at:
        revision = await write(at, MAPS, "a")
        await write(at, MAPS, "b")
        await at.kube.get(GetRequest(resource=MAPS, namespace="default", name="b"))
        await remind(at, watches=(after(revision),))
        await wait_until(lambda: woken(at) == ["sleeper"])


async def test_a_later_reminder_replaces_an_earlier_one_of_the_same_unit() -> None:
    async with served() as at:
        revision = await write(at, MAPS, "a")
        await remind(at, watches=(after(revision),))
        await remind(at, "other", watches=(after(revision),))
        await remind(at, watches=(after(revision, "v1/secrets"),))
        await write(at, MAPS, "b")
        await wait_until(lambda: woken(at) == ["other"])
        assert len(at.kube._assembly.store.watchers) == 1


async def test_of_comings_what_only_changes_wakes_nobody() -> None:
    async with served() as at:
        revision = await renew(at, 1, Verb.CREATE)
        await renew(at, 2)
        await write(at, MAPS, "a")
        await remind(at, comings=(after(revision, LEASES), after(revision + 1)))
        await renew(at, 3)
        await write(at, MAPS, "a", Verb.UPDATE, data={"a": "b"})
        for _ in range(20):
            await asyncio.sleep(0)
        assert not woken(at)
        await write(at, MAPS, "a", Verb.DELETE)
        await wait_until(lambda: woken(at) == ["sleeper"])


@pytest.mark.parametrize("first,seconds", [(0.02, FOR_EVER), (FOR_EVER, 0.02)])
async def test_silence_wakes(first: float, seconds: float) -> None:
    async with served() as at:
        await renew(at, 1, Verb.CREATE)
        await at.kube.get(GetRequest(resource=LEASES, namespace="default", name="l"))  # it is seen
        silence = Silence(
            resource=LEASES, namespace="default", name="l", first=first, seconds=seconds
        )
        await remind(at, silences=(silence,))
        if first == FOR_EVER:
            await renew(at, 2)
        await wait_until(lambda: woken(at) == ["sleeper"])


async def test_what_can_not_be_watched_is_refused() -> None:
    async with served() as at:
        with pytest.raises(NotFound):
            await remind(at, watches=(after(1), after(1, "v1/nothing")))
        assert len(at.kube._assembly.store.watchers) == 0


@pytest.mark.parametrize("seed", range(2))
async def test_no_pod_is_overlooked_by_a_scheduler_that_sleeps_whenever_it_can(seed: int) -> None:
    """It leaves word and ends while pods come at any moment; only what it is told brings it back."""
    chance = random.Random(seed)
    async with served() as at:
        uses: dict[type, Any] = {Objects: awaited(Objects, at.kube)}
        sleeps, asleep = 0, False

        async def live() -> None:
            nonlocal sleeps, asleep
            while True:
                woken(at).clear()
                async with local(SchedulerKube, uses=uses) as plugin:
                    while plugin.busy():
                        await asyncio.sleep(0)
                    with call.serving(call.Call(caller="scheduler", uid=4711)):
                        until = await plugin.doze()
                sleeps, asleep = sleeps + 1, True
                while not until and not woken(at):
                    await asyncio.sleep(0)
                asleep = False

        async def unbound() -> int:
            listed = await at.kube.list(ListRequest(resource=PODS))
            return sum("nodeName" not in json.loads(item)["spec"] for item in listed.items)

        living = asyncio.create_task(live())
        body = json.dumps(node("n")).encode()
        made = Write(verb=Verb.CREATE, resource="v1/nodes", body=body)
        told = Write(
            verb=Verb.PATCH, resource="v1/nodes", name="n", subresource="status", body=body
        )
        await at.kube.commit(Commit(id="n", writes=(made, told)))
        for number in range(30):
            if chance.random() < 0.3:
                await wait_until(lambda: asleep or living.done())
            for _ in range(chance.randrange(60)):
                await asyncio.sleep(0)
            await write(at, PODS, f"p{number}", spec=pod("p", cpu="1m")["spec"])
        async with asyncio.timeout(60):
            while await unbound() and not living.done():
                await asyncio.sleep(0.01)
        assert sleeps > 3, "it did not sleep in between"
        living.cancel()
        with pytest.raises(asyncio.CancelledError):
            await living
