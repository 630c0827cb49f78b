"""Timers of monitors that never come to their time."""

from __future__ import annotations

import functools
import weakref

from sagong.shim.loop import Loop


class Container:
    """What a timer is about."""

    def late(self) -> None:
        """It has not begun in time."""


def test_a_timer_that_was_cancelled_holds_nothing() -> None:
    """A monitor had each container that it started for two minutes longer: 23 kB, at any rate."""
    loop = Loop()
    container = Container()
    known = weakref.ref(container)
    loop.later(120.0, container.late).cancel()
    del container
    assert known() is None
    loop.close()


def test_timers_that_were_cancelled_are_not_kept_until_their_time() -> None:
    loop = Loop()
    done: list[int] = []
    kept = [loop.later(0.0, functools.partial(done.append, number)) for number in range(100)]
    for _ in range(10_000):
        loop.later(120.0, lambda: None).cancel()
    assert len(loop._timers) < 500
    kept[0].cancel()
    loop.later(0.0, loop.stop)
    loop.run()
    assert done == list(range(1, 100))
    loop.close()
