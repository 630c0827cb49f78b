"""Runs `async def` tests on uvloop, each in a loop of its own; skips root tests without root.

And a directory that is open to others.
"""

from __future__ import annotations

import inspect
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Await a coroutine test; others run as always."""
    function: Any = pyfuncitem.obj
    if not inspect.iscoroutinefunction(function):
        return None
    wanted = inspect.signature(function).parameters
    uvloop.run(function(**{k: v for k, v in pyfuncitem.funcargs.items() if k in wanted}))
    return True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked root say why they do not run without root."""
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="needs root: namespaces, mounts and cgroups")
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(skip)


@pytest.fixture
def open_path() -> Iterator[Path]:
    """For everybody: pytest closes its own directories to others whenever a session begins."""
    with tempfile.TemporaryDirectory(prefix="sagong-open-", dir="/tmp") as found:
        Path(found).chmod(0o755)
        yield Path(found)
