"""Scratch directories of rehearsals: a killed one's is swept by the next, a living one's is not."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from sagong.conformance.scratch import scratch


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rehearsals of others sweep, too: what is left here is for this test's own."""
    monkeypatch.setattr("sagong.conformance.scratch._TOP", str(tmp_path))


def held(*, age: float) -> tuple[int, Path]:
    """A process that holds a scratch directory made so many seconds ago, and would for ever."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        with scratch() as base:
            (base / "data").mkdir()
            made = base.stat().st_mtime - age
            os.utime(base, (made, made))
            os.write(tell, str(base).encode())
            signal.pause()
    os.close(tell)
    base = Path(os.read(told, 4096).decode())
    os.close(told)
    return pid, base


def test_what_a_killed_rehearsal_left_is_swept_by_the_next_and_what_lives_is_not() -> None:
    (killed, left), (living, kept) = held(age=60), held(age=60)
    try:
        os.kill(killed, signal.SIGKILL)
        os.waitpid(killed, 0)
        assert left.exists()
        with scratch() as base:
            assert not left.exists()
            assert (kept / "data").exists()
        assert not base.exists()
    finally:
        os.kill(living, signal.SIGKILL)
        os.waitpid(living, 0)
    with scratch():
        assert not kept.exists()
