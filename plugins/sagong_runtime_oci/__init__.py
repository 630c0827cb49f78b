"""Slot `runtime` by any OCI runtime binary (runc, crun…): each run is handed over as a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sagong_runtime_oci.runtime import RuntimeOci

__all__ = ["RuntimeOci"]


def __getattr__(name: str) -> Any:
    """Import the class only when asked: the launcher lives in this package, too, and stays lean."""
    if name == "RuntimeOci":
        from sagong_runtime_oci.runtime import RuntimeOci

        return RuntimeOci
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
