"""Starts that are prepared, when who prepared them or watches over them is killed, or nobody asks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.conformance.runtime_rig import BUSYBOX, Rig, rig

from sagong.conformance.runtime_lab import wait_until
from sagong.contracts.runtime import ContainerRef, Namespaces
from sagong.linux.cgroup import CONTROLLERS, Cgroup, layout_of_machine

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox (package busybox-static)"),
]


def inside(container_id: str) -> Iterator[int]:
    """Processes in a container's control group."""
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        with contextlib.suppress(OSError):
            if container_id in path.read_text():
                yield int(path.parent.name)


def left(made: Rig, container_id: str) -> bool:
    """Whether anything of it is there."""
    group = Cgroup(layout_of_machine(), f"{made.parent}/{container_id}", CONTROLLERS)
    directory = made.run / "containers" / container_id
    return any(inside(container_id)) or group.exists() or directory.exists()


class Patient(Rig):
    """What is prepared waits for its start as long as the test does, also where that gets no core."""

    def launcher_text(self) -> str:
        return (
            "from sagong.shim import birth\nbirth._PREPARED_SECONDS = 600.0\n"
            + super().launcher_text()
        )


async def ready(container_id: str, *, pid: str = "new") -> int:
    """The process that waits for its program to be wanted, once it is there alone.

    `pid` is the run's namespace of that name: whoever is first in one of its own is it.
    """
    found: list[int] = []

    def alone() -> bool:
        found[:] = inside(container_id)
        return len(found) == 1 and (pid == "host" or _is_first(found[0]))

    await wait_until(alone, "what was prepared")
    return found[0]


def _is_first(pid: int) -> bool:
    """Whether it is the first of a pid namespace below ours: its parent, which is in ours, goes."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        numbers = next(line for line in lines if line.startswith("NSpid:")).split()[1:]
        return len(numbers) > 1 and numbers[-1] == "1"
    return False


async def test_its_program_is_the_process_that_waited_and_was_not_written_down_before() -> None:
    """So whoever dies before leaves nothing that somebody takes for a container."""
    async with rig(kind=Patient) as made:
        lab = made.lab()
        spec = lab.spec(lab.process("sleep", "1000"), hostname="as-prepared")
        await lab.runtime.prepare(spec)
        pid = await ready(spec.id)
        assert not (made.run / "containers" / spec.id / "state.json").exists()
        container = await lab.runtime.run(msgspec.structs.replace(spec, expect_attach=True))
        assert container.pid == pid
        assert Path(f"/proc/{pid}/comm").read_text() == "sleep\n"
        await lab.clean()


async def test_nobody_asks_for_it() -> None:
    """After five seconds nothing is left, nor of what is asked for by a plugin that went away."""
    async with rig() as made:
        lab = made.lab()
        spec, other = lab.spec("exit 0"), lab.spec(lab.process("sh", tty=True, stdin=True))
        await lab.runtime.prepare(spec)
        await lab.runtime.prepare(other)
        await asyncio.gather(ready(spec.id), ready(other.id))
        await wait_until(lambda: not left(made, spec.id) and not left(made, other.id), "the lapse")
        assert (await lab.output(spec)).code == 0
        third = lab.spec("exit 0")
        await lab.runtime.prepare(third)
        await ready(third.id)
        await made.drop_plugin()
        await wait_until(lambda: not any(inside(third.id)), "its end with the plugin")
        lab.runtime = await made.start_plugin()
        await wait_until(lambda: not left(made, third.id), "what its monitor left")
        await lab.clean()


@pytest.mark.parametrize("namespaces", [Namespaces(), Namespaces(pid="host")], ids=["new", "host"])
async def test_its_monitor_dies(namespaces: Namespaces) -> None:
    """What waited ends with it, and its run is started by another one, or nothing is left."""
    async with rig(kind=Patient) as made:
        lab = made.lab()
        spec, other = (lab.spec("exit 5", namespaces=namespaces) for _ in range(2))
        for one in (spec, other):
            await lab.runtime.prepare(one)
            await ready(one.id, pid=namespaces.pid)
        for pid in made.monitors():
            os.kill(pid, signal.SIGKILL)
        await lab.runtime.run(spec)
        assert (await lab.ended(spec.id)).code == 5
        await wait_until(lambda: not left(made, other.id), "what the monitor had prepared")
        await lab.clean()


async def test_what_waits_is_killed() -> None:
    """Its run is started anew."""
    async with rig(kind=Patient) as made:
        lab = made.lab()
        spec = lab.spec("exit 6")
        await lab.runtime.prepare(spec)
        os.kill(await ready(spec.id), signal.SIGKILL)
        await lab.runtime.run(spec)
        assert (await lab.ended(spec.id)).code == 6
        await lab.runtime.remove(ContainerRef(id=spec.id))
        assert not left(made, spec.id)


async def test_a_terminal_and_a_user_namespace_are_prepared_as_all_else() -> None:
    """Which take messages of their own before the program may run."""
    async with rig(kind=Patient) as made:
        lab = made.lab()
        ids = ((0, 200000, 65536),)
        spaces = Namespaces(user="new", uid_map=ids, gid_map=ids)
        for process, namespaces in (
            (lab.process("test -t 0 && sleep 0.5 && exit 8", tty=True, stdin=True), Namespaces()),
            (lab.process("test $(id -u) = 0 && sleep 0.5 && exit 8"), spaces),
        ):
            spec = lab.spec(process, namespaces=namespaces)
            await lab.runtime.prepare(spec)
            pid = await ready(spec.id)
            assert (await lab.runtime.run(spec)).pid == pid, process
            assert (await lab.ended(spec.id)).code == 8
        await lab.clean()
