"""Pods in real containers: probes, init containers, projected volumes, restarts, graceful ends."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.system.platform.rig import (
    IMAGE,
    Platform,
    ended,
    needs_docker,
    needs_kubectl,
    wait_for,
)

pytestmark = [pytest.mark.root, needs_docker, needs_kubectl]

# A gRPC health server in the words of HTTP/2: it answers every call with one message, SERVING.
GRPC = r"""
import socket, struct, threading
def frame(kind, flags, stream, body):
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body
def serve(link):
    link.recv(65536)
    message = b"\0" + struct.pack(">I", 2) + b"\x08\x01"
    link.sendall(frame(4, 0, 0, b"") + frame(1, 4, 1, b"\x88") + frame(0, 0, 1, message)
                 + frame(1, 5, 1, b"\x00\x0bgrpc-status\x010"))
    link.recv(65536)
    link.close()
server = socket.create_server(("", 9000))
while True:
    threading.Thread(target=serve, args=(server.accept()[0],)).start()
"""


def container(script: str, name: str = "main", **more: Any) -> dict[str, Any]:
    """A container of the sample image that runs a script."""
    return {
        "name": name,
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", script],
        **more,
    }


@contextlib.contextmanager
def pod(at: Platform, name: str, *containers: dict[str, Any], **spec: Any) -> Iterator[str]:
    """A pod, taken away in the end."""
    document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"kind": "tested"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": containers, **spec},
    }
    at("kubectl", "create", "-f", "-", given=json.dumps(document).encode())
    try:
        yield name
    finally:
        at("kubectl", "delete", "pod", name, "--ignore-not-found", "--timeout=55s")


def told(at: Platform, name: str, path: str) -> str:
    """A field of a pod."""
    return at("kubectl", "get", "pod", name, "-o", f"jsonpath={{{path}}}")


def probe(**kind: Any) -> dict[str, Any]:
    """A probe that asks every second."""
    return {**kind, "periodSeconds": 1, "failureThreshold": 2, "timeoutSeconds": 30}


def test_readiness_by_all_four_kinds_of_probes(whole: Platform) -> None:
    serve = (
        "mkdir /tmp/w; echo x > /tmp/w/index.html; touch /tmp/ok; exec httpd -f -p 8080 -h /tmp/w"
    )
    python = {
        "name": "grpc",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["/usr/bin/python3", "-c", GRPC],
        "readinessProbe": probe(grpc={"port": 9000}),
        "volumeMounts": [
            {"name": n, "mountPath": f"/{p}", "readOnly": True}
            for n, p in (("usr", "usr"), ("lib", "lib"), ("lib64", "lib64"))
        ],
    }
    volumes = [{"name": n, "hostPath": {"path": f"/{n}"}} for n in ("usr", "lib", "lib64")]
    ports = ((8080, "a"), (8081, "b"), (8082, "c"))
    kinds: tuple[dict[str, Any], ...] = (
        {"httpGet": {"path": "/", "port": 8080}},
        {"tcpSocket": {"port": 8081}},
        {"exec": {"command": ["test", "-e", "/tmp/ok"]}},
    )
    main = [
        container(serve.replace("8080", str(port)), name, readinessProbe=probe(**kind))
        for (port, name), kind in zip(ports, kinds)
    ]
    with pod(whole, "probed", *main, python, volumes=volumes):
        whole("kubectl", "wait", "--for=condition=Ready", "pod/probed", "--timeout=55s")
        whole("kubectl", "exec", "probed", "-c", "c", "--", "rm", "/tmp/ok")
        wait_for(lambda: "3/4" in whole("kubectl", "get", "pod", "probed"))
        whole("kubectl", "exec", "probed", "-c", "a", "--", "rm", "/tmp/w/index.html")
        whole("docker", "kill", _id(whole, "probed", "b"))
        wait_for(lambda: "2/4" in whole("kubectl", "get", "pod", "probed"))


def _id(at: Platform, name: str, inside: str) -> str:
    path = f".status.containerStatuses[?(@.name=='{inside}')].containerID"
    return told(at, name, path).removeprefix("sagong://")


def test_liveness_restarts_and_startup_protects(whole: Platform) -> None:
    alive = probe(exec={"command": ["test", "-e", "/tmp/up"]})
    startup = {**alive, "failureThreshold": 100}

    def events() -> str:
        return whole("kubectl", "get", "events", "--field-selector=involvedObject.name=ill")

    with pod(whole, "ill", container("sleep 600", livenessProbe=alive, startupProbe=startup)):
        status = ".status.containerStatuses[0]"
        wait_for(lambda: "Startup probe failed" in events())
        assert told(whole, "ill", f"{status}.started") != "true"
        whole("kubectl", "exec", "ill", "--", "touch", "/tmp/up")
        wait_for(lambda: told(whole, "ill", f"{status}.started") == "true")
        assert "Liveness probe failed" not in events()
        whole("kubectl", "exec", "ill", "--", "rm", "/tmp/up")
        wait_for(lambda: told(whole, "ill", f"{status}.restartCount") == "1")
        assert "Liveness probe failed" in events()


def test_init_containers_run_in_order_before_the_main_one(whole: Platform) -> None:
    mount: dict[str, Any] = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    first = container("sleep 1; echo one >> /shared/f", "first", **mount)
    second = container("echo two >> /shared/f", "second", **mount)
    main = container("cat /shared/f; sleep 600", **mount)
    spec = {"initContainers": [first, second], "volumes": [{"name": "shared", "emptyDir": {}}]}
    with pod(whole, "ordered", main, **spec):
        wait_for(lambda: whole.run("kubectl", "logs", "ordered").stdout == "one\ntwo\n")
        reasons = told(whole, "ordered", ".status.initContainerStatuses[*].state.terminated.reason")
        assert reasons == "Completed Completed"


def test_a_failing_init_container_ends_a_pod_that_is_never_restarted(whole: Platform) -> None:
    first = container("exit 3", "first")
    with pod(whole, "stuck", container("true"), initContainers=[first], restartPolicy="Never"):
        wait_for(lambda: told(whole, "stuck", ".status.phase") == "Failed")
        assert "Init:Error" in whole("kubectl", "get", "pod", "stuck")


def test_projected_volumes_join_their_sources(whole: Platform) -> None:
    whole("kubectl", "create", "configmap", "settings", "--from-literal=colour=red")
    whole("kubectl", "create", "secret", "generic", "word", "--from-literal=word=swordfish")
    label = {"fieldPath": "metadata.labels['kind']"}
    sources = [
        {"configMap": {"name": "settings"}},
        {"secret": {"name": "word", "items": [{"key": "word", "path": "deep/word"}]}},
        {"downwardAPI": {"items": [{"path": "kind", "fieldRef": label}]}},
        {"serviceAccountToken": {"path": "token", "audience": "shop"}},
    ]  # fmt: skip
    mounts: dict[str, Any] = {"volumeMounts": [{"name": "all", "mountPath": "/all"}]}
    volumes = [{"name": "all", "projected": {"sources": sources}}]
    try:
        with pod(whole, "joined", container("sleep 600", **mounts), volumes=volumes):
            whole("kubectl", "wait", "--for=condition=Ready", "pod/joined", "--timeout=55s")
            read = ("kubectl", "exec", "joined", "--", "cat")
            files = whole(*read, "/all/colour", "/all/deep/word", "/all/kind")
            assert files == "redswordfishtested"
            assert whole(*read, "/all/token").count(".") == 2
            change = '{"data":{"colour":"green"}}'
            whole("kubectl", "patch", "configmap", "settings", "-p", change)
            wait_for(lambda: whole(*read, "/all/colour") == "green")
    finally:
        whole("kubectl", "delete", "configmap/settings", "secret/word")


@pytest.mark.parametrize(
    ("policy", "code", "phase", "restarts"),
    [("Never", 3, "Failed", "0"), ("OnFailure", 0, "Succeeded", "0"), ("OnFailure", 4, "", "1")],
)
def test_restart_policies(
    whole: Platform, policy: str, code: int, phase: str, restarts: str
) -> None:
    name = f"ends-{policy.lower()}-{code}"
    with pod(whole, name, container(f"exit {code}"), restartPolicy=policy):
        count = ".status.containerStatuses[0].restartCount"
        wait_for(lambda: told(whole, name, count) >= restarts)
        if phase:
            wait_for(lambda: told(whole, name, ".status.phase") == phase)
            ending = told(whole, name, ".status.containerStatuses[0].state.terminated.exitCode")
            assert ending == str(code)


def test_a_pod_ends_gracefully_or_is_killed_in_the_end(whole: Platform) -> None:
    script = "trap 'echo stopping; sleep 1; echo bye; exit 0' TERM; echo up; sleep 600 & wait"
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo hook > /proc/1/fd/1"]}}}
    polite = container(script, lifecycle=hook)
    with pod(whole, "polite", polite, terminationGracePeriodSeconds=20):
        wait_for(lambda: whole.run("kubectl", "logs", "polite").stdout == "up\n")
        with ended(whole.start("kubectl", "logs", "-f", "polite")) as log:
            assert log.stdout is not None
            log.stdout.readline()
            whole("kubectl", "delete", "pod", "polite", "--timeout=55s")
            assert log.communicate(timeout=60)[0] == b"hook\nstopping\nbye\n"
    stubborn = container("trap '' TERM; echo up; while :; do sleep 1; done")
    with pod(whole, "stubborn", stubborn, terminationGracePeriodSeconds=2):
        wait_for(lambda: whole.run("kubectl", "logs", "stubborn").stdout == "up\n")
        whole("kubectl", "delete", "pod", "stubborn", "--timeout=55s")


def test_an_image_that_docker_loaded_or_committed_runs_as_a_pod(whole: Platform) -> None:
    whole("docker", "run", "--name", "base", IMAGE, "sh", "-c", "echo baked > /baked")
    try:
        whole("docker", "commit", "base", "sagong.test/baked:7")
        baked = {**container("cat /baked"), "image": "sagong.test/baked:7"}
        with pod(whole, "baked", baked, restartPolicy="Never"):
            wait_for(lambda: whole.run("kubectl", "logs", "baked").stdout == "baked\n")
    finally:
        whole("docker", "rm", "base")
        wait_for(lambda: whole.run("docker", "rmi", "sagong.test/baked:7").returncode == 0)
