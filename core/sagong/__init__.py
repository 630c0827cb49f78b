"""sagong: a container platform as a microkernel of sandboxed, swappable plugins."""

from __future__ import annotations

# As type checkers know it; `typing` itself would cost each short program a tenth of its time.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sagong.embedding import platform

__all__ = ["__version__", "platform"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`sagong.platform`, imported when it is asked for: every process of sagong imports this module."""
    if name == "platform":
        from sagong.embedding import platform

        return platform
    raise AttributeError(f"module 'sagong' has no attribute {name!r}")
