"""The contract `objects`: reads, watches and batches of the system's own processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.conformance.fake_state import FakeState
from tests.unit.kube.kube_lab import Lab, lab

from sagong import call
from sagong.contracts.objects import (
    Commit,
    GetRequest,
    ListRequest,
    ObjectWatch,
    Verb,
    Write,
)
from sagong.errors import NotFound, PermissionDenied
from sagong_kube.objects_slot import ObjectsSlot


@contextlib.asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[Lab]:
    async with lab(FakeState(), **settings) as made:
        yield made


def config(name: str, **data: str) -> bytes:
    metadata = {"name": name, "namespace": "default"}
    return json.dumps(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
    ).encode()


def pod(name: str) -> bytes:
    spec = {"containers": [{"name": "c", "image": "busybox"}]}
    metadata = {"name": name, "namespace": "default", "labels": {"app": name}}
    return json.dumps(
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    ).encode()


def create(body: bytes, resource: str = "v1/configmaps") -> Write:
    return Write(verb=Verb.CREATE, resource=resource, namespace="default", body=body)


async def test_batch_is_one_transaction_with_outcomes_of_its_own() -> None:
    async with served() as at:
        before = at.state.disk.revision
        writes = (create(config("a")), create(config("b")), create(config("a")))
        result = await at.kube.commit(Commit(id="c1", writes=writes))
        assert at.state.disk.revision == before + 1
        first, second, third = result.outcomes
        assert first.revision == second.revision == result.revision
        assert json.loads(first.body)["metadata"]["resourceVersion"] == str(first.revision)
        assert third.error == "already_exists"
        listed = await at.kube.list(ListRequest(resource="v1/configmaps", namespace="default"))
        assert [json.loads(item)["metadata"]["name"] for item in listed.items] == ["a", "b"]


async def test_same_commit_again_is_done_once() -> None:
    state = FakeState()
    async with lab(state) as at:
        commit = Commit(id="c1", writes=(create(config("a")),))
        first = await at.kube.commit(commit)
        assert await at.kube.commit(commit) == first
    async with lab(state) as at:
        before = state.disk.revision
        again = await at.kube.commit(commit)
        assert state.disk.revision == before
        assert again.outcomes[0].error == ""
        assert json.loads(again.outcomes[0].body)["metadata"]["name"] == "a"


async def test_writes_of_one_batch_see_each_other() -> None:
    async with served() as at:
        writes = (
            create(pod("p"), "v1/pods"),
            Write(verb=Verb.BIND, resource="v1/pods", namespace="default", name="p", node="n1"),
            Write(
                verb=Verb.PATCH,
                resource="v1/pods",
                namespace="default",
                name="p",
                subresource="status",
                body=b'{"status":{"phase":"Running"}}',
            ),
        )
        result = await at.kube.commit(Commit(id="c1", writes=writes))
        assert [outcome.error for outcome in result.outcomes] == ["", "", ""]
        found = json.loads(
            (await at.kube.get(GetRequest(resource="v1/pods", namespace="default", name="p"))).body
        )
        assert (found["spec"]["nodeName"], found["status"]["phase"]) == ("n1", "Running")


async def test_update_status_delete_and_their_refusals() -> None:
    async with served() as at:
        await at.kube.commit(Commit(id="1", writes=(create(pod("p"), "v1/pods"),)))
        reference = GetRequest(resource="v1/pods", namespace="default", name="p")
        found = json.loads((await at.kube.get(reference)).body)
        stale = {**found, "status": {"phase": "Running"}}
        writes = (
            Write(verb=Verb.STATUS, resource="v1/pods", body=json.dumps(stale).encode()),
            Write(verb=Verb.DELETE, resource="v1/pods", namespace="default", name="p", uid="other"),
            Write(verb=Verb.DELETE, resource="v1/pods", namespace="default", name="q"),
        )
        outcomes = (await at.kube.commit(Commit(id="2", writes=writes))).outcomes
        assert [outcome.error for outcome in outcomes] == ["", "conflict", "not_found"]
        again = Write(
            verb=Verb.STATUS, resource="v1/pods", body=json.dumps({**stale, "status": {}}).encode()
        )
        (late,) = (await at.kube.commit(Commit(id="3", writes=(again,)))).outcomes
        assert late.error == "conflict"
        delete = Write(
            verb=Verb.DELETE, resource="v1/pods", namespace="default", name="p", grace_seconds=0
        )
        await at.kube.commit(Commit(id="4", writes=(delete,)))
        with pytest.raises(NotFound):
            await at.kube.get(reference)


async def test_watch_begins_with_all_then_follows() -> None:
    async with served() as at:
        await at.kube.commit(Commit(id="1", writes=(create(config("a")),)))
        watch = at.kube.watch(ObjectWatch(resource="v1/configmaps", namespace="default"))
        first = await anext(watch)
        assert (first.synced, [change.kind for change in first.changes]) == (True, ["ADDED"])
        await at.kube.commit(Commit(id="2", writes=(create(config("b")),)))
        second = await asyncio.wait_for(anext(watch), 60)
        assert json.loads(second.changes[0].body)["metadata"]["name"] == "b"
        await watch.aclose()  # type: ignore[attr-defined]
        assert len(at.kube._assembly.store.watchers) == 0
        resumed = at.kube.watch(ObjectWatch(resource="v1/configmaps", revision=first.revision))
        missed = await asyncio.wait_for(anext(resumed), 60)
        assert json.loads(missed.changes[0].body)["metadata"]["name"] == "b"
        await resumed.aclose()  # type: ignore[attr-defined]


async def test_callers_keep_to_their_rules() -> None:
    async with served() as at:
        parts = at.kube._assembly
        rules = ({"groups": ("",), "resources": ("pods",), "verbs": ("get",)},)
        slot = ObjectsSlot(
            parts.store,
            parts.catalogue,
            parts.slot._commits,
            parts.slot._reminders,
            lambda caller: rules,
        )
        with call.serving(call.Call(caller="dns", uid=4711)):
            with pytest.raises(NotFound):
                await slot.get(GetRequest(resource="v1/pods", namespace="default", name="p"))
            with pytest.raises(PermissionDenied, match=r"dns may not list secrets"):
                await slot.list(ListRequest(resource="v1/secrets"))
            with pytest.raises(PermissionDenied):
                await slot.commit(Commit(id="x", writes=(create(config("a")),)))


def lease(holder: str, stamp: str) -> dict[str, Any]:
    spec = {
        "holderIdentity": holder,
        "leaseDurationSeconds": 40,
        "renewTime": f"2026-01-01T00:00:{stamp}.000000Z",
    }
    metadata = {"name": "l", "namespace": "default"}
    api = "coordination.k8s.io/v1"
    return {"apiVersion": api, "kind": "Lease", "metadata": metadata, "spec": spec}


LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"


async def test_renewals_are_seen_but_not_stored_until_flushed() -> None:
    async with served() as at:
        made = (await at.ask("POST", LEASES, lease("a", "01"), status=201)).json
        before = at.state.disk.revision
        watching = at.kube.watch(ObjectWatch(resource="coordination.k8s.io/v1/leases"))
        await anext(watching)
        renewed = (await at.ask("PUT", f"{LEASES}/l", lease("a", "02"), status=200)).json
        assert at.state.disk.revision == before
        assert renewed["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
        shown = (await at.ask("GET", f"{LEASES}/l", status=200)).json
        assert shown["spec"]["renewTime"].startswith("2026-01-01T00:00:02")
        batch = await asyncio.wait_for(anext(watching), 60)
        assert b"00:00:02" in batch.changes[0].body
        await watching.aclose()  # type: ignore[attr-defined]
        resumed = at.kube.watch(
            ObjectWatch(resource="coordination.k8s.io/v1/leases", revision=batch.revision)
        )
        again = await asyncio.wait_for(anext(resumed), 60)
        assert b"00:00:02" in again.changes[0].body
        await resumed.aclose()  # type: ignore[attr-defined]
        await at.kube._assembly.renewals.flush()
        assert at.state.disk.revision == before + 1


async def test_a_renewed_lease_is_not_taken_over() -> None:
    async with served() as at:
        await at.ask("POST", LEASES, lease("a", "01"), status=201)
        await at.ask("PUT", f"{LEASES}/l", lease("a", "02"), status=200)
        await at.ask("PUT", f"{LEASES}/l", lease("b", "03"), status=409)
        released = lease("a", "04")
        released["spec"]["holderIdentity"] = ""
        await at.ask("PUT", f"{LEASES}/l", released, status=200)
        await at.ask("PUT", f"{LEASES}/l", lease("b", "05"), status=200)
