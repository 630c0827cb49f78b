"""A candidate: a plugin's class as it is put to a suite, with what its package says beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from sagong.contracts.state import State

__all__ = ["Candidate", "Restored"]

Restored = Callable[[bytes], AbstractAsyncContextManager[State]]


@dataclass(frozen=True)
class Candidate:
    """A plugin's class (None for a program of its own) and its configuration.

    `name` is what its manifest calls it, `restored` is what its package's module `rig` knows of it,
    `companion` the command of its manifest's companion.
    """

    plugin: Any
    config: Mapping[str, Any] = field(default_factory=dict)
    restored: Restored | None = None
    companion: tuple[str, ...] = ()
    name: str = ""
