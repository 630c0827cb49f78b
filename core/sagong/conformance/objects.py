"""What every provider of `objects` must do; the lab is the candidate, called by who may do all.

Names are the checks' own, so one candidate can serve them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from sagong.contracts.objects import (
    Commit,
    GetRequest,
    ListRequest,
    ObjectBatch,
    Objects,
    ObjectWatch,
    Outcome,
    Reminder,
    Silence,
    Verb,
    Write,
)
from sagong.errors import DeadlineExceeded, Gone, InvalidArgument, NotFound, SagongError

__all__: list[str] = []

_MAPS, _PODS, _NODES = "v1/configmaps", "v1/pods", "v1/nodes"
_SPACE = "default"


def _name() -> str:
    return f"suite-{secrets.token_hex(6)}"


def _body(kind: str, name: str, **more: Any) -> bytes:
    metadata = {"name": name, "namespace": _SPACE, **more.pop("metadata", {})}
    return json.dumps({"apiVersion": "v1", "kind": kind, "metadata": metadata, **more}).encode()


def _map(name: str, mark: str = "", **labels: str) -> bytes:
    return _body("ConfigMap", name, data={"mark": mark}, metadata={"labels": labels})


def _pod(name: str) -> bytes:
    spec = {"containers": [{"name": "c", "image": "busybox"}]}
    return _body("Pod", name, spec=spec)


def _create(body: bytes, resource: str = _MAPS) -> Write:
    return Write(verb=Verb.CREATE, resource=resource, namespace=_SPACE, body=body)


def _at(verb: Verb, name: str, resource: str = _MAPS, **more: Any) -> Write:
    return Write(verb=verb, resource=resource, namespace=_SPACE, name=name, **more)


async def _done(objects: Objects, *writes: Write) -> tuple[Outcome, ...]:
    return (await objects.commit(Commit(id=secrets.token_hex(16), writes=writes))).outcomes


async def _well(objects: Objects, *writes: Write) -> list[dict[str, Any]]:
    outcomes = await _done(objects, *writes)
    assert [outcome.error for outcome in outcomes] == [""] * len(writes), outcomes
    return [json.loads(outcome.body) if outcome.body else {} for outcome in outcomes]


async def _get(objects: Objects, name: str, resource: str = _MAPS) -> dict[str, Any]:
    request = GetRequest(resource=resource, namespace=_SPACE, name=name)
    found: dict[str, Any] = json.loads((await objects.get(request)).body)
    return found


async def _names(objects: Objects, *, labels: str = "", fields: str = "") -> list[str]:
    request = ListRequest(resource=_MAPS, namespace=_SPACE, labels=labels, fields=fields)
    found = await objects.list(request)
    return [json.loads(item)["metadata"]["name"] for item in found.items]


async def _refused(kind: type[SagongError], work: Awaitable[object]) -> None:
    try:
        await work
    except kind:
        return
    raise AssertionError(f"was not refused; expected {kind.code}")


@contextlib.asynccontextmanager
async def _watching(objects: Objects, **query: Any) -> AsyncIterator[_Watch]:
    request = ObjectWatch(resource=query.pop("resource", _MAPS), namespace=_SPACE, **query)
    stream = objects.watch(request)
    try:
        yield _Watch(stream)
    finally:
        await stream.aclose()  # type: ignore[attr-defined]


class _Watch:
    """A watch, batch by batch."""

    def __init__(self, stream: AsyncIterator[ObjectBatch]) -> None:
        self._stream = stream

    async def next(self) -> ObjectBatch:
        """The next batch, within a time."""
        async with asyncio.timeout(40.0):
            return await anext(self._stream)

    async def synced(self) -> dict[str, str]:
        """What is there already: name and kind of change."""
        found: dict[str, str] = {}
        while True:
            batch = await self.next()
            found |= {json.loads(c.body)["metadata"]["name"]: c.kind for c in batch.changes}
            if batch.synced:
                return found

    async def changes(self, count: int) -> list[tuple[str, str, str]]:
        """So many changes: kind, name, mark."""
        found: list[tuple[str, str, str]] = []
        while len(found) < count:
            for change in (await self.next()).changes:
                body = json.loads(change.body)
                mark = body.get("data", {}).get("mark", "")
                found.append((change.kind, body["metadata"]["name"], mark))
        return found


# Reading and writing.


async def check_what_is_written_is_read(objects: Objects) -> None:
    name = _name()
    (made,) = await _well(objects, _create(_map(name, "one")))
    found = await objects.get(GetRequest(resource=_MAPS, namespace=_SPACE, name=name))
    assert json.loads(found.body) == made
    assert made["metadata"]["uid"] and made["metadata"]["creationTimestamp"]
    assert made["metadata"]["resourceVersion"] == str(found.revision)
    assert made["data"] == {"mark": "one"}


async def check_what_is_not_there_is_not_found(objects: Objects) -> None:
    await _refused(NotFound, _get(objects, _name()))
    (outcome,) = await _done(objects, _at(Verb.DELETE, _name()))
    assert outcome.error == NotFound.code and outcome.message


async def check_writes_succeed_or_fail_each_by_itself(objects: Objects) -> None:
    name, other = _name(), _name()
    outcomes = await _done(
        objects, _create(_map(name)), _create(_map(name)), _create(b"{"), _create(_map(other))
    )
    assert [bool(outcome.error) for outcome in outcomes] == [False, True, True, False]
    assert outcomes[1].error == "already_exists"
    assert name in outcomes[1].message
    assert {name, other} <= set(await _names(objects))


async def check_the_same_commit_is_done_once(objects: Objects) -> None:
    name = _name()
    commit = Commit(id=secrets.token_hex(16), writes=(_create(_map(name)),))
    first, again = await objects.commit(commit), await objects.commit(commit)
    assert again.outcomes[0].error == ""
    assert json.loads(again.outcomes[0].body) == json.loads(first.outcomes[0].body)


async def check_writes_of_a_batch_see_each_other(objects: Objects) -> None:
    name = _name()
    status = b'{"status":{"phase":"Running"}}'
    await _well(
        objects,
        _create(_pod(name), _PODS),
        _at(Verb.BIND, name, _PODS, node="n1"),
        _at(Verb.PATCH, name, _PODS, subresource="status", body=status),
    )
    found = await _get(objects, name, _PODS)
    assert (found["spec"]["nodeName"], found["status"]["phase"]) == ("n1", "Running")


async def check_a_stale_write_is_a_conflict(objects: Objects) -> None:
    name = _name()
    (made,) = await _well(objects, _create(_map(name, "one")))
    made["data"]["mark"] = "two"
    update = _at(Verb.UPDATE, name, body=json.dumps(made).encode())
    await _well(objects, update)
    (late,) = await _done(objects, update)
    assert late.error == "conflict"
    assert (await _get(objects, name))["data"] == {"mark": "two"}


async def check_a_patch_merges_and_removes(objects: Objects) -> None:
    name = _name()
    await _well(objects, _create(_map(name, "one")))
    body = b'{"data":{"more":"x","mark":null}}'
    (patched,) = await _well(objects, _at(Verb.PATCH, name, body=body))
    assert patched["data"] == {"more": "x"}


async def check_status_and_the_rest_are_apart(objects: Objects) -> None:
    name = _name()
    (made,) = await _well(objects, _create(_pod(name), _PODS))
    changed = {
        **made,
        "status": {**made.get("status", {}), "message": "told"},
        "spec": {**made["spec"], "activeDeadlineSeconds": 60},
    }
    await _well(objects, _at(Verb.STATUS, name, _PODS, body=json.dumps(changed).encode()))
    found = await _get(objects, name, _PODS)
    assert found["status"]["message"] == "told"
    assert "activeDeadlineSeconds" not in found["spec"]
    found["status"]["message"], found["spec"]["activeDeadlineSeconds"] = "not told", 60
    await _well(objects, _at(Verb.UPDATE, name, _PODS, body=json.dumps(found).encode()))
    found = await _get(objects, name, _PODS)
    assert (found["status"]["message"], found["spec"]["activeDeadlineSeconds"]) == ("told", 60)


async def check_a_delete_means_one_uid(objects: Objects) -> None:
    name = _name()
    (made,) = await _well(objects, _create(_map(name)))
    (other,) = await _done(objects, _at(Verb.DELETE, name, uid="another"))
    assert other.error == "conflict"
    assert (await _get(objects, name))["metadata"]["uid"] == made["metadata"]["uid"]
    await _well(objects, _at(Verb.DELETE, name, uid=made["metadata"]["uid"]))
    await _refused(NotFound, _get(objects, name))


async def check_finalizers_hold_an_object(objects: Objects) -> None:
    name = _name()
    held = {"finalizers": ["suite.sagong.test/held"]}
    await _well(objects, _create(_body("ConfigMap", name, metadata=held)))
    await _well(objects, _at(Verb.DELETE, name))
    assert (await _get(objects, name))["metadata"]["deletionTimestamp"]
    await _well(objects, _at(Verb.PATCH, name, body=b'{"metadata":{"finalizers":null}}'))
    await _refused(NotFound, _get(objects, name))


async def check_what_is_invalid_is_refused(objects: Objects) -> None:
    name = _name()
    outcomes = await _done(
        objects,
        _create(_map("Not A Name")),
        _create(_body("Pod", name, spec={"containers": []}), _PODS),
        _create(_body("Secret", name)),
    )
    assert all(outcome.error and outcome.message for outcome in outcomes), outcomes
    await _refused(NotFound, _get(objects, name, _PODS))


async def check_unknown_resources_are_refused(objects: Objects) -> None:
    for work in (
        objects.list(ListRequest(resource="v1/nonsense")),
        objects.get(GetRequest(resource="v1/nonsense", namespace=_SPACE, name="x")),
    ):
        try:
            await work
        except (InvalidArgument, NotFound):
            continue
        raise AssertionError("an unknown resource was taken")


# Lists.


async def check_lists_choose_by_labels_and_fields(objects: Objects) -> None:
    mark, names = secrets.token_hex(4), sorted(_name() for _ in range(3))
    kinds = ("a", "b", "b")
    await _well(
        objects, *(_create(_map(n, mark=mark, suite=mark, kind=k)) for n, k in zip(names, kinds))
    )
    assert await _names(objects, labels=f"suite={mark}") == names
    assert await _names(objects, labels=f"suite={mark},kind!=b") == names[:1]
    assert await _names(objects, labels=f"suite={mark},kind in (b,c)") == names[1:]
    assert await _names(objects, fields=f"metadata.name={names[1]}") == [names[1]]
    assert await _names(objects, labels=f"suite={mark}x") == []


async def check_lists_come_in_pages_of_one_revision(objects: Objects) -> None:
    mark, names = secrets.token_hex(4), sorted(_name() for _ in range(5))
    await _well(objects, *(_create(_map(name, suite=mark)) for name in names))
    query = ListRequest(resource=_MAPS, namespace=_SPACE, labels=f"suite={mark}", limit=2)
    found, revisions, resume = [], set(), ""
    while True:
        page = await objects.list(
            ListRequest(
                resource=query.resource,
                namespace=query.namespace,
                labels=query.labels,
                limit=query.limit,
                resume=resume,
            )
        )
        assert len(page.items) <= 2
        found += [json.loads(item)["metadata"]["name"] for item in page.items]
        revisions.add(page.revision)
        if not found[2:]:
            await _well(objects, _create(_map(_name(), suite=mark)))
        resume = page.resume
        if not resume:
            break
    assert (found, len(revisions)) == (names, 1)


# Watches.


async def check_a_watch_begins_with_all_and_goes_on_without_a_gap(objects: Objects) -> None:
    mark, first, second = secrets.token_hex(4), _name(), _name()
    await _well(objects, _create(_map(first, "one", suite=mark)))
    async with _watching(objects, labels=f"suite={mark}") as watch:
        assert await watch.synced() == {first: "ADDED"}
        await _well(objects, _create(_map(second, "one", suite=mark)))
        await _well(objects, _at(Verb.PATCH, first, body=b'{"data":{"mark":"two"}}'))
        await _well(objects, _at(Verb.DELETE, second))
        assert await watch.changes(3) == [
            ("ADDED", second, "one"),
            ("MODIFIED", first, "two"),
            ("DELETED", second, "one"),
        ]


async def check_a_watch_resumes_after_a_revision(objects: Objects) -> None:
    mark, name = secrets.token_hex(4), _name()
    (outcome,) = await _done(objects, _create(_map(name, "one", suite=mark)))
    await _well(objects, _at(Verb.PATCH, name, body=b'{"data":{"mark":"two"}}'))
    labels = f"suite={mark}"
    async with _watching(objects, labels=labels, revision=outcome.revision) as watch:
        assert await watch.changes(1) == [("MODIFIED", name, "two")]


async def check_a_watch_sees_by_its_selector(objects: Objects) -> None:
    mark, name = secrets.token_hex(4), _name()
    async with _watching(objects, labels=f"suite={mark}") as watch:
        assert await watch.synced() == {}
        await _well(objects, _create(_map(name, "no")))
        label = json.dumps({"metadata": {"labels": {"suite": mark}}, "data": {"mark": "yes"}})
        await _well(objects, _at(Verb.PATCH, name, body=label.encode()))
        gone = b'{"metadata":{"labels":{"suite":null}}}'
        await _well(objects, _at(Verb.PATCH, name, body=gone))
        found = await watch.changes(2)
        assert [(kind, named) for kind, named, _ in found] == [("ADDED", name), ("DELETED", name)]


async def check_a_watch_from_the_future_is_refused(objects: Objects) -> None:
    try:
        async with _watching(objects, revision=1 << 60) as watch:
            await watch.next()
    except (Gone, InvalidArgument, DeadlineExceeded):
        return
    raise AssertionError("a watch began after a revision that is yet to come")


async def check_a_reminder_is_of_resources_that_there_are(objects: Objects) -> None:
    (made,) = await _well(objects, _create(_map(_name())))
    revision = int(made["metadata"]["resourceVersion"])
    known = ObjectWatch(resource=_MAPS, namespace=_SPACE, revision=revision)
    unknown = ObjectWatch(resource="v1/suites", revision=revision)
    await objects.remind(Reminder(watches=(known,), comings=(known,)))
    await _refused(NotFound, objects.remind(Reminder(watches=(known, unknown))))
    await _refused(NotFound, objects.remind(Reminder(comings=(unknown,))))
    silence = Silence(resource=unknown.resource, name="none", first=3600.0, seconds=3600.0)
    await _refused(NotFound, objects.remind(Reminder(silences=(silence,))))


async def check_objects_without_a_namespace(objects: Objects) -> None:
    name = _name()
    body = json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}).encode()
    await _well(objects, Write(verb=Verb.CREATE, resource=_NODES, body=body))
    found = await objects.get(GetRequest(resource=_NODES, name=name))
    assert json.loads(found.body)["metadata"]["name"] == name
    await _well(objects, Write(verb=Verb.DELETE, resource=_NODES, name=name))
