"""The registry and the content store are killed and swapped while clients push and pull."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest
from tests.compat.registry.peers import platform
from tests.compat.registry.tools import operator
from tests.compat.registry.wire import MANIFEST, Answer, Client, Content, with_query
from tests.ports import free_port
from tests.system.instance import Instance, instance

from sagong.errors import SagongError

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Instance, str]]:
    """An engine with a registry."""
    with platform() as found:
        yield found


def patiently(client: Client, method: str, target: str, *more) -> Answer:  # type: ignore[no-untyped-def]
    """Ask until somebody answers that it can."""
    limit = time.monotonic() + 60
    while True:
        try:
            found = client.ask(method, target, *more)
            if found.status != 503:
                return found
        except (OSError, http.client.HTTPException):
            client.close()
        assert time.monotonic() < limit, (method, target)
        time.sleep(0.05)


def kill(instance: Instance, unit: str) -> None:
    pid = instance.pid(unit)
    os.kill(pid, signal.SIGKILL)
    limit = time.monotonic() + 60
    while True:
        try:
            if instance.pid(unit) != pid:
                return
        except (LookupError, SagongError):
            pass
        assert time.monotonic() < limit, instance.logs()
        time.sleep(0.05)


@pytest.mark.parametrize("victim", ["registry", "image", "state-local"])
def test_an_upload_survives_the_death_of(running: tuple[Instance, str], victim: str) -> None:
    """What was acknowledged is there; what was under way when it died is sent again from there."""
    instance, host = running
    client, name, blob = Client(host), f"death/{victim}", Content.random(3 << 20)
    place = client.begin(name)
    first = client.ask(
        "PATCH", place, blob.data[: 1 << 20], {"Content-Range": f"0-{(1 << 20) - 1}"}
    )
    assert first.status == 202

    def pieces() -> Iterator[bytes]:
        yield blob.data[1 << 20 : 2 << 20]
        kill(instance, victim)
        yield blob.data[2 << 20 :]

    broken = Client(host)
    try:
        answer = broken.ask("PATCH", place, pieces(), {"Transfer-Encoding": "chunked"})
        assert answer.status in (202, 404, 503) or victim == "state-local"
    except (OSError, http.client.HTTPException):
        pass
    broken.close()
    client.close()
    where = patiently(client, "GET", place)
    assert where.status == 204
    offset = int(where.headers["range"].partition("-")[2]) + 1
    assert offset >= 1 << 20
    done = with_query(place, digest=blob.digest)
    made = patiently(client, "PUT", done, blob.data[offset:])
    assert made.status == 201, made.body
    found = patiently(client, "GET", f"/v2/{name}/blobs/{blob.digest}")
    assert found.body == blob.data
    client.close()


def test_a_download_goes_on_though_the_content_store_dies(running: tuple[Instance, str]) -> None:
    instance, host = running
    client, blob = Client(host), Content.random(64 << 20)
    client.push_blob("death/down", blob)
    client.close()
    connection = http.client.HTTPConnection(host, timeout=60)
    connection.request("GET", f"/v2/death/down/blobs/{blob.digest}")
    answer = connection.getresponse()
    data = answer.read(1 << 20)
    kill(instance, "image")
    assert data + answer.read() == blob.data
    connection.close()


def test_it_comes_and_goes_while_everything_runs() -> None:
    port = free_port()
    host, client = f"127.0.0.1:{port}", Client(f"127.0.0.1:{port}")
    with instance('profile = "docker"\n') as running:
        assert "registry" not in {unit.name for unit in running.status().units}
        running.run("enable", "registry", "--listen", f"api=tcp:{host}")
        manifest = client.push_image("comes/goes", "v1")
        client.close()
        running.run("disable", "registry")
        with pytest.raises(ConnectionRefusedError):
            client.ask("GET", "/v2/")
        client.close()
        running.run("enable", "registry", "--listen", f"api=tcp:{host}")
        target = "/v2/comes/goes/manifests/v1"
        assert client.ask("GET", target, headers={"Accept": MANIFEST}).body == manifest.data
        client.close()


class Crowd:
    """Clients that push and pull until they are told to stop; every answer must be right."""

    def __init__(self, host: str, count: int) -> None:
        self._host = host
        self._over = threading.Event()
        self.wrong: list[object] = []
        self.rounds = 0
        self._threads = [threading.Thread(target=self._work, args=(n,)) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def _work(self, number: int) -> None:
        client, name = Client(self._host, patient=False), f"crowd/{number}"
        turn = 0
        try:
            while not self._over.is_set():
                turn += 1
                manifest = client.push_image(name, f"v{turn % 5}")
                found = client.ask(
                    "GET", f"/v2/{name}/manifests/{manifest.digest}", headers={"Accept": MANIFEST}
                )
                assert (found.status, found.body) == (200, manifest.data), found
                self.rounds += 1
        except Exception as error:
            self.wrong.append(error)
        client.close()

    def end(self) -> None:
        """Stop, and wait for all."""
        self._over.set()
        for thread in self._threads:
            thread.join(60)


def test_swaps_under_load_fail_no_request(running: tuple[Instance, str]) -> None:
    instance, host = running
    crowd = Crowd(host, 4)
    try:
        for _ in range(3):
            before = crowd.rounds
            instance.run("swap", "registry", "--quiet")
            limit = time.monotonic() + 60
            while crowd.rounds < before + 8 and not crowd.wrong and time.monotonic() < limit:
                time.sleep(0.02)
    finally:
        crowd.end()
    assert crowd.wrong == [] and crowd.rounds > 20


def test_an_upload_that_is_longer_than_a_swap_ends_where_it_began(
    running: tuple[Instance, str],
) -> None:
    instance, host = running
    client, blob = Client(host), Content.random(2 << 20)
    place = client.begin("swap/up")

    def pieces() -> Iterator[bytes]:
        yield blob.data[: 1 << 20]
        instance.run("swap", "registry", "--quiet")
        yield blob.data[1 << 20 :]

    sent = client.ask("PATCH", place, pieces(), {"Transfer-Encoding": "chunked"})
    assert sent.status == 202 and sent.headers["range"] == f"0-{(2 << 20) - 1}"
    client.close()
    made = client.ask("PUT", with_query(place, digest=blob.digest), b"")
    assert made.status == 201
    assert client.ask("GET", f"/v2/swap/up/blobs/{blob.digest}").body == blob.data
    client.close()


def test_a_collection_that_is_killed_is_done_by_the_next(running: tuple[Instance, str]) -> None:
    instance, host = running
    client, name = Client(host), "death/gc"
    kept = client.push_image(name, "kept")
    gone = [Content.random(100_000) for _ in range(40)]
    for blob in gone:
        client.push_blob(name, blob)
    client.close()
    collecting = threading.Thread(
        target=lambda: instance.run("registry", "gc", "--grace", "0", check=False)
    )
    collecting.start()
    time.sleep(0.3)
    kill(instance, "registry")
    collecting.join(60)
    operator(instance, "gc", "--grace", "0")
    for blob in gone:
        assert patiently(client, "HEAD", f"/v2/{name}/blobs/{blob.digest}").status == 404
    document = json.loads(kept.data)
    for one in (document["config"], *document["layers"]):
        found = patiently(client, "GET", f"/v2/{name}/blobs/{one['digest']}")
        assert found.status == 200 and len(found.body) == one["size"]
    client.close()


def test_all_that_was_acknowledged_is_there_after_everything_died(
    running: tuple[Instance, str],
) -> None:
    instance, host = running
    client = Client(host)
    pushed = {f"v{n}": client.push_image("death/all", f"v{n}") for n in range(5)}
    for unit in ("registry", "image", "state-local", "kernel"):
        killed = instance.pid(unit)
        os.kill(killed, signal.SIGKILL)
    client.close()
    instance.wait_ready(60, gone=killed)
    for tag, manifest in pushed.items():
        target = f"/v2/death/all/manifests/{tag}"
        found = patiently(client, "GET", target, None, {"Accept": MANIFEST})
        assert found.body == manifest.data
    client.close()
