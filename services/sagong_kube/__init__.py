"""The Kubernetes API: a table of resources over slot `state`, served to clients and to the bus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sagong_kube.service import Kube

__all__ = ["Kube"]


def __getattr__(name: str) -> Any:
    if name != "Kube":
        raise AttributeError(name)
    from sagong_kube.service import Kube

    return Kube
