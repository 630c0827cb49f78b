"""The log is measured by what lies in it: a small change takes whole pages."""

from __future__ import annotations

import contextlib
from pathlib import Path

from sagong_state_sqlite.checkpoint import LogIndex
from sagong_state_sqlite.database import connect


def test_the_log_is_as_long_as_its_index_says(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with contextlib.closing(connect(path)) as database:
        database.execute("CREATE TABLE t (x)")
        for number in range(50):
            database.execute("INSERT INTO t VALUES (?)", (number,))
        size = (tmp_path / "s.db-wal").stat().st_size
        index = LogIndex(path)
        assert index.size() == size - 32 > 50 * 1000
    index.close()
    assert LogIndex(tmp_path / "none.db").size() == 0
