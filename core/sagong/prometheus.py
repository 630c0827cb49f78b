"""Prometheus' text format, version 0.0.4: what all that write it have in common. Pure.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["labelled"]


def labelled(name: str, labels: Mapping[str, str]) -> str:
    """A series: its name, and its labels if it has any."""
    inside = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items())
    return f"{name}{{{inside}}}" if inside else name


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
