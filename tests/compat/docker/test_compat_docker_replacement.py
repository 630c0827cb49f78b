"""Archives on their way in and out while the image store is replaced: nothing is lost or cut short."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.compat.docker.docker_engine import IMAGE, Engine

# Far more than pipes and sockets hold, so that there is a rest when the half has come.
_SIZE = 24 << 20


@pytest.fixture(scope="module")
def content() -> bytes:
    """What no compression makes small."""
    return os.urandom(_SIZE)


@pytest.fixture
def archive(content: bytes) -> bytes:
    """A root filesystem with one file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("big")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture
def big(docker: Engine, archive: bytes) -> Iterator[str]:
    """An image, and a container of it."""
    docker.ok("import", "-", "replaced.test/big:1", stdin=archive)
    docker.ok("create", "--name", "big", "replaced.test/big:1", "true")
    yield "replaced.test/big:1"
    docker.ok("rm", "-f", "big")
    docker.docker("rmi", "-f", "replaced.test/big:1")


def given(docker: Engine, data: bytes, *words: str) -> str:
    """A command that is given half, then the store is replaced, then the rest."""
    command = ["docker", *words]
    half = len(data) // 2
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=docker.environment(),
    ) as running:  # fmt: skip
        assert running.stdin is not None and running.stdout is not None
        running.stdin.write(data[:half])
        docker.instance.run("swap", "image")
        running.stdin.write(data[half:])
        running.stdin.close()
        said = running.stdout.read().decode()
    assert running.returncode == 0, said
    return said


def taken(docker: Engine, *words: str) -> tuple[int, bytes]:
    """A command whose output is read a little, then the store is replaced; then the rest."""
    with subprocess.Popen(
        ["docker", *words], stdout=subprocess.PIPE, env=docker.environment()
    ) as running:
        assert running.stdout is not None
        begin = running.stdout.read(1 << 20)
        docker.instance.run("swap", "image")
        whole = begin + running.stdout.read()
    return running.returncode, whole


def test_a_load_goes_on(docker: Engine, big: str) -> None:
    """It ended with `image was replaced; open it again`."""
    identity = docker.inspect(big)["Id"]
    saved = subprocess.run(
        ["docker", "save", big], env=docker.environment(), capture_output=True, check=True
    ).stdout
    docker.ok("rm", "-f", "big")
    docker.ok("rmi", big)
    assert given(docker, saved, "load") == f"Loaded image: {big}\n"
    assert docker.inspect(big)["Id"] == identity
    docker.ok("create", "--name", "big", big, "true")


def test_an_import_goes_on(docker: Engine, archive: bytes, content: bytes) -> None:
    given(docker, archive, "import", "-", "replaced.test/imported:1")
    try:
        docker.ok("create", "--name", "imported", "replaced.test/imported:1", "true")
        assert read(docker, "imported:/big") == hashlib.sha256(content).hexdigest()
    finally:
        docker.docker("rm", "-f", "imported")
        docker.ok("rmi", "replaced.test/imported:1")


def test_a_copy_into_a_container_goes_on(docker: Engine, archive: bytes, content: bytes) -> None:
    docker.ok("create", "--name", "given", IMAGE, "true")
    given(docker, archive, "cp", "-", "given:/tmp")
    assert read(docker, "given:/tmp/big") == hashlib.sha256(content).hexdigest()


def read(docker: Engine, source: str) -> str:
    """The digest of a file of a container."""
    out = subprocess.run(
        ["docker", "cp", source, "-"], env=docker.environment(), capture_output=True, check=True
    ).stdout
    return digest(out)


def digest(archive: bytes) -> str:
    """Of the file `big` of an archive."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        (entry,) = (one for one in tar.getmembers() if one.name.rpartition("/")[2] == "big")
        file = tar.extractfile(entry)
        assert file is not None
        return hashlib.sha256(file.read()).hexdigest()


@pytest.mark.parametrize(
    "words", [("cp", "big:/big", "-"), ("export", "big")], ids=["cp", "export"]
)
def test_files_come_out_whole(
    docker: Engine, big: str, content: bytes, words: tuple[str, ...]
) -> None:
    """What was cut off was taken for all of it, and the command ended well."""
    code, whole = taken(docker, *words)
    assert code == 0
    assert digest(whole) == hashlib.sha256(content).hexdigest()


def test_a_saved_archive_is_whole(docker: Engine, big: str) -> None:
    code, whole = taken(docker, "save", big)
    assert code == 0
    again = subprocess.run(
        ["docker", "save", big], env=docker.environment(), capture_output=True, check=True
    ).stdout
    assert hashlib.sha256(whole).hexdigest() == hashlib.sha256(again).hexdigest()


def test_a_removal_outlives_the_store_that_did_it(docker: Engine) -> None:
    """It is killed when the index is written and the layer's many files are still to be deleted."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for number in range(3000):
            tar.addfile(tarfile.TarInfo(f"f{number}"))
    image = docker.ok("import", "-", "gone:1", stdin=packed.getvalue())
    index = docker.instance.paths.data / "plugins" / "image_overlay" / "index.json"
    before, store = index.stat().st_ino, docker.instance.pid("image")
    with ThreadPoolExecutor(1) as beside:
        removal = beside.submit(docker.docker, "rmi", "gone:1")
        while index.stat().st_ino == before and not removal.done():
            pass
        os.kill(store, signal.SIGKILL)
        done = removal.result()
    docker.instance.wait_ready(gone=store)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["Untagged: gone:1", f"Deleted: {image}"]
    assert "No such image" in docker.docker("rmi", "gone:1").stderr
