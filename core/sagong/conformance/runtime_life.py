"""Checks of the runtime suite: start, end, signals, pause, errors, adoption, cleaning up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sagong.call import leaving
from sagong.conformance.runtime_lab import (
    PATH,
    PATIENCE,
    RuntimeLab,
    raises,
    standard_mounts,
    wait_until,
)
from sagong.contracts.runtime import (
    AttachRequest,
    ContainerRef,
    ContainerState,
    ExecRequest,
    Limits,
    Mount,
    Process,
    ResizeRequest,
    ShowRequest,
    SignalRequest,
    UpdateRequest,
    User,
)
from sagong.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SagongError,
)
from sagong.linux import syscalls


async def check_exit_codes_are_the_programs(lab: RuntimeLab) -> None:
    """0 to 255, in the event, in wait and in inspect."""
    for code in (0, 1, 42, 127, 255):
        spec = lab.spec(f"exit {code}")
        await lab.runtime.run(spec)
        ended = await lab.ended(spec.id)
        assert (ended.id, ended.run, ended.code) == (spec.id, 1, code)
        found = await lab.runtime.inspect(ContainerRef(id=spec.id))
        assert (found.state, found.code) == (ContainerState.EXITED, code)
        assert found.finished_at >= found.started_at > 0


async def check_signals_give_128_and_their_number(lab: RuntimeLab) -> None:
    """A killed program ends as in a shell."""
    for number in (signal.SIGKILL, signal.SIGTERM):
        # A shell's child, since the first process ignores what it does not handle.
        spec = lab.spec(f"sh -c 'kill -{int(number)} $$'; exit $?")
        assert (await lab.output(spec)).code == 128 + number
    container = await lab.running()
    await lab.runtime.signal(SignalRequest(id=container.id, signal=9))
    assert (await lab.ended(container.id)).code == 137


async def check_run_again_is_the_same_run(lab: RuntimeLab) -> None:
    """The same (id, run) has the effect of one, also after its end."""
    spec = lab.spec(lab.process("sleep", "1000"))
    first = await lab.runtime.run(spec)
    again = await lab.runtime.run(spec)
    assert (again.pid, again.started_at) == (first.pid, first.started_at)
    await lab.runtime.signal(SignalRequest(id=spec.id, signal=9))
    await lab.ended(spec.id)
    assert (await lab.runtime.run(spec)).state == ContainerState.EXITED


async def check_same_run_at_once_is_one(lab: RuntimeLab) -> None:
    """Concurrent calls start one container."""
    spec = lab.spec(lab.process("sleep", "1000"))
    found = await asyncio.gather(*(lab.runtime.run(spec) for _ in range(3)))
    assert len({c.pid for c in found}) == 1


async def check_another_run_waits_for_the_end(lab: RuntimeLab) -> None:
    """AlreadyExists while a run lives, a fresh start after."""
    spec = lab.spec(lab.process("sleep", "1000"))
    await lab.runtime.run(spec)
    second = lab.spec("exit 9", id=spec.id, run=2)
    with raises(AlreadyExists):
        await lab.runtime.run(second)
    await lab.runtime.signal(SignalRequest(id=spec.id, signal=9))
    await lab.ended(spec.id)
    await lab.runtime.run(second)
    ended = await lab.ended(spec.id)
    assert (ended.run, ended.code) == (2, 9)


async def check_end_is_told_once(lab: RuntimeLab) -> None:
    """One Exited for each run."""
    spec = lab.spec("exit 3")
    await lab.runtime.run(spec)
    await lab.ended(spec.id)
    await wait_until(lambda: bool(lab.exits_of(spec.id)), "Exited")
    await asyncio.sleep(0.1)
    assert [(e.run, e.code) for e in lab.exits_of(spec.id)] == [(1, 3)]


async def check_wait_waits(lab: RuntimeLab) -> None:
    """Nothing before the end, one item at it, at once after it."""
    container = await lab.running()
    waiting = asyncio.ensure_future(lab.ended(container.id))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await lab.runtime.signal(SignalRequest(id=container.id, signal=9))
    assert (await asyncio.wait_for(waiting, 40)).code == 137
    assert (await asyncio.wait_for(lab.ended(container.id), 40)).code == 137


async def check_signal_reaches_the_first_process(lab: RuntimeLab) -> None:
    """What it traps, it gets."""
    spec = lab.spec("trap 'echo got; exit 4' TERM; echo ready; while :; do sleep 0.05; done")
    stream = await lab.attached(spec)
    await stream.until(b"ready")
    await lab.runtime.signal(SignalRequest(id=spec.id, signal=int(signal.SIGTERM)))
    found = await stream.rest()
    assert found.code == 4
    assert b"got" in found.stdout
    with raises(NotFound):
        await lab.runtime.signal(SignalRequest(id=spec.id, signal=9))


async def check_bad_signal_is_refused(lab: RuntimeLab) -> None:
    """InvalidArgument for a number that no signal has."""
    container = await lab.running()
    with raises(InvalidArgument):
        await lab.runtime.signal(SignalRequest(id=container.id, signal=99))


async def check_signal_to_all_reaches_all(lab: RuntimeLab) -> None:
    """Children get it too."""
    waits = "while :; do sleep 0.05; done"
    script = f"sh -c 'trap \"echo child; exit\" USR1; echo one; {waits}' & "
    script += f"trap 'echo first; wait; exit 0' USR1; echo two; {waits}"
    spec = lab.spec(script)
    stream = await lab.attached(spec)
    for word in (b"one", b"two"):
        await stream.until(word)
    await lab.runtime.signal(SignalRequest(id=spec.id, signal=int(signal.SIGUSR1), all=True))
    found = await stream.rest()
    assert b"child" in found.stdout
    assert b"first" in found.stdout


async def check_pause_stops_everything(lab: RuntimeLab) -> None:
    """Frozen processes do nothing; resumed they go on; both twice are no error."""
    shared = lab.scratch / "ticks"
    shared.mkdir()
    mounts = (*standard_mounts(lab.root()), Mount(target="/mnt", kind="bind", source=str(shared)))
    spec = lab.spec("while :; do echo >> /mnt/n; echo tick; sleep 0.02; done", mounts=mounts)
    stream = await lab.attached(spec)
    await stream.until(b"tick")
    ref = ContainerRef(id=spec.id)
    for _ in range(2):
        await lab.runtime.pause(ref)
    assert (await lab.runtime.inspect(ref)).state == ContainerState.PAUSED
    # What it said before may be under way still; what it does is seen at once.
    before = (shared / "n").stat().st_size
    second = await lab.attach(spec.id)
    await asyncio.sleep(0.3)
    assert (shared / "n").stat().st_size == before, "it goes on while it is paused"
    for _ in range(2):
        await lab.runtime.resume(ref)
    assert (await lab.runtime.inspect(ref)).state == ContainerState.RUNNING
    await wait_until(lambda: (shared / "n").stat().st_size > before, "it goes on")
    await second.until(b"tick")
    for each in (stream, second):
        await each.close()


async def check_who_is_killed_while_paused_ends(lab: RuntimeLab) -> None:
    """By whoever; a pause that finds it so does not hold it, and its next run begins."""
    spec = lab.spec(lab.process("sleep 1000 & sleep 1000"))
    container = await lab.runtime.run(spec)
    reference = ContainerRef(id=spec.id)
    await lab.runtime.pause(reference)
    os.kill(container.pid, signal.SIGKILL)
    with contextlib.suppress(NotFound):
        await lab.runtime.pause(reference)
    async with asyncio.timeout(PATIENCE):
        assert (await lab.ended(spec.id)).code == 128 + signal.SIGKILL
    await lab.runtime.run(msgspec.structs.replace(spec, run=2))
    assert (await lab.exec_output(spec.id, lab.process("echo on"))).lines == ["on"]


async def check_paused_can_be_killed(lab: RuntimeLab) -> None:
    """SIGKILL ends a frozen container; remove does, too."""
    container = await lab.running()
    await lab.runtime.pause(ContainerRef(id=container.id))
    await lab.runtime.signal(SignalRequest(id=container.id, signal=9))
    assert (await asyncio.wait_for(lab.ended(container.id), 40)).code == 137
    other = await lab.running()
    await lab.runtime.pause(ContainerRef(id=other.id))
    await lab.runtime.remove(ContainerRef(id=other.id))


async def check_processes_are_the_containers(lab: RuntimeLab) -> None:
    """Pids as the host sees them: the first one and its children."""
    spec = lab.spec("sleep 1000 & sleep 1000 & echo ready; wait")
    stream = await lab.attached(spec)
    await stream.until(b"ready")
    container = await lab.runtime.inspect(ContainerRef(id=spec.id))
    found = (await lab.runtime.processes(ContainerRef(id=spec.id))).pids
    assert container.pid in found
    assert len(found) == 3
    await stream.close()


async def check_processes_are_shown_as_ps_does(lab: RuntimeLab) -> None:
    """Parent, user, words, state and start; what the program's own name is may hold anything."""
    # Between fork and exec the child is a second shell.
    executed = "until [ $(cat /proc/$!/comm) = sleep ]; do :; done"
    script = f"sleep 1000 & {executed}; echo ready; wait"
    process = lab.process(script, user=User(uid=1234, gid=1234))
    stream = await lab.attached(lab.spec(process))
    await stream.until(b"ready")
    container = await lab.runtime.inspect(ContainerRef(id=lab.made[-1]))
    found = await lab.runtime.processes(ContainerRef(id=container.id))
    facts = {fact.pid: fact for fact in found.facts}
    assert sorted(facts) == sorted(found.pids), f"facts of {sorted(facts)}, pids {found.pids}"
    first = facts.pop(container.pid)
    assert first.args == ("sh", "-c", script), f"args {first.args}"
    assert first.user == 1234, f"user {first.user}"
    (child,) = facts.values()
    assert (child.parent, child.args) == (first.pid, ("sleep", "1000")), f"child {child}"
    assert child.state in "SRD", f"state {child.state!r}"
    uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert uptime - 60 < first.started <= child.started <= uptime + 1, f"started {first.started}"
    await stream.close()


async def check_list_shows_running_and_exited(lab: RuntimeLab) -> None:
    """Until removed."""
    running = await lab.running(labels=(("a", "b"),))
    gone = lab.spec("true")
    await lab.runtime.run(gone)
    await lab.ended(gone.id)
    found = {c.id: c for c in (await lab.runtime.list()).containers}
    assert found[running.id].state == ContainerState.RUNNING
    assert found[running.id].labels == (("a", "b"),)
    assert found[gone.id].state == ContainerState.EXITED
    await lab.runtime.remove(ContainerRef(id=gone.id))
    assert gone.id not in {c.id for c in (await lab.runtime.list()).containers}


async def check_remove_leaves_nothing(lab: RuntimeLab) -> None:
    """No process, no cgroup, no record; again, or of a stranger, is no error."""
    spec = lab.spec("sleep 1000 & sleep 1000")
    container = await lab.runtime.run(spec)
    await lab.runtime.processes(ContainerRef(id=spec.id))
    for _ in range(2):
        await lab.runtime.remove(ContainerRef(id=spec.id))
    assert not Path(f"/proc/{container.pid}").exists()
    assert not cgroups_of(spec.id), cgroups_of(spec.id)
    with raises(NotFound):
        await lab.runtime.inspect(ContainerRef(id=spec.id))
    await lab.runtime.remove(ContainerRef(id="nobody"))


def cgroups_of(container_id: str) -> list[str]:
    """Directories of cgroups whose name holds the id."""
    found = []
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        found += [f"{directory}/{name}" for name in names if container_id in name]
    return found


async def check_a_start_that_nobody_waits_for_can_be_removed(lab: RuntimeLab) -> None:
    """Whatever was begun when its caller went away, the removal ends it, at once."""
    for pause in (0.0, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016):
        spec = lab.spec("sleep 600")
        starting = asyncio.ensure_future(lab.runtime.run(spec))
        await asyncio.sleep(pause)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        async with asyncio.timeout(40.0):
            await lab.runtime.remove(ContainerRef(id=spec.id))
        assert spec.id not in {c.id for c in (await lab.runtime.list()).containers}
        with raises(NotFound):
            await lab.runtime.inspect(ContainerRef(id=spec.id))


async def check_stranger_is_not_found(lab: RuntimeLab) -> None:
    """Every method that needs a container says so."""
    runtime, ref = lab.runtime, ContainerRef(id="nobody")
    calls = (
        runtime.inspect(ref),
        runtime.processes(ref),
        runtime.pause(ref),
        runtime.resume(ref),
        runtime.attach(AttachRequest(id="nobody")),
        runtime.signal(SignalRequest(id="nobody", signal=9)),
        runtime.resize(ResizeRequest(id="nobody", rows=1, columns=1)),
        runtime.update(UpdateRequest(id="nobody", limits=Limits(pids=5))),
        runtime.exec(ExecRequest(id="nobody", exec_id="x", process=Process(args=("true",)))),
        lab.ended("nobody"),
    )
    for call in calls:
        with raises(NotFound):
            await call


# What is executed, the error, and the words that users (and the docker CLI) know.
REFUSALS: tuple[tuple[tuple[str, ...], type[SagongError], str], ...] = (
    (("nonsense", "x"), NotFound, 'exec: "nonsense": executable file not found in $PATH'),
    (("/no/such", "x"), NotFound, "no such file or directory"),
    (("/etc/passwd", "x"), FailedPrecondition, "permission denied"),
    # Some runtimes call it "is a directory", some "permission denied".
    (("/etc", "x"), FailedPrecondition, 'exec: "/etc": '),
)


async def check_errors_are_in_dockers_words(lab: RuntimeLab) -> None:
    """The text tells what is wrong; nothing is left of the attempt."""
    for args, kind, text in REFUSALS:
        spec = lab.spec(lab.process(*args))
        with raises(kind, text):
            await lab.runtime.run(spec)
        assert spec.id not in {c.id for c in (await lab.runtime.list()).containers}
        assert not cgroups_of(spec.id), cgroups_of(spec.id)
        assert not lab.exits_of(spec.id)
        with raises(NotFound):
            await lab.runtime.inspect(ContainerRef(id=spec.id))


async def check_failed_start_can_be_tried_again(lab: RuntimeLab) -> None:
    """The id and run are free after an error."""
    bad = lab.spec(lab.process("nonsense", "x"))
    with raises(NotFound):
        await lab.runtime.run(bad)
    assert (await lab.output(lab.spec("exit 6", id=bad.id))).code == 6


async def check_missing_source_is_refused(lab: RuntimeLab) -> None:
    """A bind mount of nothing says which path; the option `source` makes it."""
    missing = lab.scratch / "missing"
    bind = Mount(target="/data", kind="bind", source=str(missing), options=("rbind",))
    mounts = (*standard_mounts(lab.root()), bind)
    with raises(InvalidArgument, str(missing)):
        await lab.runtime.run(lab.spec("true", mounts=mounts))
    made = Mount(target="/data", kind="bind", source=str(missing), options=("rbind", "source"))
    mounts = (*standard_mounts(lab.root()), made)
    assert (await lab.shell("ls -d /data", mounts=mounts)).text == "/data"
    assert missing.is_dir()


async def check_the_machine_is_shown_while_it_is_asked(lab: RuntimeLab) -> None:
    """Directories with what is mounted below, and files; gone with the stream."""
    source = lab.scratch / "seen"
    (source / "below").mkdir(parents=True)
    (source / "file").write_text("content\n")
    request = ShowRequest(sources=(str(source), str(source / "file")))
    with mounted_tmpfs(source / "below"):
        (source / "below/deep").write_text("deep\n")
        async with leaving(lab.runtime.show(request)) as stream:
            directory, file = map(Path, (await anext(stream)).paths)
            assert (directory / "below/deep").read_text() == "deep\n"
            assert file.read_text() == "content\n"
            for place in (directory, directory / "below", file):
                assert os.statvfs(place).f_flag & os.ST_NODEV, "a device could be opened"
            (directory / "new").write_text("new\n")
        await wait_until(lambda: not directory.exists() and not file.exists(), "it is hidden")
        assert (source / "below/deep").exists(), "what is mounted on the machine has gone"
    assert (source / "new").read_text() == "new\n"
    with raises(NotFound, "missing"):
        await anext(lab.runtime.show(ShowRequest(sources=(str(lab.scratch / "missing"),))))
    made = str(lab.scratch / "not/yet/there")
    async with leaving(lab.runtime.show(ShowRequest(sources=(made,), made=(made,)))) as stream:
        assert (await anext(stream)).paths and os.path.isdir(made), "what a start makes is missing"
    with raises(InvalidArgument):
        await anext(lab.runtime.show(ShowRequest(sources=("relative",))))


@contextlib.contextmanager
def mounted_tmpfs(place: Path) -> Iterator[None]:
    """A filesystem of the machine's own."""
    syscalls.mount("none", str(place), "tmpfs")
    try:
        yield
    finally:
        syscalls.umount(str(place))


async def check_bad_spec_is_refused(lab: RuntimeLab) -> None:
    """InvalidArgument before anything is done."""
    for changes in (
        {"mounts": (Mount(target="/x", kind="tmpfs"),)},
        {"sysctls": (("kernel.panic", "1"),)},
        {"process": Process(args=(), env=(PATH,))},
        {"seccomp": "{not json"},
        {"process": lab.process("true", user=User(uid=1 << 32))},
        {"process": lab.process("true", user=User(groups=(-1,)))},
    ):
        process = changes.pop("process", lab.process("true"))
        with raises(InvalidArgument):
            await lab.runtime.run(lab.spec(process, **changes))  # type: ignore[arg-type]


async def check_successor_adopts(lab: RuntimeLab) -> None:
    """Containers outlive the plugin: list, attach, exec and the end are all still there."""
    if lab.restart is None:
        return
    spec = lab.spec(lab.process("read x; echo got $x; exit 8", stdin=True, stdin_once=True))
    before = await lab.runtime.run(spec)
    lab.runtime = await lab.restart()
    found = {c.id: c for c in (await lab.runtime.list()).containers}.get(spec.id)
    assert found is not None, "the successor's list lacks a running container"
    assert (found.pid, found.state) == (before.pid, ContainerState.RUNNING)
    assert (await lab.exec_output(spec.id, lab.process("echo in"))).stdout == b"in\n"
    stream = await lab.attach(spec.id, stdin=True)
    await stream.write(b"word\n")
    assert (await stream.rest()).stdout == b"got word\n"
    assert (await lab.ended(spec.id)).code == 8
    await wait_until(lambda: bool(lab.exits_of(spec.id)), "Exited after adoption")


async def check_end_is_told_once_over_restarts(lab: RuntimeLab) -> None:
    """Exited is emitted once, though several generations saw the run."""
    if lab.restart is None:
        return
    spec = lab.spec("sleep 0.2; exit 2")
    await lab.runtime.run(spec)
    lab.runtime = await lab.restart()
    assert (await lab.ended(spec.id)).code == 2
    lab.runtime = await lab.restart()
    assert (await lab.ended(spec.id)).code == 2
    await asyncio.sleep(0.1)
    assert [e.code for e in lab.exits_of(spec.id)] == [2]


async def check_paused_stays_paused_over_a_restart(lab: RuntimeLab) -> None:
    """The state is read back."""
    if lab.restart is None:
        return
    container = await lab.running()
    await lab.runtime.pause(ContainerRef(id=container.id))
    lab.runtime = await lab.restart()
    found = await lab.runtime.inspect(ContainerRef(id=container.id))
    assert found.state == ContainerState.PAUSED
    await lab.runtime.resume(ContainerRef(id=container.id))


async def check_run_is_the_same_after_a_restart(lab: RuntimeLab) -> None:
    """A call repeated after a crash finds its container."""
    if lab.restart is None:
        return
    spec = lab.spec(lab.process("sleep", "1000"))
    before = await lab.runtime.run(spec)
    lab.runtime = await lab.restart()
    assert (await lab.runtime.run(spec)).pid == before.pid
