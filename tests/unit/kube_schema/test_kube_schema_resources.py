"""The table of resources, and that all other tables know its kinds."""

from __future__ import annotations

from sagong.model.objects import GroupVersionKind
from sagong_kube.convert import table
from sagong_kube.schema import resources, types
from sagong_kube.schema.structure import struct_of


def test_every_resource_is_found_by_path_and_by_kind() -> None:
    for resource in resources.RESOURCES:
        kind = resource.kind
        assert resources.find(kind.group, kind.version, resource.plural) is resource
        assert resources.of_kind(kind) is resource


def test_pods_have_what_kubectl_asks_for() -> None:
    pods = resources.find("", "v1", "pods")
    assert pods is not None
    assert pods.namespaced
    assert pods.short_names == ("po",)
    assert pods.categories == ("all",)
    assert pods.storage == "core/pods"
    assert pods.prefix == "/registry/core/pods/"
    assert "spec.nodeName" in pods.fields
    assert {part.name for part in pods.subresources} == {
        *("attach", "binding", "ephemeralcontainers", "eviction", "exec", "log"),
        *("portforward", "proxy", "resize", "status"),
    }
    eviction = pods.subresource("eviction")
    assert eviction is not None
    assert eviction.kind == GroupVersionKind("policy", "v1", "Eviction")


def test_namespaces_can_not_be_deleted_together() -> None:
    namespaces = resources.find("", "v1", "namespaces")
    assert namespaces is not None
    assert "deletecollection" not in namespaces.verbs


def test_shared_storage_has_one_stored_version() -> None:
    events = resources.find("events.k8s.io", "v1", "events")
    scalers = resources.find("autoscaling", "v1", "horizontalpodautoscalers")
    assert events is not None
    assert scalers is not None
    assert (events.storage, str(events.stored)) == ("core/events", "v1, Kind=Event")
    assert scalers.stored.version == "v2"


def test_short_names_are_unique_but_for_shared_kinds() -> None:
    seen: dict[str, str] = {}
    for resource in resources.RESOURCES:
        for name in resource.short_names:
            assert seen.setdefault(name, resource.plural) == resource.plural


def test_every_stored_kind_has_a_type_and_a_row() -> None:
    for resource in resources.RESOURCES:
        kind = resource.kind
        if kind.group == "metrics.k8s.io":
            continue
        name = types.type_of(kind)
        assert name is not None, kind
        if kind.kind != "CustomResourceDefinition":
            assert struct_of(name) is not None, kind
        document = {"metadata": {"name": "x", "creationTimestamp": "2024-01-01T00:00:00Z"}}
        cells = table.cells(kind, document, 1_704_067_210.0)
        assert len(cells) == len(table.columns(kind)), kind
        ages = [at for at, column in enumerate(table.columns(kind)) if column["name"] == "Age"]
        assert all(cells[at] == "10s" for at in ages), kind
