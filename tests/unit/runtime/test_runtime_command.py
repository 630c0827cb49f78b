"""`sagong-runtime` as a program that is started again and again: its verbs, and what each imports."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.conformance.runtime_rig import SOURCES

from sagong_runtime_linux.oci.command import VERBS, action


def imported(statement: str) -> set[str]:
    """Modules that a program has after a statement."""
    text = f"import sys; sys.path += {SOURCES.split(':')!r}; {statement}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", text], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("name", VERBS)
def test_each_verb_is_done_by_something(name: str) -> None:
    assert callable(action(VERBS[name]))


def test_the_first_of_two_programs_imports_next_to_nothing() -> None:
    found = imported("import sagong_runtime_linux.oci.entry, sagong.shim.interpreter")
    assert "sagong.shim.interpreter" in found
    assert not found & {"typing", "re", "enum", "json", "functools", "sagong.linux.syscalls"}


def test_no_verb_imports_what_makes_classes_slowly() -> None:
    every = ", ".join(f"action(VERBS[{name!r}])" for name in VERBS)
    found = imported(f"from sagong_runtime_linux.oci.command import VERBS, action; {every}")
    assert "sagong_runtime_linux.oci.planning" in found
    assert not found & {"dataclasses", "inspect", "asyncio", "msgspec", "zmq", "logging"}


def test_who_only_asks_does_not_import_what_makes() -> None:
    found = imported("import sagong_runtime_linux.oci.command, sagong_runtime_linux.oci.verbs")
    assert not found & {"sagong_runtime_linux.operations", "sagong_runtime_linux.oci.creation"}
