"""Nurses: what they make, how they die, and what they must not hold of others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from tests.conformance.runtime_rig import BUSYBOX, Rig, rig

from sagong.conformance.runtime_lab import RuntimeLab, wait_until
from sagong.contracts.runtime import ExecRequest, LogSpec, Namespaces
from sagong.errors import SagongError

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


_PATIENT = """
from sagong.shim import nursery
nursery._PATIENCE_SECONDS = 600.0
"""


class Patient(Rig):
    """Its monitors make no second nurse where the first one gets no core for a while."""

    def launcher_text(self) -> str:
        return _PATIENT + super().launcher_text()


async def only_monitor(made: Rig) -> int:
    """The one that serves, or is about to."""
    await wait_until(lambda: len(made.monitors()) == 1, "one monitor")
    return made.monitors()[0]


def nurses(pid: int) -> list[int]:
    """Of a monitor, the oldest first; a monitor that has just been forked looks like none."""
    return sorted(child for child, name in children(pid).items() if name == "sagong-nursery")


async def nurse(lab: RuntimeLab, monitor: int) -> int:
    """The only one, after a start."""
    assert (await lab.shell("exit 1")).code == 1
    await wait_until(lambda: len(nurses(monitor)) == 1, "a nurse")
    return nurses(monitor)[0]


def faults(pid: int) -> int:
    """Pages that a process had to copy or read in, and those of its ended children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[7])


async def test_one_nurse_makes_all_first_processes_of_a_monitor() -> None:
    async with rig(kind=Patient) as made:
        lab = made.lab()
        first = await lab.running()
        monitor = await only_monitor(made)
        one = await nurse(lab, monitor)
        second = await lab.running()
        group = {"group": "pod", "namespaces": Namespaces(ipc="group", uts="group")}
        pod = [await lab.running(**group) for _ in range(2)]
        assert nurses(monitor) == [one]
        assert {first.pid, second.pid, *(c.pid for c in pod)} <= children(monitor).keys()
        spaces = [{os.readlink(f"/proc/{c.pid}/ns/{k}") for c in pod} for k in ("ipc", "uts")]
        assert [len(space) for space in spaces] == [1, 1]
        assert len({os.readlink(f"/proc/{c.pid}/ns/pid") for c in (first, second, *pod)}) == 4
        await lab.clean()


async def test_a_first_process_copies_no_pages_of_its_nurse() -> None:
    """It lived in its memory; a fork of an interpreter copies hundreds."""
    async with rig(kind=Patient) as made:
        lab = made.lab()
        for _ in range(3):
            container = await lab.running()
        assert faults(container.pid) < 150
        await lab.clean()


async def test_a_monitor_forks_it_before_it_reads_what_to_start() -> None:
    """Else both copy what it has touched until then: also when the start comes to nothing."""
    async with rig(kind=Patient) as made:
        lab = made.lab()
        with pytest.raises(SagongError):
            await lab.runtime.run(lab.spec("true", log=LogSpec(path="/dev/null/log")))
        monitor = await only_monitor(made)
        await wait_until(lambda: len(nurses(monitor)) == 1, "a nurse")
        await lab.clean()


async def test_nothing_fails_when_it_is_killed() -> None:
    """The next start has another one."""
    async with rig(kind=Patient) as made:
        lab = made.lab()
        await lab.running()
        monitor = await only_monitor(made)
        killed = await nurse(lab, monitor)
        os.kill(killed, signal.SIGKILL)
        await wait_until(lambda: killed not in children(monitor), "its end")
        found = [(await lab.shell(f"exit {number}")).code for number in range(3)]
        assert found == [0, 1, 2]
        assert killed != await nurse(lab, monitor)
        await lab.clean()


async def test_who_has_given_it_an_order_is_forked_when_it_dies() -> None:
    async with rig(kind=Patient) as made:
        lab = made.lab()
        await lab.running()
        killed = await nurse(lab, await only_monitor(made))
        os.kill(killed, signal.SIGSTOP)
        asked = asyncio.ensure_future(lab.shell("exit 7"))
        await asyncio.sleep(0.05)
        os.kill(killed, signal.SIGKILL)
        assert (await asked).code == 7
        await lab.clean()


async def test_who_waits_long_for_a_nurse_gets_one_of_his_own() -> None:
    """A mount may hang."""
    async with rig() as made:
        lab = made.lab()
        await lab.running()
        monitor = await only_monitor(made)
        stopped = await nurse(lab, monitor)
        os.kill(stopped, signal.SIGSTOP)
        before = set(made.run.glob("containers/*/stdout"))
        first = asyncio.ensure_future(lab.shell("exit 3"))
        # Its monitor makes it when it has heard of the run, and gives the order to a nurse.
        await wait_until(
            lambda: set(made.run.glob("containers/*/stdout")) > before, "the order to the nurse"
        )
        assert (await lab.shell("exit 4")).code == 4
        assert len(nurses(monitor)) == 2
        assert not first.done()
        os.kill(stopped, signal.SIGCONT)
        assert (await first).code == 3
        await lab.clean()


async def test_a_start_that_failed_leaves_a_nurse_for_the_next() -> None:
    """Whatever was left in that memory: by the plan, the search for the program, the kernel."""
    async with rig(kind=Patient) as made:
        lab = made.lab()
        await lab.running()
        monitor = await only_monitor(made)
        await nurse(lab, monitor)
        for words, told in (
            (lab.process("true", cwd="/proc/1/mem"), "chdir to cwd"),
            (msgspec.structs.replace(lab.process("true"), args=("nowhere",)), "not found in"),
            (msgspec.structs.replace(lab.process("true"), args=("/etc/noexec",)), "exec"),
        ):
            with pytest.raises(SagongError) as refused:
                await lab.runtime.run(lab.spec(words))
            assert told in refused.value.message
            assert (await lab.shell("exit 5")).code == 5
        await lab.clean()


async def test_what_is_executed_in_a_container_is_forked_by_it_too() -> None:
    """It is the monitor's child, in the container's pids; without a nursery the monitor forks it."""
    async with rig(kind=Patient) as made:
        lab = made.lab()
        container = await lab.running()
        monitor = await only_monitor(made)
        one = await nurse(lab, monitor)
        os.kill(one, signal.SIGSTOP)
        request = ExecRequest(id=container.id, exec_id="x", process=lab.process("sleep", "1000"))
        asked = asyncio.ensure_future(lab.runtime.exec(request))
        await asyncio.sleep(0.3)
        assert not asked.done()
        os.kill(one, signal.SIGCONT)
        pid = (await asked).pid
        assert pid in children(monitor)
        inside = [os.readlink(f"/proc/{p}/ns/pid") for p in (pid, container.pid)]
        assert inside[0] == inside[1] != os.readlink("/proc/self/ns/pid")
        os.kill(one, signal.SIGKILL)
        found = await lab.exec_output(container.id, lab.process("echo $PPID; exit 3"))
        assert (found.text, found.code) == ("0", 3)
        await lab.clean()


async def test_it_ends_with_its_monitor() -> None:
    async with rig(kind=Patient) as made:
        lab = made.lab()
        container = await lab.running()
        monitor = await only_monitor(made)
        old = await nurse(lab, monitor)
        await made.kill_monitors()
        await wait_until(lambda: not os.path.exists(f"/proc/{old}"), "its end")
        assert nurses(await only_monitor(made)) == []  # the successor is made for no start
        assert (await lab.shell("exit 6")).code == 6
        assert os.path.exists(f"/proc/{container.pid}")
        await lab.clean()


async def test_it_holds_nobodys_input_open() -> None:
    async with rig(kind=Patient) as made:
        lab = made.lab()
        spec = lab.spec(lab.process("cat; exit 3", stdin=True, stdin_once=True))
        reader = await lab.attached(spec, stdin=True)
        await nurse(lab, await only_monitor(made))
        await reader.end_input()
        assert (await reader.rest()).code == 3
        await lab.clean()


async def test_it_opens_nothing_that_stays() -> None:
    """Descriptors of its children are theirs alone."""
    async with rig(kind=Patient) as made:
        lab = made.lab()
        await lab.running()
        one = await nurse(lab, await only_monitor(made))
        before = os.listdir(f"/proc/{one}/fd")
        for number in range(20):
            assert (await lab.shell(f"exit {number}")).code == number
        assert os.listdir(f"/proc/{one}/fd") == before
        await lab.clean()


async def test_an_order_may_be_longer_than_a_message() -> None:
    async with rig(kind=Patient) as made:
        lab = made.lab()
        await lab.running()
        await nurse(lab, await only_monitor(made))
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
