"""Engines by their makers: a launcher has one, and finds others that a swap has brought."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sagong.shim.failure import StartError

if TYPE_CHECKING:
    from sagong.shim.starting import Engine

__all__ = ["Engines", "load"]


def load(name: str) -> Any:
    """What is called so, `module:name`; StartError when its code is not here."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise StartError("failed_precondition", f"{name} is not here: {error}") from None


class Engines:
    """`own` is the one of whoever started the launcher; a maker's name is `module:class`."""

    def __init__(self, own: Engine) -> None:
        self.own = own
        self._known = {own.maker: own}

    def of(self, maker: str) -> Engine:
        """The engine of a maker; StartError when its code is not here."""
        found = self._known.get(maker)
        if found is None:
            found = self._known[maker] = load(maker)()
        return found

    def looking_after(self, request: dict[str, Any]) -> Engine:
        """Who looks after a container: its maker, or while that is away the launcher's own engine."""
        try:
            return self.of(request.get("maker") or self.own.maker)
        except StartError:
            return self.own
