"""What dies and what does not: monitors, the launcher and the plugin are killed under containers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from tests.conformance.runtime_rig import BUSYBOX, SOURCES, Rig, rig

from sagong.conformance.runtime import RuntimeLab
from sagong.conformance.runtime_lab import Stream, wait_until
from sagong.contracts.runtime import (
    ContainerRef,
    ContainerState,
    ExecRequest,
    ExecStatus,
    LogSpec,
    Namespaces,
    ResizeRequest,
    SignalRequest,
)
from sagong.errors import Unavailable
from sagong.linux import process
from sagong.shim.messages import encode

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox (package busybox-static)"),
]


async def say(lab: RuntimeLab, container_id: str, word: str, answer: str) -> None:
    """Write a line to a container that answers; who attaches while a monitor dies asks again."""
    for _ in range(600):
        try:
            stream = await lab.attach(container_id, stdin=True)
            break
        except Unavailable:
            await asyncio.sleep(0.1)
    await stream.write(word.encode() + b"\n")
    await stream.until(answer.encode())
    await stream.close()


async def test_an_exec_whose_number_inside_is_the_monitors_outside_is_like_any_other() -> None:
    """It took itself for the monitor: it went on as a second one, inside the container."""
    async with rig() as made:
        lab = made.lab()
        container = await lab.running()
        (monitor,) = made.monitors()
        last = f"echo {monitor - 1} >/proc/sys/kernel/ns_last_pid"
        subprocess.run(
            ["nsenter", "-p", "-t", str(container.pid), "sh", "-c", last], check=True, timeout=60
        )
        for number in range(3):
            found = await lab.exec_output(container.id, lab.process("echo $$"))
            assert (found.code, found.text) == (0, str(monitor + number))
        await wait_until(lambda: [*made.like_monitors()] == [monitor], "one monitor alone")
        await lab.clean()


async def test_killed_monitor_stops_no_container() -> None:
    """The program writes on, its log goes on, its end is told once with the right code."""
    async with rig() as made:
        lab = made.lab()
        log = lab.scratch / "c.log"
        script = (
            "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; [ -e /stop ] && exit 7; done"
        )
        spec = lab.spec(script, log=LogSpec(path=str(log)))
        container = await lab.runtime.run(spec)
        await wait_until(lambda: log.exists() and b"line 5" in log.read_bytes(), "output")
        await made.kill_monitors()
        size = log.stat().st_size
        await wait_until(lambda: log.stat().st_size > size + 200, "output after the successor")
        found = await lab.runtime.inspect(ContainerRef(id=spec.id))
        assert (found.state, found.pid) == (ContainerState.RUNNING, container.pid)
        (Path(f"/proc/{container.pid}/root") / "stop").touch()
        assert (await lab.ended(spec.id)).code == 7
        await lab.clean()
        assert [e.code for e in lab.exits_of(spec.id)] == [7]
        numbers = [int(json.loads(x)["log"].split()[1]) for x in log.read_text().splitlines()]
        # At most one read of the output is lost, however much had come by then, or repeated.
        lost = sorted(set(range(1, numbers[-1] + 1)) - set(numbers))
        assert not lost or lost == list(range(lost[0], lost[-1] + 1)), lost


async def test_killed_monitor_hangs_up_no_terminal() -> None:
    """A terminal and an open stdin live on, since the launcher keeps duplicates."""
    async with rig() as made:
        lab = made.lab()
        script = "while read word; do echo got-$word; done; echo eof"
        terminal = lab.spec(lab.process(script, tty=True, stdin=True))
        plain = lab.spec(lab.process(script, stdin=True))
        for spec in (terminal, plain):
            await lab.runtime.run(spec)
            await say(lab, spec.id, "one", "got-one")
        await made.kill_monitors()
        for spec in (terminal, plain):
            await say(lab, spec.id, "two", "got-two")
            assert (await lab.runtime.inspect(ContainerRef(id=spec.id))).state == "running"
        await lab.clean()


async def test_lifelines_survive_a_new_launcher() -> None:
    """Launcher first, monitors after: what the monitors gave the new launcher saves them."""
    async with rig() as made:
        lab = made.lab()
        script = "while read word; do echo got-$word; done; echo eof"
        spec = lab.spec(lab.process(script, tty=True, stdin=True))
        await lab.runtime.run(spec)
        await say(lab, spec.id, "one", "got-one")
        made.kill_launcher()
        made.start_launcher()
        await wait_until(lambda: lab.runtime._links.deposits > 0, "deposits")  # type: ignore[attr-defined]
        await made.kill_monitors()
        await say(lab, spec.id, "two", "got-two")
        other = await lab.shell("exit 4")
        assert other.code == 4
        await lab.clean()


async def test_code_is_known_when_all_watchers_died() -> None:
    """Monitor and launcher gone: the kernel (6.15 and later) still tells a successor the code."""
    async with rig() as made:
        lab = made.lab()
        spec = lab.spec("while [ ! -e /stop ]; do sleep 0.02; done; exit 9")
        container = await lab.runtime.run(spec)
        made.kill_launcher()
        for pid in made.monitors():
            os.kill(pid, signal.SIGKILL)
        made.start_launcher()
        await wait_until(lambda: len(made.monitors()) == 1, "a successor")
        (Path(f"/proc/{container.pid}/root") / "stop").touch()
        assert (await lab.ended(spec.id)).code == 9
        await lab.clean()


async def test_end_without_a_monitor_is_known() -> None:
    """Killed in the same moment as its monitor: the launcher reaped it and remembers."""
    async with rig() as made:
        lab = made.lab()
        container = await lab.running()
        await made.drop_plugin()
        for pid in made.monitors():
            os.kill(pid, signal.SIGKILL)
        os.kill(container.pid, signal.SIGTERM)
        os.kill(container.pid, signal.SIGKILL)
        await wait_until(lambda: not Path(f"/proc/{container.pid}").exists(), "the end")
        lab.runtime = await made.start_plugin()
        assert (await lab.ended(container.id)).code == 137
        await lab.clean()
        assert len(lab.exits_of(container.id)) == 1


async def test_group_survives_its_monitor() -> None:
    """Later containers still join the namespaces of earlier ones."""
    async with rig() as made:
        lab = made.lab()
        spaces = Namespaces(ipc="group", uts="group", pid="group")
        shared = {"group": "pod-x", "namespaces": spaces}
        first = await lab.running(**shared)
        second = await lab.running(**shared)
        assert len(made.monitors()) == 1
        await made.kill_monitors()
        script = "readlink /proc/self/ns/ipc; readlink /proc/self/ns/pid"
        found = await lab.shell(script, **shared)
        wanted = [os.readlink(f"/proc/{first.pid}/ns/{kind}") for kind in ("ipc", "pid")]
        assert found.lines == wanted
        for one in (first, second):
            await lab.runtime.signal(SignalRequest(id=one.id, signal=9))
            assert (await lab.ended(one.id)).code == 137
        await lab.clean()
        await made.drop_plugin()
        await wait_until(lambda: not made.monitors(), "the end of the group's monitor")


async def kill_monitor_unnoticed(made: Rig) -> None:
    """-9 while the plugin can't look: what it asks next goes to a monitor that is dead."""
    await wait_until(lambda: len(made.monitors()) == 1, "the monitor")
    (pid,) = made.monitors()
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    process.wait_ended(pidfd, 30.0)
    os.close(pidfd)


async def test_start_at_a_monitors_death_joins_its_group() -> None:
    """The successor adopts before it serves: once a start that came first made new namespaces."""
    async with rig() as made:
        lab = made.lab()
        spaces = Namespaces(ipc="group", uts="group", pid="group")
        shared = {"group": "pod-x", "namespaces": spaces}
        first = await lab.running(**shared)
        await kill_monitor_unnoticed(made)
        second = await lab.running(**shared)
        for kind in ("ipc", "uts", "pid"):
            one, other = (os.readlink(f"/proc/{c.pid}/ns/{kind}") for c in (first, second))
            assert one == other
        assert len(made.monitors()) == 1
        await lab.clean()


async def test_requests_at_a_monitors_death_reach_its_successor() -> None:
    """Attach, exec and resize that went to a dead monitor are answered by the next one."""
    async with rig() as made:
        lab = made.lab()
        spec = lab.spec(lab.process("while read x; do echo got-$x; done", stdin=True, tty=True))
        await lab.runtime.run(spec)
        stream = await lab.attach(spec.id, stdin=True)
        await stream.write(b"zero\n")
        await stream.until(b"got-zero")  # so its lifelines have been given to the launcher
        await stream.close()
        await kill_monitor_unnoticed(made)
        stream = await lab.attach(spec.id, stdin=True)
        await stream.write(b"one\n")
        await stream.until(b"got-one")
        await stream.close()
        await kill_monitor_unnoticed(made)
        await lab.runtime.resize(ResizeRequest(id=spec.id, rows=30, columns=90))
        await kill_monitor_unnoticed(made)
        request = ExecRequest(id=spec.id, exec_id="e", process=lab.process("echo hi; exit 3"))
        status = await lab.runtime.exec(request)
        assert status.stream is not None
        stream = await Stream.open(status.stream)
        await stream.until(b"hi")
        await stream.close()
        await lab.clean()


async def test_a_container_has_one_monitor() -> None:
    """Who is asked to adopt what another monitor watches refuses, and leaves the socket alone."""
    async with rig() as made:
        lab = made.lab()
        container = await lab.running()
        monitors = made.monitors()
        (path,) = (made.run / "s").iterdir()
        inode = path.stat().st_ino
        asked: list[dict[str, object]] = [
            {"op": "monitor", "key": container.id},
            {"n": 1, "op": "adopt", "ids": [container.id]},
        ]
        reader, writer = await asyncio.open_unix_connection(str(made.run / "launcher.sock"))
        writer.write(b"".join(encode(message) for message in asked))
        # Who was refused has nothing to watch, and ends when nobody has come for a while.
        await asyncio.wait_for(reader.readuntil(b'"unavailable"'), 30.0)
        writer.close()
        assert set(monitors) <= set(made.monitors())
        assert path.stat().st_ino == inode
        stream = await lab.attach(container.id)
        await lab.runtime.signal(SignalRequest(id=container.id, signal=9))
        assert (await stream.rest()).code == 137
        await lab.clean()


async def test_who_adopts_what_has_ended_begins_no_log() -> None:
    """Its end was told, and its log removed: an empty one was left, of a container that is gone."""
    async with rig() as made:
        lab = made.lab()
        log = lab.scratch / "c.log"
        spec = lab.spec("echo said", log=LogSpec(path=str(log)))
        await lab.runtime.run(spec)
        await lab.ended(spec.id)
        assert "said" in log.read_text()
        log.unlink()
        asked: list[dict[str, object]] = [
            {"op": "monitor", "key": "another"},
            {"n": 1, "op": "adopt", "ids": [spec.id]},
        ]
        for made_again in (False, True):
            if made_again:
                log.write_text("")
            reader, writer = await asyncio.open_unix_connection(str(made.run / "launcher.sock"))
            writer.write(b"".join(encode(message) for message in asked))
            await asyncio.wait_for(reader.readuntil(b'"clean"'), 30.0)
            writer.close()
            assert log.exists() is made_again
        await lab.clean()


async def test_exec_survives_its_monitor() -> None:
    """An exec'd process runs on, and its code is known."""
    async with rig() as made:
        lab = made.lab()
        container = await lab.running()
        script = "while [ ! -e /stop ]; do echo x; sleep 0.02; done; exit 6"
        request = ExecRequest(id=container.id, exec_id="e1", process=lab.process(script))
        status = await lab.runtime.exec(request)
        assert status.stream is not None
        stream = await Stream.open(status.stream)
        await stream.until(b"x")
        await made.kill_monitors()
        await stream.close()
        (Path(f"/proc/{container.pid}/root") / "stop").touch()
        for _ in range(3000):
            status = await lab.runtime.exec_status(request)
            if not status.running:
                break
            await asyncio.sleep(0.01)
        assert (status.running, status.code) == (False, 6)
        await lab.clean()


async def test_interrupted_start_is_swept() -> None:
    """A directory without a state is what a crash in the middle of `run` leaves."""
    async with rig() as made:
        lab = made.lab()
        container = await lab.running()
        broken = made.run / "containers" / "broken"
        broken.mkdir()
        (broken / "spec.json").write_text('{"id": "broken", "mounts": [], "process": {"args": []}}')
        (made.run / "containers" / "half").mkdir()
        lab.runtime = await made.restart_plugin()
        found = {c.id for c in (await lab.runtime.list()).containers}
        assert found == {container.id}
        await wait_until(lambda: not broken.exists(), "the end of what was left")
        await lab.clean()


async def test_what_can_not_be_swept_keeps_nobody_from_the_others() -> None:
    """The plugin did not start: a swap failed, and nobody served. Its own next run tries again."""
    async with rig() as made:
        lab = made.lab()
        container = await lab.running()
        spec = lab.spec("exit 3", cgroup_parent="/" + "x" * 300)  # longer than a name may be
        left = made.run / "containers" / spec.id
        left.mkdir()
        (left / "spec.json").write_bytes(msgspec.json.encode(spec))
        lab.runtime = await made.restart_plugin()
        assert {c.id for c in (await lab.runtime.list()).containers} == {container.id}
        spec = msgspec.structs.replace(spec, cgroup_parent="")
        assert (await lab.output(spec)).code == 3
        await lab.clean()


async def test_an_exec_that_two_generations_ask_for_is_one() -> None:
    """The first has sent it and was replaced before the answer, with or without a trace of it."""
    async with rig() as made:
        lab = made.lab()
        container = await lab.running()
        request = ExecRequest(
            id=container.id,
            exec_id=lab.new_id(),
            process=lab.process("echo once; echo x >>/count; read line; exit 7", stdin=True),
        )
        assert made.runtime is not None
        record = made.runtime._records[container.id]
        begun = await asyncio.gather(*(made.runtime._execs.start(record, request) for _ in "ab"))
        record.execs.clear()
        begun.append(await made.runtime.exec(request))
        await made.restart_plugin()
        begun.append(await lab_exec(made, request))
        assert len({status.pid for status in begun}) == 1
        assert begun[-1].stream is not None
        stream = await Stream.open(begun[-1].stream)
        await stream.until(b"once")
        await stream.write(b"\n")
        assert (await stream.rest()).code == 7
        record = made.runtime._records[container.id]
        record.execs.clear()
        last = await lab_exec(made, request)
        assert (last.running, last.code, last.pid) == (False, 7, begun[0].pid)
        counted = await made.lab().exec_output(container.id, lab.process("cat /count"))
        assert counted.text == "x"
        await made.lab().clean()


async def lab_exec(made: Rig, request: ExecRequest) -> ExecStatus:
    """Asked of the present generation."""
    assert made.runtime is not None
    return await made.runtime.exec(request)


async def test_strangers_are_refused() -> None:
    """Only the directory's owner and root may command; a token is the only way to a stream."""
    async with rig() as made:
        lab = made.lab()
        container = await lab.running()
        os.chmod(made.base, 0o755)
        script = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for path, first in ((sys.argv[1], b''), (sys.argv[2], b'control\\n')):
    channel = socket.socket(socket.AF_UNIX)
    channel.settimeout(60)
    try:
        channel.connect(path)
        channel.sendall(first + b'\\0\\0\\0\\x13{"n":1,"op":"facts"}')
        print(channel.recv(100))
    except OSError as error:
        print(b'')
"""
        monitor = next((made.run / "s").iterdir())
        found = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-I", "-c", script, str(made.run / "launcher.sock"), str(monitor)],
            capture_output=True,
            text=True,
        )
        assert found.stdout.split() == ["b''", "b''"], found
        assert (await lab.runtime.inspect(ContainerRef(id=container.id))).state == "running"
        await lab.clean()


async def test_nonsense_harms_nobody() -> None:
    """Garbage to the launcher closes that connection; it serves on."""
    async with rig() as made:
        lab = made.lab()
        for garbage in (b"\xff" * 64, b"\0\0\0\x02{]", b'\0\0\0\x0b{"op":"run"}', b"\0\0\0\x02[]"):
            with socket.socket(socket.AF_UNIX) as channel:
                channel.settimeout(60)
                channel.connect(str(made.run / "launcher.sock"))
                channel.sendall(garbage)
                channel.shutdown(socket.SHUT_WR)
                await asyncio.to_thread(channel.recv, 100)
        assert (await lab.shell("exit 3")).code == 3
        await lab.clean()


async def test_plugin_needs_no_rights() -> None:
    """The plugin as an ordinary user: the launcher alone has rights."""
    async with rig(owner=65534) as made:
        await made.drop_plugin()
        os.chmod(made.base, 0o755)
        script = Path(__file__).with_name("ordinary_user.py")
        found = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, str(script), str(made.run), str(made.rootfs), made.parent],
            env={"PYTHONPATH": SOURCES, "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
        )
        assert found.stdout == "b'hello\\n' 3\n", found.stderr


def mounts_below(directory: Path) -> list[str]:
    """The machine's mounts there; elsewhere others mount meanwhile."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if str(directory) in line]


async def test_failures_leave_no_mounts() -> None:
    """Neither on the host nor below the run directory."""
    async with rig() as made:
        lab = made.lab()
        for _ in range(3):
            with pytest.raises(Exception, match="not found"):
                await lab.runtime.run(lab.spec(lab.process("nonsense", "x")))
        await lab.shell("true")
        assert not mounts_below(made.base)
        await lab.clean()
        assert not list((made.run / "containers").iterdir())
        await made.drop_plugin()
        await wait_until(lambda: not list((made.run / "s").iterdir()), "sockets to be removed")
