"""Slot `auth`: the plugin passes the suite, and a dozen broken ones don't."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from sagong.conformance import auth as suite
from sagong.conformance.auth import AuthLab
from sagong.contracts.auth import Auth, Credential, Decision, Identity, Question, RuleSet
from sagong.contracts.objects import (
    Commit,
    CommitResult,
    GetRequest,
    ListRequest,
    ListResult,
    Object,
    ObjectBatch,
    ObjectChange,
    Objects,
    ObjectWatch,
)
from sagong.errors import InvalidArgument, NotFound
from sagong.testing import Check, awaited, check_name, checks, local
from sagong_auth_rbac import AuthRbac


class FakeObjects:
    """Objects in memory, with watches; what the plugin asks of `objects`."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str, str], bytes] = {}
        self._queues: list[tuple[str, asyncio.Queue[ObjectBatch]]] = []
        self._revision = 1

    async def put(self, resource: str, value: dict[str, Any]) -> None:
        """Make or change one, and let watchers see it."""
        meta = value["metadata"]
        self._objects[resource, meta.get("namespace", ""), meta["name"]] = json.dumps(
            value
        ).encode()
        await self._tell(resource, "MODIFIED", json.dumps(value).encode())

    async def drop(self, resource: str, namespace: str, name: str) -> None:
        """Delete one."""
        await self._tell(resource, "DELETED", self._objects.pop((resource, namespace, name)))

    async def _tell(self, resource: str, kind: str, body: bytes) -> None:
        self._revision += 1
        batch = ObjectBatch(revision=self._revision, changes=(ObjectChange(kind=kind, body=body),))
        for watched, queue in self._queues:
            if watched == resource:
                queue.put_nowait(batch)
        for _ in range(5):
            await asyncio.sleep(0)

    async def get(self, request: GetRequest) -> Object:
        """One object."""
        try:
            body = self._objects[request.resource, request.namespace, request.name]
        except KeyError:
            raise NotFound(f"{request.resource} {request.name} not found") from None
        return Object(body=body, revision=self._revision)

    async def list(self, request: ListRequest) -> ListResult:
        """All of a resource."""
        items = tuple(b for (r, _, _), b in self._objects.items() if r == request.resource)
        return ListResult(items=items, revision=self._revision)

    async def watch(self, request: ObjectWatch) -> AsyncIterator[ObjectBatch]:
        """What is, then what changes."""
        queue: asyncio.Queue[ObjectBatch] = asyncio.Queue()
        self._queues.append((request.resource, queue))
        found = (await self.list(ListRequest(resource=request.resource))).items
        changes = tuple(ObjectChange(kind="ADDED", body=body) for body in found)
        yield ObjectBatch(revision=self._revision, changes=changes, synced=True)
        while True:
            yield await queue.get()

    async def commit(self, commit: Commit) -> CommitResult:
        """Nobody here writes."""
        raise InvalidArgument(f"commit {commit.id}: this fake is read by the plugin only")


@contextlib.asynccontextmanager
async def laboratory(plugin: Any = AuthRbac) -> AsyncIterator[AuthLab]:
    objects = FakeObjects()
    async with local(plugin, uses={Objects: objects}) as candidate:
        await asyncio.sleep(0.01)
        auth = awaited(Auth, candidate)
        yield AuthLab(auth, objects.put, objects.drop, ssl.PEM_cert_to_DER_cert)


@pytest.mark.parametrize("check", checks(suite), ids=check_name)
async def test_auth_rbac(check: Check) -> None:
    async with laboratory() as lab:
        await check(lab)


class Trusting(AuthRbac):
    async def authenticate(self, credential: Credential) -> Identity:
        return Identity(username="ann", groups=("devs",))


class Groupless(AuthRbac):
    async def authenticate(self, credential: Credential) -> Identity:
        return msgspec.structs.replace(await super().authenticate(credential), groups=())


class Anywhere(AuthRbac):
    async def authenticate(self, credential: Credential) -> Identity:
        anybody = msgspec.structs.replace(credential, audiences=())
        return await super().authenticate(anybody)


class Permissive(AuthRbac):
    def authorize(self, question: Question) -> Decision:
        return Decision(allowed=True)


class Strict(AuthRbac):
    def authorize(self, question: Question) -> Decision:
        return Decision(allowed=False)


def asking(**facts: Any) -> type[AuthRbac]:
    """Overlooks a part of every question."""

    class Overlooking(AuthRbac):
        def authorize(self, question: Question) -> Decision:
            return super().authorize(msgspec.structs.replace(question, **facts))

    return Overlooking


class Silent(AuthRbac):
    def rules(self, question: Question) -> RuleSet:
        return RuleSet()


class Unbound(AuthRbac):
    async def _check_bound(self, kind: str, namespace: str, named: dict[str, Any]) -> None:
        return


class Lasting(AuthRbac):
    def _take(self, resource: str, change: ObjectChange, seen: set[tuple[str, str]]) -> None:
        if change.kind != "DELETED":
            super()._take(resource, change, seen)


BROKEN = [
    Trusting,
    Groupless,
    Anywhere,
    Permissive,
    Strict,
    Silent,
    Unbound,
    Lasting,
    asking(subresource=""),
    asking(namespace=""),
    asking(name="a"),
    asking(verb="get"),
    asking(group=""),
]


@pytest.mark.parametrize("broken", BROKEN)
async def test_the_suite_finds_what_is_broken(broken: Any) -> None:
    failed = []
    for check in checks(suite):
        async with laboratory(broken) as lab:
            try:
                await check(lab)
            except Exception:
                failed.append(check_name(check))
    assert failed
