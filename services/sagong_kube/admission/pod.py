"""What pods are given at creation: service account and its token, priority, tolerations."""

from __future__ import annotations

import zlib
from typing import Any

import msgspec

from sagong_kube import refusal
from sagong_kube.registry.document import Document
from sagong_kube.registry.review import CREATE, Review
from sagong_kube.storage.collection import Selection

__all__ = ["PodDefaults", "check_runtime_class", "default_priority", "default_tolerations"]

_TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_TOKEN_SECONDS = 3607
_MIRROR = "kubernetes.io/config.mirror"
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_SYSTEM_NAMESPACE = "kube-system"
_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")


def _new_pod(review: Review) -> Document | None:
    if review.operation == CREATE and review.storage == "core/pods" and not review.subresource:
        return review.new
    return None


class PodDefaults:
    """The service account step."""

    def service_account(self, review: Review) -> None:
        """Name the account, take over its pull secrets, mount its token."""
        pod = _new_pod(review)
        if pod is None or _MIRROR in (pod["metadata"].get("annotations") or {}):
            return
        spec = pod["spec"]
        name = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        account = self._account(review, name)
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = account["imagePullSecrets"]
        if _automount(spec, account):
            self._mount(spec, f"{review.namespace}/{name}")

    def _account(self, review: Review, name: str) -> Document:
        record = review.view.record("core/serviceaccounts", f"{review.namespace}/{name}")
        if record is None and name == "default":
            # Its controller may not have made it yet; a fresh namespace must take pods at once.
            return {}
        if record is None:
            why = (
                f"error looking up service account {review.namespace}/{name}: serviceaccount "
                f'"{name}" not found'
            )
            raise refusal.forbidden("pods", "", review.name, why)
        account: Document = msgspec.json.decode(record.body)
        return account

    def _mount(self, spec: Document, account: str) -> None:
        containers = [c for part in _CONTAINERS[:2] for c in spec.get(part) or ()]
        bare = [c for c in containers if not _mounts_token(c)]
        if not bare:
            return
        name = _volume_name(spec, account)
        for container in bare:
            mount = {"name": name, "readOnly": True, "mountPath": _TOKEN_PATH}
            container.setdefault("volumeMounts", [])
            container["volumeMounts"] = [*container["volumeMounts"], mount]
        spec["volumes"] = [*(spec.get("volumes") or ()), _token_volume(name)]


def _volume_name(spec: Document, account: str) -> str:
    """A name that no volume of the pod has; pods of one account get the same, so they stay alike."""
    taken = {volume.get("name") for volume in spec.get("volumes") or ()}
    number = zlib.crc32(account.encode())
    while True:
        letters = [_LETTERS[number // len(_LETTERS) ** at % len(_LETTERS)] for at in range(5)]
        name = "kube-api-access-" + "".join(letters)
        if name not in taken:
            return name
        number += 1


def _automount(spec: Document, account: Document) -> bool:
    for source in (spec, account):
        wanted = source.get("automountServiceAccountToken")
        if wanted is not None:
            return bool(wanted)
    return True


def _mounts_token(container: Document) -> bool:
    return any(m.get("mountPath") == _TOKEN_PATH for m in container.get("volumeMounts") or ())


def _token_volume(name: str) -> Document:
    sources: list[Any] = [
        {"serviceAccountToken": {"expirationSeconds": _TOKEN_SECONDS, "path": "token"}},
        {
            "configMap": {
                "name": "kube-root-ca.crt",
                "items": [{"key": "ca.crt", "path": "ca.crt"}],
            }
        },
        {
            "downwardAPI": {
                "items": [
                    {
                        "path": "namespace",
                        "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                    }
                ]
            }
        },
    ]
    return {"name": name, "projected": {"sources": sources, "defaultMode": 420}}


def default_priority(review: Review) -> None:
    """Resolve the priority class, or the global default one."""
    pod = _new_pod(review)
    if pod is None:
        return
    spec = pod["spec"]
    name = spec.get("priorityClassName") or ""
    chosen = _class(review, name) if name else _global_default(review)
    priority = int(chosen["value"]) if chosen else 0
    if "priority" in spec and int(spec["priority"]) != priority:
        why = (
            f"the integer value of priority ({spec['priority']}) must not be provided in pod "
            f"spec; priority admission controller computed {priority} from the given "
            "PriorityClass name"
        )
        raise refusal.forbidden("pods", "", review.name, why)
    if chosen and not name:
        spec["priorityClassName"] = chosen["metadata"]["name"]
    spec["priority"] = priority
    policy = (chosen or {}).get("preemptionPolicy") or "PreemptLowerPriority"
    spec.setdefault("preemptionPolicy", policy)


def _class(review: Review, name: str) -> Document:
    record = review.view.record("scheduling.k8s.io/priorityclasses", name)
    if record is None:
        why = f"no PriorityClass with name {name} was found"
        raise refusal.forbidden("pods", "", review.name, why)
    chosen: Document = msgspec.json.decode(record.body)
    return chosen


def _global_default(review: Review) -> Document | None:
    best: Document | None = None
    for record in review.view.select("scheduling.k8s.io/priorityclasses", Selection()):
        if b'"globalDefault":true' not in record.body:
            continue
        found: Document = msgspec.json.decode(record.body)
        if found.get("globalDefault") and (best is None or found["value"] < best["value"]):
            best = found
    return best


def default_tolerations(review: Review) -> None:
    """Bear a node that is not ready or unreachable for five minutes."""
    pod = _new_pod(review)
    if pod is None:
        return
    tolerations = list(pod["spec"].get("tolerations") or ())
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not any(_tolerates(toleration, key) for toleration in tolerations):
            tolerations.append(
                {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            )
    pod["spec"]["tolerations"] = tolerations


def _tolerates(toleration: Document, key: str) -> bool:
    effect, named = toleration.get("effect") or "", toleration.get("key") or ""
    return effect in ("", "NoExecute") and named in (key, "")


def check_runtime_class(review: Review) -> None:
    """A named runtime class must exist; its overhead and scheduling join the pod."""
    pod = _new_pod(review)
    name = pod["spec"].get("runtimeClassName") if pod is not None else None
    if pod is None or not name:
        return
    record = review.view.record("node.k8s.io/runtimeclasses", name)
    if record is None:
        why = f'pod rejected: RuntimeClass "{name}" not found'
        raise refusal.forbidden("pods", "", review.name, why)
    chosen: Document = msgspec.json.decode(record.body)
    overhead = (chosen.get("overhead") or {}).get("podFixed")
    if overhead:
        pod["spec"]["overhead"] = overhead
    scheduling = chosen.get("scheduling") or {}
    if scheduling.get("nodeSelector"):
        own = pod["spec"].get("nodeSelector") or {}
        pod["spec"]["nodeSelector"] = {**own, **scheduling["nodeSelector"]}
    if scheduling.get("tolerations"):
        own_tolerations = pod["spec"].get("tolerations") or []
        pod["spec"]["tolerations"] = [*own_tolerations, *scheduling["tolerations"]]
