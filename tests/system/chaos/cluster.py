"""Load through the Kubernetes API: counters with a watch, objects and pods that come and go."""

from __future__ import annotations

import itertools
import json
import random
import time
from typing import Any

from tests.system.chaos.history import Change, Watched
from tests.system.chaos.transport import STREAM_SECONDS, Act, Answer, Caller
from tests.system.platform.rig import IMAGE

__all__ = [
    "COUNTED",
    "DEPLOYMENT",
    "Cluster",
    "Watcher",
    "begin_deployment",
    "clear",
    "counters",
    "leave",
    "lives",
    "names",
]

_MAPS = "/api/v1/namespaces/default/configmaps"
_PODS = "/api/v1/namespaces/default/pods"
_DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
COUNTED, DEPLOYMENT = "of=counters", "steady"
_SELECTED = f"labelSelector={COUNTED.replace('=', '%3D')}"
_REPLICAS = 2


class Cluster:
    """What clients of the API do over and over; each object has one client."""

    def __init__(self, caller: Caller, seed: int) -> None:
        self._caller = caller
        self._chance = random.Random(f"{seed} {caller.name}")
        self._numbers = itertools.count()
        self._counters: dict[str, int] = {}

    def count(self) -> None:
        """One of its counters goes up by one, or is read."""
        name = f"{self._caller.name}-{self._chance.randrange(3)}"
        if name not in self._counters:
            self._begin(name)
        if self._chance.random() < 0.3:
            self._read(name)
        else:
            self._counters[name] += 1
            value = str(self._counters[name])
            act = Act(kind="configmap", key=name, verb="set", value=value)
            # Not repeated: the next number is another write.
            self._caller.ask(act, "PATCH", f"{_MAPS}/{name}", {"data": {"number": value}})
        time.sleep(0.1)

    def _begin(self, name: str) -> None:
        label, _, value = COUNTED.partition("=")
        document = {"metadata": {"name": name, "labels": {label: value}}, "data": {"number": "0"}}
        act = Act(kind="configmap", key=name, verb="create", value="0")
        self._caller.insist(act, "POST", _MAPS, document, also=("exists",))
        self._counters[name] = 0

    def _read(self, name: str) -> None:
        began = time.time()
        act = Act(kind="configmap", key=name, verb="look")
        answer = self._caller.ask(act, "GET", f"{_MAPS}/{name}")
        if answer.outcome == "done":
            value = answer.document["data"]["number"]
            act = Act(kind="configmap", key=name, verb="read", value=value)
            self._caller.note(act, Answer("done", 200), began)

    def churn(self) -> None:
        """An object comes, and goes or stays."""
        name = f"{self._caller.name}-{next(self._numbers)}"
        document = {"metadata": {"name": name}}
        act = Act(kind="object", key=name, verb="create")
        self._caller.insist(act, "POST", _MAPS, document, also=("exists",))
        if self._chance.random() < 0.8:
            act = Act(kind="object", key=name, verb="remove")
            self._caller.insist(act, "DELETE", f"{_MAPS}/{name}", also=("absent",))
        time.sleep(0.2)

    def pod(self) -> None:
        """A pod comes, runs, is labelled, and goes."""
        name = f"{self._caller.name}-{next(self._numbers)}"
        create = Act(kind="pod", key=name, verb="create")
        document = {"metadata": {"name": name}, "spec": _pod("sleep 1000")}
        self._caller.insist(create, "POST", _PODS, document, also=("exists",))
        self._wait(name, lambda found: found["status"].get("phase") == "Running")
        label = Act(kind="pod", key=name, verb="label")
        given = {"metadata": {"labels": {"seen": "running"}}}
        self._caller.insist(label, "PATCH", f"{_PODS}/{name}", given, also=("absent",))
        # Removed is what is gone, not what is on its way.
        asked = Act(kind="pod", key=name, verb="end")
        self._caller.insist(asked, "DELETE", f"{_PODS}/{name}", also=("absent",))
        self._wait(name, lambda found: False, gone=True)

    def _wait(self, name: str, ready: Any, *, gone: bool = False) -> None:
        """Ask until a pod is as it should be, or gone where it may go."""
        verb = "remove" if gone else "read"
        limit = time.monotonic() + 180
        while time.monotonic() < limit:
            began = time.time()
            answer = self._caller.ask(
                Act(kind="pod", key=name, verb="look"), "GET", f"{_PODS}/{name}"
            )
            if answer.outcome == "absent":
                act = Act(kind="pod", key=name, verb=verb)
                return self._caller.note(act, Answer("absent"), began)
            if answer.outcome == "done" and ready(answer.document):
                return None
            time.sleep(0.3)
        wanted = "gone" if gone else "running"
        shown = answer.body.decode(errors="replace")[-1500:]
        self._caller.recorder.problem(f"pod {name} is not {wanted} after 180 s: {shown}")
        return None


class Watcher:
    """Watches the counters; takes the watch up where it ended, lists anew only when told to."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._list("begin")

    def _list(self, reason: str) -> None:
        act = Act(kind="watch", key="counters", verb="list")
        found = self._caller.insist(act, "GET", f"{_MAPS}?{_SELECTED}").document
        self._reason, self._revision = reason, int(found["metadata"]["resourceVersion"])
        self._listed = {m["metadata"]["name"]: _number(m) for m in found["items"]}
        self.changes: list[Change] = []

    def watch(self) -> None:
        """One stream, to its end."""
        query = f"resourceVersion={self._revision}&timeoutSeconds={STREAM_SECONDS}"
        gone = ""
        act = Act(kind="watch", key="counters", verb="watch")
        with self._caller.stream(act, f"{_MAPS}?watch=1&{_SELECTED}&{query}") as open_stream:
            answer = open_stream()
            while not gone and (line := answer.readline()):
                gone = self._take(line)
        if gone:
            self.keep()
            self._list(gone)
        self._caller.stop.wait(0.1)

    def _take(self, line: bytes) -> str:
        """The reason why a list must be made, if the server says so."""
        event = json.loads(line)
        if event["type"] == "ERROR":
            code, message = event["object"].get("code"), event["object"].get("message")
            if code != 410:
                self._caller.recorder.problem(f"a watch was told {code}: {message}")
            return f"{code}: {message}"
        metadata = event["object"]["metadata"]
        self._revision = int(metadata["resourceVersion"])
        if event["type"] in ("ADDED", "MODIFIED"):
            number = _number(event["object"])
            self.changes.append(Change(self._revision, metadata["name"], number))
        return ""

    def catch_up(self, caller: Caller) -> None:
        """Take the watch up a last time, until it has seen what there is now, and keep all of it."""
        wanted, limit = counters(caller), time.monotonic() + 60
        self._caller = caller
        while time.monotonic() < limit and not self._has_seen(wanted):
            path = f"{_MAPS}?watch=1&{_SELECTED}&resourceVersion={self._revision}&timeoutSeconds=2"
            act = Act(kind="watch", key="counters", verb="catch up")
            answer = caller.insist(act, "GET", path)
            for line in answer.body.splitlines():
                self._take(line)
        self.keep()

    def _has_seen(self, wanted: dict[str, str]) -> bool:
        last = {**self._listed, **{change.key: change.value for change in self.changes}}
        return all(last.get(key) == int(value) for key, value in wanted.items())

    def keep(self) -> None:
        """What was seen since the last list goes into the history."""
        self._caller.recorder.watched.append(
            Watched(reason=self._reason, listed=self._listed, changes=tuple(self.changes))
        )


def leave(caller: Caller, name: str) -> None:
    """An object that is acknowledged and left."""
    act = Act(kind="left", key=name, verb="create")
    caller.insist(act, "POST", _MAPS, {"metadata": {"name": name}}, also=("exists",))


def begin_deployment(caller: Caller) -> None:
    """Pods that nothing may end."""
    labels = {"app": DEPLOYMENT}
    template = {"metadata": {"labels": labels}, "spec": _pod("while :; do sleep 1; done")}
    spec = {"replicas": _REPLICAS, "selector": {"matchLabels": labels}, "template": template}
    document = {"metadata": {"name": DEPLOYMENT}, "spec": spec}
    act = Act(kind="deployment", key=DEPLOYMENT, verb="create")
    caller.insist(act, "POST", _DEPLOYMENTS, document, also=("exists",))


def lives(caller: Caller) -> dict[str, str]:
    """The deployment's pods, all of them, when they run: containers, restarts."""
    act = Act(kind="deployment", key=DEPLOYMENT, verb="read")
    limit = time.monotonic() + 120
    while True:
        found = caller.insist(act, "GET", f"{_PODS}?labelSelector=app%3D{DEPLOYMENT}").document
        shown = {pod["metadata"]["name"]: _life(pod) for pod in found["items"]}
        running = [text for text in shown.values() if text.startswith("Running")]
        if len(running) == len(shown) == _REPLICAS or time.monotonic() > limit:
            return shown
        time.sleep(0.3)


def counters(caller: Caller) -> dict[str, str]:
    """What all counters say."""
    act = Act(kind="watch", key="counters", verb="list")
    found = caller.insist(act, "GET", f"{_MAPS}?{_SELECTED}").document
    return {m["metadata"]["name"]: m["data"]["number"] for m in found["items"]}


def names(caller: Caller, kind: str) -> tuple[str, ...]:
    """All objects of a kind."""
    path = {"object": _MAPS, "pod": _PODS}[kind]
    found = caller.insist(Act(kind=kind, key="*", verb="list"), "GET", path).document
    return tuple(sorted(item["metadata"]["name"] for item in found["items"]))


def clear(caller: Caller) -> None:
    """Take away all that the load left, but the deployment."""
    for path, kind in ((_MAPS, "object"), (_PODS, "pod")):
        for name in names(caller, kind):
            if not name.startswith((f"{DEPLOYMENT}-", "kube-")):
                act = Act(kind="cleared", key=name, verb="end")
                caller.insist(act, "DELETE", f"{path}/{name}", also=("absent",))


def _pod(script: str) -> dict[str, Any]:
    container = {"name": "main", "image": IMAGE, "imagePullPolicy": "Never"}
    return {
        "terminationGracePeriodSeconds": 0,
        "containers": [container | {"command": ["sh", "-c", script]}],
    }


def _life(pod: dict[str, Any]) -> str:
    parts = [pod["status"].get("phase", "?"), pod["metadata"]["uid"]]
    for status in pod["status"].get("containerStatuses", ()):
        parts += [status.get("containerID", ""), f"restarts={status.get('restartCount')}"]
    return " ".join(parts)


def _number(document: dict[str, Any]) -> int:
    return int(document.get("data", {}).get("number", 0))
