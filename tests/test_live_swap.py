"""The demonstration's clients: they leave a slow machine the time that it needs."""

from __future__ import annotations

import runpy
import time
from itertools import pairwise
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "packaging" / "live_swap.py"


def test_a_client_rests_by_how_long_its_call_took() -> None:
    """With a fixed pause they took all that an emulated machine had, and swaps were minutes late."""
    began: list[float] = []

    def call() -> None:
        began.append(time.monotonic())
        time.sleep(0.05)

    with runpy.run_path(str(SCRIPT))["Load"]({"slow": call}) as load:
        while len(began) < 4:
            time.sleep(0.01)
    assert load.failures == [] and load.calls["slow"] == len(began)
    assert all(later - one >= 0.15 for one, later in pairwise(began))
