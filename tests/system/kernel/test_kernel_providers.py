"""Units come and go while everything runs, and several of them fill one slot side by side."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest
from greeting_contract import Desk, Greeting, Greeting2, Guest, Guests, Inquiry

from sagong.errors import Unavailable
from sagong.operator import connect
from tests.system.instance import Instance, instance

pytestmark = pytest.mark.root

CONFIGURATION = """
profile = "bare"
[units.greeter]
[units.desk]
[units.scheduler]
plugin = "scheduler_first"
"""
POLITE = ("polite", "--plugin", "greeter", "--instance", "polite", "--set", "word=good day")
T = TypeVar("T")


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    """One instance for all tests of this module."""
    with instance(CONFIGURATION) as found:
        yield found


@pytest.fixture
def polite(running: Instance) -> Iterator[Instance]:
    """With a second greeter, which is called polite."""
    running.run("enable", *POLITE)
    yield running
    if any(unit.name == "polite" for unit in running.status().units):
        running.run("disable", "polite")


def at_desk(running: Instance, work: Callable[[Desk], Awaitable[T]]) -> T:
    """Do something with the desk."""

    async def go() -> T:
        async with connect(running.paths) as operator:
            return await work(await operator.use(Desk))

    return asyncio.run(go())


async def said(desk: Desk, instance: str) -> str:
    """What a greeter says to Ann; one that was just added may be on its way to the desk."""
    limit = time.monotonic() + 60.0
    while True:
        try:
            return (await desk.ask(Inquiry(instance=instance, guest=Guest(name="Ann")))).text
        except Exception as error:
            if time.monotonic() > limit:
                return f"{type(error).__name__}: {error}"
            await asyncio.sleep(0.05)


def eventually(
    running: Instance, work: Callable[[Desk], Awaitable[object]], wanted: object
) -> None:
    """Wait until the desk tells what is wanted."""
    limit = time.monotonic() + 60.0
    while (found := at_desk(running, work)) != wanted:
        assert time.monotonic() < limit, found
        time.sleep(0.05)


async def names(desk: Desk) -> tuple[str, ...]:
    """The greeters that the desk knows."""
    return (await desk.greeters()).names


def seen_by(running: Instance, unit: str) -> set[str]:
    """Units whose sockets a unit's process can see in its own root."""
    root = f"/proc/{running.pid(unit)}/root{running.paths.run}/slots"
    return {name for name in os.listdir(root) if os.listdir(f"{root}/{name}")}


def test_an_added_provider_is_reached_from_a_sandbox_that_ran_before(running: Instance) -> None:
    before = running.pid("desk")
    assert seen_by(running, "desk") == {"desk", "greeter"}
    enabled = running.run("enable", *POLITE)
    assert "serves as generation" in enabled.stdout
    assert at_desk(running, lambda desk: said(desk, "polite")) == "good day Ann"
    assert at_desk(running, lambda desk: said(desk, "")) == "hello Ann"
    assert seen_by(running, "desk") == {"desk", "greeter", "polite"}
    assert seen_by(running, "scheduler") == {"scheduler"}
    assert running.run("disable", "polite").returncode == 0
    eventually(running, names, ("",))
    assert seen_by(running, "desk") == {"desk", "greeter"}
    assert running.pid("desk") == before


def test_events_of_every_provider_are_heard(polite: Instance) -> None:
    async def both(desk: Desk) -> set[str]:
        await said(desk, "polite")
        await said(desk, "")
        return set((await desk.heard()).names)

    limit = time.monotonic() + 60.0
    while not {"polite:Ann", ":Ann"} <= (heard := at_desk(polite, both)):
        assert time.monotonic() < limit, heard


def test_an_unknown_name_is_told_with_those_that_there_are(polite: Instance) -> None:
    eventually(polite, names, ("", "polite"))

    async def ask(desk: Desk) -> str:
        try:
            return (await desk.ask(Inquiry(instance="rude", guest=Guest(name="Ann")))).text
        except Exception as error:
            return str(error)

    text = at_desk(polite, ask)
    assert text == "no provider 'rude' of slot greeting; there are: the one without a name, polite"


def test_what_was_enabled_stays_over_deaths_and_restarts(polite: Instance) -> None:
    before = polite.pid("polite")
    os.kill(polite.pid("kernel"), signal.SIGKILL)
    polite.wait_ready()
    assert polite.pid("polite") == before
    assert at_desk(polite, lambda desk: said(desk, "polite")) == "good day Ann"
    os.kill(before, signal.SIGKILL)
    assert at_desk(polite, lambda desk: said(desk, "polite")) == "good day Ann"
    polite.run("down")
    polite.run("up")
    assert at_desk(polite, lambda desk: said(desk, "polite")) == "good day Ann"


def test_one_that_comes_back_is_as_it_was_until_that_is_forgotten(polite: Instance) -> None:
    polite.run("disable", "polite")
    polite.run("down")
    polite.run("up")
    back = polite.run("enable", "polite")
    assert "given before: plugin greeter, instance polite, setting word" in back.stdout
    assert at_desk(polite, lambda desk: said(desk, "polite")) == "good day Ann"
    polite.run("disable", "polite")
    assert "disabled already" in polite.run("disable", "polite", check=False).stderr
    assert "is forgotten" in polite.run("disable", "polite", "--forget").stdout
    refused = polite.run("enable", "polite", check=False)
    assert "no plugin polite is installed" in refused.stderr


def test_an_adopted_process_is_shown_what_is_added_after(running: Instance) -> None:
    os.kill(running.pid("kernel"), signal.SIGKILL)
    running.wait_ready()
    running.run("enable", *POLITE)
    assert at_desk(running, lambda desk: said(desk, "polite")) == "good day Ann"
    running.run("disable", "polite")


def test_a_call_in_flight_ends_before_its_provider_goes(polite: Instance) -> None:
    async def slow(desk: Desk) -> str:
        await said(desk, "polite")
        inquiry = Inquiry(instance="polite", guest=Guest(name="Bob", seconds=1.5))
        call = asyncio.ensure_future(desk.ask(inquiry))
        await asyncio.sleep(0)  # until it is sent; what is asked after it arrives after it
        await said(desk, "polite")
        gone = await asyncio.to_thread(polite.run, "disable", "polite")
        assert "is disabled" in gone.stdout
        return (await call).text

    assert at_desk(polite, slow) == "good day Bob"
    assert not (polite.paths.run / "slots" / "polite").exists()


def test_what_others_use_is_taken_away_by_force_alone(running: Instance) -> None:
    refused = running.run("disable", "greeter", check=False)
    assert refused.returncode == 1
    assert "greeter is used by desk (greeting/1)" in refused.stderr
    running.run("disable", "greeter", "--force")
    status = running.status()
    lacks = next(unit.lacks for unit in status.units if unit.name == "desk")
    assert lacks == ("unit desk needs greeting/1; nothing provides it",)
    running.run("down")
    running.run("up")
    assert "greeter" not in {unit.name for unit in running.status().units}
    running.run("enable", "greeter")
    assert at_desk(running, lambda desk: said(desk, "")) == "hello Ann"


def test_a_call_to_one_that_was_taken_away_fails_at_once(running: Instance) -> None:
    running.run("disable", "greeter", "--force")
    eventually(running, names, ())

    async def ask(desk: Desk) -> float:
        began = time.monotonic()
        with pytest.raises(Unavailable, match="nothing provides greeting"):
            await desk.ask(Inquiry(guest=Guest(name="Ann")))
        return time.monotonic() - began

    assert at_desk(running, ask) < 25.0  # and not the thirty seconds of its deadline
    running.run("enable", "greeter")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("greeter",), "is there already, filled by greeter"),
        (("second", "--plugin", "greeter"), "--instance"),
        (("second", "--plugin", "nonsense"), "no plugin nonsense is installed"),
        (("second",), "to have second filled by another one give --plugin"),
        (("second", "--plugin", "greeter", "--instance", "b", "--set", "colour=1"), "colour"),
        (("second", "--plugin", "greeter", "--instance", "b", "--set", "colour"), "NAME=VALUE"),
    ],
)
def test_what_can_not_stand_there_is_refused(
    running: Instance, words: tuple[str, ...], problem: str
) -> None:
    refused = running.run("enable", *words, check=False)
    assert refused.returncode != 0
    assert problem in refused.stderr
    assert {unit.name for unit in running.status().units} == {"greeter", "desk", "scheduler"}
    assert not (running.paths.run / "slots" / "second").exists()


def test_versions_of_a_contract_stand_side_by_side(running: Instance) -> None:
    running.run("swap", "greeter", "greeter_both")
    assert at_desk(running, lambda desk: said(desk, "")) == "welcome Ann"

    async def directly() -> tuple[str, str]:
        async with connect(running.paths) as operator:
            one = await (await operator.use(Greeting)).greet(Guest(name="Ann"))
            many = await (await operator.use(Greeting2)).greet(Guests(names=("Ann", "Bob")))
            return one.text, many.text

    assert asyncio.run(directly()) == ("welcome Ann", "welcome Ann and Bob")
    refused = running.run("swap", "greeter", "greeter_next", check=False)
    assert "greeter_next does not provide greeting/1, which is used by desk" in refused.stderr
    running.run("swap", "greeter", "greeter")
    assert at_desk(running, lambda desk: said(desk, "")) == "hello Ann"


def test_status_says_which_version_is_missing(running: Instance) -> None:
    running.run("disable", "greeter", "--force")
    running.run("enable", "greeter", "--plugin", "greeter_next")
    text = running.run("status", check=False).stdout
    assert "unit desk needs greeting/1; greeter provides greeting/2" in text
    running.run("disable", "--forget", "greeter")
    running.run("enable", "greeter")
    assert at_desk(running, lambda desk: said(desk, "")) == "hello Ann"
