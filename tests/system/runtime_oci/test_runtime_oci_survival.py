"""What dies and what does not under containers of an OCI runtime: the rules are runtime_linux's."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path

import pytest
from tests.conformance.runtime_rig import BUSYBOX, Rig, rig

from sagong.conformance.runtime import RuntimeLab
from sagong.conformance.runtime_lab import standard_mounts, wait_until
from sagong.contracts.runtime import (
    ContainerRef,
    ContainerState,
    ExecRequest,
    Mount,
    Namespaces,
)
from sagong.errors import FailedPrecondition
from sagong_runtime_linux import RuntimeLinux
from sagong_runtime_oci import RuntimeOci

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox (package busybox-static)"),
    pytest.mark.skipif(shutil.which("runc") is None, reason="needs runc (package runc)"),
]


def bundles(made: Rig) -> list[str]:
    """What the runtime itself keeps."""
    return sorted(os.listdir(made.run / "oci")) if (made.run / "oci").exists() else []


async def test_killed_monitors_stop_no_container_and_no_exec() -> None:
    async with rig(RuntimeOci) as made:
        lab = made.lab()
        script = "while read word; do echo got-$word; done"
        terminal = lab.spec(lab.process(script, tty=True, stdin=True))
        container = await lab.runtime.run(terminal)
        process = lab.process("while [ ! -e /stop ]; do sleep 0.02; done; exit 6")
        request = ExecRequest(id=container.id, exec_id=lab.new_id(), process=process)
        await lab.runtime.exec(request)
        await made.kill_monitors()
        found = await lab.runtime.inspect(ContainerRef(id=container.id))
        assert (found.state, found.pid) == (ContainerState.RUNNING, container.pid)
        stream = await lab.attach(container.id, stdin=True)
        await stream.write(b"word\n")
        await stream.until(b"got-word")
        await stream.close()
        (Path(f"/proc/{container.pid}/root") / "stop").touch()
        await _code_of(lab, request, 6)
        await lab.clean()
        assert bundles(made) == []


async def _code_of(lab: RuntimeLab, request: ExecRequest, code: int) -> None:
    for _ in range(3000):
        status = await lab.runtime.exec_status(request)
        if not status.running:
            break
        await asyncio.sleep(0.01)
    assert (status.running, status.code) == (False, code)


async def test_code_is_known_when_plugin_launcher_and_monitor_died() -> None:
    async with rig(RuntimeOci) as made:
        lab = made.lab()
        spec = lab.spec("while [ ! -e /stop ]; do sleep 0.02; done; exit 9")
        container = await lab.runtime.run(spec)
        await made.drop_plugin()
        made.kill_launcher()
        for pid in made.monitors():
            os.kill(pid, signal.SIGKILL)
        made.start_launcher()
        lab.runtime = await made.start_plugin()
        (Path(f"/proc/{container.pid}/root") / "stop").touch()
        assert (await lab.ended(spec.id)).code == 9
        await lab.clean()
        assert bundles(made) == []


async def test_killed_monitors_matter_to_no_exec_into_what_another_runtime_made() -> None:
    """Their successors are forked by the launcher of one, and have containers of both."""
    async with rig(RuntimeOci, RuntimeLinux) as made:
        lab = made.lab()
        names = [(await lab.running()).id]
        lab.runtime = await made.swap_plugin()
        names.append((await lab.running()).id)
        for _ in range(2):
            made.kill_launcher()
            made.start_launcher()
            await made.kill_monitors()
            for name in names:
                found = await lab.exec_output(name, lab.process("echo inside; exit 4"))
                assert (found.lines, found.code) == (["inside"], 4), found.stderr
            lab.runtime = await made.swap_plugin()
        await lab.clean()
        assert bundles(made) == []


async def test_an_exec_asks_the_binary_that_made_its_container() -> None:
    """And not the one that the settings name since."""
    async with rig(RuntimeOci) as made:
        lab = made.lab()
        container = await lab.running()
        made.settings["binary"] = "/no/such/runtime"
        lab.runtime = await made.restart_plugin()
        found = await lab.exec_output(container.id, lab.process("echo inside"))
        assert found.lines == ["inside"]


async def test_group_of_a_dead_monitor_is_joined() -> None:
    async with rig(RuntimeOci) as made:
        lab = made.lab()
        spaces = Namespaces(ipc="group", uts="group", pid="group")
        shared = {"group": "pod-x", "namespaces": spaces}
        first = await lab.running(**shared)
        await made.kill_monitors()
        found = await lab.shell("readlink /proc/self/ns/ipc; readlink /proc/self/ns/pid", **shared)
        wanted = [os.readlink(f"/proc/{first.pid}/ns/{kind}") for kind in ("ipc", "pid")]
        assert found.lines == wanted
        await lab.clean()
        await made.drop_plugin()
        await wait_until(lambda: not made.monitors(), "the end of the group's monitor")


async def test_interrupted_start_is_swept_from_the_runtime_too() -> None:
    async with rig(RuntimeOci) as made:
        lab = made.lab()
        container = await lab.running()
        directory = made.run / "containers" / container.id
        await made.drop_plugin()
        for pid in made.monitors():
            os.kill(pid, signal.SIGKILL)
        (directory / "state.json").unlink()
        lab.runtime = await made.start_plugin()
        assert (await lab.runtime.list()).containers == ()
        await wait_until(lambda: not Path(f"/proc/{container.pid}").exists(), "its end")
        await wait_until(lambda: bundles(made) == [], "the end of its bundle")


async def test_failures_leave_nothing() -> None:
    async with rig(RuntimeOci) as made:
        lab = made.lab()
        broken = Mount(target="/x", kind="tmpfs", options=("size=nonsense",))
        spec = lab.spec("true", mounts=(*standard_mounts(lab.root()), broken))
        with pytest.raises(FailedPrecondition):
            await lab.runtime.run(spec)
        assert bundles(made) == []
        assert str(made.base) not in Path("/proc/self/mountinfo").read_text()
        await made.drop_plugin()
        await wait_until(lambda: not made.monitors(), "the monitor's end")


async def test_a_missing_binary_is_told_with_what_to_do() -> None:
    async with rig(RuntimeOci) as made:
        made.settings["binary"] = "/no/such/runtime"
        lab = made.lab()
        lab.runtime = await made.restart_plugin()
        with pytest.raises(FailedPrecondition, match=r"/no/such/runtime.*setting `binary`"):
            await lab.runtime.run(lab.spec("true"))


async def test_volumes_in_a_user_namespace_show_mapped_ids() -> None:
    """Root's files on the host are root's inside, and what is made inside is root's on the host."""
    async with rig(RuntimeOci) as made:
        lab = made.lab()
        volume = lab.scratch / "volume"
        volume.mkdir()
        (volume / "old").touch()
        table = ((0, 100_000, 65_536),)
        bind = Mount(target="/data", kind="bind", source=str(volume), options=("rbind", "idmap"))
        found = await lab.shell(
            "stat -c %u /data/old; touch /data/new; chown 7 /data/new; stat -c %u /data/new",
            mounts=(*standard_mounts(lab.root()), bind),
            namespaces=Namespaces(user="new", uid_map=table, gid_map=table),
        )
        assert found.lines == ["0", "7"], found.stderr
        assert (volume / "new").stat().st_uid == 7
