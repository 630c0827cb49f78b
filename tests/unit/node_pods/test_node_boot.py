"""Whether the machine has started anew, by a mark that a node before left."""

from __future__ import annotations

from pathlib import Path

from sagong_node.boot import is_new


def test_the_first_node_finds_no_mark_or_another_boots(tmp_path: Path) -> None:
    mark = tmp_path / "boot"
    assert is_new(mark)
    assert not is_new(mark)
    mark.write_text("another\n")
    assert is_new(mark)
    assert not is_new(mark)


def test_a_mark_that_is_right_is_left_alone(tmp_path: Path) -> None:
    """It was emptied and written again: on a full disk, or for one killed in between, every container
    was dead to the next node."""
    mark = tmp_path / "boot"
    is_new(mark)
    before = mark.stat()
    is_new(mark)
    assert (mark.stat().st_ino, mark.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [path.name for path in tmp_path.iterdir()] == ["boot"]
