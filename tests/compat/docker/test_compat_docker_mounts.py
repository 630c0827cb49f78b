"""The docker command line with images that are mounted, and with copies through what is mounted."""

from __future__ import annotations

import shutil

import pytest
from tests.compat.docker.docker_engine import IMAGE, Engine

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker command line"),
]


def layered(docker: Engine, name: str) -> None:
    """An image of three layers, the topmost with a deletion and a link."""
    for image, script in (
        (IMAGE, "mkdir -p /data/in; echo one >/data/one; echo two >/data/two; echo in >/data/in/a"),
        (name, "rm /data/two; echo more >/data/one; ln -s /data/in /data/to; ln -s /etc /data/e"),
    ):
        container = docker.ok("create", image, "sh", "-c", script)
        docker.ok("start", "-a", container)
        docker.ok("commit", container, name)
        docker.ok("rm", container)


def test_images_of_several_layers_are_mounted_whole_or_in_part(docker: Engine) -> None:
    layered(docker, "layered:1")
    shown = {
        "": "cat /m/data/one; ls /m/data",
        ",image-subpath=data": "cat /m/one; ls /m",
        ",image-subpath=data/to": "cat /m/a",
        ",image-subpath=data/one": "cat /m",
        ",image-subpath=data/e": "grep -c root: /m/passwd",
    }
    for part, script in shown.items():
        mount = f"type=image,source=layered:1,target=/m{part}"
        out = docker.ok("run", "--rm", "--mount", mount, IMAGE, "sh", "-c", script)
        wanted = {"": "more e in one to", ",image-subpath=data": "more e in one to"}
        wanted |= {",image-subpath=data/to": "in", ",image-subpath=data/one": "more"}
        assert out.split() == wanted.get(part, "1").split(), (part, out)
    mount = "type=image,source=layered:1,target=/m"
    refused = docker.docker("run", "--rm", "--mount", mount, IMAGE, "touch", "/m/data/x")
    assert refused.returncode == 1 and "Read-only file system" in refused.stderr
    missing = docker.docker("run", "--rm", "--mount", f"{mount},image-subpath=no", IMAGE, "true")
    assert missing.returncode == 125 and "has no no to mount" in missing.stderr, missing.stderr
    # Nothing of it is lent any more.
    docker.ok("rmi", "layered:1")
