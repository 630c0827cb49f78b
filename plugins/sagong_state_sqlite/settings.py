"""What can be configured of the store."""

from __future__ import annotations

import msgspec

from sagong.errors import InvalidArgument

__all__ = ["Settings"]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The plugin's section of the configuration.

    `file` is the database's name in the plugin's data directory. History older than
    `history_seconds` (at most twice that) is compacted away; 0 leaves compaction to callers.
    What the file has grown by since the last compaction is compacted sooner once it is more than
    `history_bytes`, but for its last seconds.
    `recent_bytes` bounds the changes kept in memory for watchers; older ones come from the file.
    `waiting_bytes` bounds the writes that may wait for the disk.
    """

    file: str = "state.db"
    history_seconds: float = 300.0
    history_bytes: int = 64 << 20
    recent_bytes: int = 4 << 20
    waiting_bytes: int = 64 << 20

    def check(self) -> Settings:
        """Refuse values that cannot work, by name."""
        if not self.file or "/" in self.file or "\0" in self.file or self.file in (".", ".."):
            raise InvalidArgument(f"file = {self.file!r}: give a plain file name")
        if not 0 <= self.history_seconds < float("inf"):
            raise InvalidArgument(f"history_seconds = {self.history_seconds}: give 0 or more")
        for name in ("history_bytes", "recent_bytes", "waiting_bytes"):
            if getattr(self, name) < 1 << 16:
                raise InvalidArgument(f"{name} = {getattr(self, name)}: give at least 65536")
        return self
