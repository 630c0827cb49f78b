"""Memory shared with forks: what is given back, what stays, and that no value changes by it."""

from __future__ import annotations

import gc
import os
import random
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sagong.pristine import Pristine

pytestmark = pytest.mark.skipif(
    not (3, 11) <= sys.version_info < (3, 14), reason="another form of memory: nothing is shared"
)


def own_kilobytes() -> int:
    """Dirty memory that only this process has."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return int(re.findall(r"Private_Dirty:\s+(\d+)", text)[0])


def in_fork(work: Callable[[], None]) -> None:
    """Run it in a fork of a fork, so that what is made immortal is not the test's own memory."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            if code:
                sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def made() -> Pristine:
    """The copy of this process."""
    found = Pristine.make()
    assert found is not None
    return found


def touch_all() -> int:
    """Count a reference of every object there is, as ordinary work does of some."""
    touched = 0
    for module in list(sys.modules.values()):
        for value in list(vars(module).values()):
            for inner in list(getattr(value, "__dict__", {}).values()):
                touched += inner is not None
    return touched


def test_touched_pages_are_shared_again() -> None:
    def parent() -> None:
        pristine = made()

        def child() -> None:
            touch_all()
            dirty = own_kilobytes()
            assert pristine.settle() > 0
            assert own_kilobytes() < dirty * 0.7

        in_fork(child)

    in_fork(parent)


def test_what_was_changed_stays_changed() -> None:
    """Lists, dictionaries, attributes and code that differ from the copy are never dropped."""

    class Holder:
        pass

    kept = [[number] for number in range(50_000)]
    table = {str(number): number for number in range(50_000)}
    holders = [Holder() for _ in range(10_000)]

    def parent() -> None:
        pristine = made()

        def child() -> None:
            chance = random.Random(1)
            expected = {}
            for _ in range(20):
                for place in chance.sample(range(50_000), 300):
                    kept[place].append(-place)
                    table[str(place)] = expected[place] = chance.random()
                    holders[place % 10_000].mark = place
                pristine.settle()
                gc.collect()
            for place in range(50_000):
                assert kept[place][0] == place
                assert (len(kept[place]) > 1) == (place in expected)
                assert table[str(place)] == expected.get(place, place)
                if place in expected:
                    assert holders[place % 10_000].mark % 10_000 == place % 10_000

        in_fork(child)

    in_fork(parent)


def test_threads_may_work_meanwhile() -> None:
    shared = [{str(number): [number]} for number in range(20_000)]

    def parent() -> None:
        pristine = made()

        def child() -> None:
            stop = threading.Event()
            counted = [0] * 4

            def work(own: int) -> None:
                chance = random.Random(own)
                while not stop.is_set():
                    place = chance.randrange(own, 20_000, 4)
                    shared[place][str(place)].append(own)
                    counted[own] += 1

            threads = [threading.Thread(target=work, args=(own,)) for own in range(4)]
            for thread in threads:
                thread.start()
            while min(counted) < 2000:
                pristine.settle()
            stop.set()
            for thread in threads:
                thread.join()
            for own in range(4):
                places = range(own, 20_000, 4)
                assert sum(len(shared[n][str(n)]) - 1 for n in places) == counted[own]

        in_fork(child)

    in_fork(parent)


def test_objects_are_neither_freed_nor_changed_by_giving_back_their_counts() -> None:
    """A reference taken before, and dropped after its count was set back, must not free anything."""
    names = [f"name-{number}" for number in range(5000)]

    def parent() -> None:
        pristine = made()

        def child() -> None:
            for _ in range(5):
                taken = [list(names) for _ in range(20)]
                pristine.settle()
                del taken
                gc.collect()
                _ = [object() for _ in range(10_000)]
            assert names == [f"name-{number}" for number in range(5000)]

        in_fork(child)

    in_fork(parent)


def test_settling_twice_finds_the_same() -> None:
    def parent() -> None:
        pristine = made()

        def child() -> None:
            sizes = {pristine.settle() // (1 << 20) for _ in range(5)}
            assert max(sizes) - min(sizes) <= 1

        in_fork(child)

    in_fork(parent)
