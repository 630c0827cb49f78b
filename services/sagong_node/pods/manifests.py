"""Static pods: from a file's bytes to pods as an API server would hold them. Pure.

A static pod has the node's name behind its own, a uid that is made of its content, and upstream's
annotations. It can't refer to what only an API server has.
Source: https://kubernetes.io/docs/tasks/configure-pod-container/static-pod/
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

from sagong.model.k8s.core_v1 import Pod
from sagong.model.names import check_dns_label, check_subdomain
from sagong_node.pods.naming import AnyContainer
from sagong_node.pods.volumes import needed

__all__ = ["Broken", "StaticPod", "is_static", "read_documents", "read_pods", "static_pod"]

Document = dict[str, Any]
Step = str | int
Locate = Callable[[tuple[Step, ...]], int]

_UID = re.compile(r"[0-9a-f]{32}\Z")
_STEP = re.compile(r"\.([^.\[\]`]+)|\[(\d+)\]")
_POLICIES = ("Always", "OnFailure", "Never")
_GRACE = 30


class Broken(Exception):
    """What is wrong in a file, at which place of it; `line` counts from 1, 0 is unknown."""

    def __init__(self, reason: str, path: tuple[Step, ...] = (), line: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path
        self.line = line


class StaticPod(NamedTuple):
    """A pod of this node; `body` is its object as JSON, without status."""

    namespace: str
    name: str
    uid: str
    body: bytes


def is_static(uid: str) -> bool:
    """Whether a pod came from a file: uids of API servers have dashes."""
    return bool(_UID.match(uid))


def read_pods(raw: bytes, *, json_form: bool, node: str) -> list[StaticPod]:
    """All pods of a file; Broken tells the first thing that is wrong, and its line."""
    found = []
    for document, locate in read_documents(raw, json_form=json_form):
        try:
            found.append(static_pod(document, node))
        except Broken as error:
            raise Broken(error.reason, error.path, locate(error.path)) from None
    return found


def read_documents(raw: bytes, *, json_form: bool) -> Iterator[tuple[Any, Locate]]:
    """Documents, each with a function that knows the line of a place in it."""
    if not json_form:
        yield from _yaml_documents(raw)
        return
    try:
        yield json.loads(raw), lambda path: 0
    except json.JSONDecodeError as error:
        raise Broken(f"not JSON: {error.msg}", line=error.lineno) from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise Broken(f"not JSON: {error}") from None


def _yaml_documents(raw: bytes) -> Iterator[tuple[Any, Locate]]:
    import yaml

    from sagong.yaml_loader import Loader

    loader = Loader(raw)
    try:
        while loader.check_node():
            node = loader.get_node()
            value = loader.construct_document(node)
            if loader.doubled:
                raise Broken(f"the key {loader.doubled[0]} stands twice", line=_start(node))
            if value is not None:  # what stands before a first ---
                yield value, functools.partial(_line, node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Broken(f"not YAML: {error.problem}", line=mark.line + 1 if mark else 0) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise Broken(f"not YAML: {str(error).splitlines()[0]}") from None
    finally:
        loader.dispose()


def _start(node: Any) -> int:
    line: int = node.start_mark.line + 1
    return line


def _line(node: Any, path: tuple[Step, ...]) -> int:
    """The line of a place, or of the deepest part of the way to it that is there."""
    line = _start(node)
    for step in path:
        if isinstance(step, int) and isinstance(node.value, list) and step < len(node.value):
            node = node.value[step]
            line = _start(node)
            continue
        pairs = node.value if node.id == "mapping" else []
        hit = next((pair for pair in pairs if pair[0].value == str(step)), None)
        if hit is None:
            break
        line, node = _start(hit[0]), hit[1]
    return line


def static_pod(document: Any, node: str) -> StaticPod:
    """Check, default and name a pod."""
    if not isinstance(document, dict):
        raise Broken("a pod is expected here, as a mapping")
    head = (document.get("apiVersion"), document.get("kind"))
    if head != ("v1", "Pod"):
        raise Broken(
            f"only pods can stand here (apiVersion v1, kind Pod), not {head[1]} of {head[0]}"
        )
    for path in _unknown(document, _shape(), ()):
        raise Broken(f"unknown field {_text(path)}", path)
    try:
        pod = msgspec.convert(document, Pod)
    except msgspec.ValidationError as error:
        where = str(error).rpartition(" at `$")[2] if " at `$" in str(error) else ""
        raise Broken(str(error), _steps(where)) from None
    _check(pod)
    return _named(document, pod, node)


def _text(path: tuple[Step, ...]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def _steps(text: str) -> tuple[Step, ...]:
    return tuple(int(number) if number else name for name, number in _STEP.findall(text))


@functools.cache
def _shape() -> inspect.Type:
    return inspect.type_info(Pod)


def _unknown(value: Any, kind: inspect.Type, path: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
    """Places of fields that the type does not have: most often they are misspelt."""
    match kind:
        case inspect.UnionType():
            for part in kind.types:
                if isinstance(part, inspect.StructType):
                    yield from _unknown(value, part, path)
        case inspect.ListType() if isinstance(value, list):
            for at, item in enumerate(value):
                yield from _unknown(item, kind.item_type, (*path, at))
        case inspect.StructType() if isinstance(value, dict):
            fields = {field.encode_name: field.type for field in kind.fields}
            for key, item in value.items():
                if key not in fields:
                    yield (*path, key)
                else:
                    yield from _unknown(item, fields[key], (*path, key))


def _check(pod: Pod) -> None:
    metadata, spec = pod.metadata, pod.spec
    for wrong in check_subdomain(metadata.name):
        raise Broken(f"metadata.name {metadata.name!r}: {wrong}", ("metadata", "name"))
    for wrong in check_dns_label(metadata.namespace or "default"):
        raise Broken(f"metadata.namespace: {wrong}", ("metadata", "namespace"))
    if spec.restart_policy and spec.restart_policy not in _POLICIES:
        raise Broken(
            f"spec.restartPolicy must be one of {', '.join(_POLICIES)}", _at("restartPolicy")
        )
    if not spec.containers:
        raise Broken("spec.containers: a pod needs at least one container", _at("containers"))
    _check_independent(pod)
    volumes = [volume.name for volume in spec.volumes]
    seen: set[str] = set()
    for field, part in (("initContainers", spec.init_containers), ("containers", spec.containers)):
        for at, container in enumerate(part):
            _check_container(container, (*_at(field), at), seen, volumes)


def _at(*steps: Step) -> tuple[Step, ...]:
    return ("spec", *steps)


def _check_container(
    container: AnyContainer, path: tuple[Step, ...], seen: set[str], volumes: list[str]
) -> None:
    for wrong in check_dns_label(container.name):
        raise Broken(f"{_text(path)}.name {container.name!r}: {wrong}", (*path, "name"))
    if container.name in seen:
        raise Broken(f"{_text(path)}.name {container.name!r} stands twice", (*path, "name"))
    seen.add(container.name)
    if not container.image:
        raise Broken(f"{_text(path)}.image: a container needs an image", path)
    for at, mount in enumerate(container.volume_mounts):
        if mount.name not in volumes:
            where = (*path, "volumeMounts", at)
            raise Broken(f"{_text(where)}: spec.volumes has no {mount.name!r}", where)


def _check_independent(pod: Pod) -> None:
    """What only an API server has can't be waited for: the pod would never start."""
    spec = pod.spec
    if spec.ephemeral_containers:
        raise Broken("a static pod can't have ephemeral containers", _at("ephemeralContainers"))
    if spec.service_account_name or spec.service_account:
        raise Broken("a static pod can't have a service account", _at("serviceAccountName"))
    for reference in sorted(needed(pod)):
        raise Broken(
            f"a static pod can't refer to {reference.resource} ({reference.name}), which only an API "
            "server has; use hostPath or values in the file itself",
            _at("volumes" if spec.volumes else "containers"),
        )


def _named(document: Document, pod: Pod, node: str) -> StaticPod:
    """The object, with upstream's name, uid, annotations, and the defaults that the node relies on."""
    text = json.dumps([document, node], sort_keys=True, default=str)
    uid = hashlib.sha256(text.encode()).hexdigest()[:32]
    namespace, name = pod.metadata.namespace or "default", f"{pod.metadata.name}-{node}"
    given = document.get("metadata", {})
    marks = {"kubernetes.io/config.source": "file", "kubernetes.io/config.hash": uid}
    metadata = {
        **given,
        "name": name,
        "namespace": namespace,
        "uid": uid,
        "annotations": {**(given.get("annotations") or {}), **marks},
    }
    defaults = {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": _GRACE,
        "dnsPolicy": "ClusterFirst",
    }
    given_spec = {k: v for k, v in document["spec"].items() if v is not None}
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {**defaults, **given_spec, "nodeName": node},
    }
    return StaticPod(namespace, name, uid, msgspec.json.encode(body))
