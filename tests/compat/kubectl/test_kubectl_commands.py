"""The commands that people type: kubectl 1.32 against the API server, as it comes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from typing import Any

from tests.conformance.fake_state import FakeState
from tests.unit.kube.kube_lab import Lab, kubectl_path, lab


@contextlib.asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[Lab]:
    async with lab(FakeState(), **settings) as made:
        yield made


def deployment(replicas: int = 2) -> str:
    labels = {"app": "web"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "c", "image": "nginx", "ports": [{"containerPort": 80}]}]},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return json.dumps(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}
    )


async def test_version_and_discovery() -> None:
    async with served() as at:
        assert "+sagong" in await at.kubectl("version")
        resources = await at.kubectl("api-resources")
        assert "deployments" in resources
        assert "horizontalpodautoscalers" in resources
        assert "apps/v1" in await at.kubectl("api-versions")
        assert "is running at" in await at.kubectl("cluster-info")


async def test_creating_with_generators() -> None:
    """Many of these send protobuf."""
    async with served() as at:
        commands = (
            "create namespace other",
            "create configmap c --from-literal=a=b",
            "create secret generic s --from-literal=a=b",
            "create serviceaccount robot",
            "create deployment d --image=nginx --replicas=2",
            "create service clusterip s1 --tcp=80:8080",
            "create service nodeport s2 --tcp=80",
            "create job j --image=busybox -- true",
            "create cronjob cj --image=busybox --schedule=0/5****" + " -- true",
            "create role r --verb=get --resource=pods",
            "create rolebinding rb --role=r --serviceaccount=default:robot",
            "create clusterrole cr --verb=list --resource=nodes",
            "create quota q --hard=pods=10",
            "create priorityclass high --value=1000",
            "create poddisruptionbudget b --selector=app=d --min-available=1",
            "create ingress i --rule=example.com/=s1:80",
            "run p --image=busybox --labels=app=p",
            "expose pod p --port=80",
            "autoscale deployment d --max=5",
        )
        for command in commands:
            words = command.replace("0/5****", "0/5 * * * *").split(" ")
            if "cronjob" in words:
                words = command.split(" ")
                words[words.index("--schedule=0/5****")] = "--schedule=0/5 * * * *"
            said = await at.kubectl(*words)
            assert "created" in said or "exposed" in said or "autoscaled" in said, said
        listed = await at.kubectl("get", "all")
        for name in ("pod/p", "service/s1", "deployment.apps/d", "job.batch/j", "cronjob.batch/cj"):
            assert name in listed


async def test_apply_twice_then_change_then_delete() -> None:
    async with served() as at:
        assert "created" in await at.kubectl("apply", "-f", "-", stdin=deployment())
        assert "unchanged" in await at.kubectl("apply", "-f", "-", stdin=deployment())
        assert "configured" in await at.kubectl("apply", "-f", "-", stdin=deployment(5))
        replicas = await at.kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}")
        assert replicas == "5"
        assert "scaled" in await at.kubectl("scale", "deploy/web", "--replicas=3")
        assert "image updated" in await at.kubectl("set", "image", "deploy/web", "c=nginx:2")
        assert "patched" in await at.kubectl(
            "patch",
            "deploy",
            "web",
            "-p",
            '{"spec":{"template":{"spec":{"containers":'
            '[{"name":"c","env":[{"name":"A","value":"1"}]}]}}}}',
        )
        image = "jsonpath={.spec.template.spec.containers[0].image}"
        assert await at.kubectl("get", "deploy", "web", "-o", image) == "nginx:2"
        assert "restarted" in await at.kubectl("rollout", "restart", "deploy/web")
        assert "deleted" in await at.kubectl("delete", "-f", "-", stdin=deployment())
        gone = await at.kubectl("get", "deploy", "web", code=1)
        assert 'deployments.apps "web" not found' in gone


async def test_server_side_apply_conflicts_until_forced() -> None:
    async with served() as at:
        apply = ("apply", "--server-side", "-f", "-")
        create = ("create", "deploy", "web", "--image=nginx", "--dry-run=client", "-o", "yaml")
        # It says `creationTimestamp: null` of the template: that is nobody's.
        first = await at.kubectl(*create)
        assert "creationTimestamp: null" in first
        assert "serverside-applied" in await at.kubectl(*apply, stdin=first)
        other = await at.kubectl(
            *apply, "--field-manager=other", stdin=await at.kubectl(*create, "--replicas=9"), code=1
        )
        assert "Apply failed with 1 conflict" in other
        assert ".spec.replicas" in other
        forced = (*apply, "--field-manager=other", "--force-conflicts")
        await at.kubectl(*forced, stdin=deployment(9))
        replicas = await at.kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}")
        assert replicas == "9"


async def test_label_annotate_and_edit_by_json_patch() -> None:
    async with served() as at:
        await at.kubectl("run", "p", "--image=busybox")
        assert "labeled" in await at.kubectl("label", "pod", "p", "a=b")
        assert "annotated" in await at.kubectl("annotate", "pod", "p", "note=x")
        assert "p" in await at.kubectl("get", "pods", "-l", "a=b", "-o", "name")
        patch = '[{"op":"replace","path":"/metadata/labels/a","value":"c"}]'
        await at.kubectl("patch", "pod", "p", "--type=json", "-p", patch)
        assert "a=c" in await at.kubectl("get", "pod", "p", "--show-labels")


async def test_wrong_objects_are_refused_in_upstreams_words() -> None:
    async with served() as at:
        odd = json.loads(deployment())
        odd["spec"]["replica"] = 1
        said = await at.kubectl("create", "-f", "-", stdin=json.dumps(odd), code=1)
        assert 'unknown field "spec.replica"' in said
        odd = json.loads(deployment())
        odd["spec"]["template"]["metadata"]["labels"] = {"app": "other"}
        said = await at.kubectl("create", "-f", "-", stdin=json.dumps(odd), code=1)
        assert "`selector` does not match template `labels`" in said


async def test_who_and_what() -> None:
    async with served() as at:
        assert "admin" in await at.kubectl("auth", "whoami")
        assert "yes" in await at.kubectl("auth", "can-i", "create", "pods")
        await at.kubectl("create", "serviceaccount", "robot")
        token = (await at.kubectl("create", "token", "robot")).strip()
        assert token.count(".") == 2
        refused = await at.kubectl(
            "get", "pods", "--as=system:serviceaccount:default:robot", code=1
        )
        assert 'User "system:serviceaccount:default:robot" cannot list resource "pods"' in refused


async def test_describe_and_wait_and_events() -> None:
    async with served() as at:
        await at.kubectl("run", "p", "--image=busybox")
        described = await at.kubectl("describe", "pod", "p")
        assert "busybox" in described
        assert "Pending" in described
        await at.kubectl("wait", "--for=jsonpath={.status.phase}=Pending", "pod/p", "--timeout=10s")
        late = await at.kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=1s", code=1)
        assert "timed out" in late
        assert "No resources found" in await at.kubectl("get", "events", code=None)


async def test_watching_shows_changes_as_they_come() -> None:
    async with served() as at:
        process = await asyncio.create_subprocess_exec(
            kubectl_path(),
            "get",
            "pods",
            "--watch",
            "-o",
            "name",
            env={**os.environ, "KUBECONFIG": str(at.kubeconfig), "HOME": str(at.host.run)},
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            await asyncio.sleep(0.3)
            for name in ("a", "b"):
                await at.kubectl("run", name, "--image=busybox")
                line = await asyncio.wait_for(process.stdout.readline(), 60)
                assert line == f"pod/{name}\n".encode()
        finally:
            process.kill()
            await process.wait()


async def test_namespaces_and_deletion_in_cascade() -> None:
    async with served() as at:
        await at.kubectl("create", "ns", "x")
        await at.kubectl("delete", "ns", "x", "--wait=false")
        assert "Terminating" in await at.kubectl("get", "ns", "x")
        await at.kubectl("create", "configmap", "c")
        held = await at.kubectl("delete", "cm", "c", "--cascade=foreground", "--wait=false")
        assert "deleted" in held
        finalizers = await at.kubectl("get", "cm", "c", "-o", "jsonpath={.metadata.finalizers}")
        assert finalizers == '["foregroundDeletion"]'


async def test_dry_run_and_diff() -> None:
    async with served() as at:
        await at.kubectl("apply", "--dry-run=server", "-f", "-", stdin=deployment())
        await at.kubectl("get", "deploy", "web", code=1)
        await at.kubectl("apply", "-f", "-", stdin=deployment())
        changed = await at.kubectl("diff", "-f", "-", stdin=deployment(7), code=1)
        assert "replicas: 7" in changed


async def test_big_lists_come_in_chunks() -> None:
    async with served() as at:
        for number in range(12):
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"c{number:02}"}}
            await at.ask("POST", "/api/v1/namespaces/default/configmaps", body, status=201)
        listed = await at.kubectl("get", "cm", "--chunk-size=5", "-o", "name")
        assert listed.count("configmap/c") == 12
