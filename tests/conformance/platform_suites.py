"""Suites whose candidates run on a platform of their own: whole, and with a wrapper that breaks one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from tests.system.network.outer import machine

from sagong.conformance.candidate import Candidate
from sagong.conformance.rigs import RIGS
from sagong.testing import check_name, checks

__all__ = ["Wrapper", "hold"]

T = TypeVar("T")
Broken = Callable[[Any, Any], Any]


class Wrapper(Generic[T]):
    """A provider as it is, but for the methods of a subclass."""

    def __init__(self, inner: T) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def hold(
    slot: str, plugin: str, suite: ModuleType, broken: Mapping[type, str], into: Broken
) -> None:
    """All checks hold for the plugin, and each of the broken ones is caught by the check it names.

    `into`, called with the lab and a broken one, is the lab with that in it.
    """
    machine(_held, slot, plugin, suite, broken, into)


async def _held(
    _: Path, slot: str, plugin: str, suite: ModuleType, broken: Mapping[type, str], into: Broken
) -> None:
    named = {check_name(check): check for check in checks(suite)}
    async with RIGS[slot].lab(Candidate(None, name=plugin)) as lab:
        for check in named.values():
            await check(lab)
        for kind, caught_by in broken.items():
            try:
                await named[caught_by](into(lab, kind))
            except Exception:
                continue
            raise AssertionError(f"{kind.__name__} was not caught by {caught_by}")
