"""A scheduler of which a part is missing."""

raise ImportError("no such part")
