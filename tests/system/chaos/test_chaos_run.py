"""A short run of chaos; SAGONG_CHAOS_SEED repeats one, SAGONG_CHAOS_SECONDS makes it longer."""

from __future__ import annotations

import os
import random
from pathlib import Path

import msgspec
import pytest

from tests.system.chaos.checker import check
from tests.system.chaos.trial import run

pytestmark = pytest.mark.root

SECONDS = float(os.environ.get("SAGONG_CHAOS_SECONDS", "30"))


@pytest.mark.timeout(int(SECONDS) + 600)
def test_nothing_is_lost_whatever_is_done_to_the_platform(tmp_path: Path) -> None:
    seed = int(os.environ.get("SAGONG_CHAOS_SEED", random.randrange(1 << 31)))
    print(f"chaos: SAGONG_CHAOS_SEED={seed} repeats this run; its history is in {tmp_path}")
    history = run(seed, SECONDS, tmp_path, port=17643, subnet="10.227.0")
    (tmp_path / "history.json").write_bytes(msgspec.json.encode(history))
    violations = check(history)
    assert not violations, f"seed {seed}\n" + "\n".join(violations)
    wanted = {"kill", "swap", "upgrade", "stop", "full", "power"}
    assert {fault.kind for fault in history.faults} == wanted
