"""`docker build` beside Docker Engine's builder: one Dockerfile, one context, one CLI.

`tests/bench/run build [--buildx] [--rounds N] [--files N] [--megabytes N]`, as root: the classic
builders, or with `--buildx` both by buildx, beside the Docker Engine that `packaging/clients` fetches.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests import sample_image
from tests.bench import machine, peers
from tests.bench.bench_image import engines
from tests.bench.figures import Figure, report
from tests.bench.peers import Docker
from tests.compat.docker.clients import CLIENTS

STEPS = f"""FROM {sample_image.NAME}
ARG V=1
ENV A=1 B=2
LABEL a=b
RUN echo one > /one
WORKDIR /work
COPY src src
RUN ls src | wc -l > count
COPY large .
RUN cp large copy
EXPOSE 80
USER app
CMD ["sh"]
"""


def context(directory: Path, files: int, megabytes: int) -> Path:
    """A Dockerfile, many small files, one large one."""
    (directory / "src").mkdir(parents=True)
    (directory / "Dockerfile").write_text(STEPS)
    for number in range(files):
        (directory / "src" / f"f{number}").write_text(f"{number}\n" * 100)
    (directory / "large").write_bytes(os.urandom(megabytes << 20))
    return directory


def by_buildx(directory: Path) -> dict[str, str]:
    """The environment of a command line that has buildx; Docker Engine is the newer one from now on."""
    places = [CLIENTS / "docker.io/usr/sbin", CLIENTS / "containerd/usr/bin"]
    plugin = CLIENTS / "docker-buildx/usr/libexec/docker/cli-plugins/docker-buildx"
    for place in (*places, plugin):
        if not place.exists():
            raise SystemExit(f"{place} is missing: packaging/clients fetches it")
    os.environ["PATH"] = ":".join([*map(str, places), os.environ["PATH"]])
    (directory / "cli-plugins").mkdir(parents=True)
    (directory / "cli-plugins" / "docker-buildx").symlink_to(plugin)
    return {"DOCKER_CONFIG": str(directory)}


def seconds(engine: Docker, more: dict[str, str], *words: str) -> float:
    """How long a build took."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "DOCKER_HOST": f"unix://{engine.socket}",
        **more,
    }
    began = time.perf_counter()
    subprocess.run(
        ["docker", "build", "-q", *words], env=environment, check=True, capture_output=True
    )
    return time.perf_counter() - began


def measure(
    found: list[Docker], place: Path, rounds: int, more: dict[str, str], peer: str
) -> Iterator[Figure]:
    """Engines in turn; without a cache, with all of it, and with a change in the middle."""
    kinds = ("all steps anew", "all steps cached", "a file changed")
    times: dict[str, dict[str, list[float]]] = {kind: {} for kind in kinds}
    for number in range(rounds):
        for engine in found:
            (place / "src" / "f0").write_text("as before\n")
            words = {
                "all steps anew": ("--no-cache", str(place)),
                "all steps cached": (str(place),),
            }
            for kind, given in words.items():
                times[kind].setdefault(engine.name, []).append(seconds(engine, more, *given))
            (place / "src" / "f0").write_text(f"changed {number}\n")
            changed = seconds(engine, more, str(place))
            times["a file changed"].setdefault(engine.name, []).append(changed)
    for kind, values in times.items():
        yield Figure(
            what=f"docker build of 13 steps, {kind}",
            unit="s",
            ours=values["sagong"],
            theirs=values.get("Docker Engine", ()),
            peer=peer,
        )


def main() -> None:
    """Load the base, then measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--megabytes", type=int, default=20)
    parser.add_argument("--buildx", action="store_true")
    options = parser.parse_args()
    machine.enter()
    with peers.scratch() as directory:
        sample = sample_image.build(directory / "sample")
        place = context(directory / "context", options.files, options.megabytes)
        more, peer = {"DOCKER_BUILDKIT": "0"}, "Docker Engine 20.10, classic builder"
        if options.buildx:
            more, peer = by_buildx(directory / "config"), "Docker Engine 26, buildx"
        with engines() as found:
            for engine in found:
                engine.ok("load", "-i", str(sample.docker_archive))
            report("build", list(measure(found, place, options.rounds, more, peer)))


if __name__ == "__main__":
    main()
