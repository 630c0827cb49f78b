"""runtime_linux broken in one way each: the runtime suite must catch every one.

A fake of a runtime would have to be a runtime: what the suite looks at is what the kernel shows
inside real containers. So the real one is broken, one promise at a time.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from sagong.contracts.runtime import (
    AttachRequest,
    Container,
    ContainerRef,
    ExecRequest,
    ExecStatus,
    Limits,
    Process,
    ProcessList,
    RunSpec,
    SignalRequest,
)
from sagong.contracts.streams import Address
from sagong.errors import Internal, SagongError
from sagong.shim.records import Record
from sagong_runtime_linux import RuntimeLinux

__all__ = ["MUTATIONS"]


class ChangesTheProcess(RuntimeLinux):
    """Base of those that start something else than asked for."""

    def changed(self, process: Process) -> Process:
        return process

    async def run(self, spec: RunSpec) -> Container:
        return await super().run(replace(spec, process=self.changed(spec.process)))


class ForgetsTheEnvironment(ChangesTheProcess):
    caught_by = "environment_is_as_given"

    def changed(self, process: Process) -> Process:
        return replace(process, env=process.env[:1])


class AddsToTheEnvironment(ChangesTheProcess):
    caught_by = "environment_is_as_given"

    def changed(self, process: Process) -> Process:
        return replace(process, env=(*process.env, "LEAKED=1"))


class ForgetsTheDirectory(ChangesTheProcess):
    caught_by = "working_directory_is_made"

    def changed(self, process: Process) -> Process:
        return replace(process, cwd="/")


class GivesMoreCapabilities(ChangesTheProcess):
    caught_by = "capabilities_of_root"

    def changed(self, process: Process) -> Process:
        return replace(process, capabilities=(*process.capabilities, "CAP_SYS_ADMIN"))


class KeepsCapabilitiesAmbient(ChangesTheProcess):
    caught_by = "capabilities_of_others"

    def changed(self, process: Process) -> Process:
        return replace(process, ambient=True)


class AlwaysForbidsNewPrivileges(ChangesTheProcess):
    caught_by = "new_privileges_only_forbidden_when_asked"

    def changed(self, process: Process) -> Process:
        return replace(process, no_new_privileges=True)


class ForgetsRlimits(ChangesTheProcess):
    caught_by = "rlimits_and_umask"

    def changed(self, process: Process) -> Process:
        return replace(process, rlimits=())


class ChangesTheSpec(RuntimeLinux):
    """Base of those that forget a part of the spec."""

    forgotten: dict[str, Any]

    async def run(self, spec: RunSpec) -> Container:
        return await super().run(replace(spec, **self.forgotten))


class ForgetsSeccomp(ChangesTheSpec):
    caught_by = "seccomp_is_on"
    forgotten = {"seccomp": "unconfined"}


class ForgetsMasks(ChangesTheSpec):
    caught_by = "masked_and_readonly_paths"
    forgotten = {"masked_paths": ()}


class LeavesTheRootWritable(ChangesTheSpec):
    caught_by = "readonly_root"
    forgotten = {"readonly_root": False}


class ForgetsLimits(ChangesTheSpec):
    caught_by = "limits_are_in_force"
    forgotten = {"limits": Limits()}


class LosesEarlyOutput(ChangesTheSpec):
    caught_by = "expected_attach_loses_nothing"
    forgotten = {"expect_attach": False}


class AnswersWithoutInput(ChangesTheSpec):
    caught_by = "a_run_answers_with_the_streams_that_it_expects"
    forgotten = {"attach_stdin": False}


class AnswersWithInputUnasked(ChangesTheSpec):
    caught_by = "a_run_without_input_leaves_it_open"
    forgotten = {"attach_stdin": True}


class StartsWhatIsPrepared(RuntimeLinux):
    caught_by = "nothing_runs_before_its_run_is_asked_for"

    async def prepare(self, spec: RunSpec) -> None:
        await self.run(spec)


class KeepsWhatIsDiscarded(RuntimeLinux):
    caught_by = "what_is_discarded_or_removed_leaves_nothing"

    async def discard(self, container: ContainerRef) -> None:
        return


class LetsTheFormerGo(RuntimeLinux):
    caught_by = "a_run_of_another_spec_is_that_one"

    async def run(self, spec: RunSpec) -> Container:
        known = self._records.get(spec.id)
        if known is not None and known.prepared:
            spec = replace(known.spec, expect_attach=spec.expect_attach)
        return await super().run(spec)


class DiscardsWhatRuns(RuntimeLinux):
    caught_by = "discarding_what_runs_or_is_not_there_does_nothing"

    async def discard(self, container: ContainerRef) -> None:
        await self.remove(container)


class SwallowsSignals(RuntimeLinux):
    caught_by = "bad_signal_is_refused"

    async def signal(self, request: SignalRequest) -> None:
        if request.signal == 9:
            await super().signal(request)


class TellsTheEndTwice(RuntimeLinux):
    caught_by = "end_is_told_once"

    def _ended(self, record: Record, facts: dict[str, Any]) -> None:
        super()._ended(record, facts)
        if record.exit is not None:
            self._host.emit(record.exit)


class CutsCodes(RuntimeLinux):
    caught_by = "exit_codes_are_the_programs"

    def _ended(self, record: Record, facts: dict[str, Any]) -> None:
        super()._ended(record, {**facts, "code": facts["code"] & 0x7F})


class StartsTwice(RuntimeLinux):
    caught_by = "run_again_is_the_same_run"

    async def run(self, spec: RunSpec) -> Container:
        await self.remove(ContainerRef(id=spec.id))
        return await super().run(spec)


class NeverReplays(RuntimeLinux):
    caught_by = "replay_gives_the_past_and_the_present"

    async def attach(self, request: AttachRequest) -> Address:
        return await super().attach(replace(request, replay=False))


class LetsEveryClientWrite(RuntimeLinux):
    caught_by = "a_client_without_stdin_can_not_write"

    async def attach(self, request: AttachRequest) -> Address:
        return await super().attach(replace(request, stdin=True))


class PausesInName(RuntimeLinux):
    caught_by = "pause_stops_everything"

    async def pause(self, container: ContainerRef) -> None:
        self._set_paused(self._books.running(container.id), paused=True)


class ShowsPidsAlone(RuntimeLinux):
    caught_by = "processes_are_shown_as_ps_does"

    async def processes(self, container: ContainerRef) -> ProcessList:
        return replace(await super().processes(container), facts=())


class RunsExecsAgain(RuntimeLinux):
    caught_by = "exec_status_is_kept"

    async def exec(self, request: ExecRequest) -> ExecStatus:
        """Under another name: by its own a monitor would know it."""
        known = request.exec_id in self._books.find(request.id).execs
        name = f"{request.exec_id}-again" if known else request.exec_id
        return replace(await super().exec(replace(request, exec_id=name)), exec_id=request.exec_id)


class HasItsOwnWords(RuntimeLinux):
    caught_by = "errors_are_in_dockers_words"

    async def run(self, spec: RunSpec) -> Container:
        try:
            return await super().run(spec)
        except SagongError as error:
            raise Internal(f"start failed: {error.code}") from None


class AdoptsNothing(RuntimeLinux):
    caught_by = "successor_adopts"

    async def _adopt_all(self) -> None:
        return


class ForgetsToRemove(RuntimeLinux):
    caught_by = "list_shows_running_and_exited"

    async def remove(self, container: ContainerRef) -> None:
        record = self._records.get(container.id)
        await super().remove(container)
        if record is not None and not self._closing:
            self._records[container.id] = record

    _closing = False

    async def stop(self) -> None:
        self._closing = True
        await super().stop()


MUTATIONS = (
    AddsToTheEnvironment,
    AdoptsNothing,
    AlwaysForbidsNewPrivileges,
    CutsCodes,
    ForgetsLimits,
    ForgetsMasks,
    ForgetsRlimits,
    ForgetsSeccomp,
    ForgetsTheDirectory,
    ForgetsTheEnvironment,
    ForgetsToRemove,
    GivesMoreCapabilities,
    HasItsOwnWords,
    KeepsCapabilitiesAmbient,
    LeavesTheRootWritable,
    LetsEveryClientWrite,
    LosesEarlyOutput,
    NeverReplays,
    PausesInName,
    RunsExecsAgain,
    ShowsPidsAlone,
    StartsTwice,
    SwallowsSignals,
    TellsTheEndTwice,
)
