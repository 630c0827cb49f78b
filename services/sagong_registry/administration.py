"""Slot `registry`: the operator's side."""

from __future__ import annotations

import msgspec

from sagong.contracts import registry as contract
from sagong.contracts.registry import (
    Account,
    AccountList,
    AccountRef,
    Collected,
    CollectRequest,
    ManifestSummary,
    RepositoryDetail,
    RepositoryList,
    RepositoryQuery,
    RepositoryRef,
    TagSummary,
    VisibilityRequest,
)
from sagong.errors import InvalidArgument, NotFound
from sagong_registry.accounts import checked
from sagong_registry.catalog import Change, Key
from sagong_registry.depot import Depot
from sagong_registry.housekeeping import Housekeeping
from sagong_registry.record import AccountRecord, ManifestRecord
from sagong_registry.repository import Repository

__all__ = ["Administration"]

_MOST = 10_000


class Administration:
    """Answers from the catalog; collects by the housekeeping."""

    def __init__(self, depot: Depot, housekeeping: Housekeeping) -> None:
        self._depot = depot
        self._housekeeping = housekeeping

    async def repositories(self, query: RepositoryQuery) -> RepositoryList:
        """List repositories."""
        if not 0 < query.limit <= _MOST:
            raise InvalidArgument(f"limit {query.limit}: give 1 to {_MOST}")
        names = sorted(
            r.name
            for r in self._depot.catalog.repositories.values()
            if r.known and r.name.startswith(query.prefix) and r.name > query.after
        )
        shown = tuple(self._shown(self._found(name)) for name in names[: query.limit])
        return RepositoryList(repositories=shown, more=len(names) > query.limit)

    async def describe(self, repository: RepositoryRef) -> RepositoryDetail:
        """A repository with its tags and manifests."""
        found = self._found(repository.name)
        return RepositoryDetail(
            repository=self._shown(found),
            tags=tuple(
                TagSummary(tag=tag, digest=record.digest, pushed=record.pushed)
                for tag, record in sorted(found.tags.items())
            ),
            manifests=tuple(
                _summary(found, digest, record)
                for digest, record in sorted(found.manifests.items(), key=lambda x: x[1].pushed)
            ),
        )

    async def set_visibility(self, request: VisibilityRequest) -> contract.Repository:
        """Show or hide a repository."""
        self._found(request.name)

        def plan() -> Change:
            record = self._found(request.name).record
            if record is None:
                raise NotFound(f"no repository {request.name}")
            key = Key.repository(request.name)
            changed = msgspec.structs.replace(record, visibility=str(request.visibility))
            return Change(puts={key: changed}, holds={key: record.revision})

        await self._depot.catalog.change(plan)
        return self._shown(self._found(request.name))

    async def remove(self, repository: RepositoryRef) -> None:
        """Remove a repository with all in it."""
        await self._depot.remove_repository(repository.name)

    async def accounts(self) -> AccountList:
        """Who has an account."""
        listed = self._depot.gate.accounts.listed
        names = {*self._depot.catalog.accounts, *listed}
        return AccountList(names=tuple(sorted(names)), configured=tuple(sorted(listed)))

    async def set_account(self, account: Account) -> None:
        """Make an account, or change its password."""
        record = AccountRecord(hash=checked(account.name, account.hash))
        await self._depot.catalog.commit(Change(puts={Key.account(account.name): record}))

    async def remove_account(self, account: AccountRef) -> None:
        """Remove an account."""
        await self._depot.catalog.commit(Change(deletes={Key.account(account.name)}))

    async def collect(self, request: CollectRequest) -> Collected:
        """Remove what nobody needs."""
        return await self._housekeeping.collect(request)

    def _found(self, name: str) -> Repository:
        found = self._depot.catalog.repository(name)
        if found is None:
            raise NotFound(f"no repository {name}; see `sagong registry list`")
        return found

    def _shown(self, found: Repository) -> contract.Repository:
        record = found.record
        visibility = record.visibility if record else ""
        return contract.Repository(
            name=found.name,
            public=self._depot.gate.policy.is_public(found.name, visibility),
            visibility=contract.Visibility(visibility),
            description=record.description if record else "",
            tags=len(found.tags),
            manifests=len(found.manifests),
            blobs=len(found.blobs),
            size=found.size,
            changed=max(record.changed, record.created) if record else 0.0,
        )


def _summary(found: Repository, digest: str, record: ManifestRecord) -> ManifestSummary:
    sizes = (found.blobs[one].size for one in record.blobs if one in found.blobs)
    return ManifestSummary(
        digest=digest,
        media_type=record.media_type,
        artifact_type=record.artifact_type,
        size=record.size + sum(sizes),
        pushed=record.pushed,
        subject=record.subject,
    )
