"""Admission rules that are loaded into the API server: they change, refuse and warn."""

from __future__ import annotations

from typing import Any

from tests.conformance.fake_state import FakeState
from tests.unit.kube.kube_lab import lab

from sagong.hooks import hookimpl
from sagong.model.admission import AdmissionRequest

MAPS = "/api/v1/namespaces/default/configmaps"


class Rules:
    """Stamps config maps, refuses one name, warns of another, and notes what it saw."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []

    @hookimpl
    def mutate(self, request: AdmissionRequest) -> None:
        if request.resource == "configmaps" and request.object is not None:
            request.object.setdefault("data", {})["stamp"] = request.username

    @hookimpl
    def refuse(self, request: AdmissionRequest) -> str:
        self.seen.append((request.operation, request.resource, request.name))
        if request.name == "old-fashioned":
            request.warnings.append("that name is out of fashion")
        return "nobody may have that name" if request.name == "forbidden" else ""


def config(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {}}


async def test_hooks_change_refuse_and_warn() -> None:
    rules = Rules()
    async with lab(FakeState(), hooks=(rules,)) as at:
        made = (await at.ask("POST", MAPS, config("m"), status=201)).json
        assert made["data"] == {"stamp": "admin"}
        refused = (await at.ask("POST", MAPS, config("forbidden"), status=403)).json
        wanted = 'configmaps "forbidden" is forbidden: nobody may have that name'
        assert (refused["message"], refused["reason"]) == (wanted, "Forbidden")
        await at.ask("GET", f"{MAPS}/forbidden", status=404)
        warned = await at.ask("POST", MAPS, config("old-fashioned"), status=201)
        assert "out of fashion" in warned.headers["Warning"]
        await at.ask("DELETE", f"{MAPS}/m", status=200)
    assert ("CREATE", "configmaps", "m") in rules.seen
    assert ("DELETE", "configmaps", "m") in rules.seen
