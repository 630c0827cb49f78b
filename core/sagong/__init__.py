"""sagong: a container platform as a microkernel of sandboxed, swappable plugins."""

__version__ = "0.1.0"
