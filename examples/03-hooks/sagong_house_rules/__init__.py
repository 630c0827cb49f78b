"""Three hooks in one class: a filter of schedulers, an admission rule, an observer of a slot."""

from __future__ import annotations

import time
from collections.abc import Generator

from sagong.contracts.scheduler import Question, Verdict
from sagong.hooks import hookimpl
from sagong.host import Host
from sagong.model.admission import AdmissionRequest
from sagong.scheduling.node import Node
from sagong.scheduling.shape import Pod

__all__ = ["HouseRules"]


class HouseRules:
    """Loaded into schedulers and into the API server; each calls what it has use for."""

    def __init__(self, host: Host) -> None:
        self._log = host.log

    @hookimpl
    def refuses(self, pod: Pod, node: Node) -> str:
        """A filter: nodes labelled `quiet` take no new pods."""
        return "node(s) wanted to be quiet" if "quiet" in node.labels else ""

    @hookimpl
    def mutate(self, request: AdmissionRequest) -> None:
        """An admission rule that changes: a Deployment without an owner gets its maker's name."""
        if request.resource == "deployments" and request.operation == "CREATE" and request.object:
            annotations = request.object["metadata"].setdefault("annotations", {})
            annotations.setdefault("house/owner", request.username)

    @hookimpl
    def refuse(self, request: AdmissionRequest) -> str:
        """An admission rule that refuses."""
        if request.resource == "configmaps" and request.name.startswith("forbidden-"):
            return "names that begin with forbidden- are kept for nobody"
        return ""

    @hookimpl(wrapper=True)
    def place(self, question: Question) -> Generator[None, Verdict, Verdict]:
        """An observer: sees every question and its answer."""
        began = time.monotonic()
        verdict = yield
        facts = {"pods": len(question.pods), "ms": round((time.monotonic() - began) * 1e3, 2)}
        self._log.info("placed", extra=facts)
        return verdict
