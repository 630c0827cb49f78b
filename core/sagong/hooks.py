"""pluggy's reading of a slot: implementations are checked at load, and may be wrapped in-process."""

from __future__ import annotations

import inspect
from typing import Any

import pluggy

from sagong.contract import SlotSpec

__all__ = ["SlotManager", "check"]


class SlotManager(pluggy.PluginManager):
    """A plugin manager whose hook specifications are one slot's methods, without decorators."""

    def __init__(self, spec: SlotSpec) -> None:
        super().__init__(f"sagong_{spec.name}")
        self._spec = spec
        self.add_hookspecs(spec.protocol)

    def parse_hookspec_opts(self, module_or_class: Any, name: str) -> Any:
        """Every method of the slot is a specification whose first result counts."""
        if name not in self._spec.methods:
            return None
        return {
            "firstresult": True,
            "historic": False,
            "warn_on_impl": None,
            "warn_on_impl_args": None,
        }

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        """An implementation is the method of the same name; wrappers are marked by pluggy's own."""
        if name not in self._spec.methods:
            return None
        return super().parse_hookimpl_opts(plugin, name) or {
            "wrapper": False,
            "hookwrapper": False,
            "optionalhook": False,
            "tryfirst": False,
            "trylast": True,
            "specname": None,
        }


def check(spec: SlotSpec, candidate: object) -> list[str]:
    """What keeps `candidate` from filling the slot, a line each; empty when nothing does."""
    problems = [
        f"method {name} is missing"
        for name in spec.methods
        if not callable(getattr(candidate, name, None))
    ]
    problems += [
        f"method {m.name} must be an async generator: it is a stream"
        for m in spec.methods.values()
        if m.stream and inspect.iscoroutinefunction(getattr(candidate, m.name, None))
    ]
    manager = SlotManager(spec)
    try:
        manager.register(candidate)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        problems.append(str(error).splitlines()[-1])
    return problems
