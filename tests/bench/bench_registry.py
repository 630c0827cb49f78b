"""Our registry beside Debian's docker-registry: skopeo's push and pull, one large blob, small requests.

`tests/bench/run registry [--rounds N] [--megabytes N]`, as root. Small requests are made by ab
(apache2-utils), which takes less processor time than either server.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.client
import re
import secrets
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench import machine, peers
from tests.bench.figures import Budget, Figure, report
from tests.bench.image_layers import config_of
from tests.compat.registry.peers import docker_registry, platform
from tests.compat.registry.wire import MANIFEST, Client, with_query
from tests.sample_image import write_oci_layout

NO_SLOWER = Budget(limit=1.0, ratio=True)
NO_FEWER = Budget(limit=1.0, ratio=True, least=True)
PEER = "docker-registry 2.8"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Blob:
    """A large file and its digest."""

    path: Path
    size: int
    digest: str


class Work:
    """What is timed at a registry."""

    def __init__(self, directory: Path, megabytes: int) -> None:
        self._directory = directory
        self._layers = [secrets.token_bytes(8 << 20) for _ in range(6)]
        self._turn = 0
        self.megabytes = megabytes

    def image(self) -> str:
        """A layout of an image that no registry has seen: its first layer is new."""
        self._turn += 1
        shutil.rmtree(self._directory / f"image-{self._turn - 1}", ignore_errors=True)
        layout = self._directory / f"image-{self._turn}"
        layers = [secrets.token_bytes(8 << 20), *self._layers[1:]]
        write_oci_layout(layout, config_of(layers), layers, "v1")
        return f"oci:{layout}"

    def skopeo(self, *words: str) -> float:
        """How long a copy takes."""
        began = time.perf_counter()
        subprocess.run(["skopeo", "--insecure-policy", "copy", "-q", *words], check=True)
        return time.perf_counter() - began

    def push(self, host: str) -> float:
        """Of 48 MB in six layers, to a repository that has none of them."""
        there = f"docker://{host}/bench/push{self._turn}:v1"
        return self.skopeo("--dest-tls-verify=false", self._source, there)

    def pull(self, host: str) -> float:
        """The same, into a directory."""
        there = f"docker://{host}/bench/push{self._turn}:v1"
        target = self._directory / f"pulled-{secrets.token_hex(4)}"
        took = self.skopeo("--src-tls-verify=false", there, f"dir:{target}")
        shutil.rmtree(target)
        return took

    def prepare(self) -> None:
        """A new image for the next round."""
        self._source = self.image()

    @contextlib.contextmanager
    def blob(self) -> Iterator[Blob]:
        """A new large file."""
        path = self._directory / f"blob-{secrets.token_hex(4)}"
        with path.open("wb") as file:
            for _ in range(self.megabytes):
                file.write(secrets.token_bytes(_BLOCK))
        digest = subprocess.run(["sha256sum", path], check=True, capture_output=True, text=True)
        yield Blob(path, path.stat().st_size, f"sha256:{digest.stdout.split()[0]}")
        path.unlink()

    def up(self, blob: Blob, host: str) -> float:
        """Megabytes a second, in one request, durable when it is answered."""
        client = Client(host)
        place = with_query(client.begin("bench/blob"), digest=blob.digest)
        target = "/" + place.partition("://")[2].partition("/")[2] if "://" in place else place
        connection = http.client.HTTPConnection(host, timeout=120)
        began = time.perf_counter()
        connection.putrequest("PUT", target)
        connection.putheader("Content-Length", str(blob.size))
        connection.putheader("Content-Type", "application/octet-stream")
        connection.endheaders()
        with blob.path.open("rb") as file:
            connection.sock.sendfile(file)
        answer = connection.getresponse()
        took = time.perf_counter() - began
        assert answer.status == 201, answer.read()
        connection.close()
        client.close()
        return blob.size / 1e6 / took

    def down(self, blob: Blob, host: str) -> float:
        """Megabytes a second, of three times."""
        return statistics.median(self._down(blob, host) for _ in range(3))

    def _down(self, blob: Blob, host: str) -> float:
        address, _, port = host.partition(":")
        with socket.create_connection((address, int(port)), timeout=120) as plain:
            request = f"GET /v2/bench/blob/blobs/{blob.digest} HTTP/1.1\r\nHost: {host}\r\n"
            began = time.perf_counter()
            plain.sendall(f"{request}Connection: close\r\n\r\n".encode())
            buffer, count = bytearray(_BLOCK), 0
            while got := plain.recv_into(buffer):
                count += got
            took = time.perf_counter() - began
        assert count > blob.size
        return blob.size / 1e6 / took


def requests(host: str, *words: str) -> float:
    """Requests a second, by sixteen connections that are kept."""
    url = f"http://{host}/v2/bench/small/manifests/v1"
    command = ["ab", "-q", "-k", "-c", "16", "-n", "10000", "-H", f"Accept: {MANIFEST}", *words]
    told = subprocess.run([*command, url], check=True, capture_output=True, text=True).stdout
    failed = re.search(r"Non-2xx responses:\s+(\d+)", told)
    assert failed is None, told
    found = re.search(r"Requests per second:\s+([\d.]+)", told)
    assert found is not None, told
    return float(found[1])


@contextlib.contextmanager
def registries(directory: Path) -> Iterator[dict[str, str]]:
    """Hosts: ours, and Debian's."""
    with platform() as (_, ours), docker_registry(directory) as theirs:
        yield {"sagong": ours, PEER: theirs}


def measure(hosts: dict[str, str], work: Work, rounds: int) -> Iterator[Figure]:
    """Each kind of work, registries in turn."""
    values: dict[str, dict[str, list[float]]] = {}
    order = list(hosts.items())

    def each(kind: str, do: Callable[[str], float]) -> None:
        for name, host in order:
            values.setdefault(kind, {}).setdefault(name, []).append(do(host))

    for host in hosts.values():
        client = Client(host)
        client.push_image("bench/small", "v1")
        client.close()
    for _ in range(rounds):
        # Who is first finds the disk busy with what was written before: each is, in turn.
        order.reverse()
        work.prepare()
        each("skopeo push, 48 MB in 6 layers", work.push)
        each("skopeo pull, 48 MB in 6 layers", work.pull)
        with work.blob() as blob:
            each(f"blob of {work.megabytes} MB up", functools.partial(work.up, blob))
            each(f"blob of {work.megabytes} MB down", functools.partial(work.down, blob))
        each("GET manifest, 16 at once", requests)
        each("HEAD manifest, 16 at once", lambda host: requests(host, "-i"))
    for kind, found in values.items():
        rate = "/s" if "at once" in kind else "MB/s" if "blob" in kind else ""
        yield Figure(
            what=kind,
            unit=rate or "s",
            ours=found["sagong"],
            theirs=found[PEER],
            peer=PEER,
            budget=NO_FEWER if rate else NO_SLOWER,
        )


def main() -> None:
    """Start both, then measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--megabytes", type=int, default=500)
    options = parser.parse_args()
    machine.enter()
    with peers.scratch() as directory, registries(directory) as hosts:
        work = Work(directory, options.megabytes)
        report("registry", list(measure(hosts, work, options.rounds)))


if __name__ == "__main__":
    main()
