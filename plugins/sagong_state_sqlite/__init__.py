"""Slot `state` kept in one SQLite file: durable, revisioned, watched."""

from sagong_state_sqlite.plugin import StateSqlite

__all__ = ["StateSqlite"]
