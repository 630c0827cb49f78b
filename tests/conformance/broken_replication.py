"""Broken controllers: right plans, spoilt on their way out or asked with something left out.

A second whole set of controllers would prove no more: what counts is that the suite notices.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

import msgspec

from sagong.contracts.objects import Verb, Write
from sagong.contracts.replication import Plan, Replication, Situation
from sagong.errors import InvalidArgument


class Broken:
    """Passes questions and plans on, changed by `asked` and `written`."""

    caught_by: ClassVar[str] = ""

    def __init__(self, right: Replication) -> None:
        self.right = right

    async def reconcile(self, situation: Situation) -> Plan:
        """As the contract."""
        objects = tuple(o for o in situation.objects if self.asked(json.loads(o)))
        plan = await self.right.reconcile(msgspec.structs.replace(situation, objects=objects))
        writes = tuple(w for write in plan.writes for w in self.written(write))
        return msgspec.structs.replace(plan, writes=writes)

    def asked(self, document: Any) -> bool:
        """Whether it sees the object."""
        return True

    def written(self, write: Write) -> list[Write]:
        """What becomes of a write."""
        return [write]


def _changed(write: Write, **change: Any) -> list[Write]:
    document = json.loads(write.body)
    for path, value in change.items():
        at = document
        *parents, last = path.split("__")
        for part in parents:
            at = at.setdefault(part, {})
        at[last] = value
    return [msgspec.structs.replace(write, body=json.dumps(document).encode())]


class MakesOneTooFew(Broken):
    caught_by = "pods_are_made_from_the_template"
    skipped = False

    def written(self, write: Write) -> list[Write]:
        if write.resource == "v1/pods" and write.name.startswith("web-"):
            return []
        return [write]


class ForgetsLabels(Broken):
    caught_by = "pods_are_made_from_the_template"

    def written(self, write: Write) -> list[Write]:
        if write.verb is Verb.CREATE and write.resource == "v1/pods":
            return _changed(write, metadata__labels={})
        return [write]


class NeverDeletes(Broken):
    caught_by = "surplus_ends_in_upstreams_order"

    def written(self, write: Write) -> list[Write]:
        return [] if write.verb is Verb.DELETE else [write]


class TellsNothing(Broken):
    caught_by = "status_counts_pods"

    def written(self, write: Write) -> list[Write]:
        return [] if write.verb is Verb.STATUS else [write]


class NeverLooksAgain(Broken):
    caught_by = "stuck_rollout_is_told"

    async def reconcile(self, situation: Situation) -> Plan:
        plan = await super().reconcile(situation)
        return msgspec.structs.replace(plan, again_seconds=0.0)


class AdoptsNobody(Broken):
    caught_by = "matching_strays_are_adopted"

    def written(self, write: Write) -> list[Write]:
        return [] if write.verb is Verb.PATCH and write.resource == "v1/pods" else [write]


class DeletesByName(Broken):
    caught_by = "writes_are_conditional"

    def written(self, write: Write) -> list[Write]:
        return [msgspec.structs.replace(write, uid="")]


class WritesBlindly(Broken):
    caught_by = "writes_are_conditional"

    def written(self, write: Write) -> list[Write]:
        if write.verb in (Verb.STATUS, Verb.PATCH):
            return _changed(write, metadata__resourceVersion="")
        return [write]


class EndsAllOldPodsAtOnce(Broken):
    caught_by = "rolling_update_keeps_its_bounds"

    def written(self, write: Write) -> list[Write]:
        set_ = write.verb is Verb.PATCH and write.resource.endswith("replicasets")
        if set_ and json.loads(write.body).get("spec", {}).get("replicas", 0) < 4:
            return _changed(write, spec__replicas=0)
        return [write]


class SeesNoServices(Broken):
    caught_by = "endpoints_follow_pods"

    def asked(self, document: Any) -> bool:
        return bool(document["kind"] != "Service")


class PublishesUnready(Broken):
    caught_by = "endpoints_follow_pods"

    def written(self, write: Write) -> list[Write]:
        if write.resource == "v1/endpoints" and b"notReadyAddresses" in write.body:
            body = write.body.replace(b"notReadyAddresses", b"addresses")
            return [msgspec.structs.replace(write, body=body)]
        return [write]


class ForgetsThePast(Broken):
    caught_by = "rollback_uses_the_old_set_again"

    def asked(self, document: Any) -> bool:
        empty = document["kind"] == "ReplicaSet" and not document["spec"]["replicas"]
        return not empty


class KeepsNoOrphans(Broken):
    caught_by = "orphans_stay"

    def written(self, write: Write) -> list[Write]:
        if write.verb is Verb.PATCH and b'"ownerReferences":null' in write.body:
            return []
        return [write]


class EndsNamespacesFirst(Broken):
    caught_by = "namespace_ends_after_its_contents"

    def asked(self, document: Any) -> bool:
        return bool(document["kind"] != "Pod")


class Guesses(Broken):
    caught_by = "same_situation_has_the_same_plan"
    calls = 0

    async def reconcile(self, situation: Situation) -> Plan:
        self.calls += 1
        seed = situation.seed + self.calls
        return await super().reconcile(msgspec.structs.replace(situation, seed=seed))


class ForgetsRevisions(Broken):
    caught_by = "stateful_update_goes_from_the_last"

    def asked(self, document: Any) -> bool:
        return bool(document["kind"] != "ControllerRevision")


class LetsNoPodGo(Broken):
    caught_by = "job_runs_to_completion"

    def written(self, write: Write) -> list[Write]:
        return [] if b'"finalizers":null' in write.body else [write]


class TaintsNobody(Broken):
    caught_by = "silent_node_is_tainted"

    def written(self, write: Write) -> list[Write]:
        return [] if b'"taints"' in write.body and write.verb is Verb.PATCH else [write]


class SkipsBroken(Broken):
    caught_by = "broken_objects_are_invalid"

    async def reconcile(self, situation: Situation) -> Plan:
        try:
            return await self.right.reconcile(situation)
        except InvalidArgument:
            return Plan()


MUTATIONS = [
    MakesOneTooFew,
    ForgetsLabels,
    NeverDeletes,
    TellsNothing,
    NeverLooksAgain,
    AdoptsNobody,
    DeletesByName,
    WritesBlindly,
    EndsAllOldPodsAtOnce,
    SeesNoServices,
    PublishesUnready,
    ForgetsThePast,
    KeepsNoOrphans,
    EndsNamespacesFirst,
    Guesses,
    ForgetsRevisions,
    LetsNoPodGo,
    TaintsNobody,
    SkipsBroken,
]
