"""One that sleeps until something happens is woken by it, whatever ends meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager

import pytest
from nap_contract import Nap, Nudge

from sagong.contracts.kernel import StatusQuery, SwapRequest, UnitStatus, Waking
from sagong.errors import NotFound
from sagong.operator import Operator, connect
from tests.system.instance import Instance, instance
from tests.system.kernel.sleepers import unit_of, wait_unit_of, wait_wakings, wakings, woken

pytestmark = pytest.mark.root

# Any process may tell these groups something (linux/netlink.h: NETLINK_USERSOCK).
_USER, _GROUP = 2, random.randrange(1, 32)
CONFIGURATION = f"""
profile = "bare"
[units.nap]
plugin = "napper"
[units.dozer]
instance = "dozing"
listens = {{ told = "netlink:{_USER}:{_GROUP}" }}
[units.nudge]
plugin = "napper_caller"
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    """One instance for all tests of this module."""
    with instance(CONFIGURATION) as found:
        yield found


async def wait_unit(operator: Operator, holds: Callable[[UnitStatus], bool]) -> UnitStatus:
    """Until it is so of the dozer."""
    return await wait_unit_of(operator, "dozer", holds)


async def wait_asleep(operator: Operator) -> None:
    """Until it sleeps, and nothing of it is left."""
    await wait_unit(operator, lambda u: u.state == "asleep" and not u.processes)


def wakes(running: Instance, operator: Operator) -> AbstractAsyncContextManager[None]:
    """What the block does wakes the dozer, which sleeps again then."""
    return woken(running, operator, "dozer")


async def kill(operator: Operator, name: str) -> None:
    """At once."""
    status = await operator.kernel.status(StatusQuery())
    found = [*status.others, *(p for u in status.units for p in u.processes)]
    os.kill(next(p.pid for p in found if p.unit == name), signal.SIGKILL)


def mark(running: Instance, name: str, *, present: bool, of: str = "dozer@dozing") -> None:
    """A file that the dozer looks for, or another."""
    file = running.paths.data / "plugins" / of / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch() if present else file.unlink(missing_ok=True)


async def test_it_runs_first_and_sleeps_until_it_is_woken(running: Instance) -> None:
    async with connect(running.paths) as operator:
        await wait_asleep(operator)
        nudge = await operator.use(Nudge)
        async with wakes(running, operator):
            await nudge.stir()
        assert (await unit_of(operator, "nap")).state == "asleep", "woken by who is not to wake it"
        with pytest.raises(NotFound):
            await operator.kernel.wake(Waking(unit="nobody"))
        await (await operator.use(Nap, "dozing")).count()
        await wait_asleep(operator)


async def test_an_event_wakes_who_hears_it_and_is_not_lost(running: Instance) -> None:
    """Nor one that comes at another moment of its sleep, or before."""
    async with connect(running.paths) as operator:
        nap, dozer = await operator.use(Nap), await operator.use(Nap, "dozing")
        mark(running, "busy", present=True, of="napper")
        await nap.count()
        await wait_asleep(operator)
        before = (await dozer.count()).value
        for number in range(8):
            await asyncio.sleep(number * 0.06)
            await nap.count()
        await wait_asleep(operator)
        await nap.count()
        limit = time.monotonic() + 60
        while (heard := (await dozer.count()).value) != before + 9:
            assert time.monotonic() < limit, heard
            await asyncio.sleep(0.05)
        mark(running, "busy", present=False, of="napper")
        await wait_unit(operator, lambda u: u.state == "asleep")


async def test_a_hearer_is_woken_with_whom_it_hears(running: Instance) -> None:
    async with connect(running.paths) as operator:
        await wait_unit_of(operator, "nap", lambda u: u.state == "asleep")
        await wait_asleep(operator)
        async with wakes(running, operator):
            await (await operator.use(Nap)).count()


@pytest.mark.parametrize("how", ["killed", "swapped"])
async def test_word_left_with_one_that_is_replaced_is_not_lost(running: Instance, how: str) -> None:
    async with connect(running.paths) as operator:
        await wait_asleep(operator)
        async with wakes(running, operator):
            if how == "killed":
                await kill(operator, "nudge")
            else:
                async for _ in operator.kernel.swap(SwapRequest(unit="nudge")):
                    pass


async def test_what_netlink_tells_wakes_it_and_is_not_lost(running: Instance) -> None:
    """Nor what comes while it falls asleep or wakes, or while there is no kernel."""

    def tell() -> None:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _USER) as sender:
            # The group was told; then it is offered to the machine's kernel, which does not listen.
            with contextlib.suppress(ConnectionRefusedError):
                sender.sendto(b"something", (0, 1 << _GROUP - 1))

    async with connect(running.paths) as operator:
        dozer = await operator.use(Nap, "dozing")

        async def told() -> int:
            return [count.value async for count in dozer.counts()][1]

        before = await told()
        for pause in (0.0, 0.28, 0.3, 0.32, 0.34, 0.4):
            await asyncio.sleep(pause)
            tell()
        await wait_asleep(operator)
        async with wakes(running, operator):
            tell()
        assert await told() == before + 7
        await wait_asleep(operator)
        async with wakes(running, operator):
            await kill(operator, "kernel")  # and with it what the dozer had counted
            tell()
        assert await told() == 1


async def test_a_new_kernel_wakes_it(running: Instance) -> None:
    async with connect(running.paths) as operator:
        await wait_asleep(operator)
        async with wakes(running, operator):
            await kill(operator, "kernel")
        assert (await unit_of(operator, "nap")).state == "asleep"


async def test_one_that_could_not_leave_word_comes_up_again(running: Instance) -> None:
    async with connect(running.paths) as operator:
        mark(running, "deaf", present=True)
        await (await operator.use(Nap, "dozing")).count()
        generations: set[int] = set()

        def again(found: UnitStatus) -> bool:
            generations.update(p.generation for p in found.processes)
            return len(generations) > 2

        await wait_unit(operator, again)
        mark(running, "deaf", present=False)
        await wait_asleep(operator)


async def test_it_wakes_by_itself_when_it_said_so(running: Instance) -> None:
    async with connect(running.paths) as operator:
        await wait_asleep(operator)
        before = wakings(running, "dozer")
        mark(running, "alarm", present=True)
        await (await operator.use(Nap, "dozing")).count()
        await wait_wakings(running, "dozer", before + 3)
        mark(running, "alarm", present=False)
        await wait_asleep(operator)


async def test_killed_while_it_falls_asleep_it_comes_up(running: Instance) -> None:
    """Nobody knows whether it has left word."""
    async with connect(running.paths) as operator:
        await wait_asleep(operator)
        mark(running, "slow", present=True)
        await (await operator.use(Nap, "dozing")).count()
        found = await wait_unit(operator, lambda u: any(p.state == "draining" for p in u.processes))
        assert found.state == "asleep"
        async with wakes(running, operator):
            os.kill(found.processes[0].pid, signal.SIGKILL)
            mark(running, "slow", present=False)
