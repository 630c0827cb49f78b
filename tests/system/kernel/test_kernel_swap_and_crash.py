"""Calls go on while their provider is swapped, and while anything of the system is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from sagong.contracts.kernel import SwapRequest
from sagong.contracts.scheduler import Scheduler
from sagong.errors import Unavailable
from sagong.operator import connect
from tests.system.instance import Instance, instance
from tests.system.kernel.load import QUESTION, Load, right

pytestmark = pytest.mark.root

CONFIGURATION = """
profile = "bare"
[units.scheduler]
plugin = "scheduler_first"
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    """One instance for all tests of this module."""
    with instance(CONFIGURATION) as found:
        yield found


async def test_twenty_swaps_to_another_and_back_lose_no_call(running: Instance) -> None:
    async with connect(running.paths) as operator:
        load = Load(await operator.use(Scheduler))
        callers = [asyncio.create_task(load.call()) for _ in range(64)]
        for plugin in ("scheduler_binpack", "scheduler_first") * 20:
            before = load.answers
            async for _step in operator.kernel.swap(SwapRequest(unit="scheduler", plugin=plugin)):
                pass
            while load.answers < before + 2 * len(callers):
                await asyncio.sleep(0.01)
        load.stopping = True
        await asyncio.gather(*callers)
    assert load.errors == []
    assert load.wrong == 0
    assert running.wait_ready().units[0].restarts == 0


@pytest.mark.parametrize("victim", ["scheduler", "zygote", "kernel", "keeper"])
async def test_a_killed_process_fails_no_idempotent_call(running: Instance, victim: str) -> None:
    running.wait_ready()
    async with connect(running.paths) as operator:
        load = Load(await operator.use(Scheduler))
        callers = [asyncio.create_task(load.call()) for _ in range(16)]
        await asyncio.sleep(0.1)
        killed = running.pid(victim)
        os.kill(killed, signal.SIGKILL)
        before = load.answers
        while load.answers < before + 500:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(running.wait_ready, gone=killed)
        async for _step in operator.kernel.swap(SwapRequest(unit="scheduler")):
            pass
        load.stopping = True
        await asyncio.gather(*callers)
    assert load.errors == []
    assert load.wrong == 0


async def test_everything_killed_at_once_comes_back_by_up(running: Instance) -> None:
    status = running.wait_ready()
    pids = [p.pid for p in status.others] + [p.pid for u in status.units for p in u.processes]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while any(os.path.exists(f"/proc/{pid}/exe") for pid in pids):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    assert (await asyncio.to_thread(running.run, "up")).returncode == 0
    async with connect(running.paths) as operator:
        assert right(await (await operator.use(Scheduler)).place(QUESTION))


async def test_a_plugin_that_does_not_start_leaves_the_old_one_serving(running: Instance) -> None:
    running.wait_ready()
    result = await asyncio.to_thread(running.run, "swap", "scheduler", "nonsense", check=False)
    assert result.returncode == 2
    assert "no plugin nonsense is installed" in result.stderr
    async with connect(running.paths) as operator:
        assert right(await (await operator.use(Scheduler)).place(QUESTION))


async def test_nobody_but_root_may_swap(running: Instance) -> None:
    code = (
        "import asyncio, sys\n"
        "from sagong.operator import connect\n"
        "from sagong.config import Paths\n"
        "from sagong.contracts.kernel import StopSystem\n"
        "async def go():\n"
        "    async with connect(Paths.below(sys.argv[1])) as operator:\n"
        "        await operator.kernel.stop(StopSystem())\n"
        "import sagong.bus, msgspec.msgpack, os, encodings.idna\n"
        "os.setuid(65534)\n"
        "asyncio.run(go())\n"
    )
    result = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", code, str(running.root)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"]},
    )
    assert "PermissionDenied" in result.stderr
    assert running.wait_ready()


async def test_a_call_to_nobody_ends_at_its_deadline(running: Instance) -> None:
    import zmq

    from sagong.bus import Route, proxy
    from sagong.call import deadline

    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    route = Route(context, "scheduler")
    with deadline(0.2), pytest.raises(Unavailable, match="nothing serves"):
        await proxy(Scheduler, route).place(QUESTION)
    context.destroy()
