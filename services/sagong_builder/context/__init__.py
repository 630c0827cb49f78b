"""Files that a build copies from: archives as trees, patterns, checksums. Nothing is unpacked."""

from sagong_builder.context.archive import Archive, open_archive
from sagong_builder.context.tree import Entry, Kind, Tree

__all__ = ["Archive", "Entry", "Kind", "Tree", "open_archive"]
