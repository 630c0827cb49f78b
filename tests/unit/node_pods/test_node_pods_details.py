"""What pods are given and asked: variables, volumes, tokens, probes, hooks, images, refusals."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

from tests.unit.node_pods.pod_lab import Lab, container, lab, pod

from sagong.contracts.image import ImageConfig
from sagong.contracts.node import ContainerSpec
from sagong.errors import NotFound


def spec_of(node: Lab, name: str) -> ContainerSpec:
    """The latest container that the node made for a pod's container."""
    found = [r.spec for r in node.registry.containers.values() if f"k8s_{name}_" in r.spec.name]
    return found[-1]


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": data,
    }


def secret(name: str, kind: str = "Opaque", **data: str) -> dict[str, Any]:
    encoded = {k.replace("__", "."): base64.b64encode(v.encode()).decode() for k, v in data.items()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": kind,
        "metadata": {"name": name, "namespace": "default"},
        "data": encoded,
    }


def mounted(node: Lab, name: str, target: str) -> Path:
    """The path of the host that is mounted there."""
    return Path(next(m.source for m in spec_of(node, name).mounts if m.target == target))


async def test_variables_come_from_everywhere(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        node.objects.put(config_map("settings", colour="blue"))
        node.objects.put(secret("keys", token="s3cret"))
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "db-main", "namespace": "default"},
            "spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 5432}]},
        }
        node.objects.put(service)
        env = [
            {"name": "A", "value": "one"},
            {"name": "B", "value": "$(A)-$(DB_MAIN_SERVICE_HOST)-$(NONE)-$$(A)"},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "K", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
        ]
        main = container(env=env, envFrom=[{"configMapRef": {"name": "settings"}}], args=["$(A)"])
        node.objects.put(pod("web", main))
        await node.until(lambda: node.phase("web") == "Running")
        command = spec_of(node, "main").command
        values = dict(entry.split("=", 1) for entry in command.env)
        assert values["B"] == "one-10.96.0.7-$(NONE)-$(A)"
        assert (values["IP"], values["K"], values["colour"]) == ("10.244.0.2", "s3cret", "blue")
        assert command.cmd == ("one",)


async def test_a_missing_config_map_holds_the_container_until_it_is_there(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        node.objects.put(pod("web", container(envFrom=[{"configMapRef": {"name": "later"}}])))
        state = await node.until(
            lambda: node.container("web", "main").get("state", {}).get("waiting")
        )
        await node.until(
            lambda: (
                node.container("web", "main")["state"]["waiting"]["reason"]
                == "CreateContainerConfigError"
            )
        )
        state = node.container("web", "main")["state"]["waiting"]
        assert state["message"] == 'configmap "later" not found'
        node.objects.put(config_map("later", a="b"))
        await node.until(lambda: node.phase("web") == "Running", "started at once")


async def test_volumes_of_the_api_follow_their_objects(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        node.objects.put(config_map("settings", a="1"))
        volumes = [{"name": "conf", "configMap": {"name": "settings"}}]
        main = container(volumeMounts=[{"name": "conf", "mountPath": "/etc/conf"}])
        node.objects.put(pod("web", main, volumes=volumes))
        await node.until(lambda: node.phase("web") == "Running")
        path = mounted(node, "main", "/etc/conf")
        assert (path / "a").read_text() == "1"
        assert (path / "a").readlink() == Path("..data/a")
        before = (path / "..data").readlink()
        node.objects.put(config_map("settings", b="2"))
        await node.until((path / "b").exists, "the new key")
        assert (path / "..data").readlink() != before
        assert not (path / "a").is_symlink()
        assert sorted(p.name for p in path.iterdir() if not p.name.startswith("..")) == ["b"]


async def test_a_missing_secret_keeps_the_pod_from_starting_and_is_told(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        volumes = [{"name": "s", "secret": {"secretName": "keys"}}]
        main = container(volumeMounts=[{"name": "s", "mountPath": "/s", "subPath": "token"}])
        node.objects.put(pod("web", main, volumes=volumes))
        await node.until(lambda: "FailedMount" in node.reasons())
        event = next(e for e in node.objects.events if e["reason"] == "FailedMount")
        assert event["message"] == (
            'MountVolume.SetUp failed for volume "s" : secret "keys" not found'
        )
        assert event["type"] == "Warning"
        node.objects.put(secret("keys", token="x"))
        await node.until(lambda: node.phase("web") == "Running")
        assert mounted(node, "main", "/s").read_text() == "x"


async def test_images_of_volumes_are_pulled_before_containers_start(tmp_path: Path) -> None:
    def volumes(reference: str) -> list[dict[str, Any]]:
        return [{"name": "data", "image": {"reference": reference, "pullPolicy": "IfNotPresent"}}]

    async with lab(tmp_path) as node:
        node.images.remote["data:1"] = node.images.here["busybox:1"]
        main = container(volumeMounts=[{"name": "data", "mountPath": "/data"}])
        node.objects.put(pod("web", main, volumes=volumes("data:1")))
        await node.until(lambda: node.phase("web") == "Running")
        assert "data:1" in node.images.here
        node.objects.put(pod("late", main, volumes=volumes("data:2")))
        await node.until(lambda: "FailedMount" in node.reasons())
        event = next(e for e in node.objects.events if e["reason"] == "FailedMount")
        assert "data:2" in event["message"]
        assert node.phase("late") == "Pending"


async def test_a_service_account_gets_its_token(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        account = {"apiVersion": "v1", "kind": "ServiceAccount"}
        node.objects.put(account | {"metadata": {"name": "default", "namespace": "default"}})
        sources = [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}]
        volumes = [{"name": "api", "projected": {"sources": sources}}]
        main = container(volumeMounts=[{"name": "api", "mountPath": "/var/run/secrets"}])
        node.objects.put(pod("web", main, volumes=volumes))
        await node.until(lambda: node.phase("web") == "Running")
        assert (mounted(node, "main", "/var/run/secrets") / "token").read_text() == "token-1"
        (request,) = node.auth.requests
        assert (request.service_account, request.uid) == ("default", "uid-default")
        assert (request.bound_kind, request.bound_uid, request.seconds) == ("Pod", "uid-web", 3607)


async def test_volumes_of_the_machine(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        claim = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data", "namespace": "default"},
            "spec": {"volumeName": "pv-1"},
            "status": {"phase": "Bound"},
        }
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": "pv-1"},
            "spec": {"local": {"path": "/srv/pv-1"}, "claimRef": {"uid": "uid-data"}},
        }
        node.objects.put(volume)
        node.objects.put(claim)
        volumes = [
            {"name": "disk", "emptyDir": {}},
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "host", "hostPath": {"path": "/srv/x", "type": "DirectoryOrCreate"}},
            {"name": "claim", "persistentVolumeClaim": {"claimName": "data", "readOnly": True}},
        ]
        mounts = [{"name": v["name"], "mountPath": f"/m/{v['name']}"} for v in volumes]
        mounts.append({"name": "disk", "mountPath": "/m/part", "subPathExpr": "$(WHO)/x"})
        mounts.append({"name": "claim", "mountPath": "/m/held", "subPath": "inner"})
        main = container(volumeMounts=mounts, env=[{"name": "WHO", "value": "me"}])
        context = {"fsGroup": 77}
        node.objects.put(pod("web", main, volumes=volumes, securityContext=context))
        await node.until(lambda: node.phase("web") == "Running")
        disk = mounted(node, "main", "/m/disk")
        assert (disk.stat().st_mode & 0o7777, disk.stat().st_gid) == (0o2777, 77)
        assert mounted(node, "main", "/m/part") == disk / "me" / "x"
        by_target = {m.target: m for m in spec_of(node, "main").mounts}
        assert by_target["/m/host"].create and not by_target["/m/claim"].create
        assert by_target["/m/claim"].readonly
        assert by_target["/m/claim"].source == "/srv/pv-1"
        assert by_target["/m/held"].source.endswith("volumes/pv-uid-pv-1/inner")
        memory = node.volumes.volumes["pod-uid-web-memory"]
        assert dict(memory.options)["o"] == "mode=2777,size=1048576,gid=77"
        node.objects.delete("Pod", "web", grace=1)
        await node.until(lambda: node.objects.pod("web") is None)
        assert not disk.exists() and not node.volumes.volumes and not node.volumes.published


async def test_images_are_pulled_with_the_pods_credentials(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        node.images.remote["registry.local/team/app:2"] = ImageConfig(cmd=("x",))
        auths = {"registry.local/team": {"auth": base64.b64encode(b"me:word").decode()}}
        config = json.dumps({"auths": auths | {"other.local": {"username": "no"}}})
        node.objects.put(
            secret("pull", "kubernetes.io/dockerconfigjson", __dockerconfigjson=config)
        )
        main = container(image="registry.local/team/app:2")
        node.objects.put(pod("web", main, imagePullSecrets=[{"name": "pull"}]))
        await node.until(lambda: node.phase("web") == "Running")
        (request,) = node.images.pulls
        assert (request.credentials.username, request.credentials.password) == ("me", "word")
        await node.until(lambda: node.reasons()[:2] == ["Pulling", "Pulled"])


async def test_an_image_that_is_nowhere_backs_off(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        node.objects.put(pod("web", container(image="nowhere:1")))
        await node.until(lambda: node.container("web", "main"))
        state = node.container("web", "main")["state"]["waiting"]
        assert state["reason"] == "ErrImagePull"
        assert state["message"] == "manifest for nowhere:1 not found"
        node.objects.put(pod("never", container(image="nowhere:1", imagePullPolicy="Never")))
        await node.until(lambda: node.container("never", "main"))
        assert node.container("never", "main")["state"]["waiting"]["reason"] == "ErrImageNeverPull"


async def test_a_program_that_is_not_there_counts_as_a_crash(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        node.runtime.refuse["main"] = NotFound('exec: "nope": executable file not found in $PATH')
        node.objects.put(pod())
        await node.until(
            lambda: (
                node.container("web", "main").get("restartCount", 0) == 1
                and node.container("web", "main")["state"].get("waiting")
            )
        )
        state = node.container("web", "main")
        assert state["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        last = state["lastState"]["terminated"]
        assert (last["exitCode"], last["reason"]) == (128, "StartError")
        assert "executable file not found" in last["message"]


async def test_a_failing_liveness_probe_restarts(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        probe = {"exec": {"command": ["check"]}, "periodSeconds": 1, "failureThreshold": 1}
        node.runtime.exec_codes[("check",)] = 1
        node.objects.put(pod("web", container(livenessProbe=probe)))
        await node.until(lambda: node.container("web", "main").get("restartCount", 0) >= 1)
        await node.until(lambda: "Unhealthy" in node.reasons() and "Killing" in node.reasons())
        killing = next(e for e in node.objects.events if e["reason"] == "Killing")
        assert killing["message"] == "Container main failed liveness probe, will be restarted"


async def test_readiness_by_http_and_startup_before_it(tmp_path: Path) -> None:
    answers = [500, 200]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        code = answers[0] if len(answers) == 1 else answers.pop(0)
        writer.write(f"HTTP/1.1 {code} X\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, lab(tmp_path) as node:
        get = {"host": "127.0.0.1", "path": "/ok", "port": "web"}
        probe = {"httpGet": get, "periodSeconds": 1}
        main = container(
            readinessProbe=probe,
            startupProbe={"exec": {"command": ["begun"]}, "periodSeconds": 1},
            ports=[{"name": "web", "containerPort": port}],
        )
        node.runtime.exec_codes[("begun",)] = 1
        node.objects.put(pod("web", main))
        await node.until(lambda: node.phase("web") == "Running")
        assert not node.container("web", "main")["started"]
        assert not node.container("web", "main")["ready"]
        assert answers == [500, 200]
        node.runtime.exec_codes[("begun",)] = 0
        await node.until(lambda: node.container("web", "main")["ready"])
        assert node.condition("web", "Ready")["status"] == "True"


async def test_hooks_run_after_the_start_and_before_the_stop(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        hooks = {
            "postStart": {"exec": {"command": ["hello"]}},
            "preStop": {"exec": {"command": ["bye"]}},
        }
        node.objects.put(pod("web", container(lifecycle=hooks)))
        await node.until(lambda: node.container("web", "main").get("ready"))
        assert node.runtime.execs == [("hello",)]
        node.objects.delete("Pod", "web", grace=30)
        await node.until(lambda: node.objects.pod("web") is None)
        assert node.runtime.execs == [("hello",), ("bye",)]


async def test_a_failing_post_start_hook_kills_the_container(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        node.runtime.exec_codes[("hello",)] = 1
        hooks = {"postStart": {"exec": {"command": ["hello"]}}}
        node.objects.put(pod("web", container(lifecycle=hooks)))
        await node.until(lambda: node.container("web", "main").get("restartCount", 0) >= 1)
        await node.until(lambda: "FailedPostStartHook" in node.reasons())


async def test_readiness_gates_hold_the_pod(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        node.objects.put(pod(readinessGates=[{"conditionType": "example.com/in"}]))
        await node.until(lambda: node.phase("web") == "Running")
        assert node.condition("web", "Ready")["reason"] == "ReadinessGatesNotReady"
        document = json.loads(json.dumps(node.objects.pod("web")))
        document["status"]["conditions"].append({"type": "example.com/in", "status": "True"})
        node.objects.put(document)
        await node.until(lambda: node.condition("web", "Ready")["status"] == "True")
        assert node.condition("web", "example.com/in")["status"] == "True"


async def test_an_ephemeral_container_joins_a_running_pod(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        node.objects.put(pod())
        await node.until(lambda: node.phase("web") == "Running")
        document = json.loads(json.dumps(node.objects.pod("web")))
        document["spec"]["ephemeralContainers"] = [
            container("debugger", targetContainerName="main", stdin=True, tty=True)
        ]
        node.objects.put(document)
        await node.until(lambda: node.container("web", "debugger").get("state", {}).get("running"))
        spec = spec_of(node, "debugger")
        assert spec.pid_mode == f"container:{spec_of(node, 'main').id}"
        assert spec.command.tty and spec.command.stdin
        node.runtime.end("debugger")
        await node.until(lambda: node.container("web", "debugger")["state"].get("terminated"))
        assert node.runtime.started.count("debugger") == 1


async def test_resources_are_changed_in_place(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        main = container(resources={"limits": {"memory": "64Mi", "cpu": "500m"}})
        node.objects.put(pod("web", main))
        await node.until(lambda: node.phase("web") == "Running")
        limits = spec_of(node, "main").limits
        assert (limits.memory, limits.cpu_quota, limits.cpu_period) == (64 << 20, 50000, 100000)
        document = json.loads(json.dumps(node.objects.pod("web")))
        document["spec"]["containers"][0]["resources"]["limits"]["memory"] = "128Mi"
        node.objects.put(document)
        await node.until(lambda: node.runtime.updates)
        assert node.runtime.updates[0].limits.memory == 128 << 20
        assert node.container("web", "main")["restartCount"] == 0


async def test_a_changed_image_replaces_the_container(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        node.images.here["busybox:2"] = ImageConfig(cmd=("sh",))
        node.objects.put(pod())
        await node.until(lambda: node.phase("web") == "Running")
        document = json.loads(json.dumps(node.objects.pod("web")))
        document["spec"]["containers"][0]["image"] = "busybox:2"
        node.objects.put(document)
        await node.until(lambda: node.container("web", "main")["restartCount"] == 1)
        assert spec_of(node, "main").image == "busybox:2"


async def test_host_network_and_published_ports(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        node.objects.put(pod("own", hostNetwork=True, hostPID=True))
        await node.until(lambda: node.phase("own") == "Running")
        assert node.status("own")["podIP"] == "192.168.7.1"
        assert spec_of(node, "main").pid_mode == "host"
        main = container("ported", ports=[{"containerPort": 80, "hostPort": 8080}])
        node.objects.put(pod("web", main, hostname="name", subdomain="sub"))
        await node.until(lambda: node.phase("web") == "Running")
        request = list(node.networks.requests.values())[-1]
        (port,) = request.ports
        assert (port.container_port, port.host_port, port.protocol) == (80, 8080, "tcp")
        box = next(r.spec for r in node.registry.sandboxes.values() if r.spec.hostname == "name")
        assert box.domainname == "sub.default.svc.cluster.local"


async def test_a_pod_that_broke_its_objects_watch_goes_on(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        node.objects.put(pod())
        await node.until(lambda: node.phase("web") == "Running")
        node.objects.break_watches()
        node.objects.delete("Pod", "web")
        await node.until(lambda: not node.registry.sandboxes)
        assert node.runtime.running() == []


async def test_root_is_refused_where_it_must_not_be(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        node.objects.put(pod("web", container(securityContext={"runAsNonRoot": True})))
        await node.until(lambda: node.container("web", "main"))
        state = node.container("web", "main")["state"]["waiting"]
        assert state["reason"] == "CreateContainerConfigError"
        assert "image will run as root" in state["message"]


async def test_what_a_claim_holds_outlives_pods_and_goes_with_its_volume(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        csi = {"driver": "local.sagong.io", "volumeHandle": "pvc-1", "volumeAttributes": {"o": ""}}
        spec = {"csi": csi, "claimRef": {"uid": "uid-data"}}
        spec["persistentVolumeReclaimPolicy"] = "Delete"
        node.objects.put({"kind": "PersistentVolume", "metadata": {"name": "pv"}, "spec": spec})
        node.objects.put(
            {
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": "data", "namespace": "default"},
                "spec": {"volumeName": "pv"},
                "status": {"phase": "Bound"},
            }
        )
        volume = {"name": "v", "persistentVolumeClaim": {"claimName": "data"}}
        mount = {"name": "v", "mountPath": "/v"}
        node.objects.put(pod("web", container(volumeMounts=[mount]), volumes=[volume]))
        await node.until(lambda: node.phase("web") == "Running")
        key = ("v1/persistentvolumes", "", "pv")
        mark = "node-1.node.sagong.io/volume"
        assert node.objects.objects[key]["metadata"]["finalizers"] == [mark]
        node.objects.delete("Pod", "web", grace=1)
        await node.until(lambda: node.objects.pod("web") is None)
        assert "pvc-1" in node.volumes.volumes
        node.objects.delete("PersistentVolume", "pv", namespace="", grace=1)
        await node.until(lambda: not node.objects.objects[key]["metadata"].get("finalizers"))
        assert "pvc-1" not in node.volumes.volumes


async def test_what_comes_from_the_api_is_in_memory_unless_it_is_large(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        metadata = {"namespace": "default"}
        small = {"kind": "Secret", "metadata": {**metadata, "name": "small"}, "data": {"a": "YQ=="}}
        large = {"kind": "ConfigMap", "metadata": {**metadata, "name": "large"}}
        node.objects.put(small)
        node.objects.put({**large, "data": {"a": "x" * (256 << 10)}})
        volumes = [
            {"name": "s", "secret": {"secretName": "small"}},
            {"name": "l", "configMap": {"name": "large"}},
        ]
        mounts = [{"name": name, "mountPath": f"/{name}"} for name in "sl"]
        node.objects.put(pod("web", container(volumeMounts=mounts), volumes=volumes))
        await node.until(lambda: node.phase("web") == "Running")
        disk, memory = tmp_path / "data" / "pods", tmp_path / "run" / "pods"
        assert (memory / "uid-web" / "s" / "a").read_text() == "a"
        assert (disk / "uid-web" / "volumes" / "l" / "a").is_file()
        assert memory.stat().st_mode & 0o777 == 0o700
        assert not (disk / "uid-web" / "volumes" / "s").exists()
        # What has grown stays where containers see it.
        small["data"] = {"a": "YWFh" * (64 << 10)}
        node.objects.put(small)
        await node.until(lambda: (memory / "uid-web" / "s" / "a").stat().st_size > 128 << 10)
        node.objects.delete("Pod", "web", grace=1)
        await node.until(lambda: node.objects.pod("web") is None)
        assert not (memory / "uid-web").exists() and not (disk / "uid-web").exists()
