"""Pins of network namespaces, as the plugin sees them, and settings of its own namespace."""

from __future__ import annotations

from pathlib import Path

__all__ = ["is_pinned", "write_sysctl"]


def is_pinned(pin: Path) -> bool:
    """Whether a namespace is mounted on the file, and not only an empty file left by a crash."""
    try:
        return pin.stat().st_dev != pin.parent.stat().st_dev
    except FileNotFoundError:
        return False


def write_sysctl(name: str, value: str) -> None:
    """Set `net.…` in the machine's own namespace; OSError names the file."""
    # Interface names may hold dots: they are written as slashes, as sysctl(8) allows.
    path = name if "/" in name else name.replace(".", "/")
    try:
        with open(f"/proc/sys/{path}", "w") as file:
            file.write(value)
    except OSError as error:
        raise OSError(
            error.errno, f"write {value!r}: {error.strerror}", f"/proc/sys/{path}"
        ) from None
