"""What every provider of `node` must do; the lab has the slots below it and an image.

The image has `/bin/sh` with the usual small commands and a user `app` (1000:1000). Containers are
the checks' own, so one candidate can serve them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from sagong.contracts.network import JoinRequest
from sagong.contracts.node import (
    AccountQuery,
    Command,
    ContainerSpec,
    ContainerStatus,
    ExecRef,
    ExecSpec,
    FileMount,
    HostFile,
    KillRequest,
    LogsRequest,
    Node,
    NodeQuery,
    Ref,
    RemoveRequest,
    RestartPolicy,
    SandboxSpec,
    StartRequest,
    StatusState,
    StopRequest,
    UpdateSpec,
    WaitRequest,
    WaitResult,
)
from sagong.contracts.runtime import Limits
from sagong.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SagongError,
)
from sagong.frames import Frame, FrameReader
from sagong.log_frames import log_frames
from sagong.model.times import parse_nanos

__all__ = ["NodeLab"]

_MAKER, _OWNER = "suite", "suite/checks"


@dataclass(frozen=True)
class NodeLab:
    """The candidate and the name of an image."""

    node: Node
    image: str

    @contextlib.asynccontextmanager
    async def container(self, *args: str, **fields: Any) -> AsyncIterator[str]:
        """A container that was made, by its id; removed with its sandbox at last."""
        id_ = secrets.token_hex(32)
        command = fields.pop("command", Command(cmd=args))
        try:
            await self.node.create_sandbox(sandbox(id_))
            spec = ContainerSpec(id=id_, sandbox=id_, image=self.image, command=command, **fields)
            await self.node.create(spec)
            yield id_
        finally:
            with contextlib.suppress(NotFound):
                await self.node.remove(RemoveRequest(id=id_, force=True, volumes=True))
            await self.node.remove_sandbox(Ref(id=id_))

    @contextlib.asynccontextmanager
    async def running(self, *args: str, **fields: Any) -> AsyncIterator[str]:
        """A container that was started."""
        async with self.container(*args, **fields) as id_:
            await self.node.start(StartRequest(id=id_))
            yield id_

    async def ended(self, id_: str, condition: str = "not-running") -> WaitResult:
        """Wait for its end."""
        async for result in self.node.wait(WaitRequest(id=id_, condition=condition)):
            if not result.waiting:
                return result
        raise AssertionError("a wait ended without a result")

    async def output(self, id_: str, **fields: Any) -> tuple[str, str]:
        """What is in its log: standard output and error."""
        request = LogsRequest(id=id_, **fields)
        parts: dict[int, bytes] = {Frame.STDOUT: b"", Frame.STDERR: b""}
        address = await self.node.logs(request)
        async for frames in log_frames(self.node, request, address):
            for kind, data in frames:
                parts[kind] += data
        return parts[Frame.STDOUT].decode(), parts[Frame.STDERR].decode()

    async def told(self, *args: str, **fields: Any) -> str:
        """What a program writes that is run to its end."""
        async with self.running(*args, **fields) as id_:
            assert (await self.ended(id_)).code == 0
            return (await self.output(id_))[0]

    async def status(self, id_: str) -> ContainerStatus:
        """How it is."""
        return await self.node.inspect(Ref(id=id_))

    async def reaches(self, id_: str, holds: Callable[[ContainerStatus], bool]) -> ContainerStatus:
        """Its status as soon as it is as wanted."""
        for _ in range(1200):
            status = await self.status(id_)
            if holds(status):
                return status
            await asyncio.sleep(0.05)
        raise AssertionError(f"it did not become as wanted: {status}")

    async def says(self, id_: str, text: str) -> None:
        """Returns when that is in its log."""
        for _ in range(1200):
            if text in (found := await self.output(id_))[0]:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"it did not say {text!r}: {found}")


def sandbox(id_: str, **fields: Any) -> SandboxSpec:
    """One with no network but loopback."""
    return SandboxSpec(id=id_, owner=_OWNER, network=JoinRequest(id=id_, mode="none"), **fields)


async def refused(
    kind: type[SagongError] | tuple[type[SagongError], ...], work: Awaitable[object]
) -> SagongError:
    """The error that the work must end with."""
    try:
        await work
    except kind as error:
        return error
    raise AssertionError(f"was not refused; expected {kind}")


async def listed(lab: NodeLab, **fields: Any) -> set[str]:
    """Ids of containers."""
    found = await lab.node.list(NodeQuery(**fields))
    return {status.spec.id for status in found.containers}


# Lives.


async def check_a_container_runs_once_and_keeps_its_code(lab: NodeLab) -> None:
    async with lab.container("sh", "-c", "echo out; echo err >&2; exit 7") as id_:
        made = await lab.status(id_)
        assert (made.state, made.pid, made.run) == (StatusState.CREATED, 0, 0)
        await lab.node.start(StartRequest(id=id_))
        assert (await lab.ended(id_)).code == 7
        status = await lab.reaches(id_, lambda s: s.state is StatusState.EXITED)
        assert (status.code, status.pid, status.run) == (7, 0, 1)
        assert 0 < status.created_at <= status.started_at <= status.finished_at
        assert await lab.output(id_) == ("out\n", "err\n")


async def check_a_repeated_create_is_one(lab: NodeLab) -> None:
    async with lab.container("true") as id_:
        spec = (await lab.status(id_)).spec
        assert (await lab.node.create(spec)).spec.id == id_
        other = msgspec.structs.replace(spec, command=Command(cmd=("false",)))
        await refused(AlreadyExists, lab.node.create(other))
        assert (await lab.node.create_sandbox(sandbox(id_))).spec.id == id_


async def check_a_run_that_was_asked_for_begins_once(lab: NodeLab) -> None:
    async with lab.container("sh", "-c", "echo ran") as id_:
        for _ in range(2):
            await lab.node.start(StartRequest(id=id_, run=1))
            await lab.ended(id_)
        assert (await lab.status(id_)).run == 1
        assert (await lab.output(id_))[0] == "ran\n"
        await lab.node.start(StartRequest(id=id_, run=2))
        await lab.ended(id_)
        assert (await lab.status(id_)).run == 2


async def check_a_start_may_be_expected(lab: NodeLab) -> None:
    """It is the same start then; and what was made ready goes with who is removed instead."""
    async with lab.container("sh", "-c", "exit 4") as id_:
        for run in (1, 2):
            for _ in range(2):
                await lab.node.expect(Ref(id=id_))
            assert (await lab.status(id_)).run == run - 1
            await lab.node.start(StartRequest(id=id_))
            assert (await lab.ended(id_)).code == 4
        await lab.node.expect(Ref(id=id_))
    await refused(NotFound, lab.status(id_))


async def check_stop_asks_then_kills(lab: NodeLab) -> None:
    script = "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done"
    async with lab.running("sh", "-c", script) as id_:
        await lab.says(id_, "up\n")
        stopped = await lab.node.stop(StopRequest(id=id_, seconds=20))
        assert (stopped.state, stopped.code) == (StatusState.EXITED, 3)
        await lab.node.stop(StopRequest(id=id_))
    script = "trap '' TERM; echo up; while :; do sleep 0.05; done"
    async with lab.running("sh", "-c", script) as id_:
        await lab.says(id_, "up\n")
        stopped = await lab.node.stop(StopRequest(id=id_, seconds=0.2))
        assert (stopped.state, stopped.code) == (StatusState.EXITED, 137)


async def check_signals_reach_who_runs_alone(lab: NodeLab) -> None:
    async with lab.running("sleep", "600") as id_:
        await lab.node.kill(KillRequest(id=id_, signal="KILL"))
        assert (await lab.ended(id_)).code == 137
        await lab.reaches(id_, lambda s: s.state is StatusState.EXITED)
        await refused(FailedPrecondition, lab.node.kill(KillRequest(id=id_)))


async def check_paused_ones_go_on(lab: NodeLab) -> None:
    async with lab.running("sleep", "600") as id_:
        both = (lab.node.pause(Ref(id=id_)), lab.node.pause(Ref(id=id_)))
        answers = await asyncio.gather(*both, return_exceptions=True)
        assert [type(a) for a in answers if a is not None] == [FailedPrecondition], answers
        assert (await lab.status(id_)).state is StatusState.PAUSED
        await refused(FailedPrecondition, lab.node.pause(Ref(id=id_)))
        await lab.node.resume(Ref(id=id_))
        assert (await lab.status(id_)).state is StatusState.RUNNING
        await refused(FailedPrecondition, lab.node.resume(Ref(id=id_)))


async def check_a_signal_wakes_who_is_paused(lab: NodeLab) -> None:
    for named, state in (("", StatusState.RUNNING), ("TERM", StatusState.PAUSED)):
        async with lab.running("sleep", "600", stop_signal=named) as id_:
            await lab.node.pause(Ref(id=id_))
            await lab.node.kill(KillRequest(id=id_, signal="WINCH"))
            assert (await lab.status(id_)).state is state, named
            await lab.node.stop(StopRequest(id=id_, seconds=0))
            assert (await lab.status(id_)).state is StatusState.EXITED


async def check_restart_policies(lab: NodeLab) -> None:
    policy = RestartPolicy(name="on-failure", maximum=2)
    async with lab.running("sh", "-c", "echo run; exit 1", restart=policy) as id_:
        status = await lab.reaches(
            id_, lambda s: s.state is StatusState.EXITED and s.restart_count == 2
        )
        assert (status.code, status.run) == (1, 3)
        assert (await lab.output(id_))[0] == "run\n" * 3
    async with lab.running("sleep", "600", restart=RestartPolicy(name="always")) as id_:
        await lab.node.stop(StopRequest(id=id_, seconds=0))
        await asyncio.sleep(0.3)
        assert (await lab.status(id_)).state is StatusState.EXITED


async def check_restart_is_a_new_run(lab: NodeLab) -> None:
    async with lab.running("sleep", "600") as id_:
        before = await lab.status(id_)
        again = await lab.node.restart(StopRequest(id=id_, seconds=0))
        assert (again.state, again.run) == (StatusState.RUNNING, before.run + 1)
        assert again.pid not in (0, before.pid)


async def check_who_is_removed_is_gone(lab: NodeLab) -> None:
    async with lab.running("sleep", "600") as id_:
        await refused(FailedPrecondition, lab.node.remove(RemoveRequest(id=id_)))
        await refused(FailedPrecondition, lab.node.remove_sandbox(Ref(id=id_)))
        await lab.node.remove(RemoveRequest(id=id_, force=True))
        await refused(NotFound, lab.status(id_))
        await refused(NotFound, lab.node.remove(RemoveRequest(id=id_)))
        assert id_ not in await listed(lab)
    await lab.node.remove_sandbox(Ref(id=id_))
    await refused(NotFound, lab.node.sandbox(Ref(id=id_)))


async def check_who_removes_itself_is_still_waited_for(lab: NodeLab) -> None:
    async with lab.running("sh", "-c", "sleep 0.1; exit 4", remove=True) as id_:
        assert (await lab.ended(id_, "removed")).code == 4
        await refused(NotFound, lab.status(id_))
        assert (await lab.ended(id_, "removed")).code == 4


async def check_lists_tell_what_has_begun(lab: NodeLab) -> None:
    async with lab.container("true") as waits, lab.running("sleep", "600") as runs:
        assert {waits, runs} <= await listed(lab)
        for owner in (_MAKER, _OWNER):
            assert {waits, runs} <= await listed(lab, owner=owner)
        for other in ("nobody", f"{_MAKER}/others"):
            assert not {waits, runs} & await listed(lab, owner=other)
        begun = await listed(lab, begun=True)
        assert runs in begun and waits not in begun


# What they are given.


async def check_command_and_surroundings_are_as_asked(lab: NodeLab) -> None:
    script = "echo $A; pwd; id -u; id -g; cat /f; stat -c %a /f"
    command = Command(cmd=("sh", "-c", script), env=("A=b c",), cwd="/tmp", user="app")
    file = HostFile(target="/f", content=b"given\n", mode=0o640, uid=1000)
    said = await lab.told(command=command, files=(file,))
    assert said == "b c\n/tmp\n1000\n1000\ngiven\n640\n"


async def check_limits_are_in_force_and_can_be_changed(lab: NodeLab) -> None:
    async with lab.running("sleep", "600", limits=Limits(memory=64 << 20, pids=50)) as id_:
        assert (await lab.status(id_)).spec.limits.memory == 64 << 20
        await lab.node.update(UpdateSpec(id=id_, limits=Limits(memory=32 << 20)))
        changed = (await lab.status(id_)).spec.limits
        assert (changed.memory, changed.pids) == (32 << 20, 50)


async def check_volumes_keep_and_tmpfs_forgets(lab: NodeLab) -> None:
    name = f"suite-{secrets.token_hex(4)}"
    volume = FileMount(kind="volume", source=name, target="/v", anonymous=True)
    forgotten = FileMount(kind="tmpfs", target="/t")
    script = "cat /v/* /t/* 2>/dev/null; echo run >> /v/f; echo run >> /t/f"
    async with lab.running("sh", "-c", script, mounts=(volume, forgotten)) as id_:
        await lab.ended(id_)
        await lab.node.start(StartRequest(id=id_, run=2))
        await lab.ended(id_)
        assert (await lab.output(id_))[0] == "run\n"


async def check_the_root_can_be_read_only(lab: NodeLab) -> None:
    script = "touch /x 2>/dev/null || echo refused"
    assert await lab.told("sh", "-c", script, readonly_root=True) == "refused\n"


# Further processes, and looking in.


async def _streamed(lab: NodeLab, spec: ExecSpec) -> str:
    state = await lab.node.exec(spec)
    assert state.stream is not None
    reader, writer = await asyncio.open_unix_connection(state.stream.path)
    frames, said = FrameReader(), b""
    try:
        writer.write(state.stream.token.encode() + b"\n")
        while data := await reader.read(1 << 16):
            for kind, payload in frames.feed(data):
                said += payload if kind == Frame.STDOUT else b""
                if kind in (Frame.EXIT, Frame.EOF):
                    return said.decode()
    finally:
        writer.close()
    return said.decode()


async def check_further_processes_and_their_codes(lab: NodeLab) -> None:
    async with lab.running("sleep", "600") as id_:
        exec_id = secrets.token_hex(32)
        args = ("sh", "-c", "echo $A; id -u; exit 5")
        spec = ExecSpec(id=id_, exec_id=exec_id, args=args, env=("A=b",), user="1000")
        assert await _streamed(lab, spec) == "b\n1000\n"
        for _ in range(1200):
            state = await lab.node.exec_state(ExecRef(id=id_, exec_id=exec_id))
            if not state.running:
                break
            await asyncio.sleep(0.05)
        assert (state.running, state.code) == (False, 5)
        unknown = ExecRef(id=id_, exec_id="f" * 64)
        await refused(NotFound, lab.node.exec_state(unknown))
    async with lab.container("true") as id_:
        late = ExecSpec(id=id_, exec_id=secrets.token_hex(32), args=("true",))
        await refused(FailedPrecondition, lab.node.exec(late))


async def check_users_are_those_that_a_container_has_now(lab: NodeLab) -> None:
    made = "echo new:x:77:78::/:/bin/sh >> /etc/passwd; touch /done; exec sleep 600"
    command = Command(cmd=("sh", "-c", made), user="app")
    async with lab.container(command=msgspec.structs.replace(command, user="0")) as id_:
        await refused(InvalidArgument, lab.node.account(AccountQuery(id=id_, user="new")))
        await lab.node.start(StartRequest(id=id_))
        waiting = ("sh", "-c", "until [ -e /done ]; do sleep 0.02; done")
        spec = ExecSpec(id=id_, exec_id=secrets.token_hex(32), args=waiting)
        await _streamed(lab, spec)
        found = await lab.node.account(AccountQuery(id=id_, user="new"))
        assert (found.uid, found.gid) == (77, 78)
        args = ("sh", "-c", "id -u")
        spec = ExecSpec(id=id_, exec_id=secrets.token_hex(32), args=args, user="new")
        assert await _streamed(lab, spec) == "77\n"
    async with lab.container(command=command) as id_:
        own = await lab.node.account(AccountQuery(id=id_))
        assert (own.uid, own.gid) == (1000, 1000)


async def check_processes_are_told(lab: NodeLab) -> None:
    async with lab.running("sleep", "600") as id_:
        found = await lab.node.top(Ref(id=id_))
        assert (await lab.status(id_)).pid in {pid for pid, _ in found.processes}
        await lab.node.stop(StopRequest(id=id_, seconds=0))
        await refused(FailedPrecondition, lab.node.top(Ref(id=id_)))


async def check_logs_are_cut_and_followed(lab: NodeLab) -> None:
    script = "for i in 1 2 3; do echo $i; done; sleep 0.3; echo last"
    async with lab.running("sh", "-c", script) as id_:
        followed = await asyncio.wait_for(lab.output(id_, follow=True), 60)
        assert followed[0] == "1\n2\n3\nlast\n"
        assert (await lab.output(id_, tail=2))[0] == "3\nlast\n"
        assert (await lab.output(id_, stdout=False))[0] == ""


async def check_a_line_lies_within_its_own_time(lab: NodeLab) -> None:
    """A stamp has nanoseconds, of which a float of seconds would round every other away."""
    script = "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.01; done"
    async with lab.running("sh", "-c", script) as id_:
        await lab.ended(id_)
        lines = [line.split() for line in (await lab.output(id_, timestamps=True))[0].splitlines()]
        stamps = [parse_nanos(stamp) for stamp, _ in lines]
        for stamp in stamps:
            for bounds, within in (
                ({"since_nanos": stamp}, [at >= stamp for at in stamps]),
                ({"until_nanos": stamp}, [at <= stamp for at in stamps]),
            ):
                told = (await lab.output(id_, **bounds))[0].split()
                assert told == [
                    word for (_, word), holds in zip(lines, within, strict=True) if holds
                ]


# What is refused.


async def check_what_is_not_there_is_said(lab: NodeLab) -> None:
    ref = Ref(id="e" * 64)
    for work in (
        lab.node.inspect(ref),
        lab.node.expect(ref),
        lab.node.start(StartRequest(id=ref.id)),
        lab.node.stop(StopRequest(id=ref.id)),
        lab.node.pause(ref),
        lab.node.top(ref),
        lab.node.logs(LogsRequest(id=ref.id)),
        lab.node.update(UpdateSpec(id=ref.id)),
        lab.node.sandbox(ref),
    ):
        await refused(NotFound, work)
    await lab.node.remove_sandbox(ref)


async def check_a_container_needs_image_and_sandbox(lab: NodeLab) -> None:
    id_ = secrets.token_hex(32)
    spec = ContainerSpec(id=id_, sandbox=id_, image=lab.image)
    await refused(NotFound, lab.node.create(spec))
    await lab.node.create_sandbox(sandbox(id_))
    try:
        missing = msgspec.structs.replace(spec, image="no.such/image:1")
        error = await refused(NotFound, lab.node.create(missing))
        assert "No such image: no.such/image:1" in error.message
        await refused(NotFound, lab.node.inspect(Ref(id=id_)))
    finally:
        await lab.node.remove_sandbox(Ref(id=id_))


async def check_a_program_that_is_not_there_can_be_tried_again(lab: NodeLab) -> None:
    async with lab.container("no-such-program") as id_:
        for _ in range(2):
            await refused((InvalidArgument, NotFound, FailedPrecondition), _start(lab, id_))
        status = await lab.status(id_)
        assert status.pid == 0 and "no-such-program" in status.error


async def _start(lab: NodeLab, id_: str) -> ContainerStatus:
    return await lab.node.start(StartRequest(id=id_))
