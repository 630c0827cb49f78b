"""A plugin's process in an environment of its own: `python -m sagong.stranger`, started by the kernel.

What the zygote does for first-party plugins by a fork, this does after an exec: it reads the launch
from SAGONG_LAUNCH and hosts the plugin's one class. The sandbox stands already.
"""

from __future__ import annotations

import os
import sys

import msgspec

from sagong.process import Launch, configure_logging, run

__all__ = ["main"]


def main() -> int:
    """Be the process that the launch describes."""
    text = os.environ.get("SAGONG_LAUNCH")
    if text is None:
        print("sagong.stranger is started by the kernel: SAGONG_LAUNCH is not set", file=sys.stderr)
        return 64
    configure_logging()
    return run(msgspec.json.decode(text, type=Launch))


if __name__ == "__main__":
    sys.exit(main())
