"""Children made ahead of need: used, killed, kept from holding what belongs to others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conformance.runtime_rig import BUSYBOX, Rig, rig

from sagong.conformance.runtime_lab import RuntimeLab, wait_until
from sagong.contracts.runtime import ExecRequest, Namespaces

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox (package busybox-static)"),
]


def children(pid: int) -> dict[int, str]:
    """Those of a process with their names; a zombie is none."""
    found = {}
    for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{child}/exe"):
                found[child] = Path(f"/proc/{child}/comm").read_text().strip()
    return found


async def only_monitor(made: Rig) -> int:
    """A nursery that is just forked looks like one, too."""
    await wait_until(lambda: len(made.monitors()) == 1, "one monitor")
    return made.monitors()[0]


def nurslings(pid: int) -> list[int]:
    """The nursery of a monitor and the child that it has ready, in this order."""
    return sorted(child for child, name in children(pid).items() if name == "sagong-nursery")


async def ready(lab: RuntimeLab, monitor: int) -> list[int]:
    """After a start: when the next one's child is there."""
    assert (await lab.shell("exit 1")).code == 1
    await wait_until(lambda: len(nurslings(monitor)) == 2, "a child that is ready")
    return nurslings(monitor)


async def test_the_next_start_takes_the_child_that_is_ready() -> None:
    async with rig() as made:
        lab = made.lab()
        first = await lab.running()
        monitor = await only_monitor(made)
        nursery, spare = await ready(lab, monitor)
        second = await lab.running()
        assert second.pid == spare
        group = {"group": "pod", "namespaces": Namespaces(ipc="group", uts="group")}
        assert nurslings(monitor)[0] == nursery
        pod = [await lab.running(**group) for _ in range(2)]  # type: ignore[arg-type]
        assert {first.pid, second.pid, *(c.pid for c in pod)} <= children(monitor).keys()
        spaces = [{os.readlink(f"/proc/{c.pid}/ns/{k}") for c in pod} for k in ("ipc", "uts")]
        assert [len(space) for space in spaces] == [1, 1]
        assert len({os.readlink(f"/proc/{c.pid}/ns/pid") for c in (first, second, *pod)}) == 4
        await lab.clean()


@pytest.mark.parametrize("victim", [0, 1])
async def test_nothing_fails_when_it_is_killed(victim: int) -> None:
    """The nursery or the child: the next start has one of its own, and later starts others."""
    async with rig() as made:
        lab = made.lab()
        await lab.running()
        monitor = await only_monitor(made)
        killed = (await ready(lab, monitor))[victim]
        os.kill(killed, signal.SIGKILL)
        await wait_until(lambda: killed not in children(monitor), "its end")
        found = [(await lab.shell(f"exit {number}")).code for number in range(3)]
        assert found == [0, 1, 2]
        assert killed not in await ready(lab, monitor)
        await lab.clean()


async def test_what_is_executed_in_a_container_is_forked_by_it_too() -> None:
    """It is the monitor's child, in the container's pids; without a nursery the monitor forks it."""
    async with rig() as made:
        lab = made.lab()
        container = await lab.running()
        monitor = await only_monitor(made)
        nursery, _ = await ready(lab, monitor)
        os.kill(nursery, signal.SIGSTOP)
        request = ExecRequest(id=container.id, exec_id="x", process=lab.process("sleep", "1000"))
        asked = asyncio.ensure_future(lab.runtime.exec(request))
        await asyncio.sleep(0.3)
        assert not asked.done()
        os.kill(nursery, signal.SIGCONT)
        pid = (await asked).pid
        assert pid in children(monitor)
        inside = [os.readlink(f"/proc/{p}/ns/pid") for p in (pid, container.pid)]
        assert inside[0] == inside[1] != os.readlink("/proc/self/ns/pid")
        os.kill(nursery, signal.SIGKILL)
        found = await lab.exec_output(container.id, lab.process("echo $PPID; exit 3"))
        assert (found.text, found.code) == ("0", 3)
        await lab.clean()


async def test_it_ends_with_its_monitor() -> None:
    async with rig() as made:
        lab = made.lab()
        container = await lab.running()
        monitor = await only_monitor(made)
        old = await ready(lab, monitor)
        await made.kill_monitors()
        await wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in old), "its end")
        assert (await lab.shell("exit 6")).code == 6
        assert os.path.exists(f"/proc/{container.pid}")
        await lab.clean()


async def test_it_holds_nobodys_input_open() -> None:
    async with rig() as made:
        lab = made.lab()
        spec = lab.spec(lab.process("cat; exit 3", stdin=True, stdin_once=True))
        reader = await lab.attached(spec, stdin=True)
        await ready(lab, await only_monitor(made))
        await reader.end_input()
        assert (await reader.rest()).code == 3
        await lab.clean()


async def test_an_order_may_be_longer_than_a_message() -> None:
    async with rig() as made:
        lab = made.lab()
        await lab.running()
        await ready(lab, await only_monitor(made))
        env = (*lab.process("true").env, *(f"V{n}={'x' * 30_000}" for n in range(20)))
        spec = lab.spec(lab.process("echo ${#V19}", env=env))
        assert (await lab.output(spec)).stdout == b"30000\n"
        await lab.clean()


HALF_MADE = """
import time
from sagong.shim.user_namespace import make_user_namespace
def maps():
    print("made", flush=True)
    time.sleep(600)
    yield ()
make_user_namespace(maps(), ())
"""


async def test_who_holds_a_half_made_user_namespace_ends_with_its_maker() -> None:
    """A monitor killed between the namespace and its maps left a process for ever."""
    with subprocess.Popen([sys.executable, "-c", HALF_MADE], stdout=subprocess.PIPE) as maker:
        assert maker.stdout is not None and maker.stdout.readline() == b"made\n"
        (holder,) = children(maker.pid)
        maker.kill()
    program = Path(f"/proc/{holder}/exe")
    await wait_until(lambda: not program.is_file(), "its end")


def spare_memory(monitor: int) -> int:
    """Kilobytes that the child that is ready shares with nobody; 0 while there is none."""
    with contextlib.suppress(OSError, IndexError):
        text = Path(f"/proc/{nurslings(monitor)[1]}/smaps_rollup").read_text()
        lines = (line.split() for line in text.splitlines())
        return sum(int(words[1]) for words in lines if words[0].startswith("Private"))
    return 0


async def test_what_one_child_writes_to_is_copied_ahead_by_all_later_ones() -> None:
    """Also by those of another monitor: the launcher is told."""
    async with rig() as made:
        lab = made.lab()
        await lab.running()
        monitor = await only_monitor(made)
        await wait_until(lambda: spare_memory(monitor) > 0, "a child that is ready")
        knowing = spare_memory(monitor) + 500
        for _ in range(2):  # on a slow machine the first one's successor is made before it has told
            await ready(lab, monitor)
        await wait_until(lambda: spare_memory(monitor) > knowing, "copies")
        await made.kill_monitors()
        await lab.running()
        other = await only_monitor(made)
        await wait_until(lambda: spare_memory(other) > knowing, "copies by another monitor's")
        await lab.clean()
