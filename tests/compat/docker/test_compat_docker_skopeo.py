"""skopeo's `docker-daemon:`, as podman's and buildah's, speaks to the engine by an API of 2016."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.compat.docker.docker_engine import IMAGE, Engine

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo"),
]


def skopeo(docker: Engine, *words: str) -> str:
    """Its output; it must succeed."""
    done = subprocess.run(
        ["skopeo", "--insecure-policy", *words],
        capture_output=True,
        text=True,
        env=docker.environment(),
        timeout=90,
    )
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def test_images_are_copied_out_and_in(docker: Engine, tmp_path: Path) -> None:
    host, there = docker.environment()["DOCKER_HOST"], f"oci:{tmp_path}:x"
    told = json.loads(skopeo(docker, "inspect", "--daemon-host", host, f"docker-daemon:{IMAGE}"))
    assert len(told["Layers"]) == 2
    skopeo(docker, "copy", "--src-daemon-host", host, f"docker-daemon:{IMAGE}", there)
    copied = "sagong.test/copied:by-skopeo"
    skopeo(docker, "copy", "--dest-daemon-host", host, there, f"docker-daemon:{copied}")
    try:
        assert docker.ok("run", "--rm", copied, "cat", "/etc/sample-release") == "second layer"
    finally:
        docker.ok("rmi", copied)
