"""A monitor watches several containers: who shares one, what its death and a full disk cost."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.runtime_rig import BUSYBOX, Rig, rig

from sagong.conformance.runtime import RuntimeLab
from sagong.conformance.runtime_lab import Stream, wait_until
from sagong.contracts.runtime import (
    Container,
    ContainerRef,
    ExecRequest,
    Namespaces,
    SignalRequest,
)
from sagong.errors import SagongError
from sagong.linux import process
from sagong.shim.directory import read_record
from sagong.shim.runtime import MonitoredRuntime

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox (package busybox-static)"),
]
ROOM = 3


def sharing(made: Rig, containers: list[Container]) -> Counter[str]:
    """How many of them each monitor has."""
    states = (read_record(f"{made.run}/containers/{c.id}/state.json") for c in containers)
    return Counter(state["key"] for state in states if state)


async def ended(lab: RuntimeLab, container: Container, number: int) -> int:
    """The code after a signal."""
    await lab.runtime.signal(SignalRequest(id=container.id, signal=number))
    return (await lab.ended(container.id)).code


async def test_monitors_are_filled_one_after_the_other() -> None:
    """Who starts at the same time shares one, too; what ended makes room."""
    async with rig(containers_per_monitor=ROOM) as made:
        lab = made.lab()
        first = await asyncio.gather(*(lab.running() for _ in range(2 * ROOM + 1)))
        assert sorted(sharing(made, first).values()) == [1, ROOM, ROOM]
        assert len(made.monitors()) == 3
        gone = first[0]
        key = read_record(f"{made.run}/containers/{gone.id}/state.json")["key"]  # type: ignore[index]
        assert await ended(lab, gone, 9) == 137
        await lab.runtime.remove(ContainerRef(id=gone.id))
        assert sharing(made, [await lab.running(), *first])[key] == ROOM
        await lab.clean()


async def test_a_signal_takes_no_fork_of_the_launcher() -> None:
    """It is sent by the monitor, but for what is frozen, which the launcher has to thaw."""
    async with rig() as made:
        lab = made.lab()
        quick, frozen = [await lab.running() for _ in range(2)]
        await lab.runtime.pause(ContainerRef(id=frozen.id))
        assert made.launcher is not None
        made.launcher.send_signal(signal.SIGSTOP)
        try:
            async with asyncio.timeout(30):
                assert await ended(lab, quick, 9) == 137
        finally:
            made.launcher.send_signal(signal.SIGCONT)
        assert await ended(lab, frozen, 9) == 137
        await lab.clean()


async def test_a_group_is_not_divided() -> None:
    """Its containers share namespaces that one monitor holds; its neighbours don't get them."""
    async with rig(containers_per_monitor=2) as made:
        lab = made.lab()
        spaces = Namespaces(ipc="group", uts="group", pid="group")
        pods = [{"group": name, "namespaces": spaces} for name in ("pod-x", "pod-y")]
        found = [[await lab.running(**pod) for _ in range(3)] for pod in pods]
        for pod in found:
            assert list(sharing(made, pod).values()) == [3]
        first, second = (os.readlink(f"/proc/{pod[0].pid}/ns/ipc") for pod in found)
        assert {os.readlink(f"/proc/{c.pid}/ns/ipc") for c in found[0]} == {first}
        assert first != second
        alone = await lab.running()
        shares = await lab.running(**pods[0])
        assert os.readlink(f"/proc/{alone.pid}/ns/ipc") not in (first, second)
        assert os.readlink(f"/proc/{shares.pid}/ns/ipc") == first
        await lab.clean()


async def test_death_of_a_shared_monitor_costs_no_code() -> None:
    """All its containers run on, and each ends with the code that is its own."""
    async with rig(containers_per_monitor=ROOM) as made:
        lab = made.lab()
        script = "trap 'exit {}' TERM; while :; do sleep 0.01; done"
        specs = [lab.spec(script.format(number)) for number in range(1, ROOM + 1)]
        containers = [await lab.runtime.run(spec) for spec in specs]
        (monitor,) = made.monitors()
        os.kill(monitor, signal.SIGKILL)
        await wait_until(lambda: made.monitors() not in ([], [monitor]), "a successor")
        codes = await asyncio.gather(*(ended(lab, c, signal.SIGTERM) for c in containers))
        assert codes == [1, 2, 3]
        other = await lab.shell("exit 5")
        assert other.code == 5
        await lab.clean()


async def test_an_end_keeps_no_neighbour_waiting() -> None:
    """Processes that outlive a first one are killed while others are served."""
    async with rig() as made:
        lab = made.lab()
        await lab.running()
        host = Namespaces(pid="host")
        crowd = "for i in $(seq 40); do sleep 1000 & done; exit 6"
        results = await asyncio.gather(
            lab.shell(crowd, namespaces=host),
            *(lab.shell("exit 3") for _ in range(3)),
        )
        assert [r.code for r in results] == [6, 3, 3, 3]
        assert len(made.monitors()) == 1
        await lab.clean()


async def test_a_terminal_outlives_a_monitor_that_dies_at_once() -> None:
    """Its master is with the launcher before the program runs; once it came after the answer."""
    async with rig() as made:
        lab = made.lab()
        for _ in range(5):
            script = "while read word; do echo got-$word; done; echo eof"
            spec = lab.spec(lab.process(script, tty=True, stdin=True))
            container = await lab.runtime.run(spec)
            for pid in made.monitors():
                os.kill(pid, signal.SIGKILL)
            stream = await attached(lab, container)
            await stream.write(b"one\n")
            await stream.until(b"got-one")
            await stream.close()
            await lab.runtime.remove(ContainerRef(id=container.id))
        await lab.clean()


async def attached(lab: RuntimeLab, container: Container):  # type: ignore[no-untyped-def]
    """A stream, though the monitor may be dying."""
    for _ in range(100):
        try:
            return await lab.attach(container.id, stdin=True)
        except SagongError:
            await asyncio.sleep(0.05)
    raise AssertionError("no stream")


async def test_the_launcher_gives_lifelines_up_with_their_containers() -> None:
    """Else each `docker run -it` would cost it a descriptor, and the machine a terminal."""
    async with rig() as made:
        lab = made.lab()
        assert made.launcher is not None
        held = Path(f"/proc/{made.launcher.pid}/fd")
        before = len(list(held.iterdir()))
        for terminal in (True, False):
            spec = lab.spec(lab.process("read x", tty=terminal, stdin=True))
            await lab.runtime.run(spec)
            await wait_until(lambda: len(list(held.iterdir())) == before + 1, "a lifeline")
            await lab.runtime.remove(ContainerRef(id=spec.id))
            await wait_until(lambda: len(list(held.iterdir())) == before, "its release")
        await lab.clean()


@contextmanager
def small_disk(directory: Path) -> Iterator[None]:
    """A run directory of half a megabyte."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "small", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


def fill(directory: Path) -> Path:
    """Take all that is left."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler


async def test_ends_are_recorded_on_a_full_disk() -> None:
    """Room for the exit code is taken before the start; a start without any is refused."""
    async with rig(disk=small_disk) as made:
        lab = made.lab()
        container = await lab.running()
        filler = fill(made.run)
        with pytest.raises(SagongError, match="No space left"):
            await lab.running()
        assert await ended(lab, container, 9) == 137
        lab.runtime = await made.restart_plugin()
        found = await lab.runtime.inspect(ContainerRef(id=container.id))
        assert (found.state, found.code) == ("exited", 137)
        filler.unlink()
        assert (await lab.shell("exit 2")).code == 2
        await lab.clean()


async def test_execs_of_long_ago_are_forgotten() -> None:
    """A probe each second must not fill `/run`; the latest are still known."""
    async with rig() as made:
        lab = made.lab()
        container = await lab.running()
        codes = {}
        for number in range(40):
            request = ExecRequest(
                id=container.id, exec_id=f"e{number}", process=lab.process(f"exit {number}")
            )
            await lab.runtime.exec(request)
            await wait_until(partial(ended_exec, made, request), "the end of an exec")
            codes[number] = (await lab.runtime.exec_status(request)).code
        assert codes == {number: number for number in range(40)}
        left = list((made.run / "containers" / container.id / "execs").iterdir())
        assert len(left) == 32
        await lab.clean()


async def test_a_request_that_is_not_understood_leaves_nothing() -> None:
    """As a plugin of another version may send it; half an exec kept its monitor for ever."""
    async with rig() as made:
        lab = made.lab()
        container = await lab.running()
        key = made.runtime._records[container.id].key  # type: ignore[union-attr]
        links = made.runtime._links  # type: ignore[union-attr]
        session = {"tty": False, "stdin": False, "stdin_once": True, "hold": 10}
        strange = {"op": "exec", "id": container.id, "exec_id": "e", "session": session}
        with pytest.raises(SagongError, match="KeyError"):
            await links.ask(key, {**strange, "owner": [0, 0]})
        with pytest.raises(SagongError, match="KeyError"):
            await links.ask(key, {"op": "run", "id": "strange"})
        await lab.runtime.remove(ContainerRef(id=container.id))
        await made.drop_plugin()
        await wait_until(lambda: not made.monitors(), "the monitor's end")


def ended_exec(made: Rig, request: ExecRequest) -> bool:
    """Whether the plugin has heard of its end."""
    assert made.runtime is not None
    known = made.runtime._records[request.id].execs.get(request.exec_id)
    return known is not None and known.code is not None


async def test_who_has_seen_an_execs_streams_end_is_told_its_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though what the monitor says of it has not been heard yet."""
    hear = MonitoredRuntime._event

    def hear_late(self: MonitoredRuntime, key: str, message: dict[str, Any]) -> None:
        if message["event"] != "exec_exited":
            hear(self, key, message)

    monkeypatch.setattr(MonitoredRuntime, "_event", hear_late)
    async with rig() as made:
        lab = made.lab()
        container = await lab.running()
        process = lab.process("exit 3")
        request = ExecRequest(id=container.id, exec_id=lab.new_id(), process=process)
        status = await lab.runtime.exec(request)
        assert status.stream is not None
        assert (await (await Stream.open(status.stream)).rest()).code == 3
        after = await lab.runtime.exec_status(request)
        assert (after.running, after.code) == (False, 3)
        await lab.clean()


async def test_an_idle_monitor_ends_with_the_plugin() -> None:
    """It waits for more only as long as somebody may bring it."""
    async with rig() as made:
        lab = made.lab()
        assert (await lab.shell("exit 0")).code == 0
        (monitor,) = made.monitors()
        pidfd = os.pidfd_open(monitor)
        await lab.clean()
        await made.drop_plugin()
        assert await asyncio.to_thread(process.wait_ended, pidfd, 60.0)
        os.close(pidfd)


@pytest.mark.parametrize("what", ["", "execs"])
async def test_who_ends_after_his_directory_is_gone_ends_no_monitor(what: str) -> None:
    """A successor sweeps starts that its predecessor gave up, while a monitor is still at them."""
    async with rig(containers_per_monitor=ROOM) as made:
        lab = made.lab()
        gone, other = [await lab.running() for _ in range(2)]
        monitors = made.monitors()
        assert len(monitors) == 1
        victim = gone.pid
        if what:
            request = ExecRequest(
                id=gone.id, exec_id=lab.new_id(), process=lab.process("sleep", "1000")
            )
            victim = (await lab.runtime.exec(request)).pid
        shutil.rmtree(made.run / "containers" / gone.id / what)
        os.kill(victim, signal.SIGKILL)
        await wait_until(lambda: not Path(f"/proc/{victim}").exists(), "its end")
        # Asked over the connection that the monitor had before.
        found = await lab.exec_output(other.id, lab.process("echo here"))
        assert (found.text, made.monitors()) == ("here", monitors)
        await lab.clean()
