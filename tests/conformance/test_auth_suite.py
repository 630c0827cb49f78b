"""Slot `auth`: the plugin passes the suite, and a dozen broken ones don't."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import msgspec
import pytest

from sagong.conformance import auth as suite
from sagong.conformance.auth import AuthLab
from sagong.conformance.rigs import Candidate, auth_rig
from sagong.contracts.auth import (
    Credential,
    Decision,
    Identity,
    PolicyChanged,
    Question,
    RuleSet,
)
from sagong.contracts.objects import ObjectChange
from sagong.following import Kept
from sagong.testing import Check, check_name, checks
from sagong_auth_rbac import AuthRbac

T = TypeVar("T")


def laboratory(plugin: Any = AuthRbac) -> AbstractAsyncContextManager[AuthLab]:
    """The rig that ships."""
    return auth_rig(Candidate(plugin))


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
    async def authorize(self, question: Question) -> Decision:
        return Decision(allowed=True)


class Strict(AuthRbac):
    async def authorize(self, question: Question) -> Decision:
        return Decision(allowed=False)


def asking(**facts: Any) -> type[AuthRbac]:
    """Overlooks a part of every question."""

    class Overlooking(AuthRbac):
        async def authorize(self, question: Question) -> Decision:
            return await super().authorize(msgspec.structs.replace(question, **facts))

    return Overlooking


class Silent(AuthRbac):
    async def rules(self, question: Question) -> RuleSet:
        return RuleSet()


class Unbound(AuthRbac):
    async def _check_bound(self, kind: str, namespace: str, named: dict[str, Any]) -> None:
        return


class Lasting(AuthRbac):
    def _followed(self, resource: str, kind: type[T]) -> Kept[T]:
        return Hoarded(self._objects, resource, kind, lambda: self._host.emit(PolicyChanged()))


class Hoarded(Kept[T]):
    def _take(self, items: Any, change: ObjectChange, log: Any) -> None:
        if change.kind != "DELETED":
            super()._take(items, change, log)


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
