"""A bundle for each test, and the program that makes containers of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conformance.runtime_rig import make_rootfs
from tests.system.runtime_oci.bundles import Bundle, program


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A root filesystem and the program."""
    base = tmp_path_factory.mktemp("oci")
    return make_rootfs(base / "rootfs"), program(base)


@pytest.fixture
def bundle(tmp_path: Path, made: tuple[Path, Path]) -> Iterator[Bundle]:
    """A bundle; nothing of its containers is left after."""
    found = Bundle(tmp_path, *made)
    yield found
    found.clean()
