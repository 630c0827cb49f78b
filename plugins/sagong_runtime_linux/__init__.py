"""Slot `runtime` in pure Python: a lean launcher, one monitor for each container or pod."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sagong_runtime_linux.runtime import RuntimeLinux

__all__ = ["RuntimeLinux"]


def __getattr__(name: str) -> Any:
    """Import the class only when asked: the launcher lives in this package, too, and stays lean."""
    if name == "RuntimeLinux":
        from sagong_runtime_linux.runtime import RuntimeLinux

        return RuntimeLinux
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
