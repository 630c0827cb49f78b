"""The launcher and the runtime are renewed under running containers, which notice nothing."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from sagong.conformance.runtime_lab import RuntimeLab, Stream
from sagong.conformance.runtime_rig import make_rootfs, missing
from sagong.contracts.runtime import LogSpec, Runtime, SignalRequest
from sagong.operator import connect
from tests.system.instance import Instance, instance

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing()), reason=f"no containers here: {missing()}"),
]

CONFIGURATION = """
profile = "bare"
[units.runtime]
plugin = "runtime_linux"
settings = { cgroup_parent = "{cgroup}" }
"""
RENEWALS = (("upgrade", "runtime-companion"), ("upgrade", "runtime"), ("swap", "runtime"))
COUNTS = "n=0; while :; do echo $n; n=$((n+1)); sleep 0.02; done"
ANSWERS = "while read word; do echo got $word; done; exit 7"


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    """One instance for all tests of this module."""
    with instance(CONFIGURATION) as found:
        found.wait_ready()
        yield found


@pytest.fixture
def places(running: Instance) -> tuple[Path, Path]:
    """A root filesystem, and room for what containers write."""
    scratch = running.root / f"scratch-{uuid.uuid4().hex[:8]}"
    scratch.mkdir()
    return make_rootfs(scratch / "rootfs"), scratch


async def answers(stream: Stream, word: str) -> None:
    """What is attached is attached still."""
    await stream.write(f"{word}\n".encode())
    await stream.until(f"got {word}".encode())


def logged(path: Path) -> list[int]:
    """The numbers in a log of Docker's form."""
    return [int(json.loads(line)["log"]) for line in path.read_text().splitlines()]


async def grows(path: Path) -> None:
    """The log has more lines than now, some time."""
    before, limit = len(logged(path)), time.monotonic() + 60
    while len(logged(path)) <= before:
        assert time.monotonic() < limit, "nothing is logged any more"
        await asyncio.sleep(0.02)


async def test_containers_logs_and_attached_clients_outlive_every_renewal(
    running: Instance, places: tuple[Path, Path]
) -> None:
    rootfs, scratch = places
    async with connect(running.paths) as operator:
        runtime = await operator.use(Runtime)
        lab = RuntimeLab(runtime=runtime, rootfs=rootfs, scratch=scratch, emitted=list)
        counting = lab.spec(COUNTS, log=LogSpec(path=str(scratch / "count.log")))
        await runtime.run(counting)
        talking = lab.spec(lab.process(ANSWERS, stdin=True, stdin_once=True))
        stream = await lab.attached(talking, stdin=True)
        await answers(stream, "first")
        pids = {c.id: c.pid for c in (await runtime.list()).containers}
        launchers = {running.pid("runtime-companion")}
        for number, words in enumerate(RENEWALS):
            await asyncio.to_thread(running.run, *words)
            await answers(stream, f"renewed{number}")
            await grows(scratch / "count.log")
            inside = await lab.exec_output(talking.id, lab.process("echo", "inside"))
            assert (inside.text, inside.code) == ("inside", 0)
            assert (await lab.shell("echo new")).text == "new"
            launchers.add(running.pid("runtime-companion"))
        now = {c.id: c.pid for c in (await runtime.list()).containers if c.id in pids}
        assert now == pids
        assert len(launchers) == 2, "the launcher was renewed when it was asked for, and only then"
        await stream.end_input()
        assert (await stream.rest()).code == 7
        assert (await lab.ended(talking.id)).code == 7
        await runtime.signal(SignalRequest(id=counting.id, signal=9))
        await lab.ended(counting.id)
        numbers = logged(scratch / "count.log")
        assert numbers == list(range(len(numbers))), "a line was lost or written twice"
        await lab.clean()
