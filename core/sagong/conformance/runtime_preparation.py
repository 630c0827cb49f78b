"""Checks of the runtime suite: starts that are prepared, and asked for, changed, or given up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sagong.conformance.runtime_lab import (
    PATH,
    RuntimeLab,
    raises,
    standard_mounts,
    wait_until,
)
from sagong.contracts.runtime import ContainerRef, Mount, RunSpec
from sagong.errors import NotFound, SagongError

__all__ = [
    "check_a_prepared_run_is_as_any_other",
    "check_a_run_of_another_spec_is_that_one",
    "check_discarding_what_runs_or_is_not_there_does_nothing",
    "check_nothing_runs_before_its_run_is_asked_for",
    "check_preparing_tells_no_lies",
    "check_what_is_discarded_or_removed_leaves_nothing",
    "check_what_was_prepared_does_not_outlive_a_restart",
]


def _processes_of(container_id: str) -> Iterator[str]:
    """Those in a control group of a container's."""
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        with contextlib.suppress(OSError):
            if container_id in path.read_text():
                yield path.parent.name


async def _gone(spec: RunSpec) -> None:
    await wait_until(lambda: not any(_processes_of(spec.id)), f"processes of {spec.id}")


async def check_a_prepared_run_is_as_any_other(lab: RuntimeLab) -> None:
    """All of its output, input and exit code; its client comes with the run, not before."""
    script = "echo first; read word; echo $word >&2; exit 4"
    spec = lab.spec(lab.process(script, stdin=True, stdin_once=True))
    await lab.runtime.prepare(spec)
    await lab.runtime.prepare(spec)
    wanted = msgspec.structs.replace(spec, expect_attach=True, attach_stdin=True)
    stream = await lab.begun(wanted)
    await stream.until(b"first\n")
    pid = (await lab.runtime.inspect(ContainerRef(id=spec.id))).pid
    assert (await lab.runtime.run(wanted)).pid == pid
    await stream.write(b"word\n")
    await stream.end_input()
    found = await stream.rest()
    assert (found.stdout, found.stderr, found.code) == (b"first\n", b"word\n", 4)
    assert (await lab.ended(spec.id)).code == 4


async def check_nothing_runs_before_its_run_is_asked_for(lab: RuntimeLab) -> None:
    """And nobody sees a container."""
    shared = lab.scratch / "prepared"
    shared.mkdir()
    mounts = (*standard_mounts(lab.root()), Mount(target="/mnt", kind="bind", source=str(shared)))
    spec = lab.spec("echo ran > /mnt/ran", mounts=mounts)
    await lab.runtime.prepare(spec)
    await asyncio.sleep(0.3)
    assert not (shared / "ran").exists()
    assert spec.id not in {c.id for c in (await lab.runtime.list()).containers}
    with raises(NotFound):
        await lab.runtime.inspect(ContainerRef(id=spec.id))
    await lab.runtime.run(spec)
    await lab.ended(spec.id)
    assert (shared / "ran").exists()


async def check_what_is_discarded_or_removed_leaves_nothing(lab: RuntimeLab) -> None:
    """And the run may be asked for all the same."""
    for take_back in (lab.runtime.discard, lab.runtime.remove):
        spec = lab.spec("exit 3")
        await lab.runtime.prepare(spec)
        await take_back(ContainerRef(id=spec.id))
        assert not list(_processes_of(spec.id))
        await lab.runtime.run(spec)
        assert (await lab.ended(spec.id)).code == 3


async def check_discarding_what_runs_or_is_not_there_does_nothing(lab: RuntimeLab) -> None:
    """A run that has begun goes on."""
    await lab.runtime.discard(ContainerRef(id="nobody"))
    spec = lab.spec(lab.process("sleep", "1000"))
    await lab.runtime.prepare(spec)
    begun = await lab.runtime.run(spec)
    await lab.runtime.discard(ContainerRef(id=spec.id))
    await lab.runtime.prepare(spec)
    assert (await lab.runtime.inspect(ContainerRef(id=spec.id))).pid == begun.pid
    assert list(_processes_of(spec.id))


async def check_a_run_of_another_spec_is_that_one(lab: RuntimeLab) -> None:
    """What was prepared for the former leaves nothing."""
    spec = lab.spec(lab.process("echo $KIND", env=(PATH, "KIND=former")))
    await lab.runtime.prepare(spec)
    process = msgspec.structs.replace(spec.process, env=(PATH, "KIND=wanted"))
    wanted = msgspec.structs.replace(spec, process=process, hostname="other", expect_attach=True)
    await lab.runtime.run(wanted)
    found = await (await lab.attach(spec.id)).rest()
    assert found.stdout == b"wanted\n"
    second = msgspec.structs.replace(spec, run=2)
    await lab.runtime.prepare(second)
    await lab.runtime.run(msgspec.structs.replace(second, run=3))
    assert (await lab.ended(spec.id)).run == 3
    await _gone(spec)


async def check_preparing_tells_no_lies(lab: RuntimeLab) -> None:
    """What can't be started is refused by its run, in the usual words, and leaves nothing."""
    spec = lab.spec(lab.process("/no/such/program", "x"))
    with contextlib.suppress(SagongError):
        await lab.runtime.prepare(spec)
    with raises(NotFound, "no such file or directory"):
        await lab.runtime.run(spec)
    await _gone(spec)


async def check_what_was_prepared_does_not_outlive_a_restart(lab: RuntimeLab) -> None:
    """The successor starts it anew when it is asked."""
    if lab.restart is None:
        return
    spec, left = lab.spec("exit 7"), lab.spec("exit 8")
    await lab.runtime.prepare(spec)
    await lab.runtime.prepare(left)
    lab.runtime = await lab.restart()
    await lab.runtime.run(spec)
    assert (await lab.ended(spec.id)).code == 7
    await _gone(left)
