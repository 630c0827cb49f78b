"""Checks of the runtime suite: further processes in a container."""

from __future__ import annotations

import asyncio

from sagong.conformance.runtime_lab import PATH, RuntimeLab, Stream, raises
from sagong.conformance.runtime_life import REFUSALS
from sagong.contracts.runtime import ExecRequest, ResizeRequest, SignalRequest
from sagong.errors import FailedPrecondition, NotFound


async def check_exec_runs_inside(lab: RuntimeLab) -> None:
    """In the container's namespaces and cgroup, with its own environment and code."""
    container = await lab.running(hostname="inner")
    process = lab.process(
        "hostname; echo $X; pwd; echo err >&2; exit 5", env=(PATH, "X=y"), cwd="/tmp"
    )
    found = await lab.exec_output(container.id, process)
    assert (found.lines, found.stderr, found.code) == (["inner", "y", "/tmp"], b"err\n", 5)
    inside = await lab.exec_output(container.id, lab.process("cat /proc/1/comm; ls /proc/self/ns"))
    assert inside.lines[0] == "sleep"


async def check_exec_status_is_kept(lab: RuntimeLab) -> None:
    """Running, then its code; the same exec_id never runs twice; an unknown one is NotFound."""
    container = await lab.running()
    request = ExecRequest(
        id=container.id, exec_id=lab.new_id(), process=lab.process("read x; exit 3", stdin=True)
    )
    status = await lab.runtime.exec(request)
    assert status.running
    assert status.pid > 0
    assert status.stream is not None
    stream = await Stream.open(status.stream)
    assert (await lab.runtime.exec_status(request)).running
    await stream.write(b"\n")
    assert (await stream.rest()).code == 3
    after = await lab.runtime.exec_status(request)
    assert (after.running, after.code) == (False, 3)
    assert (await lab.runtime.exec(request)).code == 3
    other = ExecRequest(id=container.id, exec_id="unknown", process=request.process)
    with raises(NotFound):
        await lab.runtime.exec_status(other)


async def check_exec_said_again_gives_its_streams(lab: RuntimeLab) -> None:
    """An answer that was lost loses no output, even of a program that has ended meanwhile."""
    container = await lab.running()
    request = ExecRequest(
        id=container.id, exec_id=lab.new_id(), process=lab.process("echo once; exit 3")
    )
    await lab.runtime.exec(request)
    async with asyncio.timeout(40.0):
        while (await lab.runtime.exec_status(request)).running:  # noqa: ASYNC110 - its end is what is waited for
            await asyncio.sleep(0.01)
    again = await lab.runtime.exec(request)
    assert again.stream is not None
    found = await (await Stream.open(again.stream)).rest()
    assert (found.lines, found.code) == (["once"], 3)


async def check_exec_has_a_terminal(lab: RuntimeLab) -> None:
    """Of its own, with a size that can change."""
    container = await lab.running()
    process = lab.process(
        "tty; stty size; read x; stty size", tty=True, stdin=True, rows=20, columns=70
    )
    request = ExecRequest(id=container.id, exec_id=lab.new_id(), process=process)
    status = await lab.runtime.exec(request)
    assert status.stream is not None
    stream = await Stream.open(status.stream)
    await stream.until(b"20 70")
    resize = ResizeRequest(id=container.id, exec_id=request.exec_id, rows=30, columns=80)
    await lab.runtime.resize(resize)
    await stream.write(b"\n")
    assert b"30 80" in (await stream.rest()).stdout


async def check_exec_takes_input(lab: RuntimeLab) -> None:
    """Until its end."""
    container = await lab.running()
    request = ExecRequest(
        id=container.id, exec_id=lab.new_id(), process=lab.process("wc", "-c", stdin=True)
    )
    status = await lab.runtime.exec(request)
    assert status.stream is not None
    stream = await Stream.open(status.stream)
    await stream.write(b"12345")
    await stream.end_input()
    assert (await stream.rest()).text == "5"


async def check_exec_refuses_in_dockers_words(lab: RuntimeLab) -> None:
    """As run does; and an ended container can't be entered."""
    container = await lab.running()
    for args, kind, text in REFUSALS:
        with raises(kind, text):
            await lab.exec_output(container.id, lab.process(*args))
    await lab.runtime.signal(SignalRequest(id=container.id, signal=9))
    await lab.ended(container.id)
    with raises(FailedPrecondition, "not running"):
        await lab.exec_output(container.id, lab.process("true", "x"))


async def check_exec_survives_a_restart(lab: RuntimeLab) -> None:
    """Its status is there for the successor, too."""
    if lab.restart is None:
        return
    container = await lab.running()
    request = ExecRequest(
        id=container.id, exec_id=lab.new_id(), process=lab.process("sleep 0.2; exit 6")
    )
    await lab.runtime.exec(request)
    lab.runtime = await lab.restart()
    for _ in range(3000):
        status = await lab.runtime.exec_status(request)
        if not status.running:
            break
        await asyncio.sleep(0.01)
    assert (status.running, status.code) == (False, 6)
