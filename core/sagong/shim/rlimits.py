"""Names of resource limits, each at its number."""

from __future__ import annotations

__all__ = ["RLIMITS"]

# By the kernel's numbers; Python's module lacks some of them.
RLIMITS = (
    *("cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile"),
    *("memlock", "as", "locks", "sigpending", "msgqueue", "nice", "rtprio", "rttime"),
)
