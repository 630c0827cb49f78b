"""The launcher of this runtime: `python -m sagong_runtime_oci.launcher --run DIR`."""

from __future__ import annotations

import sys

from sagong.shim.launcher import asked_directory, execute_lean, serve
from sagong_runtime_oci.engine import OciEngine

__all__ = ["main"]


def main(run: str) -> None:
    """Serve below `run`."""
    serve(run, OciEngine())


if __name__ == "__main__":
    execute_lean("sagong_runtime_oci.launcher", __file__, asked_directory(sys.argv[1:]))
