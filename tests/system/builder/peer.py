"""Docker Engine's own classic builder on a machine of its own: what it makes of a Dockerfile.

`python -m tests.system.builder.peer ARCHIVE DIRECTORY` loads the archive, builds the directory, and
prints what inspection, history and the build itself say, as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.bench.machine import enter
from tests.bench.peers import dockerd


def main(archive: str, directory: str) -> None:
    """Inside of namespaces of its own."""
    with dockerd() as peer:
        peer.ok("load", "-i", archive)
        environment = {
            **os.environ,
            "DOCKER_HOST": f"unix://{peer.socket}",
            "DOCKER_BUILDKIT": "0",
            "HOME": "/nonexistent",
        }
        done = subprocess.run(
            ["docker", "build", "--build-arg", "VERSION=7", "-t", "t:1", directory],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        image = json.loads(peer.ok("image", "inspect", "t:1"))[0]
        history = peer.ok("history", "--no-trunc", "--format", "{{json .}}", "t:1")
        Path("/dev/stdout").write_text(
            json.dumps({"image": image, "history": history.splitlines(), "output": done.stdout})
        )


if __name__ == "__main__":
    enter()
    main(*sys.argv[1:])
