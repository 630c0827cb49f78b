"""Measures image_overlay: unpacking ten thousand small files, pulling them, preparing, listing.

By hand, as root: `python tests/bench/bench_image.py [--files N]`. It prints the time of plain `tar`
for the same layer beside it, which is the disk's own speed on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), *(str(ROOT / name) for name in ("core", "plugins", "services"))]

import uvloop  # noqa: E402
from tests.bench.image_layers import config_of, many_files  # noqa: E402
from tests.conformance.image_registry_server import running_registry  # noqa: E402
from tests.sample_image import write_docker_archive, write_oci_layout  # noqa: E402

from sagong.conformance.image_lab import send  # noqa: E402
from sagong.contracts.image import (  # noqa: E402
    ImageQuery,
    ImageRef,
    LoadRequest,
    PrepareRequest,
    PullRequest,
    RootRef,
)
from sagong.testing import local  # noqa: E402
from sagong_image_overlay import ImageOverlay  # noqa: E402


def timed_tar(layers: list[bytes], directory: Path) -> float:
    """Seconds of GNU tar for the same layers, one after the other."""
    files = []
    for number, raw in enumerate(layers):
        path = directory / f"plain-{number}.tar"
        path.write_bytes(raw)
        files.append(path)
    os.sync()
    began = time.perf_counter()
    for path in files:
        target = directory / f"out-{path.stem}"
        target.mkdir()
        subprocess.run(["tar", "-xf", str(path), "-C", str(target)], check=True)
    return time.perf_counter() - began


async def measure(arguments: argparse.Namespace, directory: Path, host: str) -> None:
    """Print all figures."""
    layers = many_files(arguments.files, arguments.layers)
    config = config_of(layers)
    size = sum(map(len, layers)) / 1e6
    print(f"{arguments.files} files in {len(layers)} layers, {size:.0f} MB")
    archive, layout = directory / "many.tar", directory / "many-oci"
    write_docker_archive(archive, config, layers, ["bench.test/many:v1"])
    write_oci_layout(layout, config, layers, "bench.test/many:v1")
    print(f"tar -x, the same layers     {timed_tar(layers, directory):8.3f} s")
    name = f"{host}/bench/many:v1"
    copy = ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}", f"docker://{name}"]
    subprocess.run(copy, check=True)
    os.sync()
    async with local(ImageOverlay) as images:
        began = time.perf_counter()
        async for item in images.pull(PullRequest(id="bench", reference=name)):
            if arguments.verbose and item.status != "Extracting":
                print(f"  {time.perf_counter() - began:.3f} {item.id} {item.status}")
        print(f"pull and unpack             {time.perf_counter() - began:8.3f} s")
    os.sync()
    async with local(ImageOverlay) as images:
        address = await images.upload()
        began = time.perf_counter()
        await send(address, archive.read_bytes())
        print(f"upload of the archive       {time.perf_counter() - began:8.3f} s")
        began = time.perf_counter()
        async for _ in images.load(LoadRequest(upload=address.token)):
            pass
        print(f"load                        {time.perf_counter() - began:8.3f} s")
        await asyncio.sleep(2)
        await small_calls(images, "bench.test/many:v1")


async def small_calls(images: ImageOverlay, name: str) -> None:
    """Medians of calls that must be fast."""
    times: dict[str, list[float]] = {"prepare": [], "inspect": [], "list": [], "release": []}
    for number in range(200):
        for key, work in (
            ("prepare", lambda n=number: images.prepare(PrepareRequest(id=f"c{n}", image=name))),
            ("inspect", lambda: images.inspect(ImageRef(reference=name))),
            ("list", lambda: images.list(ImageQuery())),
        ):
            began = time.perf_counter()
            await work()
            times[key].append(time.perf_counter() - began)
    for number in range(200):
        began = time.perf_counter()
        await images.release(RootRef(id=f"c{number}"))
        times["release"].append(time.perf_counter() - began)
    for key, values in times.items():
        values.sort()
        middle, late = values[len(values) // 2] * 1e3, values[int(len(values) * 0.99)] * 1e3
        print(f"{key:10} p50 {middle:7.3f} ms, p99 {late:7.3f} ms")


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sagong-bench-")))
        host = stack.enter_context(running_registry(directory))
        uvloop.run(measure(arguments, directory, host))


if __name__ == "__main__":
    main()
