"""A small closed cluster for checks of controllers: it stores what they write, and runs pods.

It knows of the API only what controllers depend on: uids, versions, generations, finalizers, grace
and propagation. Time stands still unless a check lets it pass.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

from sagong.contracts.objects import Outcome, Verb, Write
from sagong.contracts.replication import Plan, Replication, Situation
from sagong.errors import AlreadyExists, Conflict, NotFound, SagongError
from sagong.model.times import time_text

__all__ = ["Cluster", "Json", "pod_template", "replica_set", "workload"]

Json = dict[str, Any]
Name = tuple[str, str, str]
NOW = 1_750_000_000.0
_CLUSTER_WIDE = ("namespaces", "nodes", "persistentvolumes")
_PLURALS = {"endpoints": "Endpoints"}
_RUNS_ON = {"status": {"phase": "Running"}}


class Cluster:
    """Objects by resource, namespace and name; `step` asks the candidate once.

    `heard` is told of each change, in order: `ADDED`, `MODIFIED` or `DELETED`, its resource, itself.
    """

    def __init__(
        self,
        candidate: Replication,
        *objects: Json,
        heard: Callable[[str, str, Json], None] = lambda kind, resource, document: None,
    ) -> None:
        self.candidate = candidate
        self._heard = heard
        self.now = NOW
        self.revision = 0
        self.seed = 0
        self.objects: dict[Name, Json] = {}
        self.writes: list[Write] = []
        self.again = 0.0
        for one in objects:
            self.add(one)

    # objects

    def add(self, document: Json) -> Json:
        """Store an object as it is, with what the API adds."""
        document = copy.deepcopy(document)
        meta = document["metadata"]
        name = (resource_of(document), meta.get("namespace", ""), meta["name"])
        if name in self.objects:
            raise AlreadyExists(f"{name[0]} {meta['name']} already exists")
        meta.setdefault("uid", f"uid-{len(self.objects)}-{self.revision}")
        meta.setdefault("creationTimestamp", time_text(self.now))
        meta.setdefault("generation", 1)
        return self._store(name, document)

    def _store(self, name: Name, document: Json) -> Json:
        kind = "MODIFIED" if name in self.objects else "ADDED"
        self.revision += 1
        document["metadata"]["resourceVersion"] = str(self.revision)
        self.objects[name] = document
        self._heard(kind, name[0], document)
        return document

    def all(self, resource: str, namespace: str = "default") -> list[Json]:
        """Objects of a resource, by name."""
        found = [n for n in self.objects if n[0] == resource and namespace in ("", n[1])]
        return [self.objects[name] for name in sorted(found)]

    def get(self, resource: str, name: str, namespace: str = "default") -> Json:
        """One object."""
        found = self.find(resource, name, namespace)
        assert found is not None, f"there is no {resource} {namespace}/{name}"
        return found

    def find(self, resource: str, name: str, namespace: str = "default") -> Json | None:
        """One object, if it is there."""
        return self.objects.get((resource, namespace, name))

    @property
    def pods(self) -> list[Json]:
        """All pods."""
        return self.all("v1/pods", "")

    @property
    def living(self) -> list[Json]:
        """Pods that have not ended and are not ending."""
        ended = ("Succeeded", "Failed")
        return [
            p
            for p in self.pods
            if "deletionTimestamp" not in p["metadata"]
            and p.get("status", {}).get("phase") not in ended
        ]

    # asking

    async def ask(self) -> Plan:
        """One question about everything that is there."""
        bodies = tuple(json.dumps(self.objects[name]).encode() for name in sorted(self.objects))
        self.seed += 1
        situation = Situation(objects=bodies, now=self.now, seed=self.seed)
        return await self.candidate.reconcile(situation)

    async def step(self) -> int:
        """Ask once and carry out; how many writes changed something."""
        plan = await self.ask()
        self.again = plan.again_seconds
        return sum(self.write(write) for write in plan.writes)

    async def settle(self, *, steps: int = 40) -> None:
        """Ask until nothing is written any more."""
        for _ in range(steps):
            if not await self.step():
                return
        raise AssertionError(f"still writing after {steps} steps: {self.writes[-3:]}")

    async def run(self, *, steps: int = 60) -> None:
        """Ask until nothing is written, while pods are started and ended as a node would."""
        for _ in range(steps):
            changed = await self.step()
            if not changed and not self.nurse():
                return
        raise AssertionError(f"still writing after {steps} steps: {self.writes[-3:]}")

    # a node

    def nurse(self) -> bool:
        """Start pending pods, end deleted ones; whether there were any."""
        busy = self.bury()
        for pod in self.living:
            if pod.get("status", {}).get("phase", "Pending") == "Pending":
                self.start(pod)
                busy = True
        return busy

    def bury(self) -> bool:
        """End deleted pods that nobody holds; whether there were any."""
        ended = [
            pod
            for pod in self.pods
            if "deletionTimestamp" in pod["metadata"] and not pod["metadata"].get("finalizers")
        ]
        for pod in ended:
            self._remove(name_of(pod))
        return bool(ended)

    def start(self, pod: Json, *, ready: bool = True) -> None:
        """A pod runs, on a node and with an address."""
        number = self.revision % 65000
        spec = pod["spec"]
        spec.setdefault("nodeName", pinned(spec) or "node-1")
        pod["status"] = {
            "phase": "Running",
            "podIP": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",
            "startTime": time_text(self.now),
            "conditions": [_ready(ready, self.now)],
        }
        self._store(name_of(pod), pod)

    def set_ready(self, pod: Json, ready: bool) -> None:
        """A pod becomes ready, or stops being so."""
        pod["status"]["conditions"] = [_ready(ready, self.now)]
        self._store(name_of(pod), pod)

    def finish(self, pod: Json, *, code: int = 0) -> None:
        """A pod's containers end."""
        names = [c["name"] for c in pod["spec"]["containers"]]
        ended = {"terminated": {"exitCode": code, "finishedAt": time_text(self.now)}}
        pod.setdefault("status", {}).update(
            phase="Failed" if code else "Succeeded",
            conditions=[_ready(False, self.now)],
            containerStatuses=[{"name": n, "state": ended} for n in names],
        )
        pod["spec"].setdefault("nodeName", "node-1")
        self._store(name_of(pod), pod)

    # a user

    def change(self, resource: str, name: str, namespace: str = "default", **spec: Any) -> Json:
        """Set fields of an object's spec, as a user does."""
        found = copy.deepcopy(self.get(resource, name, namespace))
        found["spec"] |= spec
        return self._replace((resource, namespace, name), found)

    def delete(
        self, resource: str, name: str, namespace: str = "default", *, propagation: str = ""
    ) -> None:
        """Delete an object, as a user does."""
        write = Write(
            verb=Verb.DELETE,
            resource=resource,
            name=name,
            namespace=namespace,
            propagation=propagation,
        )
        self._delete(write)

    # writes

    def write(self, write: Write) -> bool:
        """Carry out a write; whether it changed anything. Events are taken and not kept."""
        if write.resource == "v1/events":
            return False
        before = self.revision
        outcome = self.outcome(write)
        if outcome.error:
            return False
        if self.revision != before:
            self.writes.append(write)
        return self.revision != before

    def outcome(self, write: Write) -> Outcome:
        """Carry out a write, and answer as the API does."""
        try:
            document = self._written(write)
        except SagongError as error:
            return Outcome(error=error.code, message=error.message)
        body = json.dumps(document).encode()
        return Outcome(body=body, revision=int(document["metadata"]["resourceVersion"]))

    def _written(self, write: Write) -> Json:
        name = (write.resource, write.namespace, write.name)
        match write.verb:
            case Verb.CREATE:
                return self._create(write)
            case Verb.DELETE | Verb.EVICT:
                return self._delete(write)
        old = self._expected(name, write)
        if write.verb is Verb.BIND:
            new = copy.deepcopy(old)
            if new["spec"].get("nodeName"):
                raise Conflict(f"pod {write.name} is already assigned")
            new["spec"]["nodeName"] = write.node
            return self._replace(name, new)
        said = json.loads(write.body)
        said_version = said.get("metadata", {}).get("resourceVersion")
        if said_version and said_version != old["metadata"]["resourceVersion"]:
            raise Conflict(f"{write.resource} {write.name} has been modified")
        if write.verb is Verb.PATCH:
            new = _merged(old, said)
        else:
            new = {
                **copy.deepcopy(old),
                **said,
                "metadata": {**old["metadata"], **said["metadata"]},
            }
        status_only = write.verb is Verb.STATUS or write.subresource == "status"
        if status_only:
            new = {
                **copy.deepcopy(old),
                "status": new.get("status", {}),
                "metadata": new["metadata"],
            }
        elif write.subresource != "finalize" and "status" in old:
            new["status"] = old["status"]
        return self._replace(name, new)

    def _create(self, write: Write) -> Json:
        document = json.loads(write.body)
        if write.resource != "v1/pods":
            document.pop("status", None)
        else:
            document["status"] = {"phase": "Pending"}
        meta = document["metadata"]
        meta.pop("uid", None)
        meta.setdefault("namespace", write.namespace)
        space = self.find("v1/namespaces", write.namespace, "")
        if space is not None and "deletionTimestamp" in space["metadata"]:
            raise Conflict(f"namespace {write.namespace} is being terminated")
        return self.add(document)

    def _expected(self, name: Name, write: Write) -> Json:
        old = self.objects.get(name)
        if old is None:
            raise NotFound(f"{name[0]} {name[2]} not found")
        if write.uid and write.uid != old["metadata"]["uid"]:
            raise Conflict(f"{name[0]} {name[2]} is another one")
        return old

    def _replace(self, name: Name, new: Json) -> Json:
        old = self.objects[name]
        if _plain(new) == _plain(old):
            return old
        if new.get("spec") != old.get("spec"):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        meta = new["metadata"]
        for key in ("finalizers", "ownerReferences"):
            if not meta.get(key):
                meta.pop(key, None)
        ended = "deletionTimestamp" in meta and not meta.get("finalizers")
        space = name[0] == "v1/namespaces"
        if ended and not (new["spec"].get("finalizers") if space else meta.get("grace")):
            return self._remove(name)
        return self._store(name, new)

    def _remove(self, name: Name) -> Json:
        self.revision += 1
        document = self.objects.pop(name)
        meta = document["metadata"]
        meta |= {"resourceVersion": str(self.revision), "deletionGracePeriodSeconds": 0}
        meta.setdefault("deletionTimestamp", time_text(self.now))
        meta.pop("finalizers", None)
        self._heard("DELETED", name[0], document)
        return document

    def _delete(self, write: Write) -> Json:
        name = (write.resource, write.namespace, write.name)
        document = copy.deepcopy(self._expected(name, write))
        meta = document["metadata"]
        policy = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}.get(write.propagation)
        own = ("foregroundDeletion", "orphan")
        if write.propagation:
            meta["finalizers"] = [f for f in meta.get("finalizers", []) if f not in own]
        if policy:
            meta["finalizers"].append(policy)
        graceful = self._grace(document, write)
        held = name[0] == "v1/namespaces" and document["spec"].get("finalizers")
        if not (meta.get("finalizers") or graceful or held):
            return self._remove(name)
        if "deletionTimestamp" in meta:
            return self._store(name, document) if policy else self.objects[name]
        meta["deletionTimestamp"] = time_text(self.now)
        if graceful:
            meta["deletionGracePeriodSeconds"] = meta["grace"] = 30
        if name[0] == "v1/namespaces":
            document.setdefault("status", {})["phase"] = "Terminating"
        return self._store(name, document)

    def _grace(self, document: Json, write: Write) -> bool:
        ended = document.get("status", {}).get("phase") in ("Succeeded", "Failed")
        on = document.get("spec", {}).get("nodeName")
        pod = write.resource == "v1/pods"
        return bool(pod and on and not ended and write.grace_seconds != 0)


def pinned(spec: Json) -> str:
    """The node that a daemon's pod is made for."""
    affinity = spec.get("affinity", {}).get("nodeAffinity", {})
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {})
    for term in required.get("nodeSelectorTerms", ()):
        for rule in term.get("matchFields", ()):
            return str(rule["values"][0])
    return ""


def node(name: str, **more: Any) -> Json:
    """A ready node; `labels`, `taints` and conditions by `ready` may be given."""
    status = more.get("ready", "True")
    beat = {"type": "Ready", "status": status, "lastHeartbeatTime": time_text(NOW)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": more.get("labels", {})},
        "spec": {"taints": more.get("taints", [])},
        "status": {"conditions": [beat]},
    }


def _ready(ready: bool, now: float) -> Json:
    return {
        "type": "Ready",
        "status": "True" if ready else "False",
        "lastTransitionTime": time_text(now),
    }


def _plain(document: Json) -> Json:
    meta = {k: v for k, v in document["metadata"].items() if k != "resourceVersion" and v}
    return {**document, "metadata": meta}


def _merged(old: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    found = copy.deepcopy(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = _merged(found.get(key), value)
    return found


def resource_of(document: Json) -> str:
    """`apps/v1/deployments` of a Deployment."""
    kind = document["kind"].lower()
    if kind in ("endpoints", "podmetrics"):
        plural = kind
    elif kind.endswith("s"):
        plural = f"{kind}es"
    else:
        plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
    return f"{document['apiVersion']}/{plural}"


def name_of(document: Json) -> Name:
    """Where the cluster keeps it."""
    meta = document["metadata"]
    return (resource_of(document), meta.get("namespace", ""), meta["name"])


# objects that checks are made of


def pod_template(**more: Any) -> Json:
    """A template of one container; `labels` and `image` may be given."""
    labels = more.get("labels", {"app": "web"})
    container = {"name": "c", "image": more.get("image", "one")}
    spec = {"containers": [container], "restartPolicy": more.get("restart", "Always")}
    return {"metadata": {"labels": labels}, "spec": spec}


def workload(kind: str, name: str, *, api: str = "apps/v1", **spec: Any) -> Json:
    """A workload that selects app=web."""
    return {
        "apiVersion": api,
        "kind": kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": pod_template(),
            **spec,
        },
    }


def replica_set(name: str, replicas: int, **spec: Any) -> Json:
    """A ReplicaSet."""
    return workload("ReplicaSet", name, replicas=replicas, **spec)


def names(documents: list[Json]) -> Iterator[str]:
    """Names of objects."""
    return (document["metadata"]["name"] for document in documents)
