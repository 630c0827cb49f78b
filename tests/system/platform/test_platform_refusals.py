"""What can't be done is refused in words that users know, and leaves no container over."""

from __future__ import annotations

import json

import pytest
from tests.system.platform.rig import (
    IMAGE,
    Platform,
    needs_docker,
    needs_kubectl,
    wait_for,
)

pytestmark = [pytest.mark.root, needs_docker, needs_kubectl]


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("nosuch.invalid/image:1",), 125, "no such host"),
        (("127.0.0.1:1/image:1",), 125, "connect: connection refused"),
        (("-v", "/x:relative", IMAGE), 125, "mount path must be absolute"),
        (("--mount", "type=bind,src=/no,dst=/x", IMAGE), 125, "source path does not exist: /no"),
        (("--network", "nosuch", IMAGE), 125, "network nosuch not found"),
        (("--cpus", "4000", IMAGE), 125, "range of CPUs is from 0.01 to"),
        (("-m", "1k", IMAGE), 125, "Minimum memory limit allowed is 6MB"),
        (("--user", "nosuch", IMAGE, "true"), 125, "unable to find user nosuch"),
        (("--cap-add", "NOSUCH", IMAGE), 125, "CAP_NOSUCH"),
        (("--gpus", "all", IMAGE), 125, 'with capabilities: [[gpu]]'),
        (("--runtime", "nosuch", IMAGE), 125, "unknown or invalid runtime name: nosuch"),
        (("--log-driver", "nosuch", IMAGE), 125, 'plugin "nosuch" not found'),
        (("--ip", "1.2.3.4", IMAGE), 125, "supported on user defined networks only"),
        ((IMAGE, "nosuch"), 127, 'exec: "nosuch": executable file not found in $PATH'),
        ((IMAGE, "/etc"), 126, "is a directory"),
        ((IMAGE, "/etc/passwd"), 126, "permission denied"),
    ],
)  # fmt: skip
def test_runs_that_can_t_be(whole: Platform, words: tuple[str, ...], code: int, text: str) -> None:
    assert text in whole.refused("docker", "run", "--rm", *words, code=code)
    wait_for(lambda: whole("docker", "ps", "-aq") == "")


POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: "


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ("a: [b", "error converting YAML to JSON"),
        ("kind: Pod\nmetadata: {name: x}", "apiVersion not set"),
        (POD.replace("Pod", "Nosuch") + "{}", 'no matches for kind "Nosuch" in version "v1"'),
        (POD + "{containers: 3}", "containers"),
        (POD + "{containers: [{name: a, image: 3}]}", "containers"),
        (POD.replace("x", "Bad_Name") + "{containers: [{name: a, image: b}]}", '"Bad_Name"'),
        (POD + "{containers: [{name: a}]}", "spec.containers[0].image: Required value"),
        (POD + "{contaners: []}", 'unknown field "spec.contaners"'),
        (POD.replace("Pod", "Service") + "{ports: [{port: 99999}]}", "between 1 and 65535"),
        (POD.replace("name: x", "name: x, namespace: nosuch") + "{}", '"nosuch" not found'),
    ],
)
def test_documents_that_can_t_be(whole: Platform, document: str, text: str) -> None:
    said = whole.refused("kubectl", "create", "-f", "-", given=document.encode())
    assert text in said, said


def test_who_may_not_is_told_so(whole: Platform) -> None:
    whole("kubectl", "create", "serviceaccount", "robot")
    try:
        token = whole("kubectl", "create", "token", "robot").strip()
        config = whole.home / "robot.yaml"
        plain = json.loads(whole("kubectl", "config", "view", "--raw", "-o", "json"))
        plain["users"][0]["user"] = {"token": token}
        config.write_text(json.dumps(plain))
        said = whole.refused("kubectl", f"--kubeconfig={config}", "get", "pods")
        user = (
            'User "system:serviceaccount:default:robot" cannot list resource "pods" in API group ""'
        )
        assert "(Forbidden)" in said and user in said
        whole("kubectl", "create", "role", "reader", "--verb=list", "--resource=pods")
        whole(
            "kubectl",
            "create",
            "rolebinding",
            "reader",
            "--role=reader",
            "--serviceaccount=default:robot",
        )
        wait_for(
            lambda: whole.run("kubectl", f"--kubeconfig={config}", "get", "pods").returncode == 0
        )
        assert "(Forbidden)" in whole.refused("kubectl", f"--kubeconfig={config}", "get", "secrets")
        plain["users"][0]["user"] = {"token": token[:-4] + "AAAA"}
        config.write_text(json.dumps(plain))
        assert "(Unauthorized)" in whole.refused("kubectl", f"--kubeconfig={config}", "get", "pods")
    finally:
        whole(
            "kubectl",
            "delete",
            "serviceaccount/robot",
            "role/reader",
            "rolebinding/reader",
            "--ignore-not-found",
        )
