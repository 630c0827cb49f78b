"""pyroute2's message classes without its package's own imports, which cost 15 MB and 130 ms.

`import pyroute2` loads every part of that library. Its submodules stand alone, so the package is
registered unexecuted; whoever asks it for more than submodules makes it load then.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from sagong.errors import NotFound

__all__ = ["message_class"]


class _Unexecuted(ModuleType):
    """The package before its `__init__` ran; any missing name runs it."""

    def __getattr__(self, name: str) -> Any:
        spec: ModuleSpec | None = self.__dict__.get("__spec__")
        if name.startswith("__") or spec is None or spec.loader is None:
            raise AttributeError(name)
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(f"pyroute2.{name}")
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec.loader.exec_module(self)
        return getattr(self, name)


def _register() -> None:
    if "pyroute2" in sys.modules:
        return
    spec = PathFinder.find_spec("pyroute2")
    if spec is None:
        raise NotFound("the package pyroute2 is missing; install sagong's dependencies")
    package = _Unexecuted("pyroute2")
    package.__spec__ = spec
    package.__path__ = list(spec.submodule_search_locations or ())
    package.__file__ = spec.origin
    package.__loader__ = spec.loader
    package.__package__ = "pyroute2"
    sys.modules["pyroute2"] = package


def message_class(name: str) -> Any:
    """A class of `pyroute2.netlink.rtnl`, such as `ifinfmsg`."""
    _register()
    return getattr(importlib.import_module(f"pyroute2.netlink.rtnl.{name}"), name)
