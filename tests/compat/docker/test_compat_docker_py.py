"""docker-py against the whole engine: another client, with other shapes of the same requests."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import docker as sdk
import pytest
from docker import DockerClient
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound
from tests.compat.docker.docker_engine import IMAGE, Engine

pytestmark = pytest.mark.root


@pytest.fixture
def client(docker: Engine) -> Iterator[DockerClient]:
    """A client of the engine."""
    made = sdk.DockerClient(base_url=f"unix://{docker.socket}")
    yield made
    made.close()


def test_it_negotiates_and_pings(client: DockerClient) -> None:
    assert client.ping() is True
    assert client.version()["ApiVersion"] == "1.51"
    assert client.info()["OSType"] == "linux"
    assert client.df()["Images"]


def test_run_gives_output_and_raises_on_failure(client: DockerClient) -> None:
    assert client.containers.run(IMAGE, ["echo", "hi"], remove=True) == b"hi\n"
    with pytest.raises(ContainerError) as failed:
        client.containers.run(IMAGE, ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
    assert failed.value.exit_status == 3 and failed.value.stderr == b"bad\n"
    with pytest.raises(APIError, match="executable file not found"):
        client.containers.run(IMAGE, "no-such-program", remove=True)


def test_what_removes_itself_is_there_for_its_output_and_its_end(client: DockerClient) -> None:
    """Its logs and its end are asked for after its start: it had gone before."""
    for _ in range(5):
        assert client.containers.run(IMAGE, ["echo", "hi"], auto_remove=True) == b"hi\n"
        box = client.containers.run(IMAGE, ["sh", "-c", "exit 3"], auto_remove=True, detach=True)
        assert box.wait()["StatusCode"] == 3


def test_containers_are_listed_filtered_and_inspected(client: DockerClient) -> None:
    box = client.containers.run(IMAGE, "sleep 600", name="box", labels={"a": "b"}, detach=True)
    assert [
        c.name for c in client.containers.list(filters={"label": ["a=b"], "status": "running"})
    ] == ["box"]
    assert client.containers.list(limit=-1)[0].short_id == box.short_id
    assert client.containers.get("box").attrs["Config"]["Labels"]["a"] == "b"
    assert box.image.tags == [IMAGE]
    box.rename("other")
    box.update(mem_limit="64m", memswap_limit="128m")
    box.reload()
    assert (box.name, box.attrs["HostConfig"]["Memory"]) == ("other", 64 << 20)
    box.pause()
    box.unpause()
    box.restart(timeout=0)
    box.stop(timeout=0)
    assert box.wait()["StatusCode"] == 137
    box.remove()
    with pytest.raises(NotFound):
        client.containers.get("other")


def test_exec_in_all_its_forms(client: DockerClient) -> None:
    box = client.containers.run(IMAGE, "sleep 600", detach=True)
    assert box.exec_run("echo hi") == (0, b"hi\n")
    assert box.exec_run(["sh", "-c", "exit 4"]).exit_code == 4
    both = box.exec_run(["sh", "-c", "echo o; echo e >&2"], demux=True)
    assert both.output == (b"o\n", b"e\n")
    assert b"".join(box.exec_run("seq 3", stream=True).output) == b"1\n2\n3\n"
    assert box.exec_run("tty", tty=True).output.startswith(b"/dev/pts/")
    assert box.exec_run("env", environment={"A": "b"}).output.find(b"A=b") >= 0
    assert box.exec_run("id -u", user="app").output == b"1000\n"
    _, sock = box.exec_run("cat", stdin=True, socket=True)
    sock._sock.sendall(b"typed\n")
    wanted = b"\x01\0\0\0\0\0\0\x06typed\n"
    received = b""
    while len(received) < len(wanted) and (piece := sock._sock.recv(100)):
        received += piece
    assert received == wanted
    sock.close()


def test_every_exit_code_is_told(client: DockerClient) -> None:
    box = client.containers.run(IMAGE, ["sleep", "1000"], detach=True)
    codes = [*range(0, 256, 17), 1, 2, 125, 126, 127, 128, 129, 130, 137, 143, 254]
    with ThreadPoolExecutor(4) as pool:
        told = pool.map(lambda code: box.exec_run(["sh", "-c", f"exit {code}"]).exit_code, codes)
    assert list(told) == codes


def test_logs_and_attach(client: DockerClient) -> None:
    box = client.containers.run(
        IMAGE, ["sh", "-c", "echo 1; echo 2 >&2; sleep 0.5; echo 3"], detach=True
    )
    assert b"".join(box.logs(stream=True, follow=True)).split() == [b"1", b"2", b"3"]
    assert box.logs(stdout=True, stderr=False, tail=1) == b"3\n"
    assert box.logs(timestamps=True, tail=1).split()[1] == b"3"
    since = time.time() + 100
    assert box.logs(since=int(since)) == b""
    later = client.containers.create(IMAGE, ["echo", "early"])
    stream = later.attach(stream=True, logs=True)
    later.start()
    assert b"".join(stream) == b"early\n"


def test_archives_go_in_and_out(client: DockerClient) -> None:
    box = client.containers.run(IMAGE, "sleep 600", detach=True)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        member = tarfile.TarInfo("f")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))
    assert box.put_archive("/tmp", data.getvalue())
    assert box.exec_run("cat /tmp/f").output == b"abc"
    chunks, stat = box.get_archive("/tmp/f")
    assert (stat["name"], stat["size"]) == ("f", 3)
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        assert tar.extractfile("f").read() == b"abc"  # type: ignore[union-attr]
    assert {"Path": "/tmp/f", "Kind": 1} in box.diff()


def test_figures(client: DockerClient) -> None:
    box = client.containers.run(IMAGE, "sleep 600", detach=True, mem_limit="64m")
    one = box.stats(stream=False)
    assert one["memory_stats"]["limit"] == 64 << 20 and one["cpu_stats"]["online_cpus"] >= 1
    stream = box.stats(stream=True, decode=True)
    first, second = next(stream), next(stream)
    assert second["precpu_stats"]["cpu_usage"] == first["cpu_stats"]["cpu_usage"]


def test_networks_and_volumes(client: DockerClient) -> None:
    pool = sdk.types.IPAMPool(subnet="10.124.0.0/24", gateway="10.124.0.1")
    net = client.networks.create(
        "net", ipam=sdk.types.IPAMConfig(pool_configs=[pool]), labels={"x": "y"}
    )
    with pytest.raises(APIError) as twice:
        client.networks.create("net")
    assert twice.value.status_code == 409
    volume = client.volumes.create("vol", labels={"v": "1"})
    box = client.containers.run(
        IMAGE,
        "sleep 600",
        detach=True,
        network="net",
        volumes={"vol": {"bind": "/v", "mode": "rw"}},
    )
    net.reload()
    assert [c.id for c in net.containers] == [box.id]
    assert client.networks.list(names=["net"])[0].attrs["Labels"] == {"x": "y"}
    assert client.volumes.list(filters={"label": "v=1"})[0].name == "vol"
    with pytest.raises(APIError) as used:
        volume.remove()
    assert used.value.status_code == 409
    box.remove(force=True)
    net.remove()
    volume.remove()


def test_images(client: DockerClient) -> None:
    image = client.images.get(IMAGE)
    assert image.tag("again", "v1") is True
    saved = b"".join(client.images.get("again:v1").save(named=True))
    client.images.remove("again:v1")
    assert client.images.load(saved)[0].tags
    made = client.containers.create(IMAGE, "true").commit("made", "1", changes='CMD ["ls"]')
    assert made.attrs["Config"]["Cmd"] == ["ls"]
    assert image.history()[0]["Id"] == image.id
    client.images.remove("made:1", force=True)
    with pytest.raises(ImageNotFound):
        client.images.get("nosuch:image")
    with pytest.raises(APIError, match="invalid reference format"):
        client.images.get("NOT:A:NAME")
    assert any(IMAGE in i.tags for i in client.images.list(filters={"dangling": False}))


def test_buildkit_is_asked_for_without_a_session(client: DockerClient) -> None:
    """As dockerode does, and testcontainers' withBuildkit: the context is the body."""
    context, text = io.BytesIO(), f"FROM {IMAGE}\nRUN --mount=type=tmpfs,target=/t echo hi > /two\n"
    with tarfile.open(fileobj=context, mode="w") as tar:
        member = tarfile.TarInfo("Dockerfile")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text.encode()))
    url, asked = client.api._url("/build"), {"version": "2", "t": "two:1"}
    kind = {"Content-Type": "application/x-tar"}
    answer = client.api._post(url, data=context.getvalue(), params=asked, headers=kind)
    assert answer.status_code == 200 and "error" not in answer.text, answer.text
    assert client.containers.run("two:1", ["cat", "/two"], remove=True) == b"hi\n"
    client.images.remove("two:1")
    refused = client.api._post(url, params={**asked, "remote": "client-session", "session": "x"})
    assert refused.status_code == 400 and "use buildx" in refused.text


def test_events_are_followed(client: DockerClient) -> None:
    events = client.events(
        decode=True, filters={"type": "container", "event": ["create", "destroy"]}
    )
    client.containers.run(IMAGE, "true", name="seen", remove=True)
    found = [next(events) for _ in range(2)]
    events.close()
    assert [e["Action"] for e in found] == ["create", "destroy"]
    assert found[0]["Actor"]["Attributes"]["name"] == "seen"


def test_prunes(client: DockerClient) -> None:
    client.containers.run(IMAGE, "true", detach=True).wait()
    assert len(client.containers.prune()["ContainersDeleted"]) >= 1
    assert client.networks.prune()["NetworksDeleted"] is None
    assert client.volumes.prune()["SpaceReclaimed"] == 0
