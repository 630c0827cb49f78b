"""A container in a file of its own: a dozen plain keys, read as a pod with one container. Pure.

::

    image = "registry.example/sensor:3"
    command = ["sensor", "--interval", "5"]
    env = { PLACE = "roof" }
    ports = ["8080:80"]
    volumes = ["/srv/sensor:/data", "/etc/sensor:/config:ro"]
    memory = "32Mi"
"""

from __future__ import annotations

import tomllib
from typing import Any, Literal

import msgspec

from sagong import forms
from sagong.model.numbers import natural
from sagong_node.pods.manifests import Broken, StaticPod, read_documents, static_pod

__all__ = ["ContainerFile", "pod_document", "read_container"]

Document = dict[str, Any]
_RESTART = {"always": "Always", "on-failure": "OnFailure", "no": "Never"}
_PULL = {"missing": "IfNotPresent", "always": "Always", "never": "Never"}


class ContainerFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a file may say. `command` are the arguments of the `entrypoint`, each "" the image's own.

    `ports` are HOST:CONTAINER[/udp] or ADDRESS:HOST:CONTAINER, `volumes` SOURCE:TARGET[:ro] with a
    path of the machine as source, `tmpfs` paths. `network` is "pods", a network of the machine's own,
    or "host". `memory` and `cpu` are Kubernetes quantities, `user` is UID or UID:GID.
    """

    image: str
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    workdir: str = ""
    env: dict[str, str | int | float] = {}
    labels: dict[str, str] = {}
    ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    tmpfs: tuple[str, ...] = ()
    restart: Literal["always", "on-failure", "no"] = "always"
    pull: Literal["missing", "always", "never"] = "missing"
    network: Literal["pods", "host"] = "pods"
    memory: str = ""
    cpu: str | float = ""
    user: str = ""
    read_only: bool = False
    privileged: bool = False
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    stop_seconds: int = 30


def read_container(raw: bytes, name: str, *, form: str, node: str) -> StaticPod:
    """The pod of a file `NAME.toml`, `.yaml` or `.json`; Broken tells what is wrong with it."""
    if form == "toml":
        return _read(_toml(raw), name, node)
    parts = list(read_documents(raw, json_form=form == "json"))
    if len(parts) != 1:
        raise Broken(f"one container is expected here, not {len(parts)} documents")
    value, locate = parts[0]
    try:
        return _read(value, name, node)
    except Broken as error:
        raise Broken(error.reason, line=error.line or locate(())) from None


def _toml(raw: bytes) -> Document:
    try:
        return tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Broken(f"not TOML: {error}") from None  # its text has the line


def _read(value: Any, name: str, node: str) -> StaticPod:
    found, mistakes = forms.decode(value, ContainerFile)
    if found is None or mistakes:
        raise Broken("; ".join(mistakes))
    return static_pod(pod_document(found, name), node)


def pod_document(found: ContainerFile, name: str) -> Document:
    """The pod that it means."""
    binds = [_bind(at, text) for at, text in enumerate(found.volumes)]
    memory = [(f"tmpfs-{at}", path) for at, path in enumerate(found.tmpfs)]
    limits = {k: v for k, v in (("memory", found.memory), ("cpu", found.cpu)) if v != ""}
    container: Document = {
        "name": name,
        "image": found.image,
        "imagePullPolicy": _PULL[found.pull],
        "command": list(found.entrypoint),
        "args": list(found.command),
        "workingDir": found.workdir,
        "env": [{"name": key, "value": str(value)} for key, value in found.env.items()],
        "ports": [_port(text) for text in found.ports],
        "resources": {"limits": limits} if limits else {},
        "volumeMounts": [
            *(mount for _, mount in binds),
            *({"name": volume, "mountPath": path} for volume, path in memory),
        ],
        "securityContext": _security(found),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": dict(found.labels)},
        "spec": {
            "containers": [container],
            "hostNetwork": found.network == "host",
            "restartPolicy": _RESTART[found.restart],
            "terminationGracePeriodSeconds": found.stop_seconds,
            "volumes": [
                *(volume for volume, _ in binds),
                *({"name": volume, "emptyDir": {"medium": "Memory"}} for volume, _ in memory),
            ],
        },
    }


def _bind(at: int, text: str) -> tuple[Document, Document]:
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not source.startswith("/") or not target.startswith("/") or mode not in ("", "ro", "rw"):
        raise Broken(f"volumes[{at}] {text!r} is not SOURCE:TARGET[:ro] with absolute paths")
    name = f"bind-{at}"
    mount = {"name": name, "mountPath": target, "readOnly": mode == "ro"}
    return {"name": name, "hostPath": {"path": source}}, mount


def _port(text: str) -> Document:
    numbers, _, protocol = text.partition("/")
    rest, _, inner = numbers.rpartition(":")
    address, _, outer = rest.rpartition(":")
    host, container = natural(outer), natural(inner)
    if host is None or container is None or protocol not in ("", "tcp", "udp", "sctp"):
        raise Broken(f"port {text!r} is not [ADDRESS:]HOST:CONTAINER[/udp]")
    return {
        "containerPort": container,
        "hostPort": host,
        "hostIP": address.strip("[]"),
        "protocol": (protocol or "tcp").upper(),
    }


def _security(found: ContainerFile) -> Document:
    uid, _, gid = found.user.partition(":")
    if found.user and None in (natural(uid), natural(gid or "0")):
        raise Broken(f"user {found.user!r} is not UID or UID:GID, in numbers")
    context: Document = {
        "readOnlyRootFilesystem": found.read_only,
        "privileged": found.privileged,
        "capabilities": {
            "add": list(found.add_capabilities),
            "drop": list(found.drop_capabilities),
        },
    }
    if uid:
        context["runAsUser"] = int(uid)
    if gid:
        context["runAsGroup"] = int(gid)
    return context
