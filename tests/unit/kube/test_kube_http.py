"""The API over HTTPS, without a client's help: verbs, forms, errors, lists and watches."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from tests.conformance.fake_state import FakeState
from tests.unit.kube.kube_lab import Lab, lab

from sagong.contracts.auth import Identity

PODS = "/api/v1/namespaces/default/pods"
MAPS = "/api/v1/namespaces/default/configmaps"


@contextlib.asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[Lab]:
    async with lab(FakeState(), **settings) as made:
        yield made


def pod(name: str, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **metadata},
        "spec": {"containers": [{"name": "c", "image": "busybox"}]},
    }


def config(name: str, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, **metadata},
        "data": {"a": "1"},
    }


async def test_object_lives_from_create_to_delete() -> None:
    async with served() as at:
        made = (await at.ask("POST", MAPS, config("m"), status=201)).json
        assert made["metadata"]["uid"]
        assert made["metadata"]["creationTimestamp"]
        got = (await at.ask("GET", f"{MAPS}/m", status=200)).json
        assert got == made
        got["data"] = {"b": "2"}
        changed = (await at.ask("PUT", f"{MAPS}/m", got, status=200)).json
        assert int(changed["metadata"]["resourceVersion"]) > int(got["metadata"]["resourceVersion"])
        late = await at.ask("PUT", f"{MAPS}/m", {**got, "data": {}}, status=409)
        assert late.json["reason"] == "Conflict"
        assert "the object has been modified" in late.json["message"]
        gone = (await at.ask("DELETE", f"{MAPS}/m", status=200)).json
        assert (gone["status"], gone["details"]["name"]) == ("Success", "m")
        missing = (await at.ask("GET", f"{MAPS}/m", status=404)).json
        assert missing["message"] == 'configmaps "m" not found'
        assert missing["details"] == {"name": "m", "kind": "configmaps"}


async def test_same_object_again_is_no_write() -> None:
    async with served() as at:
        made = (await at.ask("POST", MAPS, config("m"), status=201)).json
        again = (await at.ask("PUT", f"{MAPS}/m", config("m"), status=200)).json
        assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_errors_are_upstreams() -> None:
    async with served() as at:
        await at.ask("POST", MAPS, config("m"), status=201)
        twice = (await at.ask("POST", MAPS, config("m"), status=409)).json
        assert (twice["reason"], twice["message"]) == (
            "AlreadyExists",
            'configmaps "m" already exists',
        )
        nameless = (await at.ask("POST", MAPS, config(""), status=422)).json
        assert nameless["details"]["causes"][0]["field"] == "metadata.name"
        wrong = (await at.ask("POST", MAPS, config("Not_OK"), status=422)).json
        assert "RFC 1123 subdomain" in wrong["message"]
        elsewhere = (await at.ask("POST", MAPS, config("x", namespace="other"), status=400)).json
        assert "does not match the namespace" in elsewhere["message"]
        lost = "/api/v1/namespaces/nowhere/configmaps"
        absent = (await at.ask("POST", lost, config("x"), status=404)).json
        assert absent["message"] == 'namespaces "nowhere" not found'
        assert (await at.ask("GET", "/api/v1/things", status=404)).json["reason"] == "NotFound"
        assert (await at.ask("POST", "/api/v1/pods", pod("p"), status=405)).json["code"] == 405
        assert (await at.ask("POST", MAPS, b"{", status=400)).json["reason"] == "BadRequest"
        media = await at.ask("POST", MAPS, b"x", status=415, Content_Type="text/plain")
        assert media.json["reason"] == "UnsupportedMediaType"
        accept = await at.ask("GET", MAPS, status=406, Accept="text/html")
        assert accept.json["reason"] == "NotAcceptable"
        huge = config("big")
        huge["data"] = {"a": "x" * (4 << 20)}
        await at.ask("POST", MAPS, huge, status=413)


async def test_unknown_fields_warn_or_refuse() -> None:
    async with served() as at:
        odd = {**config("m"), "oddity": 1}
        strict = await at.ask("POST", f"{MAPS}?fieldValidation=Strict", odd, status=400)
        assert 'unknown field "oddity"' in strict.json["message"]
        warned = await at.ask("POST", f"{MAPS}?fieldValidation=Warn", odd, status=201)
        assert warned.headers["Warning"] == '299 - "unknown field \\"oddity\\""'
        assert "oddity" not in warned.json
        doubled = (
            b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"d"},"data":{},"data":{}}'
        )
        twice = await at.ask("POST", MAPS, doubled, status=201)
        assert twice.headers["Warning"] == '299 - "duplicate field \\"data\\""'
        silent = await at.ask(
            "POST", f"{MAPS}?fieldValidation=Ignore", {**odd, "metadata": {"name": "i"}}, status=201
        )
        assert "Warning" not in silent.headers


async def test_dry_run_writes_nothing() -> None:
    async with served() as at:
        await at.ask("POST", f"{MAPS}?dryRun=All", config("m"), status=201)
        await at.ask("GET", f"{MAPS}/m", status=404)
        await at.ask("POST", MAPS, config("m"), status=201)
        await at.ask("DELETE", f"{MAPS}/m?dryRun=All", status=200)
        await at.ask("GET", f"{MAPS}/m", status=200)
        await at.ask("POST", f"{MAPS}?dryRun=Some", config("n"), status=422)


async def test_generated_names_differ() -> None:
    async with served() as at:
        body = config("", generateName="gen-")
        del body["metadata"]["name"]
        names = {
            (await at.ask("POST", MAPS, body, status=201)).json["metadata"]["name"]
            for _ in range(3)
        }
        assert len(names) == 3
        assert all(name.startswith("gen-") and len(name) == 9 for name in names)


async def test_lists_are_paged_and_selected() -> None:
    async with served() as at:
        for name in "abcde":
            await at.ask("POST", MAPS, config(name, labels={"odd": str(name in "ace")}), status=201)
        first = (await at.ask("GET", f"{MAPS}?limit=2", status=200)).json
        assert [item["metadata"]["name"] for item in first["items"]] == ["a", "b"]
        assert first["metadata"]["remainingItemCount"] == 3
        await at.ask("DELETE", f"{MAPS}/d", status=200)
        token = first["metadata"]["continue"]
        rest = (await at.ask("GET", f"{MAPS}?limit=5&continue={token}", status=200)).json
        assert [item["metadata"]["name"] for item in rest["items"]] == ["c", "d", "e"]
        assert rest["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        odd = (await at.ask("GET", f"{MAPS}?labelSelector=odd%3DTrue", status=200)).json
        assert [item["metadata"]["name"] for item in odd["items"]] == ["a", "c", "e"]
        one = (await at.ask("GET", f"{MAPS}?fieldSelector=metadata.name%3Dc", status=200)).json
        assert len(one["items"]) == 1
        wrong = await at.ask("GET", f"{MAPS}?fieldSelector=data.a%3D1", status=400)
        assert "not a known field selector" in wrong.json["message"]
        await at.ask("GET", f"{MAPS}?labelSelector=%3D%3D", status=400)
        await at.ask("GET", f"{MAPS}?continue=nonsense", status=400)


async def test_exact_and_future_revisions() -> None:
    async with served() as at:
        await at.ask("POST", MAPS, config("a"), status=201)
        listed = (await at.ask("GET", MAPS, status=200)).json
        revision = listed["metadata"]["resourceVersion"]
        await at.ask("POST", MAPS, config("b"), status=201)
        exact = f"{MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact"
        old = (await at.ask("GET", exact, status=200)).json
        assert old["metadata"]["resourceVersion"] == revision
        assert [item["metadata"]["name"] for item in old["items"]] == ["a"]
        await at.ask("GET", f"{MAPS}?resourceVersionMatch=Exact", status=422)
        future = await at.ask("GET", f"{MAPS}?resourceVersion=99999", status=504)
        assert future.json["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"


async def test_table_and_partial_forms() -> None:
    async with served() as at:
        await at.ask("POST", PODS, pod("p"), status=201)
        accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
        table = (await at.ask("GET", PODS, status=200, Accept=accept)).json
        assert table["kind"] == "Table"
        assert table["columnDefinitions"][0]["name"] == "Name"
        assert table["rows"][0]["cells"][0] == "p"
        assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
        again = (await at.ask("GET", PODS, status=200, Accept=accept)).json
        assert again["rows"][0]["cells"][0] == "p"
        accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
        partial = (await at.ask("GET", PODS, status=200, Accept=accept)).json
        assert partial["kind"] == "PartialObjectMetadataList"
        assert "spec" not in partial["items"][0]
        yaml = await at.ask("GET", f"{PODS}/p", status=200, Accept="application/yaml")
        assert yaml.body.startswith(b"apiVersion: v1")


async def _events(at: Lab, path: str, count: int, **headers: str) -> list[Any]:
    found = []
    async with at.stream(path, **headers) as answer:
        assert answer.status == 200
        async for line in answer.content:
            found.append(json.loads(line))
            if len(found) == count:
                break
    return found


async def test_watch_tells_changes_in_order() -> None:
    async with served() as at:
        made = (await at.ask("POST", MAPS, config("m"), status=201)).json
        revision = made["metadata"]["resourceVersion"]
        watching = asyncio.ensure_future(
            _events(at, f"{MAPS}?watch=1&resourceVersion={revision}", 3)
        )
        await asyncio.sleep(0.05)
        await at.ask("PUT", f"{MAPS}/m", {**config("m"), "data": {}}, status=200)
        await at.ask("DELETE", f"{MAPS}/m", status=200)
        await at.ask("POST", MAPS, config("n"), status=201)
        events = await asyncio.wait_for(watching, 60)
        assert [e["type"] for e in events] == ["MODIFIED", "DELETED", "ADDED"]
        revisions = [int(e["object"]["metadata"]["resourceVersion"]) for e in events]
        assert revisions == sorted(revisions)


async def test_watch_begins_with_what_is_there_and_its_bookmark() -> None:
    async with served() as at:
        await at.ask("POST", MAPS, config("m"), status=201)
        query = "watch=1&sendInitialEvents=true&allowWatchBookmarks=true"
        query += "&resourceVersionMatch=NotOlderThan"
        first, second = await _events(at, f"{MAPS}?{query}", 2)
        assert (first["type"], first["object"]["metadata"]["name"]) == ("ADDED", "m")
        assert second["type"] == "BOOKMARK"
        assert second["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        await at.ask("GET", f"{MAPS}?watch=1&sendInitialEvents=true", status=422)


async def test_watch_of_tables_has_columns_once() -> None:
    async with served() as at:
        for name in ("a", "b"):
            await at.ask("POST", MAPS, config(name), status=201)
        accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
        first, second = await _events(at, f"{MAPS}?watch=1", 2, Accept=accept)
        assert first["object"]["columnDefinitions"]
        assert second["object"]["columnDefinitions"] is None


async def test_too_old_watch_ends_with_gone() -> None:
    async with served() as at:
        await at.ask("POST", MAPS, config("m"), status=201)
        at.state.disk.compacted = at.state.disk.revision
        at.kube._assembly.store._history.reset(at.kube._assembly.store.revision)
        (event,) = await _events(at, f"{MAPS}?watch=1&resourceVersion=2", 1)
        assert event["type"] == "ERROR"
        assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")


async def test_watch_ends_at_its_time() -> None:
    async with served() as at:
        await at.ask("GET", MAPS, status=200)
        reply = await at.ask("GET", f"{MAPS}?watch=1&timeoutSeconds=1", status=200)
        assert reply.body == b""


async def test_anonymous_sees_only_health_and_version() -> None:
    async with served() as at:
        for path in ("/version", "/healthz", "/livez", "/readyz"):
            await at.ask("GET", path, token=None, status=200)
        refused = (await at.ask("GET", "/api/v1/pods", token=None, status=403)).json
        assert refused["message"] == (
            'pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group '
            '"" at the cluster scope'
        )
        await at.ask("GET", "/api", token=None, status=403)
        await at.ask("GET", "/api/v1/pods", token="wrong", status=401)


async def test_users_may_what_policy_says_until_it_changes() -> None:
    async with served() as at:
        at.auth.users["joe"] = Identity(username="joe", groups=("system:authenticated",))
        await at.ask("GET", MAPS, token="joe", status=403)
        at.auth.allowed.add(("joe", "list", "configmaps"))
        await at.ask("GET", MAPS, token="joe", status=403)
        at.kube._assembly.gate.forget()
        await at.ask("GET", MAPS, token="joe", status=200)
        asked = len(at.auth.questions)
        await at.ask("GET", MAPS, token="joe", status=200)
        assert len(at.auth.questions) == asked


async def test_impersonation_needs_leave_and_changes_the_user() -> None:
    async with served() as at:
        at.auth.users["joe"] = Identity(username="joe", groups=("system:authenticated",))
        await at.ask("GET", MAPS, token="joe", status=403, Impersonate_User="admin")
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        headers = {"Impersonate_User": "jane", "Impersonate_Group": "team"}
        refused = await at.ask("POST", path, review, status=403, **headers)
        assert 'User "jane" cannot create' in refused.json["message"]
        at.auth.allowed.add(("jane", "create", "selfsubjectreviews"))
        at.kube._assembly.gate.forget()
        answer = (await at.ask("POST", path, review, status=201, **headers)).json
        user = answer["status"]["userInfo"]
        assert (user["username"], user["groups"]) == ("jane", ["team", "system:authenticated"])


async def test_discovery_in_its_forms() -> None:
    async with served() as at:
        accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        aggregated = await at.ask("GET", "/apis", status=200, Accept=f"{accept},application/json")
        assert aggregated.headers["Content-Type"] == accept
        groups = {item["metadata"]["name"] for item in aggregated.json["items"]}
        assert {"apps", "batch", "rbac.authorization.k8s.io"} <= groups
        tag = aggregated.headers["ETag"]
        await at.ask("GET", "/apis", status=304, Accept=accept, If_None_Match=tag)
        plain = (await at.ask("GET", "/apis", status=200)).json
        assert plain["kind"] == "APIGroupList"
        core = (await at.ask("GET", "/api/v1", status=200)).json
        names = {resource["name"] for resource in core["resources"]}
        assert {"pods", "pods/log", "pods/exec", "services", "namespaces/finalize"} <= names
        group = (await at.ask("GET", "/apis/apps", status=200)).json
        assert group["preferredVersion"] == {"groupVersion": "apps/v1", "version": "v1"}
        await at.ask("GET", "/apis/nothing", status=404)
        assert "/api/v1" in (await at.ask("GET", "/", status=200)).json["paths"]


async def test_openapi_documents_are_made_beside_and_sent_as_clients_take_them() -> None:
    async with served() as at:
        index = (await at.ask("GET", "/openapi/v3", status=200)).json["paths"]
        url = index["apis/apps/v1"]["serverRelativeURL"]
        packed = await at.ask("GET", url, status=200)
        assert packed.headers["Content-Encoding"] == "gzip"
        assert packed.headers["Cache-Control"].endswith("immutable")
        plain = await at.ask("GET", url, status=200, Accept_Encoding="identity")
        assert "Content-Encoding" not in plain.headers
        assert plain.body == packed.body
        assert "/apis/apps/v1/deployments" in plain.json["paths"]
        await at.ask("GET", url, status=304, If_None_Match=plain.headers["ETag"])
        await at.ask("GET", "/openapi/v3/apis/nothing/v1", status=404)
        protobuf = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
        same = [
            await at.ask("GET", "/openapi/v2", status=200, Accept=accept)
            for accept in (protobuf, "application/json, */*")
        ]
        assert [form.headers["Content-Type"] for form in same] == [
            protobuf.replace("@", "."),
            "application/json",
        ]
        assert same[0].body.startswith(b"\x0a\x032.0"), "field 1 is the version of Swagger"
        assert same[1].json["swagger"] == "2.0"
        await at.ask("GET", "/openapi/v2", status=406, Accept="text/html")
        await at.ask("GET", url, status=406, Accept=protobuf)


async def test_events_are_one_resource_in_two_groups() -> None:
    async with served() as at:
        event = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": "e"},
            "regarding": {"kind": "Pod", "name": "p", "namespace": "default", "uid": "u"},
            "note": "it happened",
            "reason": "Happened",
            "action": "Happening",
            "type": "Normal",
            "reportingController": "example.com/test",
            "reportingInstance": "test-1",
            "eventTime": "2026-01-01T00:00:00.000000Z",
        }
        path = "/apis/events.k8s.io/v1/namespaces/default/events"
        await at.ask("POST", path, event, status=201)
        core = (await at.ask("GET", "/api/v1/namespaces/default/events/e", status=200)).json
        assert (core["message"], core["involvedObject"]["name"]) == ("it happened", "p")
        query = "fieldSelector=involvedObject.uid%3Du"
        found = (await at.ask("GET", f"/api/v1/events?{query}", status=200)).json["items"]
        assert len(found) == 1
        (item,) = (await at.ask("GET", path, status=200)).json["items"]
        assert item["note"] == "it happened"
        assert at.state.disk.leases


async def test_large_lists_are_compressed_when_accepted() -> None:
    async with served() as at:
        for number in range(80):
            big = config(f"m{number}")
            big["data"] = {"a": "x" * 5000}
            await at.ask("POST", MAPS, big, status=201)
        reply = await at.ask("GET", MAPS, status=200, Accept_Encoding="gzip")
        assert reply.headers["Content-Encoding"] == "gzip"
        assert len(reply.json["items"]) == 80
        plain = await at.ask("GET", MAPS, status=200, Accept_Encoding="identity")
        assert "Content-Encoding" not in plain.headers
        assert len(plain.json["items"]) == 80


async def test_deletecollection_takes_what_is_selected() -> None:
    async with served() as at:
        for name in ("a", "b", "c"):
            await at.ask("POST", MAPS, config(name, labels={"x": name}), status=201)
        await at.ask("DELETE", f"{MAPS}?labelSelector=x+in+(a,b)", status=200)
        left = (await at.ask("GET", MAPS, status=200)).json["items"]
        assert [item["metadata"]["name"] for item in left] == ["c"]


async def test_metrics_and_health_tell_what_is() -> None:
    async with served() as at:
        text = (await at.ask("GET", "/metrics", status=200)).body.decode()
        assert 'apiserver_storage_objects{resource="namespaces"} 4' in text
        verbose = (await at.ask("GET", "/readyz?verbose", status=200)).body.decode()
        assert "[+]state ok" in verbose
        version = (await at.ask("GET", "/version", status=200)).json
        assert version["gitVersion"].startswith("v1.32.")
        assert "+sagong" in version["gitVersion"]


async def test_audit_tells_who_wrote_what(caplog: Any) -> None:
    caplog.set_level("INFO", "sagong.kube")
    async with served(audit=True) as at:
        await at.ask("POST", MAPS, config("m"), status=201)
        await at.ask("GET", f"{MAPS}/m", status=200)
        await at.ask("DELETE", f"{MAPS}/none", status=404)
    lines = [record for record in caplog.records if record.message == "audit"]
    told = [(line.verb, line.user, line.status) for line in lines]
    assert told == [("create", "admin", 201), ("delete", "admin", 404)]
