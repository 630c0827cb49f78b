"""A pod in real containers, with small fakes of the API server and the image store."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.conformance.runtime_rig import BUSYBOX, Rig, rig
from tests.unit.node_pods.pod_lab import FakeImages, FakeNetworks, Lab, container, pod

from sagong.contracts.image import Prepared, PrepareRequest
from sagong.contracts.network import JoinRequest, Sandbox
from sagong.contracts.runtime import ContainerRef, Exited, Mount

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox, static"),
]


class BoundImages(FakeImages):
    """The root filesystem of every container is the same directory, with a layer of its own."""

    def __init__(self, directory: Path, rootfs: Path) -> None:
        super().__init__(directory)
        self._rootfs = rootfs

    async def prepare(self, request: PrepareRequest) -> Prepared:
        prepared = await super().prepare(request)
        layer = self._directory / "layers" / request.id
        for part in ("upper", "work"):
            (layer / part).mkdir(parents=True, exist_ok=True)
        options = (f"lowerdir={self._rootfs}", f"upperdir={layer}/upper", f"workdir={layer}/work")
        root = Mount(target="/", kind="overlay", source="overlay", options=options)
        return msgspec.structs.replace(prepared, root=root)


class Unconnected(FakeNetworks):
    """Sandboxes with a loopback device alone."""

    async def join(self, request: JoinRequest) -> Sandbox:
        joined = await super().join(request)
        self.joined[request.id] = msgspec.structs.replace(joined, path="")
        return self.joined[request.id]


@asynccontextmanager
async def machine(tmp_path: Path) -> AsyncIterator[tuple[Lab, Rig]]:
    """A node over a real runtime."""
    async with rig() as made:
        node = Lab(made.base / "node")
        node.images = BoundImages(made.base / "node", made.rootfs)
        node.networks = Unconnected()
        assert made.runtime is not None and made.host is not None
        node.runtime = made.runtime  # type: ignore[assignment]
        await node.start()
        seen = 0

        async def deliver() -> None:
            nonlocal seen
            while True:
                for event in made.events[seen:]:
                    seen += 1
                    if isinstance(event, Exited):
                        node.life.finish(event)
                await asyncio.sleep(0.005)

        delivering = asyncio.get_running_loop().create_task(deliver())
        try:
            yield node, made
        finally:
            delivering.cancel()
            with suppress(asyncio.CancelledError):
                await delivering
            await node.stop()
            for id_ in [c.id for c in (await made.runtime.list()).containers]:
                await made.runtime.remove(ContainerRef(id=id_))


def shell(name: str, script: str, **fields: Any) -> dict[str, Any]:
    """A container that runs a script."""
    return container(name, command=["/bin/sh", "-c", script], **fields)


async def test_a_pod_in_real_containers(tmp_path: Path) -> None:
    async with machine(tmp_path) as (node, _):
        node.objects.put(
            {
                "kind": "ConfigMap",
                "metadata": {"name": "settings", "namespace": "default"},
                "data": {"colour": "blue"},
            }
        )
        volumes = [
            {"name": "conf", "configMap": {"name": "settings"}},
            {"name": "work", "emptyDir": {}},
        ]
        work = {"name": "work", "mountPath": "/work"}
        first = shell("first", "echo made > /work/file; hostname > /work/name", volumeMounts=[work])
        main = shell(
            "main",
            "trap 'echo bye > /dev/termination-log; exit 7' TERM; cat /etc/resolv.conf; "
            "echo $COLOUR $(cat /conf/colour) $(cat /work/file) $(cat /work/name) $(id -u):$(id -g) "
            "$(id -G); touch /work/ready; while true; do sleep 0.05; done",
            env=[
                {
                    "name": "COLOUR",
                    "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}},
                }
            ],
            volumeMounts=[work, {"name": "conf", "mountPath": "/conf"}],
            readinessProbe={"exec": {"command": ["/bin/ls", "/work/ready"]}, "periodSeconds": 1},
            securityContext={"runAsUser": 1000, "runAsGroup": 1001},
        )
        node.objects.put(
            pod(
                "web",
                main,
                initContainers=[first],
                volumes=volumes,
                securityContext={"fsGroup": 2000},
                restartPolicy="Never",
            )
        )
        await node.until(lambda: node.container("web", "main").get("ready"), "ready")
        log = next((node.directory / "data" / "logs").glob("default_web_*/main/0.log"))
        await node.until(lambda: "blue blue" in log.read_text(), "its log")
        lines = [line.split(" ", 3) for line in log.read_text().splitlines()]
        assert [line[1:3] for line in lines] == [["stdout", "F"]] * len(lines)
        said = [line[3] for line in lines]
        assert said[-1] == "blue blue made web 1000:1001 1001 2000"
        assert "nameserver 10.96.0.10" in said
        node.objects.delete("Pod", "web", grace=10)
        await node.until(lambda: node.objects.pod("web") is None, "deleted")
        ended = node.objects.status_writes[-1]["containerStatuses"][0]["state"]["terminated"]
        assert (ended["exitCode"], ended["message"]) == (7, "bye\n")
        assert os.listdir(node.directory / "data" / "pods") == []
        assert os.listdir(node.directory / "data" / "logs") == []


async def test_a_hung_probe_is_killed_and_the_container_restarted(tmp_path: Path) -> None:
    async with machine(tmp_path) as (node, _):
        probe = {
            "exec": {"command": ["/bin/sleep", "100"]},
            "periodSeconds": 1,
            "failureThreshold": 1,
        }
        main = shell("main", "exec sleep 100", livenessProbe=probe)
        node.objects.put(pod("web", main, terminationGracePeriodSeconds=0))
        await node.until(lambda: node.container("web", "main").get("restartCount", 0) >= 1)
        await node.until(lambda: "Unhealthy" in node.reasons())
        event = next(e for e in node.objects.events if e["reason"] == "Unhealthy")
        assert "timed out after 1s" in event["message"]


async def test_containers_of_a_pod_share_what_they_should(tmp_path: Path) -> None:
    async with machine(tmp_path) as (node, _):
        one = shell(
            "one", "sleep 1000 & echo one | tee /dev/shm/of-one > /dev/termination-log; wait"
        )
        see = "ps | grep -c 'sleep 1000'; cat /dev/shm/of-one"
        wait = "until grep -qs one /dev/shm/of-one; do sleep 0.05; done"
        two = shell("two", f"{wait}; ({see}) > /dev/termination-log; hostname")
        node.objects.put(pod("web", one, two, shareProcessNamespace=True, restartPolicy="Never"))
        await node.until(lambda: node.container("web", "two").get("state", {}).get("terminated"))
        ended = node.container("web", "two")["state"]["terminated"]
        assert ended["exitCode"] == 0
        processes, said = ended["message"].splitlines()
        assert int(processes) >= 1
        assert said == "one"
        assert node.phase("web") == "Running"


async def test_a_guaranteed_pod_runs_where_nobody_may_be_spared(tmp_path: Path) -> None:
    """Its score, -997, takes CAP_SYS_RESOURCE; without it the pod's containers failed."""
    async with machine(tmp_path) as (node, _):
        resources = {"limits": {"cpu": "1", "memory": "64Mi"}}
        main = shell("main", "exit 0", resources=resources)
        node.objects.put(pod(containers=[main], restartPolicy="Never"))
        await node.until(lambda: node.phase("web") == "Succeeded", "its end")
