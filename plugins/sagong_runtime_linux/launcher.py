"""The launcher of this runtime: `python -m sagong_runtime_linux.launcher --run DIR`."""

from __future__ import annotations

import sys

from sagong.shim.launcher import asked_directory, execute_lean, serve
from sagong_runtime_linux.starting import LinuxEngine

__all__ = ["main"]


def main(run: str) -> None:
    """Serve below `run`."""
    serve(run, LinuxEngine())


if __name__ == "__main__":
    execute_lean("sagong_runtime_linux.launcher", __file__, asked_directory(sys.argv[1:]))
