"""A short run of chaos; SAGONG_CHAOS_SEED repeats one, SAGONG_CHAOS_SECONDS makes it longer."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

import msgspec
import pytest

from tests.system.chaos.checker import check
from tests.system.chaos.history import History
from tests.system.chaos.trial import run

pytestmark = pytest.mark.root

_NOTABLE = re.compile(r"^\S+ (WARNING|ERROR|CRITICAL) ")
SECONDS = float(os.environ.get("SAGONG_CHAOS_SECONDS", "30"))


@pytest.mark.timeout(int(SECONDS) + 600)
def test_nothing_is_lost_whatever_is_done_to_the_platform(tmp_path: Path) -> None:
    seed = int(os.environ.get("SAGONG_CHAOS_SEED", random.randrange(1 << 31)))
    print(f"chaos: SAGONG_CHAOS_SEED={seed} repeats this run; its history is in {tmp_path}")
    history = run(seed, SECONDS, tmp_path, port=17643, subnet="10.227.0")
    (tmp_path / "history.json").write_bytes(msgspec.json.encode(history))
    violations = check(history)
    if violations:
        tell(history, "\n".join(violations), tmp_path / "logs")
    assert not violations, f"seed {seed}\n" + "\n".join(violations)
    wanted = {"kill", "swap", "upgrade", "stop", "full", "power"}
    assert {fault.kind for fault in history.faults} == wanted


def tell(history: History, violations: str, logs: Path) -> None:
    """What explains them, as far as it is known: it can hardly be had a second time."""
    for fault in history.faults:
        print(f"{fault.began:.3f} {fault.ended:.3f} {fault.kind} {fault.target}")
    for one in history.attempts:
        if one.key in violations:
            print(f"{one.began:.3f} {one.ended:.3f} {one.client} {one.kind} {one.key} {one.verb}")
            print(f"    {one.outcome} {one.status} {one.text}")
    for log in sorted(logs.glob("*.log")):
        lines = log.read_text(errors="replace").splitlines()
        print(f"{log.name}:", *[line for line in lines if _NOTABLE.search(line)][-60:], sep="\n  ")
