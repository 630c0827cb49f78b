"""One whole platform with the sample image for the modules that disturb nobody else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests import sample_image
from tests.system.instance import instance
from tests.system.platform.rig import Platform, single


@pytest.fixture(scope="package")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Docker and Kubernetes on one machine."""
    home = tmp_path_factory.mktemp("home")
    with instance(single(16549, "10.249.0")) as running:
        found = Platform(running, home)
        found("docker", "load", "-i", str(sample_image.build(home).docker_archive))
        yield found
