"""The whole platform as its users have it: docker and kubectl, and all of it swapped under them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from tests import sample_image
from tests.system.instance import instance
from tests.system.platform.rig import (
    IMAGE,
    Checker,
    Platform,
    fetch,
    needs_docker,
    needs_kubectl,
    single,
    wait_for,
)

pytestmark = [pytest.mark.root, needs_docker, needs_kubectl]
WEB = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 3
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: {IMAGE}
        imagePullPolicy: IfNotPresent
        command:
        - sh
        - -c
        - mkdir /tmp/w; cp /etc/config/page /tmp/w/index.html; exec httpd -f -p 8080 -h /tmp/w
        env:
        - name: WORD
          valueFrom: {{secretKeyRef: {{name: word, key: word}}}}
        volumeMounts: [{{name: config, mountPath: /etc/config}}]
        readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1, timeoutSeconds: 30}}
      volumes: [{{name: config, configMap: {{name: page}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: page}}
data: {{page: "hello from a config map"}}
---
apiVersion: v1
kind: Secret
metadata: {{name: word}}
stringData: {{word: swordfish}}
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One instance with the sample image loaded and the web service running."""
    home = tmp_path_factory.mktemp("home")
    with instance(single(16543, "10.251.0")) as running:
        found = Platform(running, home)
        sample = sample_image.build(home)
        found("docker", "load", "-i", str(sample.docker_archive))
        found("kubectl", "apply", "-f", "-", given=WEB.encode())
        found("kubectl", "rollout", "status", "deploy/web", "--timeout=55s")
        yield found


def cluster_address(platform: Platform) -> str:
    """Of the web service."""
    return platform("kubectl", "get", "svc", "web", "-o", "jsonpath={.spec.clusterIP}")


def test_docker_runs_and_keeps_exit_codes(platform: Platform) -> None:
    assert platform("docker", "run", "--rm", IMAGE, "echo", "hello") == "hello\n"
    for code in (0, 7, 255):
        platform.refused("docker", "run", "--rm", IMAGE, "sh", "-c", f"exit {code}", code=code)
    platform.refused("docker", "run", "--rm", IMAGE, "nonsense", code=127)
    assert platform("docker", "run", "-i", "--rm", IMAGE, "cat", given=b"through\n") == "through\n"


def test_docker_publishes_ports_and_resolves_names(platform: Platform) -> None:
    platform("docker", "network", "create", "own")
    serve = "mkdir /tmp/w; echo box > /tmp/w/index.html; exec httpd -f -p 80 -h /tmp/w"
    command = ["docker", "run", "-d", "--name", "box", "--network", "own", "-p", "18181:80"]
    platform(*command, IMAGE, "sh", "-c", serve)
    try:
        wait_for(lambda: fetch("127.0.0.1:18181") == "box")
        found = platform("docker", "run", "--rm", "--network", "own", IMAGE, "nslookup", "box")
        assert "Address" in found
    finally:
        platform("docker", "rm", "-f", "box")
        platform("docker", "network", "rm", "own")


def test_docker_limits_are_the_kernels(platform: Platform) -> None:
    inside = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max; true"
    found = platform("docker", "run", "--rm", "-m", "32m", IMAGE, "sh", "-c", inside)
    assert str(32 << 20) in found.split()


def test_volumes_keep_what_containers_write(platform: Platform) -> None:
    platform("docker", "run", "--rm", "-v", "kept:/data", IMAGE, "sh", "-c", "echo x > /data/f")
    assert platform("docker", "run", "--rm", "-v", "kept:/data", IMAGE, "cat", "/data/f") == "x\n"
    platform("docker", "volume", "rm", "kept")


def test_a_deployment_serves_its_config_map(platform: Platform) -> None:
    assert fetch(cluster_address(platform)) == "hello from a config map"
    pods = platform("kubectl", "get", "pods", "-l", "app=web", "--no-headers").splitlines()
    assert len(pods) == 3
    assert "swordfish" in platform("kubectl", "exec", "deploy/web", "--", "env")
    assert "web" in platform("kubectl", "describe", "deploy", "web")


def test_names_of_services_resolve_in_pods(platform: Platform) -> None:
    found = platform(
        "kubectl", "exec", "deploy/web", "--", "nslookup", "web.default.svc.cluster.local"
    )
    assert cluster_address(platform) in found


def test_pods_reach_the_api_with_their_own_token(platform: Platform) -> None:
    ready = "echo | nc -w 30 $KUBERNETES_SERVICE_HOST 443"
    platform("kubectl", "exec", "deploy/web", "--", "sh", "-c", ready)
    path = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    token = platform("kubectl", "exec", "deploy/web", "--", "cat", path).strip()
    done = platform.run("kubectl", f"--token={token}", "auth", "whoami")
    found = done.stdout
    assert token.count(".") == 2
    assert "serviceaccount" in found or "admin" in found


def test_an_image_of_docker_runs_as_a_pod_and_says_so_in_its_log(platform: Platform) -> None:
    platform("docker", "run", "--name", "base", IMAGE, "sh", "-c", "echo baked > /baked")
    platform("docker", "commit", "base", "sagong.test/baked:1")
    platform("docker", "rm", "base")
    options = ["--image=sagong.test/baked:1", "--image-pull-policy=Never", "--restart=Never"]
    platform("kubectl", "run", "baked", *options, "--", "cat", "/baked")
    wait_for(lambda: "baked" in platform("kubectl", "logs", "baked"))
    platform("kubectl", "delete", "pod", "baked", "--timeout=55s")


def test_a_deleted_pod_is_replaced(platform: Platform) -> None:
    name = platform("kubectl", "get", "pods", "-l", "app=web", "-o", "name").split()[0]
    platform("kubectl", "delete", name, "--wait=false")
    platform("kubectl", "rollout", "status", "deploy/web", "--timeout=55s")
    wait_for(lambda: name not in platform("kubectl", "get", "pods", "-o", "name").split())


def test_protobuf_bodies_and_reviews_are_understood(platform: Platform) -> None:
    platform("kubectl", "create", "deployment", "other", f"--image={IMAGE}", "--replicas=0")
    platform("kubectl", "scale", "deploy/other", "--replicas=0")
    platform("kubectl", "delete", "deploy", "other")
    assert platform("kubectl", "auth", "can-i", "create", "pods").strip() == "yes"
    assert "pods" in platform("kubectl", "api-resources")
    assert "replicas" in platform("kubectl", "explain", "deployment.spec")


def test_swaps_under_load_fail_nothing(platform: Platform) -> None:
    address = cluster_address(platform)
    with (
        Checker(lambda: fetch(address)) as served,
        Checker(lambda: platform("kubectl", "get", "pods")) as listed,
        Checker(lambda: platform("docker", "ps")) as shown,
    ):
        for unit in (
            "scheduler",
            "replication",
            "auth",
            "kube",
            "docker",
            "metrics",
            "state-local",
        ):
            platform.swap(unit)
            for checker in (served, listed, shown):
                checker.wait_answers(1)
        for plugin in ("binpack", "kube"):
            platform.running.run("swap", "scheduler", plugin, "--trial", "0")
    assert "may not call" not in platform.running.logs(), "a newcomer was a stranger at first"
    assert served.failures == []
    assert listed.failures == []
    assert shown.failures == []


def test_killed_processes_come_back_and_containers_do_not_notice(platform: Platform) -> None:
    started = platform("docker", "run", "-d", "--name", "steady", IMAGE, "sleep", "600").strip()
    before = platform("docker", "inspect", "-f", "{{.State.StartedAt}} {{.State.Pid}}", started)
    try:
        for name in (
            "runtime",
            "node",
            "network",
            "image",
            "docker",
            "kube",
            "state-local",
            "kernel",
        ):
            os.kill(platform.running.pid(name), signal.SIGKILL)
            platform.running.wait_ready()
        after = platform("docker", "inspect", "-f", "{{.State.StartedAt}} {{.State.Pid}}", started)
        assert after == before
        wait_for(lambda: fetch(cluster_address(platform)) == "hello from a config map")
        assert platform("docker", "exec", "steady", "echo", "still here") == "still here\n"
    finally:
        platform("docker", "rm", "-f", "steady")


def test_a_rolling_update_loses_no_request(platform: Platform) -> None:
    address = cluster_address(platform)
    # Who is deleted serves on until the service leads there no more, however long that takes.
    patient = '{"spec":{"template":{"spec":{"terminationGracePeriodSeconds":60}}}}'
    platform("kubectl", "patch", "deploy/web", "-p", patient)
    platform("kubectl", "rollout", "status", "deploy/web", "--timeout=55s")
    with Checker(lambda: fetch(address)) as served:
        platform("kubectl", "set", "env", "deploy/web", "ROUND=2")
        platform("kubectl", "rollout", "status", "deploy/web", "--timeout=55s")
        platform("kubectl", "rollout", "undo", "deploy/web")
        platform("kubectl", "rollout", "status", "deploy/web", "--timeout=55s")
        served.wait_answers(20)
    assert served.failures == []
    assert "3" in platform(
        "kubectl", "get", "deploy", "web", "-o", "jsonpath={.status.readyReplicas}"
    )
