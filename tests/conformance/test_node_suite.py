"""The suite of `node` against the service over all slots, and the mutations it must catch."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from tests.conformance.platform_suites import Wrapper, hold

from sagong.conformance import node as suite
from sagong.conformance.node import NodeLab
from sagong.contracts.node import (
    ContainerSpec,
    ContainerStatus,
    KillRequest,
    LogsRequest,
    Node,
    NodeQuery,
    Ref,
    RemoveRequest,
    StartRequest,
    StatusList,
    StatusState,
    StopRequest,
    UpdateSpec,
    WaitRequest,
    WaitResult,
)
from sagong.contracts.streams import Address
from sagong.errors import AlreadyExists, FailedPrecondition, NotFound

changed = msgspec.structs.replace


class RunsAgain(Wrapper[Node]):
    async def start(self, request: StartRequest) -> ContainerStatus:
        return await self._inner.start(changed(request, run=0))


class TakesAnother(Wrapper[Node]):
    async def create(self, spec: ContainerSpec) -> ContainerStatus:
        try:
            return await self._inner.create(spec)
        except AlreadyExists:
            return await self._inner.inspect(Ref(id=spec.id))


class NeverAsks(Wrapper[Node]):
    async def stop(self, request: StopRequest) -> ContainerStatus:
        return await self._inner.stop(changed(request, signal="KILL"))


class KillsTheDead(Wrapper[Node]):
    async def kill(self, request: KillRequest) -> None:
        try:
            await self._inner.kill(request)
        except FailedPrecondition:
            return


class PausesTwice(Wrapper[Node]):
    """Who is first is seen by who comes later, and not by who comes meanwhile."""

    async def pause(self, ref: Ref) -> None:
        paused = (await self._inner.inspect(ref)).state is StatusState.PAUSED
        try:
            await self._inner.pause(ref)
        except FailedPrecondition:
            if paused:
                raise


class StaysFrozen(Wrapper[Node]):
    async def kill(self, request: KillRequest) -> None:
        await self._inner.kill(request)
        if request.signal == "WINCH":
            with contextlib.suppress(FailedPrecondition):
                await self._inner.pause(Ref(id=request.id))


class NeverStays(Wrapper[Node]):
    async def stop(self, request: StopRequest) -> ContainerStatus:
        stopped: ContainerStatus = await self._inner.stop(request)
        if stopped.spec.restart.name == "always":
            await self._inner.start(StartRequest(id=request.id))
        return stopped


class RemovesWhatRuns(Wrapper[Node]):
    async def remove(self, request: RemoveRequest) -> None:
        await self._inner.remove(changed(request, force=True))


class TellsAll(Wrapper[Node]):
    async def list(self, query: NodeQuery) -> StatusList:
        return await self._inner.list(changed(query, begun=False))


class TellsOthers(Wrapper[Node]):
    async def list(self, query: NodeQuery) -> StatusList:
        return await self._inner.list(changed(query, owner=""))


class ForgetsFiles(Wrapper[Node]):
    async def create(self, spec: ContainerSpec) -> ContainerStatus:
        return await self._inner.create(changed(spec, files=()))


class ForgetsLimits(Wrapper[Node]):
    async def update(self, spec: UpdateSpec) -> ContainerStatus:
        return await self._inner.update(changed(spec, limits=None))


class WholeLogs(Wrapper[Node]):
    async def logs(self, request: LogsRequest) -> Address:
        return await self._inner.logs(changed(request, tail=-1))


class MixesLogs(Wrapper[Node]):
    async def logs(self, request: LogsRequest) -> Address:
        return await self._inner.logs(changed(request, stdout=True, stderr=True))


class RoundsTimes(Wrapper[Node]):
    async def logs(self, request: LogsRequest) -> Address:
        return await self._inner.logs(changed(request, since_nanos=request.since_nanos + 130))


class WritableRoots(Wrapper[Node]):
    async def create(self, spec: ContainerSpec) -> ContainerStatus:
        return await self._inner.create(changed(spec, readonly_root=False))


class ForgetsTheGone(Wrapper[Node]):
    async def wait(self, request: WaitRequest) -> AsyncIterator[WaitResult]:
        try:
            await self._inner.inspect(Ref(id=request.id))
        except NotFound:
            raise NotFound(f"no container {request.id}") from None
        async for result in self._inner.wait(request):
            yield result


BROKEN: dict[type, str] = {
    RunsAgain: "a_run_that_was_asked_for_begins_once",
    TakesAnother: "a_repeated_create_is_one",
    NeverAsks: "stop_asks_then_kills",
    KillsTheDead: "signals_reach_who_runs_alone",
    PausesTwice: "paused_ones_go_on",
    StaysFrozen: "a_signal_wakes_who_is_paused",
    NeverStays: "restart_policies",
    RemovesWhatRuns: "who_is_removed_is_gone",
    TellsAll: "lists_tell_what_has_begun",
    TellsOthers: "lists_tell_what_has_begun",
    ForgetsFiles: "command_and_surroundings_are_as_asked",
    ForgetsLimits: "limits_are_in_force_and_can_be_changed",
    WholeLogs: "logs_are_cut_and_followed",
    MixesLogs: "logs_are_cut_and_followed",
    RoundsTimes: "a_line_lies_within_its_own_time",
    WritableRoots: "the_root_can_be_read_only",
    ForgetsTheGone: "who_removes_itself_is_still_waited_for",
}


def broken(lab: NodeLab, kind: Any) -> NodeLab:
    """The lab with a broken node."""
    return replace(lab, node=kind(lab.node))


@pytest.mark.root
def test_the_node_and_broken_ones() -> None:
    hold("node", "node", suite, BROKEN, broken)
