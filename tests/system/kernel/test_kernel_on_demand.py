"""A unit on demand sleeps while nobody needs it, and nobody who calls or connects notices."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from nap_contract import Nap, Nudge

from sagong.contracts.kernel import PartRef, StatusQuery, SwapRequest, UnitRef, UnitStatus
from sagong.errors import FailedPrecondition, Unavailable
from sagong.operator import Operator, connect
from tests.system.instance import Instance, instance
from tests.system.kernel.sleepers import unit_of, wait_unit_of, wakings

pytestmark = pytest.mark.root

CONFIGURATION = """
profile = "bare"
[units.nap]
plugin = "napper"
[units.nudge]
plugin = "napper_caller"
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    """One instance for all tests of this module."""
    with instance(CONFIGURATION) as found:
        yield found


async def unit(operator: Operator, name: str = "nap") -> UnitStatus:
    """As `sagong status` shows it."""
    return await unit_of(operator, name)


async def wait_unit(operator: Operator, holds: Callable[[UnitStatus], bool]) -> UnitStatus:
    """Until it is so of the napper."""
    return await wait_unit_of(operator, "nap", holds)


async def wait_asleep(operator: Operator) -> None:
    """Until it sleeps, and nothing of it is left."""
    await wait_unit(operator, lambda u: u.state == "asleep" and not u.processes)


def mark(running: Instance, name: str, *, present: bool) -> None:
    """A file that the napper looks for."""
    file = running.paths.data / "plugins" / "napper" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch() if present else file.unlink(missing_ok=True)


async def kill(operator: Operator, name: str) -> None:
    """At once."""
    status = await operator.kernel.status(StatusQuery())
    found = [*status.others, *(p for u in status.units for p in u.processes)]
    os.kill(next(p.pid for p in found if p.unit == name), signal.SIGKILL)


async def test_it_is_not_started_before_it_is_called_and_the_system_is_ready(
    running: Instance,
) -> None:
    async with connect(running.paths) as operator:
        assert (await operator.kernel.status(StatusQuery())).ready
        assert (await unit(operator)).state == "asleep"
        nudge = await operator.use(Nudge)
        assert (await nudge.heard()).generation == 1, "who begins to hear is to look for himself"
        assert wakings(running, "nap") == 0
        assert (await nudge.ring()).value == 1
        assert wakings(running, "nap") == 1


async def test_calls_at_any_time_are_served_and_counted_once(running: Instance) -> None:
    """Also those that come while it falls asleep or wakes; the method may not be repeated."""
    async with connect(running.paths) as operator:
        nap, nudge = await operator.use(Nap), await operator.use(Nudge)
        begun = (await nap.count()).value
        calls, before = 0, wakings(running, "nap")
        end = time.monotonic() + 4.0
        while time.monotonic() < end or wakings(running, "nap") < before + 5:
            assert time.monotonic() < end + 60, "it does not sleep in between"
            for pause in (0.295, 0.3, 0.31, 0.32, 0.35, 0.45):
                await asyncio.sleep(pause)
                await asyncio.gather(nudge.ring(), nap.count(), nudge.ring())
                calls += 3
        assert (await nap.count()).value == begun + calls + 1
        assert (await unit(operator)).restarts == 0


async def test_a_stream_wakes_it_and_keeps_it_awake(running: Instance) -> None:
    async with connect(running.paths) as operator:
        await wait_asleep(operator)
        nap = await operator.use(Nap)
        began = time.monotonic()
        async for _ in nap.counts():
            if time.monotonic() - began > 1.0:
                assert len((await unit(operator)).processes) == 1
                break
        await wait_asleep(operator)


async def test_a_connection_wakes_it(running: Instance) -> None:
    async with connect(running.paths) as operator:
        await wait_asleep(operator)

        def greet() -> bytes:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(60)
                client.connect(str(running.paths.run / "napper.sock"))
                return client.recv(64)

        found = await asyncio.gather(*(asyncio.to_thread(greet) for _ in range(4)))
        assert found == [b"hello\n"] * 4
        await wait_asleep(operator)


async def test_work_that_is_no_call_keeps_it_awake(running: Instance) -> None:
    async with connect(running.paths) as operator:
        nap = await operator.use(Nap)
        mark(running, "busy", present=True)
        await nap.count()
        generation = (await unit(operator)).processes[0].generation
        await asyncio.sleep(1.0)
        assert [p.generation for p in (await unit(operator)).processes] == [generation]
        mark(running, "busy", present=False)
        await wait_asleep(operator)


async def test_a_new_kernel_knows_who_sleeps(running: Instance) -> None:
    """Who waits at the door of one whose kernel was killed is served by the next kernel."""
    async with connect(running.paths) as operator:
        await wait_asleep(operator)
        nudge = await operator.use(Nudge)
        await kill(operator, "kernel")
        calls = [asyncio.create_task(nudge.ring()) for _ in range(4)]
        await asyncio.gather(*calls)
        await wait_asleep(operator)
        before = await nudge.heard()
        await nudge.ring()
        limit = time.monotonic() + 60
        while (now := await nudge.heard()).value == before.value:
            assert time.monotonic() < limit, "who hears has not come to the next one, or too late"
            await asyncio.sleep(0.02)
        assert now.value == before.value + 1
        await asyncio.to_thread(running.wait_ready)


async def test_killed_while_it_is_awake_it_comes_back_and_sleeps_again(running: Instance) -> None:
    async with connect(running.paths) as operator:
        mark(running, "busy", present=True)
        await (await operator.use(Nap)).count()
        await kill(operator, "nap")
        mark(running, "busy", present=False)
        await wait_unit(operator, lambda u: u.restarts > 0)
        await wait_asleep(operator)


async def test_one_that_can_not_get_up_is_told_and_tried_again(running: Instance) -> None:
    async with connect(running.paths) as operator:
        await wait_asleep(operator)
        nudge = await operator.use(Nudge)
        mark(running, "broken", present=True)
        # Who waits hears of it as soon as it is given up.
        with pytest.raises(Unavailable, match="is down after"):
            await nudge.ring()
        await wait_unit(operator, lambda u: u.state == "down")
        with pytest.raises(Unavailable, match="is down after"):
            await nudge.ring()
        mark(running, "broken", present=False)
        await operator.kernel.restart(UnitRef(unit="nap"))
        assert (await nudge.ring()).value > 0
        await wait_asleep(operator)


async def test_swapped_while_it_sleeps(running: Instance) -> None:
    async with connect(running.paths) as operator:
        nudge = await operator.use(Nudge)
        value = (await nudge.ring()).value
        await wait_asleep(operator)
        mark(running, "broken", present=True)
        with pytest.raises(FailedPrecondition, match="get up"):
            async for _ in operator.kernel.swap(SwapRequest(unit="nap", trial=0.3, wait=True)):
                pass
        mark(running, "broken", present=False)
        await operator.kernel.restart(UnitRef(unit="nap"))
        await wait_asleep(operator)
        async for _ in operator.kernel.swap(SwapRequest(unit="nap", trial=0.3, wait=True)):
            pass
        assert (await nudge.ring()).value >= 1
        await wait_asleep(operator)
        value = (await nudge.ring()).value
        await wait_asleep(operator)
        before = (await nudge.heard()).generation
        value = (await nudge.ring()).value
        limit = time.monotonic() + 60
        while (await nudge.heard()).generation == before:
            assert time.monotonic() < limit, "waking made nobody look"
            await asyncio.sleep(0.01)
        await wait_asleep(operator)
        await asyncio.sleep(0.2)
        assert (await nudge.heard()).generation == before + 1, "falling asleep made hearers look"
        await operator.kernel.restart(UnitRef(unit="nap"))
        assert (await nudge.ring()).value == value + 1, "what it exported was lost"


async def test_the_zygote_is_made_anew_for_one_that_wakes(running: Instance) -> None:
    async with connect(running.paths) as operator:
        await wait_asleep(operator)
        await kill(operator, "zygote")
        assert (await (await operator.use(Nudge)).ring()).value > 0
        status = await operator.kernel.status(StatusQuery())
        assert [p.unit for p in status.others].count("zygote") == 1


async def test_what_a_changed_configuration_leaves_out_refuses_connections(
    running: Instance,
) -> None:
    """They waited for ever: the keeper went on holding the listener of a unit that was no more."""
    place = str(running.paths.run / "napper.sock")
    async with connect(running.paths) as operator:
        await (await operator.use(Nap)).count()
    (running.root / "etc" / "sagong.toml").write_text(
        CONFIGURATION.replace('plugin = "napper"', 'plugin = "napper"\nenabled = false')
    )
    upgraded = await asyncio.to_thread(running.run, "upgrade")
    assert "nap: not configured any more" in upgraded.stdout
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(OSError):
        client.connect(place)
    async with connect(running.paths) as operator:
        status = await operator.kernel.status(StatusQuery())
    assert [unit.name for unit in status.units] == ["nudge"]
    (running.root / "etc" / "sagong.toml").write_text(CONFIGURATION)
    await asyncio.to_thread(running.run, "upgrade", "kernel")
    async with connect(running.paths) as operator:
        assert (await unit(operator)).state == "asleep"


async def test_disabled_while_it_sleeps_it_refuses_and_enabled_it_comes_up(
    running: Instance,
) -> None:
    async with connect(running.paths) as operator:
        await wait_asleep(operator)
        disabled = await asyncio.to_thread(running.run, "disable", "nap", "--force")
        assert disabled.returncode == 0
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(OSError):
            client.connect(str(running.paths.run / "napper.sock"))
        enabled = await asyncio.to_thread(running.run, "enable", "nap")
        assert "serves as generation" in enabled.stdout
        await wait_asleep(operator)
        assert (await (await operator.use(Nudge)).ring()).value == 1


async def test_a_kernel_that_ends_in_order_leaves_it_asleep(running: Instance) -> None:
    async with connect(running.paths) as operator:
        await wait_asleep(operator)
        await operator.kernel.renew(PartRef(part="kernel"))
        assert (await (await operator.use(Nudge)).ring()).value > 0
