"""Crashes between the two stores, races between two generations, and what is left of them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.registry.registry_lab import Kept, Running, running

from sagong import call
from sagong.conformance.registry import asked, pushed
from sagong.contracts.content import Hold
from sagong.contracts.registry import CollectRequest, RepositoryRef
from sagong.contracts.state import Operation, OperationKind, RangeRequest, Transaction
from sagong_registry.catalog import Key
from sagong_registry.record import new_hold

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


async def status(registry: Running, target: str) -> int:
    return (await asked(registry.lab, "HEAD", target))[0]


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def test_an_upload_goes_on_after_a_restart() -> None:
    kept, data = Kept(), secrets.token_bytes(1000)
    async with running(kept) as registry:
        _, headers, _ = await asked(registry.lab, "POST", "/v2/a/blobs/uploads/")
        place = headers["location"]
        await asked(registry.lab, "PATCH", place, data[:400])
    async with running(kept) as registry:
        found, headers, _ = await asked(registry.lab, "GET", place)
        assert (found, headers["range"]) == (204, "0-399")
        target = f"{place}?digest={digest_of(data)}"
        found, _, _ = await asked(registry.lab, "PUT", target, data[400:], Content_Range="400-999")
        assert found == 201
        assert await status(registry, f"/v2/a/blobs/{digest_of(data)}") == 200


async def test_everything_is_there_after_a_restart() -> None:
    kept = Kept()
    async with running(kept) as registry:
        image = await pushed(registry.lab, "a/b", "v1")
        before = await registry.plugin.implementation.describe(RepositoryRef(name="a/b"))
    async with running(kept) as registry:
        assert await status(registry, "/v2/a/b/manifests/v1") == 200
        assert await status(registry, f"/v2/a/b/blobs/{image.blob}") == 200
        after = await registry.plugin.implementation.describe(RepositoryRef(name="a/b"))
    assert after == before


async def test_a_crash_before_the_record_leaves_an_upload_that_can_be_finished_again() -> None:
    kept, data = Kept(), secrets.token_bytes(100)
    async with running(kept) as registry:
        _, headers, _ = await asked(registry.lab, "POST", "/v2/a/blobs/uploads/")
        place = headers["location"]
        await asked(registry.lab, "PATCH", place, data)
        hold = new_hold("a", time.time())
        await registry.depot.vault.finish(place.rpartition("/")[2], digest_of(data), hold)
    async with running(kept) as registry:
        found, _, _ = await asked(registry.lab, "PUT", f"{place}?digest={digest_of(data)}")
        assert found == 201
        assert await status(registry, f"/v2/a/blobs/{digest_of(data)}") == 200


async def test_holds_without_a_record_are_dropped_when_they_are_old() -> None:
    kept = Kept()
    async with running(kept) as registry:
        image = await pushed(registry.lab, "a", "v1")
        old, young = (new_hold("a", time.time() - age) for age in (7200, 60))
        for owner in (old, young):
            await registry.depot.vault.hold(image.blob, owner)
        await registry.plugin.implementation.collect(CollectRequest())
    owners = {owner for _, owner, _ in kept.content.holds}
    assert old not in owners and young in owners and len(owners) == 3


async def test_what_is_too_much_for_one_transaction_goes_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sagong_registry.depot._PART", 3)
    monkeypatch.setattr("sagong_registry.housekeeping._BATCH", 3)
    kept = Kept()
    async with running(kept) as registry:
        for number in range(5):
            await pushed(registry.lab, "a", f"v{number}")
            await pushed(registry.lab, "b", "v1")
        done = await registry.plugin.implementation.collect(CollectRequest(grace=0.0))
        assert (done.manifests, done.blobs) == (4, 4)
        await registry.plugin.implementation.remove(RepositoryRef(name="a"))
        assert list(registry.depot.catalog.repositories) == ["b"]
        assert len(kept.content.holds) == 2


async def test_a_blob_pushed_again_has_one_hold_and_survives() -> None:
    kept = Kept()
    async with running(kept) as registry:
        image = await pushed(registry.lab, "a", "v1")
        await registry.depot.mount("a", image.blob)
        await registry.depot.mount("a", image.blob)
        assert len(kept.content.holds) == 2
        await registry.plugin.implementation.collect(CollectRequest(grace=0.0))
        assert await status(registry, f"/v2/a/blobs/{image.blob}") == 200


async def test_what_another_generation_wrote_is_found_at_once() -> None:
    kept = Kept()
    async with running(kept) as old, running(kept) as new:
        new.depot.catalog._keyspace._state = (
            old.depot.catalog._keyspace._state
        )  # one store, two generations
        image = await pushed(old.lab, "a", "v1")
        for target in ("manifests/v1", f"manifests/{image.digest}", f"blobs/{image.blob}"):
            assert await status(new, f"/v2/a/{target}") == 200
        found, _, _ = await asked(new.lab, "GET", "/v2/a/tags/list")
        assert found == 200


async def test_an_upload_goes_on_in_whichever_generation_is_asked() -> None:
    kept, data = Kept(), secrets.token_bytes(90)
    async with running(kept) as old, running(kept) as new:
        new.depot.catalog._keyspace._state = old.depot.catalog._keyspace._state
        for one in (old, new):
            one.depot.vault.content = old.depot.vault.content
        _, headers, _ = await asked(old.lab, "POST", "/v2/a/blobs/uploads/")
        place = headers["location"]
        for at, one in ((0, old), (30, new), (60, old)):
            more = {"Content_Range": f"{at}-{at + 29}"} if at else {}
            found, headers, _ = await asked(one.lab, "PATCH", place, data[at : at + 30], **more)
            assert (found, headers["range"]) == (202, f"0-{at + 29}")
        found, _, _ = await asked(new.lab, "PUT", f"{place}?digest={digest_of(data)}")
        assert found == 201


async def test_a_push_during_a_collection_wins() -> None:
    """The collection was planned before the push, and is refused as a whole."""
    async with running() as registry:
        image = await pushed(registry.lab, "a", "")
        depot, keeper = registry.depot, registry.plugin._housekeeping
        commit = depot.catalog.commit

        async def late(change):  # type: ignore[no-untyped-def]
            depot.catalog.commit = commit  # type: ignore[method-assign]
            target = f"/v2/a/manifests/{image.digest}"
            _, _, raw = await asked(registry.lab, "GET", target)
            found, _, _ = await asked(
                registry.lab, "PUT", "/v2/a/manifests/v1", raw, Content_Type=MANIFEST
            )
            assert found == 201
            return await commit(change)

        depot.catalog.commit = late  # type: ignore[method-assign]
        with call.detached():
            done = await keeper.collect(CollectRequest(grace=0.0))
        assert (done.manifests, done.blobs) == (0, 0)
        assert await status(registry, f"/v2/a/blobs/{image.blob}") == 200
        assert await status(registry, "/v2/a/manifests/v1") == 200


async def test_a_blob_that_goes_while_its_manifest_comes_refuses_the_manifest() -> None:
    async with running() as registry:
        image = await pushed(registry.lab, "a", "")
        _, _, raw = await asked(registry.lab, "GET", f"/v2/a/manifests/{image.digest}")
        put = registry.depot.vault.put

        async def late(*arguments):  # type: ignore[no-untyped-def]
            await registry.depot.remove_blob("a", image.blob)
            return await put(*arguments)

        registry.depot.vault.put = late  # type: ignore[method-assign]
        found, _, said = await asked(
            registry.lab, "PUT", "/v2/a/manifests/v1", raw, Content_Type=MANIFEST
        )
        assert (found, json.loads(said)["errors"][0]["code"]) == (404, "MANIFEST_BLOB_UNKNOWN")


async def test_tags_pushed_at_the_same_time_end_in_one_of_them() -> None:
    async with running() as registry:
        images = [await pushed(registry.lab, "a", "") for _ in range(8)]
        bodies = [
            (await asked(registry.lab, "GET", f"/v2/a/manifests/{one.digest}"))[2] for one in images
        ]
        answers = await asyncio.gather(
            *(
                asked(registry.lab, "PUT", "/v2/a/manifests/v1", raw, Content_Type=MANIFEST)
                for raw in bodies
            )
        )
        assert [found for found, _, _ in answers] == [201] * 8
        _, headers, _ = await asked(registry.lab, "HEAD", "/v2/a/manifests/v1")
        assert headers["docker-content-digest"] in {one.digest for one in images}
        holds = [owner for _, owner, _ in registry.kept.content.holds]
        assert len(holds) == len(set(holds)) == 16


async def test_a_tag_that_moves_is_noted_at_what_it_leaves() -> None:
    async with running() as registry:
        old = await pushed(registry.lab, "a", "v1")
        await pushed(registry.lab, "a", "v1")
        record = registry.depot.catalog.repositories["a"].manifests[old.digest]
        assert record.released > 0


async def test_records_of_strangers_kinds_are_left_alone() -> None:
    kept = Kept()
    async with running(kept) as registry:
        await registry.depot.catalog._keyspace._state.commit(_stranger())
        await pushed(registry.lab, "a", "v1")
    async with running(kept) as registry:
        assert await status(registry, "/v2/a/manifests/v1") == 200
        found = await registry.depot.catalog._keyspace._state.range(_range("/registry/future/x"))
        assert found.entries


def _stranger() -> Transaction:
    put = Operation(kind=OperationKind.PUT, key="/registry/future/x", value=b"?")
    return Transaction(id=secrets.token_hex(16), success=(put,))


def _range(key: str) -> RangeRequest:
    return RangeRequest(start=key)


@pytest.mark.parametrize("name", ["a", "team/app.x__y--z"])
def test_keys_divide_into_their_parts(name: str) -> None:
    digest = "sha256:" + "0" * 64
    assert Key.blob(name, digest).partition("@")[2] == digest
    assert Key.tag(name, "v1.0").partition(":")[2] == "v1.0"
    assert Hold(owner=new_hold(name, 0.0), digest=digest).owner.startswith(f"{name}@")


async def begun(registry: Running, data: bytes) -> str:
    """An upload that has got some bytes; where it goes on."""
    _, headers, _ = await asked(registry.lab, "POST", "/v2/a/blobs/uploads/")
    _, headers, _ = await asked(registry.lab, "PATCH", headers["location"], data)
    return headers["location"]


async def test_what_a_push_left_that_broke_off_goes_after_a_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = Kept()
    now, earlier = time.time, SimpleNamespace(time=lambda: now() - 3000)
    with monkeypatch.context() as past:
        past.setattr("sagong_registry.depot.time", earlier)
        left, going, blob = await _broken_off(kept)
    settings: dict[str, Any] = {
        "collect_seconds": 3.0,
        "upload_seconds": 600.0,
        "blob_seconds": 600.0,
    }
    async with running(kept, **settings) as registry, asyncio.timeout(60):
        while True:
            await asked(registry.lab, "PATCH", going, b"more")
            if (await asked(registry.lab, "GET", left))[0] == 404:
                break
            await asyncio.sleep(0.1)
        assert (await asked(registry.lab, "GET", going))[0] == 204, "it was gone on with"
        assert await status(registry, f"/v2/a/blobs/{digest_of(blob)}") == 404
        assert len(registry.depot.catalog.uploads) == 1


async def _broken_off(kept: Kept) -> tuple[str, str, bytes]:
    """Where two uploads go on, and a blob that no manifest names."""
    async with running(kept, collect_seconds=0) as registry:
        left, going = await begun(registry, b"left"), await begun(registry, b"going")
        blob = secrets.token_bytes(100)
        await asked(registry.lab, "POST", f"/v2/a/blobs/uploads/?digest={digest_of(blob)}", blob)
    return left, going, blob
