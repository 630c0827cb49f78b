"""Two hundred requests a second and a watch, thirty pods being made, and every part swapped."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.system.chaos.transport import kube_dial
from tests.system.platform.rig import (
    IMAGE,
    Checker,
    Platform,
    needs_docker,
    needs_kubectl,
    wait_for,
)

pytestmark = [pytest.mark.root, needs_docker, needs_kubectl]

MAPS = "/api/v1/namespaces/default/configmaps"
RATE, CLIENTS = 200, 8


class Client:
    """One connection to the API; it never repeats a request."""

    def __init__(self, at: Platform) -> None:
        self._connection = kube_dial(at.running.paths.etc / "kubeconfig", at.home)()

    def open(self, method: str, path: str, body: object = None) -> http.client.HTTPResponse:
        """Ask; the answer, unread."""
        headers = {
            "Content-Type": "application/merge-patch+json"
            if method == "PATCH"
            else "application/json"
        }
        given = json.dumps(body) if body is not None else None
        self._connection.request(method, path, given, headers)
        answer = self._connection.getresponse()
        assert answer.status < 300, (method, path, answer.status, answer.read())
        return answer

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Ask; the document."""
        return json.loads(self.open(method, path, body).read())


class Crowd:
    """Clients that keep to a rate together: reads mostly, and writes of a counter of each."""

    def __init__(self, at: Platform) -> None:
        self._clients = threading.local()
        self._at = at
        self._turns = itertools.count()
        self._began = time.monotonic()
        self.written: dict[str, int] = {}

    def __call__(self) -> None:
        """One request, when its time has come."""
        turn = next(self._turns)
        time.sleep(max(0.0, self._began + turn / RATE - time.monotonic()))
        if not hasattr(self._clients, "own"):
            self._clients.own = Client(self._at)
            self._clients.name = f"counter-{threading.get_ident()}"
            document = {"metadata": {"name": self._clients.name, "labels": {"of": "crowd"}}}
            self._clients.own.ask("POST", MAPS, document)
        own: Client = self._clients.own
        if turn % 10 == 0:
            name = self._clients.name
            number = self.written.get(name, 0) + 1
            own.ask("PATCH", f"{MAPS}/{name}", {"data": {"number": str(number)}})
            self.written[name] = number
        elif turn % 10 < 3:
            own.ask("GET", "/api/v1/namespaces/default/pods?limit=50")
        else:
            own.ask("GET", f"{MAPS}/{self._clients.name}")


class Watcher(threading.Thread):
    """Watches the counters; a watch that ends is taken up at the last revision, as clients do."""

    def __init__(self, at: Platform) -> None:
        super().__init__(daemon=True)
        self._at = at
        self.seen: dict[str, list[int]] = {}
        self.failures: list[str] = []
        self.stopping = False
        self._revision = Client(at).ask("GET", f"{MAPS}?labelSelector=of%3Dcrowd")["metadata"][
            "resourceVersion"
        ]

    def run(self) -> None:
        """Until told to stop."""
        while not self.stopping:
            try:
                for line in self._lines():
                    self._take(json.loads(line))
            except (OSError, http.client.HTTPException):
                continue  # cut with its server; nothing may be missing afterwards
            except AssertionError as error:
                self.failures.append(str(error))
                return

    def _lines(self) -> Iterator[bytes]:
        query = f"watch=1&labelSelector=of%3Dcrowd&resourceVersion={self._revision}"
        with contextlib.closing(Client(self._at).open("GET", f"{MAPS}?{query}")) as answer:
            while line := answer.readline():
                yield line

    def _take(self, event: dict[str, Any]) -> None:
        assert event["type"] in ("ADDED", "MODIFIED", "DELETED"), event
        metadata = event["object"]["metadata"]
        self._revision = metadata["resourceVersion"]
        number = event["object"].get("data", {}).get("number")
        if number and event["type"] == "MODIFIED":
            self.seen.setdefault(metadata["name"], []).append(int(number))


@pytest.mark.timeout(240)
def test_nothing_fails_while_everything_is_swapped(whole: Platform) -> None:
    made = ("kubectl", "create", "deployment", "many", f"--image={IMAGE}", "--replicas=0")
    whole(*made, "--", "sleep", "600")
    template = {
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "busybox", "imagePullPolicy": "Never"}],
    }
    whole(
        "kubectl",
        "patch",
        "deploy",
        "many",
        "-p",
        json.dumps({"spec": {"template": {"spec": template}}}),
    )
    watcher, crowd = Watcher(whole), Crowd(whole)
    watcher.start()
    try:
        with Checker(crowd, threads=CLIENTS, pause=0) as asked:
            asked.wait_answers(100)
            whole("kubectl", "scale", "deploy/many", "--replicas=30")
            for unit in ("scheduler", "replication", "network", "auth", "kube"):
                whole.swap(unit)
                asked.wait_answers(50)
            whole("kubectl", "rollout", "status", "deploy/many", "--timeout=90s")
        assert asked.failures == []
        wait_for(lambda: {n: s[-1] for n, s in watcher.seen.items()} == crowd.written)
        assert watcher.failures == []
        assert all(s == list(range(1, len(s) + 1)) for s in watcher.seen.values())
        phases = whole("kubectl", "get", "pods", "-l", "app=many", "-o", "jsonpath={..phase}")
        assert phases.split() == ["Running"] * 30
    finally:
        watcher.stopping = True
        whole("kubectl", "delete", "deploy/many", "--timeout=60s")
        whole("kubectl", "delete", "configmap", "-l", "of=crowd")
        wait_for(lambda: whole("kubectl", "get", "pods", "-l", "app=many", "-o", "name") == "", 60)
