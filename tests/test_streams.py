"""Tests in streams: what fails is told, and nothing is forgotten."""

from __future__ import annotations

import pytest

from tests.streams import CHECKS, LONG, REPOSITORY, Outcome, Task, run_all, tasks, tell

GOOD = Task("good", ("echo", "1 passed, 2 skipped in 3s"))
BAD = Task("bad", ("sh", "-c", "echo 'E  why'; echo 'FAILED a.py::b'; echo '1 failed'; exit 1"))


def test_a_failure_is_named_at_once_and_told_in_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    outcomes: list[Outcome] = []
    run_all([BAD, GOOD, Task("none", ("false",))], 2, outcomes)
    told = {outcome.task.name: outcome.code for outcome in outcomes}
    assert told == {"bad": 1, "good": 0, "none": 1}
    assert "bad: 1 failed\nFAILED a.py::b\n" in capsys.readouterr().out, "named at once"
    tell(outcomes)
    said = capsys.readouterr().out
    assert said.index("E  why") < said.index("== what failed")
    assert said.endswith(
        "== what failed\nFAILED a.py::b\nFAILED none\n1 failed, 1 passed, 2 skipped\n"
    )


def test_every_test_file_belongs_to_one_task() -> None:
    files = [word for task in tasks() for word in task.command if word.endswith(".py")]
    there = [str(path) for path in (REPOSITORY / "tests").rglob("test_*.py")]
    assert sorted(files) == sorted(there)
    assert {task.name for task in tasks()} >= set(CHECKS)


def test_long_tasks_are_there() -> None:
    assert {task.name for task in tasks()} >= set(LONG)
