"""Pull with unpacking, push, save and load beside Docker Engine: one image, one registry, one CLI.

`tests/bench/run image [--rounds N] [--files N] [--megabytes N]`, as root.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench import machine, peers
from tests.bench.figures import Budget, Figure, report
from tests.bench.image_layers import config_of, large_file, many_files
from tests.bench.peers import Docker
from tests.conformance.image_registry_server import running_registry
from tests.sample_image import write_oci_layout

BUDGET = Budget(limit=0.8, ratio=True)


@dataclass(frozen=True)
class Image:
    """What is pulled."""

    title: str
    name: str


def publish(host: str, directory: Path, title: str, short: str, layers: list[bytes]) -> Image:
    """Put an image into the registry, by skopeo."""
    layout = directory / short
    write_oci_layout(layout, config_of(layers), layers, "v1")
    name = f"{host}/bench/{short}:v1"
    words = ["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"]
    subprocess.run(["skopeo", *words, f"oci:{layout}", f"docker://{name}"], check=True)
    shutil.rmtree(layout)
    return Image(title, name)


class Work:
    """The things that are timed; each leaves the engine without the image or with it as it says."""

    def __init__(self, host: str, directory: Path) -> None:
        self._host = host
        self._directory = directory
        self._pushed = 0

    def pull(self, engine: Docker, image: Image) -> float:
        """The engine has it not, then has it."""
        engine.start("rmi", "-f", image.name).wait()
        os.sync()
        return engine.seconds("pull", "-q", image.name)

    def push(self, engine: Docker, image: Image) -> float:
        """To a registry that knows none of its layers."""
        with running_registry(self._directory) as host:
            name = f"{host}/pushed:v1"
            engine.ok("tag", image.name, name)
            seconds = engine.seconds("push", "-q", name)
            engine.ok("rmi", name)
        return seconds

    def save(self, engine: Docker, image: Image) -> float:
        """To a file."""
        return engine.seconds("save", "-o", str(self._archive(engine)), image.name)

    def load(self, engine: Docker, image: Image) -> float:
        """From the file that was saved."""
        engine.ok("rmi", "-f", image.name)
        os.sync()
        seconds = engine.seconds("load", "-q", "-i", str(self._archive(engine)))
        self._archive(engine).unlink()
        return seconds

    def _archive(self, engine: Docker) -> Path:
        return self._directory / f"{engine.name}.tar"


@contextlib.contextmanager
def engines() -> Iterator[list[Docker]]:
    """Ours, and Docker Engine if it is installed."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(peers.sagong())]
        if shutil.which("dockerd"):
            found.append(stack.enter_context(peers.dockerd()))
        yield found


def measure(found: list[Docker], work: Work, image: Image, rounds: int) -> Iterator[Figure]:
    """Each kind of work on an image, engines in turn."""
    kinds: dict[str, Callable[[Docker, Image], float]] = {
        "pull and unpack": work.pull,
        "push": work.push,
        "save": work.save,
        "load": work.load,
    }
    times: dict[str, dict[str, list[float]]] = {kind: {} for kind in kinds}
    for _ in range(rounds):
        for kind, do in kinds.items():
            for engine in found:
                times[kind].setdefault(engine.name, []).append(do(engine, image))
    for kind, values in times.items():
        yield Figure(
            what=f"{kind}, {image.title}",
            unit="s",
            ours=values["sagong"],
            theirs=values.get("Docker Engine", ()),
            peer="Docker Engine 20.10",
            budget=BUDGET if kind == "pull and unpack" else None,
        )


def main() -> None:
    """Publish the images, then measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--megabytes", type=int, default=500)
    options = parser.parse_args()
    machine.enter()
    with peers.scratch() as directory, running_registry(directory) as host:
        layers = many_files(options.files, 4)
        title = f"{options.files:,} files in 4 layers, {sum(map(len, layers)) / 1e6:.0f} MB"
        large = f"one file of {options.megabytes} MB"
        images = [
            publish(host, directory, title, "many", layers),
            publish(host, directory, large, "large", large_file(options.megabytes)),
        ]
        with engines() as found:
            work = Work(host, directory)
            for image in images:
                report("image", list(measure(found, work, image, options.rounds)))


if __name__ == "__main__":
    main()
