"""The launcher of this runtime, the companion of its plugin."""

from __future__ import annotations

from sagong.shim.launcher import serve
from sagong_runtime_linux.starting import LinuxEngine

__all__ = ["main"]


def main(run: str) -> None:
    """Serve below `run`."""
    serve(run, LinuxEngine())
