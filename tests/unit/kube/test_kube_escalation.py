"""Who may write roles, and bind them: those who have what is granted, or may escalate, or bind."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.conformance.fake_state import FakeState
from tests.unit.kube.kube_lab import Lab, Reply, lab

from sagong.contracts.auth import Identity
from sagong.model.rbac import Rule, missing

RBAC = "/apis/rbac.authorization.k8s.io/v1"
READ = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}
WRITE = {"verbs": ["get", "create"], "apiGroups": [""], "resources": ["pods", "secrets"]}


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[Lab]:
    """Joe may write roles and bindings, and read pods."""
    async with lab(FakeState()) as at:
        at.auth.users["joe"] = Identity(username="joe", groups=("team",))
        for resource in ("roles", "clusterroles", "rolebindings", "clusterrolebindings"):
            for verb in ("create", "update", "patch"):
                at.auth.allowed.add(("joe", verb, resource))
        at.auth.held = [READ]
        yield at


async def write(at: Lab, plural: str, document: dict[str, Any], **more: Any) -> Reply:
    space = "" if plural.startswith("cluster") else "/namespaces/default"
    return await at.ask("POST", f"{RBAC}{space}/{plural}", document, **more)


def role(name: str, *rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "rules": list(rules), **more}


def binding(kind: str, name: str) -> dict[str, Any]:
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
    return {"metadata": {"name": "b"}, "roleRef": reference, "subjects": []}


async def test_a_role_grants_no_more_than_its_writer_has() -> None:
    async with served() as at:
        await write(at, "roles", role("read", READ), token="joe", status=201)
        refused = await write(at, "roles", role("write", WRITE), token="joe", status=403)
        assert refused.json["message"] == (
            'roles.rbac.authorization.k8s.io "write" is forbidden: user "joe" (groups=["team"]) is '
            "attempting to grant RBAC permissions not currently held:\n"
            '{APIGroups:[""], Resources:["pods"], Verbs:["create"]}\n'
            '{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}\n'
            '{APIGroups:[""], Resources:["secrets"], Verbs:["create"]}'
        )
        path = f"{RBAC}/namespaces/default/roles/read"
        patch = {"rules": [WRITE]}
        merge = {"Content_Type": "application/merge-patch+json"}
        await at.ask("PATCH", path, patch, token="joe", status=403, **merge)
        await at.ask("PATCH", path, patch, status=200, **merge)


async def test_who_may_escalate_writes_any_role() -> None:
    async with served() as at:
        at.auth.allowed.add(("joe", "escalate", "roles"))
        await write(at, "roles", role("write", WRITE), token="joe", status=201)
        await write(at, "clusterroles", role("write", WRITE), token="joe", status=403)


async def test_an_aggregation_is_for_those_who_may_do_everything() -> None:
    selectors = {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}
    async with served() as at:
        joined = role("joined", aggregationRule=selectors)
        refused = await write(at, "clusterroles", joined, token="joe", status=403)
        assert '{APIGroups:["*"], Resources:["*"], Verbs:["*"]}' in refused.json["message"]
        await write(at, "clusterroles", joined, status=201)


async def test_a_binding_needs_what_it_grants_or_leave_to_bind() -> None:
    async with served() as at:
        await write(at, "clusterroles", role("read", READ), status=201)
        await write(at, "clusterroles", role("write", WRITE), status=201)
        await write(at, "rolebindings", binding("ClusterRole", "write"), token="joe", status=403)
        await write(at, "rolebindings", binding("ClusterRole", "none"), token="joe", status=404)
        await write(at, "rolebindings", binding("ClusterRole", "read"), token="joe", status=201)
        bound = binding("ClusterRole", "write")
        await write(at, "clusterrolebindings", bound, token="joe", status=403)
        at.auth.allowed.add(("joe", "bind", "clusterroles"))
        await write(at, "clusterrolebindings", bound, token="joe", status=201)


async def test_a_binding_to_an_aggregation_grants_all_that_it_gathers() -> None:
    async with served() as at:
        selectors = {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}
        await write(at, "clusterroles", role("all", READ, aggregationRule=selectors), status=201)
        await write(at, "rolebindings", binding("ClusterRole", "all"), token="joe", status=201)
        part = role("part", WRITE)
        part["metadata"]["labels"] = {"a": "b"}
        await write(at, "clusterroles", part, status=201)
        second = binding("ClusterRole", "all")
        second["metadata"]["name"] = "second"
        await write(at, "rolebindings", second, token="joe", status=403)


def rule(verbs: str, resources: str = "", names: str = "", paths: str = "") -> Rule:
    return Rule(
        verbs=tuple(verbs.split()),
        api_groups=("",) if resources else (),
        resources=tuple(resources.split()),
        resource_names=tuple(names.split()),
        non_resource_urls=tuple(paths.split()),
    )


@pytest.mark.parametrize(
    ("held", "wanted", "beyond"),
    [
        (rule("get list", "pods"), rule("get", "pods"), 0),
        (rule("*", "*"), rule("* get", "* pods/log"), 0),
        (rule("get", "*/scale"), rule("get", "deployments/scale"), 0),
        (rule("get", "*/scale"), rule("get", "deployments"), 1),
        (rule("get", "pods"), rule("*", "pods"), 1),
        (rule("get", "pods", "a b"), rule("get", "pods", "a c"), 1),
        (rule("get", "pods", "a"), rule("get", "pods"), 1),
        (rule("get", "pods"), rule("get", "pods", "a"), 0),
        (rule("get", paths="/debug/*"), rule("get", paths="/debug/* /debug/x"), 0),
        (rule("get", paths="/debug/x"), rule("get post", paths="/debug/*"), 2),
        (rule("get", paths="/debug/x /y"), rule("post", paths="/y"), 1),
        (rule("get", paths="*"), rule("get", paths="/x"), 0),
        (rule("get", paths="/debug*"), rule("get", paths="/debu /debugger"), 1),
        (rule("get", "pods", "a"), rule("get", "pods", "a"), 0),
        (rule("get", "pods"), rule("get", paths="/x"), 1),
    ],
)
def test_what_rules_lack_of_others(held: Rule, wanted: Rule, beyond: int) -> None:
    assert len(missing([held], [wanted])) == beyond
