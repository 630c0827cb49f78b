"""Every command that kubectl's users know, on real pods."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.system.platform.rig import (
    IMAGE,
    Platform,
    ended,
    fetch,
    needs_docker,
    needs_kubectl,
    wait_for,
)

pytestmark = [pytest.mark.root, needs_docker, needs_kubectl]

SHOP = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: shop}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: shop}}}}
  template:
    metadata: {{labels: {{app: shop}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: shop
        image: {IMAGE}
        imagePullPolicy: IfNotPresent
        command:
        - sh
        - -c
        - mkdir /tmp/w; cp /etc/page/text /tmp/w/index.html; exec httpd -f -p 8080 -h /tmp/w
        ports: [{{containerPort: 8080, name: http}}]
        env: [{{name: WORD, valueFrom: {{secretKeyRef: {{name: shop, key: word}}}}}}]
        volumeMounts: [{{name: page, mountPath: /etc/page}}]
        readinessProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 1, timeoutSeconds: 30}}
      volumes: [{{name: page, configMap: {{name: shop}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: shop}}
spec: {{selector: {{app: shop}}, ports: [{{port: 80, targetPort: http}}]}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: shop}}
data: {{text: "come in"}}
---
apiVersion: v1
kind: Secret
metadata: {{name: shop}}
stringData: {{word: swordfish}}
"""
READY = "jsonpath={.status.readyReplicas}"


@pytest.fixture(scope="module")
def shop(whole: Platform) -> Iterator[Platform]:
    """The platform with a Deployment, its Service, ConfigMap and Secret, applied as one document."""
    said = whole("kubectl", "apply", "-f", "-", given=SHOP.encode())
    assert said.split("\n")[:4] == [
        "deployment.apps/shop created",
        "service/shop created",
        "configmap/shop created",
        "secret/shop created",
    ]
    whole("kubectl", "rollout", "status", "deploy/shop", "--timeout=55s")
    yield whole
    deleted = whole("kubectl", "delete", "-f", "-", given=SHOP.encode())
    assert deleted.count("deleted") == 4
    wait_for(lambda: whole("kubectl", "get", "pods", "-l", "app=shop", "-o", "name") == "")


def test_get_shows_tables_wide_tables_and_whole_objects(shop: Platform) -> None:
    lines = shop("kubectl", "get", "pods", "-l", "app=shop").splitlines()
    assert lines[0].split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert [line.split()[1:3] for line in lines[1:]] == [["1/1", "Running"]] * 2
    wide = shop("kubectl", "get", "pods", "-l", "app=shop", "-o", "wide").splitlines()
    assert wide[0].split()[5:7] == ["IP", "NODE"]
    assert all(re.search(r" 10\.249\.0\.\d+ +tested ", line) for line in wide[1:])
    whole = yaml.safe_load(shop("kubectl", "get", "deploy", "shop", "-o", "yaml"))
    assert whole["spec"]["template"]["spec"]["containers"][0]["image"] == IMAGE
    assert whole["status"]["readyReplicas"] == 2
    secret = yaml.safe_load(shop("kubectl", "get", "secret", "shop", "-o", "yaml"))
    assert secret["data"] == {"word": "c3dvcmRmaXNo"}


def test_a_watch_tells_what_happens(shop: Platform) -> None:
    command = ("kubectl", "get", "pods", "-w", "-l", "app=shop", "--no-headers")
    with ended(shop.start(*command)) as watch:
        assert watch.stdout is not None
        first = {watch.stdout.readline().split()[0] for _ in range(2)}
        name = next(iter(first)).decode()
        shop("kubectl", "delete", "pod", name, "--wait=false")
        seen = b""
        while not (b"Terminating" in seen and re.search(rb"1/1 +Running", seen)):
            line = watch.stdout.readline()
            assert line, seen
            seen += line
    shop("kubectl", "rollout", "status", "deploy/shop", "--timeout=55s")
    shop("kubectl", "wait", "--for=delete", f"pod/{name}", "--timeout=55s")


def test_describe_tells_the_story(shop: Platform) -> None:
    told = shop("kubectl", "describe", "pod", "-l", "app=shop")
    for words in ("Started container shop", "Successfully assigned", "set to the key 'word'"):
        assert words in told, told
    assert "2 desired | 2 updated | 2 total | 2 available" in shop(
        "kubectl", "describe", "deploy", "shop"
    )
    assert "8080" in shop("kubectl", "describe", "svc", "shop")
    assert "word:  9 bytes" in shop("kubectl", "describe", "secret", "shop")
    assert "KubeletReady" in shop("kubectl", "describe", "node", "tested")


def test_logs_follow_until_the_pod_ends(shop: Platform) -> None:
    script = "trap 'echo bye; exit 0' TERM; for i in 1 2 3; do echo $i; done; sleep 600 & wait"
    options = (f"--image={IMAGE}", "--image-pull-policy=Never", "--restart=Never")
    shop("kubectl", "run", "teller", *options, "--command", "--", "sh", "-c", script)
    wait_for(lambda: "3\n" in shop("kubectl", "logs", "teller"))
    with ended(shop.start("kubectl", "logs", "-f", "teller")) as log:
        assert log.stdout is not None
        assert [log.stdout.readline() for _ in range(3)] == [b"1\n", b"2\n", b"3\n"]
        shop("kubectl", "delete", "pod", "teller", "--timeout=55s")
        rest, said = log.communicate(timeout=60)
        assert (rest, log.returncode) == (b"bye\n", 0), said
    missing = shop.refused("kubectl", "logs", "teller")
    assert 'pods "teller" not found' in missing


def test_exec_on_a_terminal(shop: Platform) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 111, 0, 0))
    shell = subprocess.Popen(
        ["kubectl", "exec", "-it", "deploy/shop", "--", "sh"],
        stdin=slave, stdout=slave, stderr=subprocess.PIPE, start_new_session=True,
        env={**shop.environment, "TERM": "xterm"},
    )  # fmt: skip
    os.close(slave)
    try:
        _read_until(master, rb"[#$] ")
        _type_until(master, "stty size\n", rb"44 111")
        os.write(master, b"echo $WORD-$((40+2)); exit 7\n")
        _read_until(master, rb"swordfish-42")
        assert shell.wait(60) == 7
    finally:
        shell.kill()
        shell.communicate()
        os.close(master)


def _read_until(master: int, pattern: bytes, seconds: float = 60) -> bytes:
    seen, limit = b"", time.monotonic() + seconds
    while not re.search(pattern, seen):
        assert time.monotonic() < limit, seen
        if select.select([master], [], [], 0.1)[0]:
            seen += os.read(master, 65536)
    return seen


def _type_until(master: int, text: str, pattern: bytes) -> None:
    """The size is told to the other side a moment after the start: ask until it is there."""
    limit = time.monotonic() + 60
    while True:
        os.write(master, text.encode())
        try:
            _read_until(master, pattern, 1)
            return
        except AssertionError:
            assert time.monotonic() < limit


def test_a_port_is_forwarded_to_the_service(shop: Platform) -> None:
    with ended(shop.start("kubectl", "port-forward", "svc/shop", ":80")) as forward:
        assert forward.stdout is not None
        port = re.search(rb"127\.0\.0\.1:(\d+) -> 8080", forward.stdout.readline())
        assert port is not None
        for _ in range(3):
            assert fetch(f"127.0.0.1:{port[1].decode()}") == "come in"


def test_files_are_copied_both_ways(shop: Platform, tmp_path: Path) -> None:
    pod = shop("kubectl", "get", "pods", "-l", "app=shop", "-o", "name").split()[0][4:]
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "file").write_bytes(os.urandom(200_000))
    shop("kubectl", "cp", str(tree), f"{pod}:/tmp/tree")
    shop("kubectl", "cp", f"{pod}:/tmp/tree", str(tmp_path / "back"))
    assert (tmp_path / "back" / "deep" / "file").read_bytes() == (
        tree / "deep" / "file"
    ).read_bytes()


def test_a_rollout_goes_on_is_told_and_undone(shop: Platform) -> None:
    shop("docker", "tag", IMAGE, "sagong.test/other:2")
    shop("kubectl", "scale", "deploy/shop", "--replicas=3")
    shop("kubectl", "rollout", "status", "deploy/shop", "--timeout=55s")
    assert "image updated" in shop(
        "kubectl", "set", "image", "deploy/shop", "shop=sagong.test/other:2"
    )
    said = shop("kubectl", "rollout", "status", "deploy/shop", "--timeout=55s")
    assert "successfully rolled out" in said
    images = shop("kubectl", "get", "pods", "-l", "app=shop", "-o", "jsonpath={..image}").split()
    assert "sagong.test/other:2" in images
    history = shop("kubectl", "rollout", "history", "deploy/shop").split()
    assert history[-4:] == ["1", "<none>", "2", "<none>"]
    shop("kubectl", "rollout", "undo", "deploy/shop")
    shop("kubectl", "rollout", "status", "deploy/shop", "--timeout=55s")
    assert (
        shop("kubectl", "get", "deploy", "shop", "-o", "jsonpath={..containers[0].image}") == IMAGE
    )
    shop("kubectl", "scale", "deploy/shop", "--replicas=2")
    shop("kubectl", "wait", "deploy/shop", "--for=jsonpath={.status.replicas}=2", "--timeout=55s")


def test_differences_are_shown_and_applied_by_their_owners(shop: Platform) -> None:
    assert shop.run("kubectl", "diff", "-f", "-", given=SHOP.encode()).returncode == 0
    changed = SHOP.replace("come in", "closed").encode()
    assert "+  text: closed" in shop.refused("kubectl", "diff", "-f", "-", given=changed)
    side = ("kubectl", "apply", "--server-side", "-f", "-")
    conflict = shop.refused(*side, "--field-manager=other", given=changed)
    assert "conflict with" in conflict and ".data.text" in conflict
    assert "serverside-applied" in shop(
        *side, "--field-manager=other", "--force-conflicts", given=changed
    )
    shop("kubectl", "apply", "-f", "-", given=SHOP.encode())


def test_labels_annotations_and_waiting(shop: Platform) -> None:
    pod = shop("kubectl", "get", "pods", "-l", "app=shop", "-o", "name").split()[0]
    assert "labeled" in shop("kubectl", "label", pod, "colour=red")
    assert "annotated" in shop("kubectl", "annotate", pod, "note=seen")
    assert shop("kubectl", "get", "pods", "-l", "colour=red", "-o", "name").split() == [pod]
    assert "condition met" in shop("kubectl", "wait", "--for=condition=Ready", pod)
    late = shop.refused("kubectl", "wait", "--for=delete", pod, "--timeout=1s")
    assert "timed out" in late


def test_what_is_asked_about_the_cluster(shop: Platform) -> None:
    assert "replicas" in shop("kubectl", "explain", "deployment.spec")
    assert shop("kubectl", "auth", "can-i", "create", "pods").strip() == "yes"
    robot = "--as=system:serviceaccount:default:default"
    assert shop.refused("kubectl", "auth", "can-i", "create", "pods", robot).strip() == "no"
    assert re.search(r"deployments +deploy +apps/v1 +true", shop("kubectl", "api-resources"))
    made = shop("kubectl", "create", "deployment", "none", f"--image={IMAGE}", "--replicas=0")
    assert made == "deployment.apps/none created\n"
    shop("kubectl", "delete", "deploy", "none")


def test_top_shows_what_pods_and_nodes_use(shop: Platform) -> None:
    wait_for(
        lambda: shop.run("kubectl", "top", "pods", "-l", "app=shop").stdout.count("shop-") == 2
    )
    lines = shop("kubectl", "top", "pods", "-l", "app=shop", "--containers").splitlines()
    assert lines[0].split() == ["POD", "NAME", "CPU(cores)", "MEMORY(bytes)"]
    assert re.search(r"tested +\d+m +\d+% +\d+Mi", shop("kubectl", "top", "nodes"))


def test_a_node_tells_what_its_pods_use_and_pass_on_the_network(shop: Platform) -> None:
    node = "/api/v1/nodes/tested/proxy"
    pod = shop("kubectl", "get", "pods", "-l", "app=shop", "-o", "name").split()[0][4:]

    def passed() -> dict[str, int]:
        told = json.loads(shop("kubectl", "get", "--raw", f"{node}/stats/summary"))
        (found,) = [p for p in told["pods"] if p["podRef"]["name"] == pod]
        assert found["containers"][0]["memory"]["workingSetBytes"] > 0
        assert told["node"]["nodeName"] == "tested" and told["node"]["cpu"]["usageCoreNanoSeconds"]
        return {key: found["network"][key] for key in ("rxBytes", "txBytes")}

    wait_for(lambda: shop.run("kubectl", "top", "pods", pod).returncode == 0)
    before = passed()
    address = shop("kubectl", "get", "pod", pod, "-o", "jsonpath={.status.podIP}")
    make = "dd if=/dev/zero of=/tmp/w/index.html bs=1k count=200 2> /dev/null"
    shop("kubectl", "exec", pod, "--", "sh", "-c", make)
    assert len(fetch(f"{address}:8080")) == 200 << 10
    after = passed()
    assert after["txBytes"] - before["txBytes"] > 200 << 10
    assert after["rxBytes"] > before["rxBytes"]
    text = shop("kubectl", "get", "--raw", f"{node}/metrics/cadvisor")
    labels = f'interface="eth0",namespace="default",pod="{pod}"'
    (line,) = [t for t in text.splitlines() if t.startswith(
        f"container_network_receive_bytes_total{{{labels}}}"
    )]  # fmt: skip
    assert int(line.split()[-1]) >= after["rxBytes"]
    assert (
        f'container_memory_working_set_bytes{{container="shop",namespace="default",pod="{pod}"}}'
        in text
    )
    resource = shop("kubectl", "get", "--raw", f"{node}/metrics/resource")
    assert "node_cpu_usage_seconds_total " in resource and "resource_scrape_error 0" in resource
    assert "error trying to reach" in shop.refused("kubectl", "get", "--raw", f"{node}/pods")
    shop("kubectl", "exec", pod, "--", "cp", "/etc/page/text", "/tmp/w/index.html")


def test_a_killed_container_is_started_again(shop: Platform) -> None:
    pod = shop("kubectl", "get", "pods", "-l", "app=shop", "-o", "name").split()[0]
    status = "jsonpath={.status.containerStatuses[0].%s}"
    container = shop("kubectl", "get", pod, "-o", status % "containerID").removeprefix("sagong://")
    shop("docker", "kill", container)
    wait_for(lambda: shop("kubectl", "get", pod, "-o", status % "restartCount") == "1")
    assert "137" in shop("kubectl", "get", pod, "-o", status % "lastState.terminated.exitCode")
    shop("kubectl", "wait", "--for=condition=Ready", pod, "--timeout=55s")
