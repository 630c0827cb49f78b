"""Checks of the runtime suite: two implementations over one ground, with containers of each other."""

from __future__ import annotations

import signal

from sagong.conformance.runtime_lab import RuntimeLab, Stream
from sagong.contracts.runtime import (
    Container,
    ContainerRef,
    ContainerState,
    ExecRequest,
    Limits,
    Namespaces,
    ResizeRequest,
    RunSpec,
    SignalRequest,
    UpdateRequest,
)

# A read that a signal interrupts fails.
_ANSWERS = 'trap "echo usr1" USR1; while :; do read word && echo got-$word; done'


async def check_who_made_a_container_does_not_matter(lab: RuntimeLab) -> None:
    """Its successor does with it all that its maker did, there and back."""
    if lab.swap is None:
        return
    first = await _begun(lab)
    lab.runtime = await lab.swap()
    second = await _begun(lab)
    await _does_all(lab, first)
    lab.runtime = await lab.swap()
    await _does_all(lab, second)
    await _ends_and_begins_anew(lab, second)
    lab.runtime = await lab.swap()
    await _ends_and_begins_anew(lab, first)


async def check_execs_go_on_over_a_swap(lab: RuntimeLab) -> None:
    """One that runs keeps its streams, and its code is known after."""
    if lab.swap is None:
        return
    for _ in range(2):
        container = await lab.running()
        process = lab.process("read word; echo $word; exit 5", stdin=True)
        request = ExecRequest(id=container.id, exec_id=lab.new_id(), process=process)
        status = await lab.runtime.exec(request)
        assert status.stream is not None
        stream = await Stream.open(status.stream)
        lab.runtime = await lab.swap()
        assert (await lab.runtime.exec_status(request)).running
        await stream.write(b"over\n")
        found = await stream.rest()
        assert (found.lines, found.code) == (["over"], 5)
        assert (await lab.runtime.exec_status(request)).code == 5


async def check_a_group_is_joined_after_a_swap(lab: RuntimeLab) -> None:
    """A pod's next container shares with those that were made before."""
    if lab.swap is None:
        return
    for number in range(2):
        spaces = Namespaces(ipc="group", uts="group")
        shared = {"group": f"swap-{number}", "namespaces": spaces}
        script = "readlink /proc/self/ns/ipc; readlink /proc/self/ns/uts"
        container = await lab.running(**shared)
        before = await lab.exec_output(container.id, lab.process(script))
        lab.runtime = await lab.swap()
        after = await lab.shell(script, **shared)
        assert (len(after.lines), after.lines) == (2, before.lines), after.stderr
        again = await lab.exec_output(container.id, lab.process(script))
        assert again.lines == before.lines, again.stderr


async def _begun(lab: RuntimeLab) -> RunSpec:
    spec = lab.spec(lab.process(_ANSWERS, stdin=True), hostname="swapped", limits=Limits(pids=40))
    await lab.runtime.run(spec)
    return spec


async def _does_all(lab: RuntimeLab, spec: RunSpec) -> None:
    container = ContainerRef(id=spec.id)
    await _executes(lab, spec.id)
    pids = (await lab.runtime.processes(container)).pids
    assert (await lab.runtime.inspect(container)).pid in pids
    await lab.runtime.pause(container)
    assert (await lab.runtime.inspect(container)).state is ContainerState.PAUSED
    await lab.runtime.resume(container)
    await lab.runtime.update(UpdateRequest(id=spec.id, limits=Limits(pids=30)))
    seen = "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null"
    assert (await lab.exec_output(spec.id, lab.process(seen))).lines == ["30"]
    stream = await lab.attach(spec.id, stdin=True)
    await stream.write(b"word\n")
    await stream.until(b"got-word")
    await lab.runtime.signal(SignalRequest(id=spec.id, signal=signal.SIGUSR1))
    await stream.until(b"usr1")
    await stream.close()


async def _executes(lab: RuntimeLab, container_id: str) -> None:
    process = lab.process("hostname; cat /proc/1/comm; read word; echo $word; exit 5", stdin=True)
    request = ExecRequest(id=container_id, exec_id=lab.new_id(), process=process)
    status = await lab.runtime.exec(request)
    assert status.stream is not None
    stream = await Stream.open(status.stream)
    await stream.write(b"given\n")
    found = await stream.rest()
    assert (found.lines, found.code) == (["swapped", "sh", "given"], 5), found.stderr
    assert (await lab.runtime.exec_status(request)).code == 5
    process = lab.process("stty size; read x; stty size", tty=True, stdin=True, rows=20, columns=70)
    request = ExecRequest(id=container_id, exec_id=lab.new_id(), process=process)
    status = await lab.runtime.exec(request)
    assert status.stream is not None
    terminal = await Stream.open(status.stream)
    await terminal.until(b"20 70")
    size = ResizeRequest(id=container_id, exec_id=request.exec_id, rows=30, columns=80)
    await lab.runtime.resize(size)
    await terminal.write(b"\n")
    assert b"30 80" in (await terminal.rest()).stdout


async def _ends_and_begins_anew(lab: RuntimeLab, spec: RunSpec) -> None:
    """Its next run is made by who is there now."""
    await lab.runtime.signal(SignalRequest(id=spec.id, signal=signal.SIGKILL))
    assert (await lab.ended(spec.id)).code == 128 + signal.SIGKILL
    assert len(lab.exits_of(spec.id)) == 1
    begun: Container = await lab.runtime.run(_next(spec))
    assert (begun.state, begun.run) == (ContainerState.RUNNING, 2)
    await _executes(lab, spec.id)
    await lab.runtime.remove(ContainerRef(id=spec.id))


def _next(spec: RunSpec) -> RunSpec:
    return RunSpec(**{name: getattr(spec, name) for name in spec.__struct_fields__} | {"run": 2})
