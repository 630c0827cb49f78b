"""Processes that the kernel knows: what they are told, and what is known of their ends."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sagong import manifest
from sagong.contracts.kernel import Order
from sagong.kernel.companions import Companions
from sagong.kernel.endings import ending, last_words
from sagong.kernel.herald import Herald
from sagong.kernel.journal import ProcessRecord
from sagong.kernel.population import Population, Process
from sagong.kernel.resumption import orphan
from sagong.kernel.units import Unit

UNIT = Unit(
    "one",
    "",
    manifest.parse(
        '[plugin]\nname = "p"\nversion = "1"\nsummary = "s"\nclass = "a:B"\n', where="p"
    ),
    "p",
    {},
    {},
)
ZYGOTE = 7


class Cells:
    """What a herald asks of cells."""

    def uids(self, units: Any) -> dict[str, int]:
        return {unit.identity: 1 for unit in units}

    def show(self, process: Process, units: Any, living: Any) -> None:
        pass


def process(pid: int = 1, generation: int = 1, parent: int = ZYGOTE, pidfd: int = -1) -> Process:
    record = ProcessRecord(
        unit="one",
        identity="p",
        plugin="p",
        generation=generation,
        pid=pid,
        started=1,
        since=0.0,
        state="serving",
        bus=f"/bus/{generation}",
    )
    return Process(record, UNIT, pidfd, "serving", parent=parent)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """It ends when its input does, with status 3."""
    with subprocess.Popen(["sh", "-c", "read x; exit 3"], stdin=subprocess.PIPE) as made:
        yield made


def watched(child: subprocess.Popen[bytes], ended: list[Process], parent: int) -> Population:
    population = Population(ended.append, lambda: ZYGOTE)
    pidfd = os.pidfd_open(child.pid)
    population.add(process(child.pid, parent=parent, pidfd=pidfd))
    assert child.stdin is not None
    child.stdin.close()
    return population


async def until(holds: Any) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.001)


async def test_the_end_of_a_process_is_told_once_with_its_status(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sagong.kernel.population._STATUS_SECONDS", 1.0)
    ended: list[Process] = []
    population = watched(child, ended, ZYGOTE)
    await until(lambda: not list(population))
    assert not ended, "how it ended is not known yet"
    population.note_status(child.pid, 3)
    assert [one.status for one in ended] == [3]
    await asyncio.sleep(1.2)
    assert len(ended) == 1


@pytest.mark.parametrize("parent", [ZYGOTE, 0, ZYGOTE + 1])
async def test_the_end_of_one_that_nobody_tells_of_is_not_waited_for_long(
    child: subprocess.Popen[bytes], parent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adopted one, that of another zygote, and one whose zygote dies meanwhile."""
    monkeypatch.setattr(
        "sagong.kernel.population._STATUS_SECONDS", 0.05 if parent == ZYGOTE else 60
    )
    ended: list[Process] = []
    watched(child, ended, parent)
    await until(lambda: ended)
    assert ended[0].status is None


async def test_a_status_that_comes_late_is_told_and_that_of_a_dead_zygote_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a machine without a free core it took more than a moment: nobody said why a unit died."""
    monkeypatch.setattr("sagong.kernel.population._STATUS_SECONDS", 60.0)
    zygotes, ended = [ZYGOTE], list[Process]()
    population = Population(ended.append, lambda: zygotes[-1])
    for zygote in (ZYGOTE, 0):
        with subprocess.Popen(["true"]) as made:
            population.add(process(made.pid, pidfd=os.pidfd_open(made.pid)))
        await until(lambda: not list(population))
        await asyncio.sleep(0.2)
        assert not ended
        zygotes.append(zygote)
        if zygote:
            population.note_status(made.pid, 7)
        await until(lambda: ended)
        assert ended.pop().status == (7 if zygote else None)


async def test_a_status_that_comes_first_waits_for_the_end(child: subprocess.Popen[bytes]) -> None:
    ended: list[Process] = []
    population = Population(ended.append, lambda: ZYGOTE)
    one = process(child.pid, pidfd=os.pidfd_open(child.pid))
    population.add(one)
    population.note_status(child.pid, 3)
    assert not ended
    assert child.stdin is not None
    child.stdin.close()
    await until(lambda: ended)
    assert ended[0].status == 3


def test_an_end_is_told_in_words(tmp_path: Path) -> None:
    assert ending(None, "") == ""
    assert ending(1, "") == "exit status 1"
    assert ending(-9, "oh") == "ended by SIGKILL; it said at last: oh"
    assert ending(-250, "") == "ended by signal 250"


def test_last_words_are_the_last_line_that_was_added(tmp_path: Path) -> None:
    log = tmp_path / "one.log"
    log.write_text("of another one\n")
    assert last_words(log, 15) == ""
    log.write_text("of another one\nfirst\n\x1b[31mValueError: no\x07\n\n")
    assert last_words(log, 15) == "[31mValueError: no"
    assert last_words(log, 1 << 30) == "[31mValueError: no", "it was cut meanwhile"
    log.write_text("x" * 10_000)
    assert len(last_words(log, 0)) < 300
    assert last_words(tmp_path / "none", 0) == ""


async def test_one_that_reads_no_orders_is_to_attend_anew() -> None:
    """One that is stopped would else fill the kernel's memory."""
    one = process()
    orders = one.orders = asyncio.Queue()
    for number in range(1500):
        one.tell(Order(id=number, dead=("/x",)))
    assert orders.qsize() < 1500 and one.orders is None
    told = [orders.get_nowait() for _ in range(orders.qsize())]
    assert told[-1] is None and None not in told[:-1]


async def test_who_attends_anew_hears_of_deaths_again_and_who_comes_first_of_what_it_missed() -> (
    None
):
    fake: Any = Cells()
    population = Population(lambda one: None, lambda: ZYGOTE)
    herald = Herald(fake, population, {})
    herald.dead.append("/bus/8")
    herald.take()
    fresh, again = process(), process(generation=2)
    again.attended.set()
    herald.dead.append("/bus/9")
    for one in (fresh, again):
        herald.tell(one, {"one": UNIT}, {}, Order(id=0, dead=("/bus/9",)))
    herald.take()
    assert herald.missed_by(fresh) == Order(id=0, dead=("/bus/9",))
    assert herald.missed_by(fresh) == Order(id=0)
    assert herald.missed_by(again) == Order(id=0, dead=("/bus/8", "/bus/9"))


async def test_a_death_that_one_kernel_has_noticed_is_told_by_the_next() -> None:
    """It stood in no journal: streams of events from the dead were waited for, for ever."""
    fake: Any = Cells()
    population = Population(lambda one: None, lambda: ZYGOTE)
    before = Herald(fake, population, {})
    before.dead.append("/bus/8")
    before.take()  # it is on its way to those who attend when this kernel is killed
    before.dead.append("/bus/9")
    before.deserted.append("/bus/7")
    passed = before.known()
    assert passed == Order(id=0, dead=("/bus/8", "/bus/9"), deserted=("/bus/7",))
    after = Herald(fake, population, {})
    after.recall(passed)
    one = process()
    one.missed = passed
    for _ in range(2):  # whoever attends twice may have lost what he was told first
        assert after.missed_by(one) == passed
        one.attended.set()
    assert after.known() == passed, "the kernel after that tells it, too"


async def test_who_is_gone_stands_in_the_journal_until_his_end_is_told(
    child: subprocess.Popen[bytes],
) -> None:
    ended: list[Process] = []
    population = Population(ended.append, lambda: ZYGOTE)
    population.add(process(child.pid, pidfd=os.pidfd_open(child.pid)))
    child.communicate()
    await until(lambda: not list(population))
    assert not ended and [record.pid for record in population.records()] == [child.pid]
    population.note_status(child.pid, 0)
    assert ended and population.records() == ()


def test_an_orphan_has_its_own_name_and_uid_and_no_right() -> None:
    """It had those of some other unit, and there was no kernel where there was none."""
    record = msgspec.structs.replace(process().record, unit="gone", plugin="p", identity="p@second")
    unit = orphan(record)
    assert (unit.name, unit.identity) == ("gone", "p@second")
    assert not list(unit.uses()) and not unit.manifest.provides


async def test_a_companion_that_has_just_ended_is_no_error(
    child: subprocess.Popen[bytes],
) -> None:
    """Its unit's falling asleep, or the system's end, went no further then."""
    fake: Any = Cells()
    companions = Companions(fake, fake, lambda: None)
    pidfd = os.pidfd_open(child.pid)
    companions._records["one"] = (process(child.pid).record, UNIT, pidfd)
    child.communicate()
    companions.drop("one")
    companions.stop()
    os.close(pidfd)
