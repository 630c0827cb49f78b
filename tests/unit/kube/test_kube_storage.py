"""The storage: what is written is read, watched and paged through as the API promises it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import msgspec
import pytest
from tests.conformance.fake_state import FakeState

from sagong.contracts.state import CompactRequest, WatchBatch, WatchRequest
from sagong.errors import DeadlineExceeded, FailedPrecondition, Gone, Unavailable
from sagong.model.selectors import parse_fields, parse_labels
from sagong_kube.storage.change import Change
from sagong_kube.storage.collection import Collection, Selection
from sagong_kube.storage.record import Record, RecordReader, with_revision, without_revision
from sagong_kube.storage.seal import Seal, load_key
from sagong_kube.storage.store import Store
from sagong_kube.storage.watcher import Watcher


def pod(name: str, namespace: str = "default", **extra: object) -> bytes:
    labels = extra.pop("labels", {})
    return msgspec.json.encode(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "uid": name, "labels": labels},
            "spec": {"nodeName": extra.pop("node", "")},
            **extra,
        }
    )


@contextlib.asynccontextmanager
async def stored() -> AsyncIterator[tuple[Store, FakeState]]:
    state = FakeState()
    store = Store(state, seal=Seal(os.urandom(32)))
    await store.load()
    follower = asyncio.create_task(store.follow())
    try:
        yield store, state
    finally:
        follower.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await follower


async def put(store: Store, name: str, namespace: str = "default", **extra: object) -> int:
    key = f"{namespace}/{name}"
    known = store.get("core/pods", key)
    change = Change("core/pods", key, pod(name, namespace, **extra), known.revision if known else 0)
    written = await store.write([change])
    assert written.done
    await store.settle()
    return written.revision


def names(records: Iterable[Record]) -> list[str]:
    return [record.name for record in records]


def test_revision_is_spliced_in_and_out() -> None:
    value = pod("a")
    served = with_revision(value, 42)
    assert msgspec.json.decode(served)["metadata"]["resourceVersion"] == "42"
    assert without_revision(served) == value


def test_record_holds_what_is_selected_by() -> None:
    collection = Collection("core/pods")
    record = collection.reader.read("default/a", pod("a", labels={"b": "2", "a": "1"}, node="n"), 7)
    assert record.labels == (("a", "1"), ("b", "2"))
    assert record.fields[0] == "n"
    position = collection.position("spec.hostNetwork")
    assert position is not None and record.fields[position] == "false"


async def test_writes_are_read_in_order_and_selected() -> None:
    async with stored() as (store, _):
        await put(store, "b", labels={"app": "x"}, node="n1")
        await put(store, "a", labels={"app": "y"}, node="n2")
        await put(store, "c", "other", labels={"app": "x"})
        pods = store.collection("core/pods")
        assert names(pods.select(Selection())) == ["a", "b", "c"]
        assert names(pods.select(Selection(namespace="default"))) == ["a", "b"]
        assert names(pods.select(Selection(labels=parse_labels("app=x")))) == ["b", "c"]
        fields = parse_fields("spec.nodeName=n2")
        assert names(pods.select(Selection(fields=fields))) == ["a"]
        assert names(pods.select(Selection(), "default/b")) == ["b", "c"]


async def test_lost_race_is_told_and_cache_is_current() -> None:
    async with stored() as (store, _):
        revision = await put(store, "a")
        lost = await store.write([Change("core/pods", "default/a", pod("a"), 0)])
        assert not lost.done
        kept = store.get("core/pods", "default/a")
        assert kept is not None and kept.revision == revision


async def test_watcher_sees_selection_change_as_deletion() -> None:
    async with stored() as (store, _):
        selection = Selection(labels=parse_labels("app=x"))
        watcher = Watcher(store.collection("core/pods"), selection)
        await store.watch(watcher, None)
        await put(store, "a", labels={"app": "x"})
        await put(store, "a", labels={"app": "x"}, status={"phase": "Running"})
        last = await put(store, "a", labels={"app": "z"})
        notices = await watcher.wait_pending(1)
        assert [kind for kind, _ in notices] == ["ADDED", "MODIFIED", "DELETED"]
        gone = msgspec.json.decode(notices[-1][1].body("DELETED"))
        assert gone["metadata"]["labels"] == {"app": "x"}
        assert gone["metadata"]["resourceVersion"] == str(last)


async def test_watch_resumes_from_memory_and_from_the_store() -> None:
    async with stored() as (store, _):
        first = await put(store, "a")
        await put(store, "b")
        watcher = Watcher(store.collection("core/pods"), Selection())
        await store.watch(watcher, first)
        assert [e.shown(k).name for k, e in await watcher.wait_pending(1)] == ["b"]
        store._history.reset(store.revision)
        again = Watcher(store.collection("core/pods"), Selection())
        await store.watch(again, first)
        assert [e.shown(k).name for k, e in await again.wait_pending(1)] == ["b"]


async def test_a_watch_begins_though_the_store_is_replaced_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It ended with a traceback: a store that drains ends its watches."""
    async with stored() as (store, state):
        first = await put(store, "a")
        for name in "bc":
            await put(store, name)
        store._history.reset(store.revision)
        watch, cut = state.watch, 2

        async def replaced(request: WatchRequest) -> AsyncIterator[WatchBatch]:
            nonlocal cut
            cut -= 1
            async for batch in watch(request):
                if cut >= 0 and batch.events:
                    raise Unavailable("the store was replaced; open it again")
                yield batch

        monkeypatch.setattr(state, "watch", replaced)
        watcher = Watcher(store.collection("core/pods"), Selection())
        await store.watch(watcher, first)
        assert [e.shown(k).name for k, e in await watcher.wait_pending(1)] == ["b", "c"]

        async def gone(request: WatchRequest) -> AsyncIterator[WatchBatch]:
            raise Unavailable("nothing serves state now")
            yield

        monkeypatch.setattr(state, "watch", gone)
        with pytest.raises(Unavailable):
            await store.watch(Watcher(store.collection("core/pods"), Selection()), first)


async def test_compacted_history_is_gone() -> None:
    async with stored() as (store, state):
        first = await put(store, "a")
        for name in "bc":
            await put(store, name)
        await state.compact(CompactRequest(revision=store.revision))
        store._history.reset(store.revision)
        with pytest.raises(Gone):
            await store.watch(Watcher(store.collection("core/pods"), Selection()), first)


async def test_future_revision_is_waited_for_in_vain() -> None:
    async with stored() as (store, _):
        with pytest.raises(DeadlineExceeded):
            await store.wait_revision(store.revision + 5, 0.01)


async def test_old_page_is_read_from_the_store() -> None:
    async with stored() as (store, _):
        for name in "abc":
            await put(store, name)
        revision = store.revision
        await put(store, "d")
        page, more = await store.page("core/pods", Selection(), revision, "default/b", 1)
        assert (names(page), more) == (["b"], True)
        page, more = await store.page("core/pods", Selection(namespace="default"), revision, "", 0)
        assert (names(page), more) == (["a", "b", "c"], False)


async def test_reload_turns_differences_into_events() -> None:
    async with stored() as (store, state):
        await put(store, "a")
        other = Store(state, seal=Seal(os.urandom(32)))
        await other.load()
        watcher = Watcher(other.collection("core/pods"), Selection())
        await other.watch(watcher, None)
        await watcher.wait_pending(1)
        known = store.get("core/pods", "default/a")
        assert known is not None
        await store.write([Change("core/pods", "default/a", None, known.revision)])
        await store.settle()
        await put(store, "b")
        await other.load()
        kinds = [(kind, event.shown(kind).name) for kind, event in await watcher.wait_pending(1)]
        assert sorted(kinds) == [("ADDED", "b"), ("DELETED", "a")]


def test_secrets_are_sealed_and_bound_to_their_key(tmp_path: Path) -> None:
    key = load_key(tmp_path / "key")
    assert load_key(tmp_path / "key") == key
    seal = Seal(key)
    sealed = seal.close("/registry/core/secrets/a/b", b"hidden")
    assert b"hidden" not in sealed
    assert seal.open("/registry/core/secrets/a/b", sealed) == b"hidden"
    with pytest.raises(Exception, match="sealed with another key"):
        seal.open("/registry/core/secrets/a/c", sealed)
    assert seal.close("/registry/core/pods/a/b", b"plain") == b"plain"
    (tmp_path / "key").write_bytes(b"c2hvcnQ=")
    with pytest.raises(FailedPrecondition, match="holds 5 bytes, a key has 32"):
        load_key(tmp_path / "key")


def test_reader_takes_strange_field_names() -> None:
    from sagong_kube.storage.record import FieldPath

    reader = RecordReader([FieldPath("spec.a-b", ("spec", "a-b")), FieldPath("x", ("x",), "0")])
    value = b'{"apiVersion":"v1","kind":"K","metadata":{"name":"a"},"spec":{"a-b":true}}'
    assert reader.read("a", value, 1).fields == ("true", "0")
