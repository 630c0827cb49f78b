"""Runs `async def` tests on uvloop, each in a loop of its own, and skips root tests without root."""

from __future__ import annotations

import inspect
import os
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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that do not run say why: marked root without root, marked vm unless asked for."""
    skipped = {}
    if os.geteuid() != 0:
        skipped["root"] = "needs root: namespaces, mounts and cgroups"
    if not _asks_for_vm(config):
        skipped["vm"] = "boots an emulated machine for minutes: ./packaging/test tests/system/vm -s"
    for item in items:
        for name, reason in skipped.items():
            if item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=reason))


def _asks_for_vm(config: pytest.Config) -> bool:
    """Whether the directory of the virtual machine was named, or its marker."""
    named = [Path(str(argument).partition("::")[0]).resolve() for argument in config.args]
    place = Path(__file__).resolve().parent / "system" / "vm"
    return "vm" in config.option.markexpr or any(path.is_relative_to(place) for path in named)
