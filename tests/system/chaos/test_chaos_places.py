"""What the chaos tests count in an instance's directories, and what they leave out."""

from __future__ import annotations

from pathlib import Path

from tests.system.chaos.places import places


def test_a_directory_of_a_root_counts_unless_it_is_kept_empty_for_the_next(tmp_path: Path) -> None:
    roots = tmp_path / "image_overlay" / "c"
    (roots / "0123456789ab").mkdir(parents=True)
    (roots / "ba9876543210" / "diff").mkdir(parents=True)
    found = places(tmp_path, 3)
    assert found == ("image_overlay/c: 1", "image_overlay/c/#: 1")
