"""skopeo, podman, buildah, docker on our engine and Docker Engine push and pull, logged in or not."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from shutil import which

import pytest
from tests import sample_image
from tests.compat.docker import clients
from tests.compat.registry.peers import platform
from tests.compat.registry.tools import Tools, dockerd, home_of_tools, operator
from tests.compat.registry.wire import Client, Content
from tests.sample_image import Sample
from tests.system.instance import Instance

NEEDED = ("skopeo", "podman", "buildah", "docker")
pytestmark = [
    pytest.mark.root,
    *(pytest.mark.skipif(which(n) is None, reason=f"needs {n}") for n in NEEDED),
]
BUILDX = clients.found("docker-buildx")
NO_TLS, SRC, DEST = "--tls-verify=false", "--src-tls-verify=false", "--dest-tls-verify=false"
RULES = """
public = ["open/*"]
[[units.registry.settings.rules]]
accounts = ["*"]
repositories = ["{account}/*", "open/*"]
[[units.registry.settings.rules]]
accounts = ["reader"]
actions = ["pull"]
"""


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Instance, str]]:
    """An engine with a registry."""
    with platform(RULES) as found:
        yield found


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """The image that goes round."""
    return sample_image.build(tmp_path_factory.mktemp("sample"))


@pytest.fixture
def host(running: tuple[Instance, str]) -> str:
    """Where the registry is."""
    return running[1]


@pytest.fixture
def tools(running: tuple[Instance, str]) -> Iterator[Tools]:
    """Clients that have never logged in."""
    with home_of_tools() as home:
        yield Tools(home, f"unix://{running[0].paths.run}/docker.sock")


@pytest.fixture
def accounts(running: tuple[Instance, str]) -> Iterator[None]:
    """alice and reader have accounts while the test runs."""
    for name in ("alice", "reader"):
        operator(running[0], "passwd", name, "--password-stdin", stdin=f"{name}-secret\n")
    yield
    for name in ("alice", "reader"):
        operator(running[0], "passwd", name, "--remove")


def refused(tools: Tools, *words: str) -> str:
    done = tools.run(*words)
    assert done.returncode != 0, (words, done.stdout)
    return done.stderr


def test_skopeo_copies_in_and_out(tools: Tools, host: str, sample: Sample) -> None:
    there = f"docker://{host}/clients/skopeo:1"
    tools.skopeo("copy", DEST, f"oci:{sample.oci_layout}", there)
    told = json.loads(tools.skopeo("inspect", NO_TLS, there))
    assert told["Digest"] == sample.manifest_digest and told["RepoTags"] == ["1"]
    layout = tools.home / "back"
    tools.skopeo("copy", SRC, there, f"oci:{layout}:1")
    name = sample.manifest_digest.partition(":")[2]
    assert (layout / "blobs" / "sha256" / name).exists()
    tools.skopeo("delete", NO_TLS, there)
    assert "manifest unknown" in refused(tools, "skopeo", "inspect", NO_TLS, there)


def test_skopeo_copies_between_repositories_without_sending_layers(
    tools: Tools, host: str, sample: Sample
) -> None:
    first, second = f"docker://{host}/clients/one:1", f"docker://{host}/clients/two:1"
    tools.skopeo("copy", DEST, f"oci:{sample.oci_layout}", first)
    tools.skopeo("copy", SRC, DEST, first, second)
    assert tools.skopeo("inspect", NO_TLS, "--raw", first) == tools.skopeo(
        "inspect", NO_TLS, "--raw", second
    )


def test_skopeo_moves_docker_s_own_formats(tools: Tools, host: str, sample: Sample) -> None:
    there = f"docker://{host}/clients/v2s2:1"
    tools.skopeo("copy", DEST, "--format", "v2s2", f"oci:{sample.oci_layout}", there)
    raw = json.loads(tools.skopeo("inspect", NO_TLS, "--raw", there))
    assert raw["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"


def test_podman_and_buildah_push_and_pull(tools: Tools, host: str, sample: Sample) -> None:
    tools.podman("load", "-i", str(sample.docker_archive))
    there = f"{host}/clients/podman:1"
    tools.podman("push", NO_TLS, sample.name, f"docker://{there}")
    tools.podman("rmi", "-af")
    tools.podman("pull", NO_TLS, there)
    found = tools.buildah("from", "--pull-never", there)
    tools.buildah("config", "--label", "org.example=buildah", found)
    tools.buildah("commit", "-q", found, f"{host}/clients/buildah:1")
    tools.buildah("push", NO_TLS, f"{host}/clients/buildah:1")
    config = tools.skopeo("inspect", NO_TLS, "--config", f"docker://{host}/clients/buildah:1")
    assert json.loads(config)["config"]["Labels"]["org.example"] == "buildah"
    tools.buildah("rm", found)
    tools.podman("rmi", "-af")


def test_buildah_pushes_an_image_of_several_platforms(
    tools: Tools, host: str, sample: Sample
) -> None:
    for platform_ in ("amd64", "arm64"):
        container = tools.buildah("from", "--arch", platform_, "scratch")
        tools.buildah("commit", "-q", "--manifest", f"multi-{host}", container)
        tools.buildah("rm", container)
    target = f"docker://{host}/clients/multi:1"
    tools.buildah("manifest", "push", "--all", NO_TLS, f"multi-{host}", target)
    raw = json.loads(tools.skopeo("inspect", NO_TLS, "--raw", target))
    assert {one["platform"]["architecture"] for one in raw["manifests"]} == {"amd64", "arm64"}
    tools.buildah("rmi", "-af")


def test_docker_on_our_engine_pushes_and_pulls(tools: Tools, host: str, sample: Sample) -> None:
    there = f"{host}/clients/docker:1"
    tools.ok("docker", "load", "-q", "-i", str(sample.docker_archive))
    tools.ok("docker", "tag", sample.name, there)
    assert "digest: sha256:" in tools.ok("docker", "push", there)
    tools.ok("docker", "rmi", "-f", there, sample.name)
    tools.ok("docker", "pull", "-q", there)
    assert tools.ok("docker", "run", "--rm", there, "echo", "pulled") == "pulled"
    tools.ok("docker", "rmi", "-f", there)


@pytest.fixture
def several(tools: Tools, host: str, sample: Sample) -> str:
    """An image of several platforms, made by `docker manifest`."""
    one, many = f"{host}/clients/one-platform:1", f"{host}/clients/several:1"
    tools.skopeo("copy", DEST, f"oci:{sample.oci_layout}", f"docker://{one}")
    tools.ok("docker", "manifest", "create", "--insecure", many, one)
    tools.ok("docker", "manifest", "annotate", many, one, "--os", "linux", "--arch", "arm64")
    tools.ok("docker", "manifest", "push", "--insecure", many)
    return many


def test_docker_manifest_makes_an_index(tools: Tools, several: str, sample: Sample) -> None:
    index = json.loads(tools.ok("docker", "manifest", "inspect", "--insecure", several))
    (only,) = index["manifests"]
    assert only["digest"] == sample.manifest_digest
    assert only["platform"]["architecture"] == "arm64"


@pytest.mark.skipif(BUILDX is None, reason="needs docker buildx (packaging/clients)")
def test_imagetools_of_buildx_make_and_show_an_index(tools: Tools, host: str, several: str) -> None:
    assert BUILDX is not None
    plugins = tools.home / "docker" / "cli-plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    (plugins / "docker-buildx").symlink_to(BUILDX)
    imagetools, made = ("docker", "buildx", "imagetools"), f"{host}/clients/imagetools:1"
    tools.ok(*imagetools, "create", "--annotation", "index:a=b", "-t", made, several)
    raw = json.loads(tools.ok(*imagetools, "inspect", "--raw", made))
    assert raw["annotations"] == {"a": "b"}
    assert raw["manifests"][0]["platform"]["architecture"] == "arm64"
    assert "Platform:  linux/arm64" in tools.ok(*imagetools, "inspect", made)


@pytest.mark.skipif(which("dockerd") is None, reason="needs dockerd (Debian's docker.io)")
def test_docker_engine_pushes_pulls_and_searches(
    running: tuple[Instance, str], tools: Tools, host: str, sample: Sample, accounts: None
) -> None:
    with dockerd(tools.home / "dockerd") as address:
        docker = Tools(tools.home, address)
        there = f"{host}/alice/engine:1"
        docker.ok("docker", "load", "-q", "-i", str(sample.docker_archive))
        docker.ok("docker", "tag", sample.name, there)
        assert "denied" in refused(docker, "docker", "push", there)
        login = ("docker", "login", host, "-u", "alice", "--password-stdin")
        assert "wrong user name or password" in docker.run(*login, stdin="wrong").stderr
        docker.ok(*login, stdin="alice-secret")
        docker.ok("docker", "push", "-q", there)
        docker.ok("docker", "rmi", "-f", there, sample.name)
        docker.ok("docker", "pull", "-q", there)
        assert "alice/engine" in docker.ok("docker", "search", f"{host}/engine")
        docker.ok("docker", "logout", host)
        assert "alice/engine" not in docker.ok("docker", "search", f"{host}/engine")
        operator(running[0], "show", "alice/engine")
        assert "alice/engine" in docker.ok("docker", "search", f"{host}/engine")


def test_logins_are_checked_and_rights_kept(
    running: tuple[Instance, str], tools: Tools, host: str, sample: Sample, accounts: None
) -> None:
    source = f"oci:{sample.oci_layout}"
    own, others = f"docker://{host}/alice/app:1", f"docker://{host}/bob/app:1"
    push = ("skopeo", "--insecure-policy", "copy", DEST, source)
    assert "denied" in refused(tools, *push, own)
    wrong = tools.run(
        "skopeo", "login", NO_TLS, host, "-u", "alice", "--password-stdin", stdin="wrong"
    )
    assert wrong.returncode != 0
    tools.ok(
        "skopeo", "login", NO_TLS, host, "-u", "alice", "--password-stdin", stdin="alice-secret"
    )
    tools.skopeo("copy", DEST, source, own)
    assert refused(tools, *push, others)
    tools.skopeo("inspect", NO_TLS, own)
    tools.ok("skopeo", "logout", host)
    assert refused(tools, "skopeo", "inspect", NO_TLS, own)
    tools.ok(
        "skopeo", "login", NO_TLS, host, "-u", "reader", "--password-stdin", stdin="reader-secret"
    )
    tools.skopeo("inspect", NO_TLS, own)
    assert refused(tools, *push, own)


def test_what_is_public_is_pulled_without_an_account(
    running: tuple[Instance, str], tools: Tools, host: str, sample: Sample, accounts: None
) -> None:
    for repository in ("alice/shown", "open/app"):
        there = f"docker://{host}/{repository}:1"
        source = f"oci:{sample.oci_layout}"
        tools.skopeo("copy", "--dest-creds=alice:alice-secret", DEST, source, there)
    for tool in ("skopeo", "docker"):
        shown = f"{host}/alice/shown:1"
        words = ("skopeo", "inspect", NO_TLS, f"docker://{shown}")
        words = words if tool == "skopeo" else ("docker", "pull", "-q", shown)
        operator(running[0], "hide", "alice/shown")
        assert refused(tools, *words)
        operator(running[0], "show", "alice/shown")
        tools.ok(*words)
    tools.skopeo("inspect", NO_TLS, f"docker://{host}/open/app:1")
    anonymous = Client(host)
    listed = anonymous.ask("GET", "/v2/_catalog").json["repositories"]
    assert {"alice/shown", "open/app"} <= set(listed) and "clients/skopeo" not in listed
    anonymous.close()


def test_docker_logs_in_on_our_engine(
    running: tuple[Instance, str], tools: Tools, host: str, sample: Sample, accounts: None
) -> None:
    there = f"{host}/alice/ours:1"
    tools.ok("docker", "load", "-q", "-i", str(sample.docker_archive))
    tools.ok("docker", "tag", sample.name, there)
    assert refused(tools, "docker", "push", there)
    login = ("docker", "login", host, "-u", "alice", "--password-stdin")
    assert tools.run(*login, stdin="wrong").returncode != 0
    assert "Login Succeeded" in tools.ok(*login, stdin="alice-secret")
    assert "digest: sha256:" in tools.ok("docker", "push", there)
    tools.ok("docker", "rmi", "-f", there, sample.name)
    tools.ok("docker", "pull", "-q", there)
    tools.ok("docker", "rmi", "-f", there)
    assert "alice/ours" in tools.ok("docker", "search", f"{host}/ours")
    known = json.loads((tools.home / "docker" / "config.json").read_text())["auths"][host]
    assert known["identitytoken"] and b"alice-secret" not in base64.b64decode(known["auth"])
    operator(running[0], "passwd", "alice", "--password-stdin", stdin="changed\n")
    assert "log in again" in refused(tools, "docker", "pull", there)
    tools.ok("docker", "logout", host)
    assert refused(tools, "docker", "pull", there)


def test_podman_logs_in(tools: Tools, host: str, sample: Sample, accounts: None) -> None:
    tools.podman("load", "-i", str(sample.docker_archive))
    login = ("login", NO_TLS, "-u", "alice", "--password-stdin", host)
    tools.podman(*login, stdin="alice-secret")
    tools.podman("push", NO_TLS, sample.name, f"docker://{host}/alice/podman:1")
    tools.podman("rmi", "-af")


def test_what_the_operator_sees(running: tuple[Instance, str], host: str) -> None:
    client = Client(host)
    manifest = client.push_image("operator/app", "v1")
    listed = json.loads(operator(running[0], "list", "operator/", "--json"))
    assert [one["name"] for one in listed] == ["operator/app"]
    assert manifest.digest in operator(running[0], "describe", "operator/app")
    assert "operator/app" in operator(running[0], "list")
    operator(running[0], "remove", "operator/app")
    assert client.ask("GET", "/v2/operator/app/tags/list").status == 404
    with pytest.raises(AssertionError, match="operator/app"):
        operator(running[0], "remove", "operator/app")
    client.close()


def test_collected_bytes_are_free_on_the_disk(running: tuple[Instance, str], host: str) -> None:
    instance, client = running[0], Client(host)
    blob = Content.random(20 << 20)
    client.push_blob("disk/app", blob)
    name = blob.digest.partition(":")[2]
    found = list((instance.paths.data / "plugins").rglob(name))
    assert len(found) == 1 and found[0].stat().st_size == 20 << 20
    assert client.ask("DELETE", f"/v2/disk/app/blobs/{blob.digest}").status == 202
    told = operator(instance, "gc")
    assert "MB freed" in told and not found[0].exists()
    client.close()


def test_what_is_pushed_and_loaded_is_kept_once(
    running: tuple[Instance, str], tools: Tools, host: str, sample: Sample
) -> None:
    tools.skopeo("copy", DEST, f"oci:{sample.oci_layout}", f"docker://{host}/once/app:1")
    tools.ok("docker", "pull", "-q", f"{host}/once/app:1")
    raw = tools.skopeo("inspect", NO_TLS, "--raw", f"docker://{host}/once/app:1")
    layer = json.loads(raw)["layers"][0]["digest"].partition(":")[2]
    place = running[0].paths.data / "plugins"
    found = subprocess.run(["find", str(place), "-name", layer], capture_output=True, text=True)
    assert len(found.stdout.split()) == 1
    tools.ok("docker", "rmi", "-f", f"{host}/once/app:1")
    operator(running[0], "gc")
    tools.ok("docker", "pull", "-q", f"{host}/once/app:1")
    tools.ok("docker", "rmi", "-f", f"{host}/once/app:1")
