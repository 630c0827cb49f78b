"""Pull and push against Debian's docker-registry, with skopeo as the other client."""

from __future__ import annotations

import asyncio
import base64
import http.server
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests import sample_image
from tests.conformance.image_registry_server import by_certificate, needs_registry, running_registry

from sagong.conformance.image_lab import send
from sagong.contracts.image import (
    Credentials,
    Image,
    ImageRef,
    Images,
    LoadRequest,
    Progress,
    PullRequest,
    PushRequest,
    RemoveRequest,
    TagRequest,
)
from sagong.errors import (
    InvalidArgument,
    NotFound,
    SagongError,
    Unauthenticated,
    Unavailable,
)
from sagong.testing import local
from sagong_image_overlay import ImageOverlay

pytestmark = [
    pytest.mark.root,
    needs_registry,
    pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo"),
]
FAST = {"registries": {"attempts": 3, "seconds": 30.0}}
ONCE = {"registries": {"attempts": 1, "seconds": 30.0}}


def skopeo(*arguments: str, memory: Path | None = None) -> str:
    """Run skopeo; its output. With `memory` it remembers blobs there, and not in the machine's."""
    own = {"_CONTAINERS_ROOTLESS_UID": "1", "XDG_DATA_HOME": str(memory)} if memory else {}
    done = subprocess.run(
        ["skopeo", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **own},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def pulled(images: Images, reference: str, **facts: object) -> list[Progress]:
    """Pull; all progress."""
    request = PullRequest(id=reference, reference=reference, **facts)  # type: ignore[arg-type]
    return [item async for item in images.pull(request)]


async def pushed(images: Images, reference: str, **facts: object) -> list[Progress]:
    """Push; all progress."""
    request = PushRequest(id=reference, reference=reference, **facts)  # type: ignore[arg-type]
    return [item async for item in images.push(request)]


async def loaded(images: Images, archive: Path) -> Image:
    """Load a docker archive of one image."""
    address = await images.upload()
    await send(address, archive.read_bytes())
    told = [item async for item in images.load(LoadRequest(upload=address.token))]
    return await images.inspect(ImageRef(reference=told[-1].image))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> sample_image.Sample:
    """The busybox image."""
    return sample_image.build(tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry that lets everybody write."""
    with running_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.mark.parametrize("form", ["oci", "v2s2"])
async def test_pulls_what_skopeo_pushed(
    sample: sample_image.Sample, registry: str, form: str
) -> None:
    name = f"{registry}/skopeo/{form}:v1"
    source = f"oci:{sample.oci_layout}"
    skopeo("copy", "-q", "--dest-tls-verify=false", f"--format={form}", source, f"docker://{name}")
    digest = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{name}"))["Digest"]
    async with local(ImageOverlay, config=FAST) as images:
        told = await pulled(images, name)
        assert told[-1].digest == digest
        found = await images.inspect(ImageRef(reference=name))
        assert tuple(layer.diff_id for layer in found.layers) == sample.diff_ids
        assert found.config.cmd == ("sh",)
        again = await pulled(images, name)
        assert again[-1].status == f"Image is up to date for {name}"
        assert len(again) == 2, "of an image that is here no layers are told"


async def test_skopeo_reads_what_was_pushed(
    sample: sample_image.Sample, registry: str, tmp_path: Path
) -> None:
    name = f"{registry}/ours/busybox:v1"
    async with local(ImageOverlay, config=FAST) as images:
        image = await loaded(images, sample.docker_archive)
        await images.tag(TagRequest(source=image.id, target=name))
        told = await pushed(images, name)
    skopeo("copy", "-q", "--src-tls-verify=false", f"docker://{name}", f"oci:{tmp_path}/copy")
    index = json.loads((tmp_path / "copy/index.json").read_text())
    assert index["manifests"][0]["digest"] == told[-1].digest
    manifest = json.loads(
        (tmp_path / "copy/blobs/sha256" / told[-1].digest.removeprefix("sha256:")).read_text()
    )
    assert manifest["config"]["digest"] == sample.image_id


async def test_blobs_are_mounted_from_another_repository(
    sample: sample_image.Sample, registry: str
) -> None:
    async with local(ImageOverlay, config=FAST) as images:
        image = await loaded(images, sample.docker_archive)
        for repository in ("mount/one", "mount/two"):
            name = f"{registry}/{repository}:v1"
            await images.tag(TagRequest(source=image.id, target=name))
            told = await pushed(images, name)
        assert {item.status for item in told} >= {"Mounted from mount/one"}


@contextmanager
def protected(directory: Path) -> Iterator[str]:
    """A registry that knows user `sagong` with password `secret`."""
    hashed = (
        "$2b$05$aaXcUEX2nrTIlWp/K/WR9unODINTCxXl43IiV/uelXVf5D4nNUeL2"  # bcrypt of the password
    )
    passwords = directory / "htpasswd"
    passwords.write_text(f"sagong:{hashed}\n")
    extra = f"auth:\n  htpasswd: {{realm: test, path: {passwords}}}\n"
    with running_registry(directory, extra=extra) as host:
        yield host


async def test_basic_authorization(sample: sample_image.Sample, tmp_path: Path) -> None:
    right = Credentials(username="sagong", password="secret")
    wrong = Credentials(username="sagong", password="guess")
    with protected(tmp_path) as host:
        name = f"{host}/private/busybox:v1"
        async with local(ImageOverlay, config=FAST) as images:
            image = await loaded(images, sample.docker_archive)
            await images.tag(TagRequest(source=image.id, target=name))
            with pytest.raises(Unauthenticated, match="no basic auth credentials"):
                await pushed(images, name)
            with pytest.raises(Unauthenticated, match="unauthorized: authentication required"):
                await pushed(images, name, credentials=wrong)
            told = await pushed(images, name, credentials=right)
            await images.remove(RemoveRequest(reference=image.id, force=True))
            with pytest.raises(Unauthenticated):
                await pulled(images, name)
            back = await pulled(images, name, credentials=right)
            assert back[-1].digest == told[-1].digest


async def test_a_multi_platform_index(
    sample: sample_image.Sample, registry: str, tmp_path: Path
) -> None:
    base = f"{registry}/multi/busybox"
    source = f"oci:{sample.oci_layout}"
    skopeo("copy", "-q", "--dest-tls-verify=false", source, f"docker://{base}:one")
    raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{base}:one")
    described = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": sample.manifest_digest,
        "size": len(raw),
    }
    wrong = {**described, "platform": {"os": "linux", "architecture": "s390x"}}
    right = {**described, "platform": {"os": "linux", "architecture": "amd64"}}
    arm = {**described, "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}}
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [wrong, right, arm],
    }
    put_manifest(registry, "multi/busybox", "all", index)
    async with local(ImageOverlay, config=FAST) as images:
        told = await pulled(images, f"{base}:all")
        found = await images.inspect(ImageRef(reference=f"{base}:all"))
        assert found.manifest_digest == sample.manifest_digest
        assert found.digests == (f"{base}@{told[-1].digest}",)
        assert told[-1].digest != sample.manifest_digest
        with pytest.raises(NotFound, match="no matching manifest for linux/ppc64le"):
            await pulled(images, f"{base}:all", platform="linux/ppc64le")
        await pulled(images, f"{base}:all", platform="linux/arm64")


def put_manifest(host: str, repository: str, tag: str, document: dict[str, object]) -> None:
    """Store an index as it is."""
    import urllib.request

    request = urllib.request.Request(
        f"http://{host}/v2/{repository}/manifests/{tag}",
        data=json.dumps(document).encode(),
        method="PUT",
        headers={"Content-Type": str(document["mediaType"])},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 201


class Flaky(http.server.BaseHTTPRequestHandler):
    """A proxy in front of a registry that breaks blobs off, with bearer tokens if so asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer from the registry; the first answers of each large blob are cut short."""
        import urllib.error
        import urllib.request

        state = self.server.state  # type: ignore[attr-defined]
        state["seen"].append((self.path, self.headers.get("Range"), self.headers["Authorization"]))
        if self.path.startswith("/token"):
            self._give(200, {}, json.dumps({"token": "good"}).encode())
            return
        if state["bearer"] and self.headers["Authorization"] != "Bearer good":
            realm = f'Bearer realm="http://{self.headers["Host"]}/token",service="s",scope="x"'
            self._give(401, {"WWW-Authenticate": realm}, b"{}")
            return
        request = urllib.request.Request(f"http://{state['registry']}{self.path}")
        for key in ("Accept", "Range"):
            if self.headers.get(key):
                request.add_header(key, self.headers[key])
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                raw, status, headers = answer.read(), answer.status, dict(answer.headers)
        except urllib.error.HTTPError as error:
            raw, status, headers = error.read(), error.code, dict(error.headers)
        if "/blobs/" in self.path and len(raw) > 100_000 and state["cuts"] > 0:
            state["cuts"] -= 1
            dead = state["dies"] and self.headers.get("Range")
            self._give(status, headers, raw, cut=0 if dead else len(raw) // 2)
            return
        self._give(status, headers, raw)

    def _give(self, status: int, headers: dict[str, str], raw: bytes, cut: int = -1) -> None:
        self.send_response(status)
        for key, value in headers.items():
            if key.lower() not in ("content-length", "transfer-encoding", "connection", "date"):
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        if cut >= 0:
            self.wfile.write(raw[:cut])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
            return
        self.wfile.write(raw)

    def log_message(self, format: str, *arguments: object) -> None:
        """Be quiet."""


@contextmanager
def flaky(
    registry: str, *, cuts: int = 0, bearer: bool = False, dies: bool = False
) -> Iterator[dict[str, object]]:
    """The proxy, running; its state tells what it has seen. One that dies cuts off all that goes on."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Flaky)
    state: dict[str, object] = {"registry": registry, "cuts": cuts, "bearer": bearer, "seen": []}
    state["dies"] = dies
    server.state = state  # type: ignore[attr-defined]
    state["host"] = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


async def test_interrupted_downloads_go_on(sample: sample_image.Sample, registry: str) -> None:
    source = f"oci:{sample.oci_layout}"
    target = f"docker://{registry}/resume/busybox:v1"
    skopeo("copy", "-q", "--dest-tls-verify=false", source, target)
    with flaky(registry, cuts=3) as state:
        async with local(ImageOverlay, config=ONCE) as images:
            await pulled(images, f"{state['host']}/resume/busybox:v1")
        ranges = [seen[1] for seen in state["seen"] if seen[1]]  # type: ignore[attr-defined]
        assert len(ranges) == 3 and len(set(ranges)) == 3, "what came counts as no attempt"


async def test_a_later_pull_goes_on_where_the_first_gave_up(
    sample: sample_image.Sample, registry: str, tmp_path: Path
) -> None:
    source = f"oci:{sample.oci_layout}"
    target = f"docker://{registry}/later/busybox:v1"
    skopeo("copy", "-q", "--dest-tls-verify=false", source, target)
    with flaky(registry, cuts=2, dies=True) as state:
        name = f"{state['host']}/later/busybox:v1"
        async with local(ImageOverlay, data=tmp_path, config=ONCE) as images:
            with pytest.raises(Unavailable):
                await pulled(images, name)
        async with local(ImageOverlay, data=tmp_path, config=ONCE) as images:
            await pulled(images, name)
        assert any(seen[1] for seen in state["seen"])  # type: ignore[attr-defined]


async def test_bearer_tokens(sample: sample_image.Sample, registry: str) -> None:
    source = f"oci:{sample.oci_layout}"
    target = f"docker://{registry}/token/busybox:v1"
    skopeo("copy", "-q", "--dest-tls-verify=false", source, target)
    with flaky(registry, bearer=True) as state:
        name = f"{state['host']}/token/busybox:v1"
        async with local(ImageOverlay, config=FAST) as images:
            user = Credentials(username="u", password="p")
            await pulled(images, name, credentials=user)
        tokens = [seen for seen in state["seen"] if seen[0].startswith("/token")]  # type: ignore[attr-defined]
        assert "scope=repository%3Atoken%2Fbusybox%3Apull" in tokens[0][0]
        assert tokens[0][2] == "Basic " + base64.b64encode(b"u:p").decode()


async def test_a_wrong_blob_is_refused(sample: sample_image.Sample, tmp_path: Path) -> None:
    with running_registry(tmp_path) as host:
        source = f"oci:{sample.oci_layout}"
        skopeo("copy", "-q", "--dest-tls-verify=false", source, f"docker://{host}/bad/busybox:v1")
        blobs = [path for path in tmp_path.rglob("data") if path.stat().st_size > 100_000]
        (large,) = blobs
        raw = bytearray(large.read_bytes())
        raw[5000] ^= 1
        large.write_bytes(raw)
        async with local(ImageOverlay, config=FAST) as images:
            with pytest.raises(InvalidArgument, match="filesystem layer verification failed"):
                await pulled(images, f"{host}/bad/busybox:v1")
            with pytest.raises(NotFound):
                await images.inspect(ImageRef(reference=f"{host}/bad/busybox:v1"))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
async def test_tls_with_certificates_of_certs_d(
    sample: sample_image.Sample, tmp_path: Path
) -> None:
    with by_certificate(tmp_path) as host:
        directory = tmp_path / "certs.d" / host
        directory.mkdir(parents=True)
        config = {"registries": {"certificates": [str(tmp_path / "certs.d")], "attempts": 2}}
        async with local(ImageOverlay, config=config) as images:
            image = await loaded(images, sample.docker_archive)
            name = f"{host}/tls/busybox:v1"
            await images.tag(TagRequest(source=image.id, target=name))
            (directory / "ca.crt").write_text((tmp_path / "cert.pem").read_text())
            with pytest.raises(Unavailable, match=r"tls: (bad certificate|certificate required)"):
                await pushed(images, name)
            (directory / "client.cert").write_text((tmp_path / "cert.pem").read_text())
            (directory / "client.key").write_text((tmp_path / "key.pem").read_text())
            await pushed(images, name)
            assert (await pulled(images, name))[-1].digest


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
async def test_a_mirror_of_hosts_toml(sample: sample_image.Sample, tmp_path: Path) -> None:
    """containerd's file, with a mirror that wants a certificate; credentials stay away from it."""
    with by_certificate(tmp_path) as host:
        certs = tmp_path / "certs.d"
        (certs / "_default").mkdir(parents=True)
        told = f'[host."https://{host}"]\nca = "ca.pem"\nclient = [["c.pem", "k.pem"]]\n'
        (certs / "_default" / "hosts.toml").write_text(told)
        for name, source in (("ca", "cert"), ("c", "cert"), ("k", "key")):
            shutil.copy(tmp_path / f"{source}.pem", certs / "_default" / f"{name}.pem")
        config = {"registries": {"certificates": [str(certs)], "attempts": 1}}
        pair = [f"--dest-cert-dir={tmp_path / 'skopeo'}", f"docker://{host}/far/busybox:v1"]
        (tmp_path / "skopeo").mkdir()
        for name, source in (("ca.crt", "cert"), ("client.cert", "cert"), ("client.key", "key")):
            shutil.copy(tmp_path / f"{source}.pem", tmp_path / "skopeo" / name)
        skopeo("copy", "-q", f"oci:{sample.oci_layout}", *pair)
        async with local(ImageOverlay, config=config) as images:
            assert (await pulled(images, "registry.invalid/far/busybox:v1"))[-1].digest


async def test_a_mirror_with_credentials_of_its_own(
    sample: sample_image.Sample, tmp_path: Path
) -> None:
    with protected(tmp_path) as host:
        mirrors = {"registry.invalid": [f"http://sagong:secret@{host}"]}
        source = f"oci:{sample.oci_layout}"
        target = ["--dest-tls-verify=false", f"docker://{host}/far/busybox:v1"]
        skopeo("copy", "-q", "--dest-creds=sagong:secret", source, *target)
        config = {"registries": {"mirrors": mirrors, "attempts": 1}}
        async with local(ImageOverlay, config=config) as images:
            others = Credentials(username="somebody", password="else")
            name = "registry.invalid/far/busybox:v1"
            assert (await pulled(images, name, credentials=others))[-1].digest


async def test_layers_of_zstd(sample: sample_image.Sample, registry: str, tmp_path: Path) -> None:
    name = f"{registry}/zstd/busybox:v1"
    options = ["--dest-tls-verify=false", "--dest-compress-format=zstd", "--format=oci"]
    source = f"docker-archive:{sample.docker_archive}"
    # Elsewhere it would know these layers as gzip by now, and take that.
    skopeo("copy", "-q", *options, source, f"docker://{name}", memory=tmp_path)
    raw = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}"))
    assert raw["layers"][0]["mediaType"].endswith("+zstd")
    async with local(ImageOverlay, config=FAST) as images:
        await pulled(images, name)
        found = await images.inspect(ImageRef(reference=name))
        assert tuple(layer.diff_id for layer in found.layers) == sample.diff_ids


async def test_pulls_at_once_share_their_work(sample: sample_image.Sample, registry: str) -> None:
    source = f"oci:{sample.oci_layout}"
    skopeo("copy", "-q", "--dest-tls-verify=false", source, f"docker://{registry}/once/a:v1")
    skopeo("copy", "-q", "--dest-tls-verify=false", source, f"docker://{registry}/once/b:v1")
    async with local(ImageOverlay, config=FAST) as images:
        names = [f"{registry}/once/{name}:v1" for name in "aabbab"]
        told = await asyncio.gather(*(pulled(images, name) for name in names))
        assert len({one[-1].digest for one in told}) == 1
        found = await images.inspect(ImageRef(reference=names[0]))
        assert set(found.tags) == set(names)
        usage = await images.usage()
        assert usage.layers == found.size


async def test_errors_before_and_after_the_manifest_leave_nothing(
    registry: str, tmp_path: Path
) -> None:
    async with local(ImageOverlay, data=tmp_path, config=FAST) as images:
        for name in (f"{registry}/never/there:v1", "127.0.0.1:1/a/b:c"):
            with pytest.raises(SagongError):
                await pulled(images, name)
    left = [path for path in (tmp_path / "content").rglob("*") if path.is_file()]
    assert left == []
