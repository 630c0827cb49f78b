"""The program `sagong-runtime`: what enters a container begins anew with a read-only interpreter."""

from __future__ import annotations

import gc
import os
import sys

__all__ = ["finish", "main"]

_ENTERING = frozenset({"create", "run", "exec"})
_AGAIN = "from sagong_runtime_linux.oci.entry import finish\nfinish(sys.argv[1:])"


def main() -> None:
    """No more is imported here than this takes: each call is a process of its own, and paid twice."""
    words = sys.argv[1:]
    if _ENTERING.intersection(words) and os.geteuid() == 0:
        from sagong.shim.interpreter import execute_readonly

        execute_readonly(_AGAIN, os.path.abspath(f"{__file__}/../../.."), words, os.environ)
    finish(words)


def finish(words: list[str]) -> None:
    """Do it and end at once: so short a program has nothing to collect and nothing to tidy up."""
    gc.disable()
    from sagong_runtime_linux.oci.command import run

    code = run(words)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or 1
    os._exit(code)
