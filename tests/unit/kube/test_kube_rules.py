"""What the server itself does to objects: deletion, admission, allocation, subresources."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tests.conformance.fake_state import FakeState
from tests.unit.kube.kube_lab import Lab, lab

from sagong.contracts.auth import Identity
from sagong_kube.bootstrap.start import offer_storage

DEFAULT = "/api/v1/namespaces/default"
PODS = f"{DEFAULT}/pods"
SERVICES = f"{DEFAULT}/services"
MAPS = f"{DEFAULT}/configmaps"


@contextlib.asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[Lab]:
    async with lab(FakeState(), **settings) as made:
        yield made


def pod(name: str = "p", *, spec: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **metadata},
        "spec": {"containers": [{"name": "c", "image": "busybox"}], **(spec or {})},
    }


def named(kind: str, name: str, api_version: str = "v1", **parts: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, **parts}


def service(name: str, **spec: Any) -> dict[str, Any]:
    ports = spec.pop("ports", [{"port": 80}])
    return named("Service", name, spec={"ports": ports, **spec})


# Deletion


async def test_scheduled_pods_end_gracefully() -> None:
    async with served() as at:
        await at.ask("POST", PODS, pod(spec={"nodeName": "n"}), status=201)
        marked = (await at.ask("DELETE", f"{PODS}/p", status=200)).json["metadata"]
        assert marked["deletionGracePeriodSeconds"] == 30
        assert marked["deletionTimestamp"]
        options = {"gracePeriodSeconds": 5}
        shorter = (await at.ask("DELETE", f"{PODS}/p", options, status=200)).json["metadata"]
        assert shorter["deletionGracePeriodSeconds"] == 5
        await at.ask("DELETE", f"{PODS}/p", {"gracePeriodSeconds": 0}, status=200)
        await at.ask("GET", f"{PODS}/p", status=404)


async def test_unscheduled_pods_go_at_once() -> None:
    async with served() as at:
        await at.ask("POST", PODS, pod(), status=201)
        gone = (await at.ask("DELETE", f"{PODS}/p", status=200)).json
        assert gone["kind"] == "Pod"
        await at.ask("GET", f"{PODS}/p", status=404)


async def test_finalizers_keep_until_the_last_is_taken_away() -> None:
    async with served() as at:
        body = named("ConfigMap", "m")
        body["metadata"]["finalizers"] = ["example.com/hold"]
        await at.ask("POST", MAPS, body, status=201)
        held = (await at.ask("DELETE", f"{MAPS}/m", status=200)).json
        assert held["metadata"]["deletionTimestamp"]
        held["metadata"]["finalizers"].append("example.com/more")
        refused = await at.ask("PUT", f"{MAPS}/m", held, status=422)
        assert "no new finalizers can be added" in refused.json["message"]
        held["metadata"]["finalizers"] = []
        await at.ask("PUT", f"{MAPS}/m", held, status=200)
        await at.ask("GET", f"{MAPS}/m", status=404)


async def test_propagation_becomes_finalizers() -> None:
    async with served() as at:
        for name, policy, finalizer in (
            ("f", "Foreground", "foregroundDeletion"),
            ("o", "Orphan", "orphan"),
        ):
            await at.ask("POST", MAPS, named("ConfigMap", name), status=201)
            options = {"propagationPolicy": policy}
            held = (await at.ask("DELETE", f"{MAPS}/{name}", options, status=200)).json
            assert held["metadata"]["finalizers"] == [finalizer]
        await at.ask("POST", MAPS, named("ConfigMap", "b"), status=201)
        await at.ask("DELETE", f"{MAPS}/b", {"propagationPolicy": "Background"}, status=200)
        await at.ask("GET", f"{MAPS}/b", status=404)
        await at.ask("POST", MAPS, named("ConfigMap", "x"), status=201)
        await at.ask("DELETE", f"{MAPS}/x", {"propagationPolicy": "Sideways"}, status=400)


async def test_preconditions_guard_deletion() -> None:
    async with served() as at:
        await at.ask("POST", MAPS, named("ConfigMap", "m"), status=201)
        wrong = {"preconditions": {"uid": "other"}}
        refused = await at.ask("DELETE", f"{MAPS}/m", wrong, status=409)
        assert "UID in precondition: other" in refused.json["message"]


async def test_namespaces_end_when_finalized() -> None:
    async with served() as at:
        await at.ask("POST", "/api/v1/namespaces", named("Namespace", "n"), status=201)
        ending = (await at.ask("DELETE", "/api/v1/namespaces/n", status=200)).json
        assert ending["status"]["phase"] == "Terminating"
        late = await at.ask(
            "POST", "/api/v1/namespaces/n/configmaps", named("ConfigMap", "m"), status=403
        )
        assert "because it is being terminated" in late.json["message"]
        assert late.json["details"]["causes"][0]["reason"] == "NamespaceTerminating"
        ending["spec"]["finalizers"] = []
        await at.ask("PUT", "/api/v1/namespaces/n/finalize", ending, status=200)
        await at.ask("GET", "/api/v1/namespaces/n", status=404)
        kept = await at.ask("DELETE", "/api/v1/namespaces/default", status=403)
        assert "may not be deleted" in kept.json["message"]


# Admission


async def test_pods_get_account_token_priority_and_tolerations() -> None:
    async with served() as at:
        made = (await at.ask("POST", PODS, pod(), status=201)).json
        spec = made["spec"]
        assert spec["serviceAccountName"] == "default"
        (volume,) = spec["volumes"]
        assert volume["name"].startswith("kube-api-access-")
        token = volume["projected"]["sources"][0]["serviceAccountToken"]
        assert token["expirationSeconds"] == 3607
        assert spec["priority"] == 0
        assert {t["tolerationSeconds"] for t in spec["tolerations"]} == {300}
        assert made["status"] == {"phase": "Pending", "qosClass": "BestEffort"}
        critical = pod("q", spec={"priorityClassName": "system-node-critical"})
        spec = (await at.ask("POST", PODS, critical, status=201)).json["spec"]
        assert spec["priority"] == 2000001000
        for body, said in (
            (pod("r", spec={"priorityClassName": "none"}), "no PriorityClass with name none"),
            (pod("r", spec={"serviceAccountName": "none"}), 'serviceaccount "none" not found'),
            (pod("r", spec={"runtimeClassName": "none"}), 'RuntimeClass "none" not found'),
        ):
            refused = await at.ask("POST", PODS, body, status=403)
            assert said in refused.json["message"]


async def test_limit_ranges_default_and_bound() -> None:
    async with served() as at:
        limits = [
            {
                "type": "Container",
                "default": {"cpu": "200m"},
                "defaultRequest": {"cpu": "100m"},
                "max": {"cpu": "1"},
            }
        ]
        body = named("LimitRange", "l", spec={"limits": limits})
        await at.ask("POST", f"{DEFAULT}/limitranges", body, status=201)
        made = (await at.ask("POST", PODS, pod(), status=201)).json
        resources = made["spec"]["containers"][0]["resources"]
        assert resources == {"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}}
        big = pod("big")
        big["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "2"}}
        refused = await at.ask("POST", PODS, big, status=403)
        assert "maximum cpu usage per Container is 1, but limit is 2" in refused.json["message"]


async def test_quotas_are_not_overdrawn_by_a_crowd() -> None:
    async with served() as at:
        body = named("ResourceQuota", "q", spec={"hard": {"pods": "3", "count/secrets": "1"}})
        await at.ask("POST", f"{DEFAULT}/resourcequotas", body, status=201)
        replies = await asyncio.gather(
            *(at.ask("POST", PODS, pod(f"p{number}")) for number in range(8))
        )
        codes = sorted(reply.status for reply in replies)
        assert codes.count(201) == 3
        refused = next(reply.json for reply in replies if reply.status == 403)
        assert (
            "exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3"
            in (refused["message"])
        )
        quota = (await at.ask("GET", f"{DEFAULT}/resourcequotas/q", status=200)).json
        assert quota["status"]["used"]["pods"] == "3"
        await at.ask("DELETE", f"{PODS}/{_one_made(replies)}", status=200)
        await at.ask("POST", PODS, pod("again"), status=201)


def _one_made(replies: list[Any]) -> str:
    made = next(reply.json for reply in replies if reply.status == 201)
    name: str = made["metadata"]["name"]
    return name


async def test_default_classes_are_filled_in() -> None:
    async with served() as at:
        group = "/apis/storage.k8s.io/v1/storageclasses"
        (made,) = (await at.ask("GET", group, status=200)).json["items"]
        assert (made["metadata"]["name"], made["provisioner"]) == ("local", "local.sagong.io")
        claim = named(
            "PersistentVolumeClaim",
            "c",
            spec={
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}},
            },
        )
        made = (await at.ask("POST", f"{DEFAULT}/persistentvolumeclaims", claim, status=201)).json
        assert made["spec"]["storageClassName"] == "local"
        assert made["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
        assert made["status"]["phase"] == "Pending"


async def test_a_default_class_that_was_deleted_stays_away() -> None:
    async with served() as at:
        group = "/apis/storage.k8s.io/v1/storageclasses"
        await at.ask("DELETE", f"{group}/local", status=200)
        assembly = at.kube._assembly
        await offer_storage(assembly.writer, assembly.catalogue, "local")
        assert (await at.ask("GET", group, status=200)).json["items"] == []


async def test_nodes_write_only_their_own() -> None:
    async with served() as at:
        groups = ("system:nodes", "system:authenticated", "system:masters")
        at.auth.users["n1"] = Identity(username="system:node:n1", groups=groups)
        nodes = "/api/v1/nodes"
        await at.ask("POST", nodes, named("Node", "n1"), token="n1", status=201)
        other = await at.ask("POST", nodes, named("Node", "n2"), token="n1", status=403)
        assert 'node "n1" is not allowed to modify node "n2"' in other.json["message"]
        await at.ask("POST", PODS, pod(spec={"nodeName": "n2"}), status=201)
        await at.ask("DELETE", f"{PODS}/p", token="n1", status=403)


# Services


async def test_services_get_addresses_and_ports_that_nobody_else_has() -> None:
    async with served() as at:
        made = await asyncio.gather(
            *(at.ask("POST", SERVICES, service(f"s{n}", type="NodePort")) for n in range(10))
        )
        specs = [reply.json["spec"] for reply in made]
        assert len({spec["clusterIP"] for spec in specs}) == 10
        assert len({spec["ports"][0]["nodePort"] for spec in specs}) == 10
        assert all(30000 <= spec["ports"][0]["nodePort"] <= 32767 for spec in specs)
        assert all(spec["clusterIP"].startswith("10.96.") for spec in specs)


async def test_asked_addresses_are_checked_and_freed() -> None:
    async with served() as at:
        fixed = service("a", clusterIP="10.96.7.7")
        await at.ask("POST", SERVICES, fixed, status=201)
        twice = await at.ask("POST", SERVICES, service("b", clusterIP="10.96.7.7"), status=422)
        assert "provided IP is already allocated" in twice.json["message"]
        outside = await at.ask("POST", SERVICES, service("b", clusterIP="10.1.1.1"), status=422)
        assert "not in the valid range" in outside.json["message"]
        await at.ask("DELETE", f"{SERVICES}/a", status=200)
        await at.ask("POST", SERVICES, service("b", clusterIP="10.96.7.7"), status=201)
        port = [{"port": 80, "nodePort": 40000}]
        bad = await at.ask("POST", SERVICES, service("c", type="NodePort", ports=port), status=422)
        assert "range of valid ports is 30000-32767" in bad.json["message"]


async def test_updates_keep_addresses_and_free_ports() -> None:
    async with served() as at:
        made = (await at.ask("POST", SERVICES, service("s", type="NodePort"), status=201)).json
        number = made["spec"]["ports"][0]["nodePort"]
        plain = service("s", ports=[{"port": 80}])
        plain["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"]
        again = (await at.ask("PUT", f"{SERVICES}/s", plain, status=200)).json
        assert again["spec"]["clusterIP"] == made["spec"]["clusterIP"]
        assert "nodePort" not in again["spec"]["ports"][0]
        taken = service("t", type="NodePort", ports=[{"port": 80, "nodePort": number}])
        await at.ask("POST", SERVICES, taken, status=201)


async def test_headless_services_have_none() -> None:
    async with served() as at:
        made = (await at.ask("POST", SERVICES, service("s", clusterIP="None"), status=201)).json
        assert made["spec"]["clusterIPs"] == ["None"]


async def test_allocations_survive_a_restart() -> None:
    state = FakeState()
    async with lab(state) as at:
        await at.ask("POST", SERVICES, service("a", clusterIP="10.96.7.7"), status=201)
    async with lab(state) as at:
        await at.ask("POST", SERVICES, service("b", clusterIP="10.96.7.7"), status=422)
        kubernetes = (await at.ask("GET", f"{SERVICES}/kubernetes", status=200)).json
        assert kubernetes["spec"]["clusterIP"] == "10.96.0.1"


# Subresources


async def test_status_and_spec_are_written_apart() -> None:
    async with served() as at:
        made = (await at.ask("POST", PODS, pod(), status=201)).json
        made["status"]["phase"] = "Running"
        made["spec"]["containers"][0]["image"] = "other"
        after = (await at.ask("PUT", f"{PODS}/p/status", made, status=200)).json
        assert after["status"]["phase"] == "Running"
        assert after["spec"]["containers"][0]["image"] == "busybox"
        after["status"]["phase"] = "Failed"
        after["spec"]["containers"][0]["image"] = "other"
        last = (await at.ask("PUT", f"{PODS}/p", after, status=200)).json
        assert last["status"]["phase"] == "Running"
        assert last["spec"]["containers"][0]["image"] == "other"


async def test_binding_assigns_once() -> None:
    async with served() as at:
        await at.ask("POST", PODS, pod(), status=201)
        binding = named("Binding", "p", target={"kind": "Node", "name": "n1"})
        await at.ask("POST", f"{PODS}/p/binding", binding, status=201)
        bound = (await at.ask("GET", f"{PODS}/p", status=200)).json
        assert bound["spec"]["nodeName"] == "n1"
        assert bound["status"]["conditions"][0]["type"] == "PodScheduled"
        twice = await at.ask("POST", f"{PODS}/p/binding", binding, status=409)
        assert 'already assigned to node "n1"' in twice.json["message"]


async def test_eviction_respects_budgets() -> None:
    async with served() as at:
        body = pod(spec={"nodeName": "n"}, labels={"app": "x"})
        made = (await at.ask("POST", PODS, body, status=201)).json
        made["status"] = {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        await at.ask("PUT", f"{PODS}/p/status", made, status=200)
        budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
        spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}
        budget = named("PodDisruptionBudget", "b", "policy/v1", spec=spec)
        await at.ask("POST", budgets, budget, status=201)
        eviction = named("Eviction", "p", "policy/v1")
        unready = await at.ask("POST", f"{PODS}/p/eviction", eviction, status=429)
        assert "still being processed" in unready.json["details"]["causes"][0]["message"]
        budget = (await at.ask("GET", f"{budgets}/b", status=200)).json
        numbers = {"currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}
        budget["status"] = {"observedGeneration": 1, "disruptionsAllowed": 0, **numbers}
        budget = (await at.ask("PUT", f"{budgets}/b/status", budget, status=200)).json
        refused = await at.ask("POST", f"{PODS}/p/eviction", eviction, status=429)
        assert "needs 1 healthy pods and has 1" in refused.json["details"]["causes"][0]["message"]
        budget["status"]["disruptionsAllowed"] = 1
        await at.ask("PUT", f"{budgets}/b/status", budget, status=200)
        await at.ask("POST", f"{PODS}/p/eviction", eviction, status=201)
        spent = (await at.ask("GET", f"{budgets}/b", status=200)).json["status"]
        assert spent["disruptionsAllowed"] == 0
        assert list(spent["disruptedPods"]) == ["p"]
        evicted = (await at.ask("GET", f"{PODS}/p", status=200)).json
        assert evicted["metadata"]["deletionTimestamp"]
        types = {condition["type"] for condition in evicted["status"]["conditions"]}
        assert "DisruptionTarget" in types


async def test_scale_shows_and_sets_replicas() -> None:
    async with served() as at:
        group = "/apis/apps/v1/namespaces/default/deployments"
        template = {"metadata": {"labels": {"app": "x"}}, "spec": pod()["spec"]}
        spec = {"replicas": 2, "selector": {"matchLabels": {"app": "x"}}, "template": template}
        await at.ask("POST", group, named("Deployment", "d", "apps/v1", spec=spec), status=201)
        scale = (await at.ask("GET", f"{group}/d/scale", status=200)).json
        assert (scale["kind"], scale["spec"]) == ("Scale", {"replicas": 2})
        assert scale["status"]["selector"] == "app=x"
        scale["spec"]["replicas"] = 5
        await at.ask("PUT", f"{group}/d/scale", scale, status=200)
        stale = await at.ask("PUT", f"{group}/d/scale", scale, status=409)
        assert stale.json["reason"] == "Conflict"
        patch = {"spec": {"replicas": 7}}
        media = "application/merge-patch+json"
        patched = await at.ask("PATCH", f"{group}/d/scale", patch, status=200, Content_Type=media)
        assert patched.json["spec"]["replicas"] == 7
        deployment = (await at.ask("GET", f"{group}/d", status=200)).json
        assert (deployment["spec"]["replicas"], deployment["metadata"]["generation"]) == (7, 3)


async def test_tokens_of_service_accounts_work() -> None:
    async with served() as at:
        accounts = f"{DEFAULT}/serviceaccounts"
        await at.ask("POST", accounts, named("ServiceAccount", "robot"), status=201)
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        made = (await at.ask("POST", f"{accounts}/robot/token", request, status=201)).json
        token = made["status"]["token"]
        review: dict[str, Any] = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token},
        }
        path = "/apis/authentication.k8s.io/v1/tokenreviews"
        status = (await at.ask("POST", path, review, status=201)).json["status"]
        assert status["authenticated"]
        assert status["user"]["username"] == "system:serviceaccount:default:robot"
        request["spec"] = {"expirationSeconds": 5}
        short = await at.ask("POST", f"{accounts}/robot/token", request, status=422)
        assert "less than 10 minutes" in short.json["message"]
        review["spec"]["token"] = "wrong"
        status = (await at.ask("POST", path, review, status=201)).json["status"]
        assert "authenticated" not in status
        assert status["error"]


async def test_access_reviews_ask_the_policy() -> None:
    async with served() as at:
        base = "/apis/authorization.k8s.io/v1"
        attributes = {"verb": "get", "resource": "pods", "namespace": "default"}
        review = named(
            "SelfSubjectAccessReview",
            "",
            "authorization.k8s.io/v1",
            spec={"resourceAttributes": attributes},
        )
        own = await at.ask("POST", f"{base}/selfsubjectaccessreviews", review, status=201)
        assert own.json["status"]["allowed"] is True
        review["kind"] = "SubjectAccessReview"
        review["spec"]["user"] = "joe"
        other = await at.ask("POST", f"{base}/subjectaccessreviews", review, status=201)
        assert other.json["status"]["allowed"] is False
        rules = named("SelfSubjectRulesReview", "", "authorization.k8s.io/v1")
        rules["spec"] = {"namespace": "default"}
        found = await at.ask("POST", f"{base}/selfsubjectrulesreviews", rules, status=201)
        assert found.json["status"]["resourceRules"][0]["verbs"] == ["*"]


async def test_signing_requests_name_who_asks() -> None:
    async with served() as at:
        group = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
        spec = {"request": "LS0t", "signerName": "example.com/signer", "usages": ["client auth"]}
        body = named("CertificateSigningRequest", "c", "certificates.k8s.io/v1", spec=spec)
        reply = await at.ask("POST", group, body)
        if reply.status == 201:
            assert reply.json["spec"]["username"] == "admin"
        else:
            assert reply.status == 422
