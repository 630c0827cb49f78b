"""Every slot is swapped in turn under clients of both APIs, none of which repeats a request."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import pytest
from tests.conformance.image_registry_server import needs_registry, running_registry
from tests.system.chaos.transport import Dial, engine_dial, kube_dial
from tests.system.platform.rig import (
    IMAGE,
    Checker,
    Platform,
    needs_docker,
    needs_kubectl,
    wait_for,
)

pytestmark = [pytest.mark.root, needs_docker, needs_kubectl, needs_registry]

SLOTS = (
    *("state-local", "state-cluster", "image", "network", "volume", "runtime", "metrics"),
    *("auth", "scheduler", "replication", "node", "docker", "kube", "dns"),
)
RESOLVER = "10.249.0.1"  # of the `whole` platform's pods
NAMESPACE = "/api/v1/namespaces/default"


class Client:
    """Asks on a connection of its own, once."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial

    def __call__(self, method: str, path: str, body: object = None) -> bytes:
        """The body of a good answer; anything else is a failure."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        with contextlib.closing(self._dial()) as connection:
            given = None if body is None else json.dumps(body)
            connection.request(method, path, given, {"Content-Type": kind})
            answer = connection.getresponse()
            found = answer.read()
        assert answer.status < 300, (method, path, answer.status, found)
        return found

    def document(self, method: str, path: str, body: object = None) -> Any:
        """The same as a document."""
        return json.loads(self(method, path, body))


class Loops:
    """What the clients do, over and over."""

    def __init__(self, at: Platform, registry: str) -> None:
        self._engine = Client(engine_dial(at.running.paths.run / "docker.sock"))
        self._kube = Client(kube_dial(at.running.paths.etc / "kubeconfig", at.home))
        self._registry = registry
        self._numbers = itertools.count()

    def look(self) -> None:
        """`docker ps`, `images`, `network ls`, `volume ls`."""
        for path in ("/containers/json?all=1", "/images/json", "/networks", "/volumes"):
            self._engine.document("GET", path)

    def run(self) -> None:
        """`docker run --rm -v vol:/data IMAGE echo N`."""
        number = next(self._numbers)
        spec = {
            "Image": IMAGE,
            "Cmd": ["sh", "-c", f"echo {number} > /data/n; cat /data/n"],
            "HostConfig": {"Binds": [f"slots-{number}:/data"]},
        }
        made = self._engine.document("POST", f"/containers/create?name=slots-{number}", spec)
        path = f"/containers/{made['Id']}"
        self._engine("POST", f"{path}/start")
        ended = self._engine.document("POST", f"{path}/wait")
        assert ended["StatusCode"] == 0, ended
        said = self._engine("GET", f"{path}/logs?stdout=1")
        assert said[8:] == f"{number}\n".encode(), said
        self._engine("DELETE", path)
        self._engine("DELETE", f"/volumes/slots-{number}")

    def pull(self) -> None:
        """`docker pull`, and away with it."""
        name = f"{self._registry}/slots"
        lines = self._engine("POST", f"/images/create?fromImage={name}&tag=one").splitlines()
        assert lines and b'"error"' not in lines[-1], lines[-1]
        self._engine("DELETE", f"/images/{name}:one")

    def measure(self) -> None:
        """`docker stats --no-stream` of a container that stays."""
        found = self._engine.document("GET", "/containers/slots-steady/stats?stream=0&one-shot=1")
        assert found["memory_stats"]["usage"] > 0

    def count(self) -> None:
        """Objects are made, changed, listed and taken away."""
        name = f"slots-{next(self._numbers)}"
        maps = f"{NAMESPACE}/configmaps"
        self._kube("POST", maps, {"metadata": {"name": name, "labels": {"of": "slots"}}})
        changed = self._kube.document("PATCH", f"{maps}/{name}", {"data": {"n": "1"}})
        assert changed["data"] == {"n": "1"}
        listed = self._kube.document("GET", f"{maps}?labelSelector=of%3Dslots")
        assert name in [item["metadata"]["name"] for item in listed["items"]]
        self._kube("DELETE", f"{maps}/{name}")

    def pod(self) -> None:
        """A pod is made, scheduled, run to its end and read."""
        name = f"slots-{next(self._numbers)}"
        container = {"name": "c", "image": IMAGE, "imagePullPolicy": "Never"}
        container["command"] = ["echo", name]  # type: ignore[assignment]
        spec = {"restartPolicy": "Never", "containers": [container]}
        self._kube("POST", f"{NAMESPACE}/pods", {"metadata": {"name": name}, "spec": spec})
        path = f"{NAMESPACE}/pods/{name}"

        def phase() -> str:
            return str(self._kube.document("GET", path).get("status", {}).get("phase"))

        wait_for(lambda: phase() in ("Succeeded", "Failed"), 60)
        assert phase() == "Succeeded"
        assert self._kube("GET", f"{path}/log") == f"{name}\n".encode()
        self._kube("DELETE", f"{path}?gracePeriodSeconds=0")

    def resolve(self) -> None:
        """A name of the cluster; the question is sent once."""
        query = dns.message.make_query("kubernetes.default.svc.cluster.local", dns.rdatatype.A)
        answer = dns.query.udp(query, RESOLVER, timeout=30)
        assert answer.rcode() == dns.rcode.NOERROR and answer.answer


@pytest.fixture(scope="module")
def registry(whole: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One that holds an image to be pulled."""
    with running_registry(tmp_path_factory.mktemp("slots")) as address:
        whole("docker", "tag", IMAGE, f"{address}/slots:one")
        whole("docker", "push", f"{address}/slots:one")
        whole("docker", "rmi", f"{address}/slots:one")
        yield address


@pytest.fixture
def steady(whole: Platform) -> Iterator[Callable[[], str]]:
    """A container that nothing may end: how it is."""
    whole("docker", "run", "-d", "--name", "slots-steady", IMAGE, "sleep", "600")
    state = "{{.State.Pid}} {{.State.StartedAt}} {{.State.Running}}"
    yield lambda: whole("docker", "inspect", "-f", state, "slots-steady")
    whole("docker", "rm", "-f", "slots-steady")


@pytest.mark.timeout(240)
def test_no_client_of_either_api_notices_the_swap_of_any_slot(
    whole: Platform, registry: str, steady: Callable[[], str]
) -> None:
    before, loops = steady(), Loops(whole, registry)
    quick = [
        Checker(ask, pause=0.1) for ask in (loops.look, loops.measure, loops.count, loops.resolve)
    ]
    slow = [Checker(ask, pause=0.1) for ask in (loops.run, loops.pull)]
    pods = Checker(loops.pod, pause=0.5)
    with contextlib.ExitStack() as running:
        for checker in (*quick, *slow, pods):
            running.enter_context(checker)
        for unit in SLOTS:
            whole.swap(unit)
            for checker in quick:
                checker.wait_answers(2)
            for checker in slow:
                checker.wait_answers(1)
        pods.wait_answers(1)
    failures = [failure for c in (*quick, *slow, pods) for failure in c.failures]
    assert failures == []
    assert steady() == before


def test_statistics_are_had_from_a_measurer_that_has_just_begun(
    whole: Platform, registry: str, steady: Callable[[], str]
) -> None:
    """A new one is told whom to measure: who asks before that heard that the container is idle."""
    before, loops = steady(), Loops(whole, registry)
    for _ in range(5):
        os.kill(whole.running.pid("metrics"), signal.SIGKILL)
        loops.measure()
    assert steady() == before
