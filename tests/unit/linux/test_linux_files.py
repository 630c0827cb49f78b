"""Files that are replaced as a whole, or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from tests.small_disk import small_disk

from sagong.linux.files import remove_directory, replace_file


def test_the_new_file_takes_the_old_ones_place(tmp_path: Path) -> None:
    path = tmp_path / "f"
    for content in (b"one", b"another"):
        replace_file(str(path), content, beside=f"{path}~", durable=True)
        assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


@pytest.mark.root
def test_a_full_disk_leaves_the_old_one_and_nothing_beside_it(tmp_path: Path) -> None:
    """write(2) takes a part of what it is given before it fails: that part is nobody's file."""
    with small_disk(tmp_path, "64k"):
        path = tmp_path / "f"
        replace_file(str(path), b"old", beside=f"{path}~")
        with pytest.raises(OSError) as failed:
            replace_file(str(path), bytes(1 << 20), beside=f"{path}~")
        assert failed.value.errno == errno.ENOSPC
        assert path.read_bytes() == b"old"
        assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_directory_goes_though_another_takes_parts_of_it_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest stayed, for ever, when a name was gone between its listing and its removal."""
    directory = tmp_path / "d"
    directory.mkdir()
    for name in ("a", "b", "c"):
        (directory / name).touch()
    listed = os.listdir(directory)
    (directory / listed[0]).unlink()
    monkeypatch.setattr(os, "listdir", lambda path: listed)
    remove_directory(str(directory))
    assert not directory.exists()
    remove_directory(str(directory))
