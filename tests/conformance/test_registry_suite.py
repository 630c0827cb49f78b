"""The suite of `registry` against the service over fakes, and the mutations it must catch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from tests.unit.registry.registry_lab import running

from sagong.conformance import registry as suite
from sagong.contract import conforms, filling
from sagong.contracts.registry import (
    Account,
    Collected,
    CollectRequest,
    Registry,
    Repository,
    RepositoryList,
    RepositoryQuery,
    RepositoryRef,
    VisibilityRequest,
)
from sagong.testing import Check, awaited, check_name, checks

CHECKS = checks(suite)


@pytest.mark.parametrize("check", CHECKS, ids=check_name)
async def test_the_registry(check: Check) -> None:
    async with running() as registry:
        await check(registry.lab)


async def test_the_registry_has_the_slot_s_form() -> None:
    async with running() as registry:
        conforms(Registry, filling(registry.plugin, Registry))


class Broken:
    """A registry with one method that does something else."""

    def __init__(self, inner: Registry) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class ListsAll(Broken):
    async def repositories(self, query: RepositoryQuery) -> RepositoryList:
        return await self._inner.repositories(msgspec.structs.replace(query, prefix=""))


class NoPages(Broken):
    async def repositories(self, query: RepositoryQuery) -> RepositoryList:
        found = await self._inner.repositories(query)
        return RepositoryList(repositories=found.repositories)


class ForgetsVisibility(Broken):
    async def set_visibility(self, request: VisibilityRequest) -> Repository:
        found = await self._inner.describe(RepositoryRef(name=request.name))
        public = request.visibility == "public"
        return msgspec.structs.replace(
            found.repository, visibility=request.visibility, public=public
        )


class KeepsTheRemoved(Broken):
    async def remove(self, repository: RepositoryRef) -> None:
        return None


class SparesNothing(Broken):
    async def collect(self, request: CollectRequest) -> Collected:
        return await self._inner.collect(CollectRequest(grace=0.0, dry_run=request.dry_run))


class NeverDry(Broken):
    async def collect(self, request: CollectRequest) -> Collected:
        return await self._inner.collect(CollectRequest(grace=request.grace))


class TakesAnyHash(Broken):
    async def set_account(self, account: Account) -> None:
        return None


MUTATIONS: dict[Callable[[Registry], Broken], str] = {
    ListsAll: "a_removed_repository_is_gone",
    NoPages: "repositories_come_in_pages",
    ForgetsVisibility: "visibility_is_kept",
    KeepsTheRemoved: "a_removed_repository_is_gone",
    SparesNothing: "what_has_no_tag_is_collected",
    NeverDry: "what_has_no_tag_is_collected",
    TakesAnyHash: "accounts_that_are_none_are_refused",
}


@pytest.mark.parametrize("kind", MUTATIONS, ids=lambda kind: kind.__name__)
async def test_a_broken_registry_is_caught(kind: Callable[[Registry], Broken]) -> None:
    (check,) = (one for one in CHECKS if check_name(one) == MUTATIONS[kind])
    async with running() as registry:
        if kind is ListsAll:
            await suite.pushed(registry.lab, "another", "v1")
        inner = awaited(Registry, registry.lab.registry)
        with pytest.raises(AssertionError):
            await check(replace(registry.lab, registry=kind(inner)))
