"""A naive, correct scheduler over plain dictionaries, and broken ones, each with the check it fails."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

import msgspec

from sagong.contracts.scheduler import Placement, Question, Verdict
from sagong.errors import InvalidArgument
from sagong.model import quantity
from sagong.model.selectors import from_object
from sagong.scheduling.documents import NodeDocument, PodDocument, read

Json = dict[str, Any]
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


class FakeScheduler:
    """Looks at everything for every pod."""

    caught_by: ClassVar[str] = ""

    def place(self, question: Question) -> Verdict:
        """First fit by name."""
        nodes = [self.read(body, NodeDocument) for body in question.nodes]
        bound = [self.read(body, PodDocument) for body in question.bound]
        self.bound = [p for p in bound if self.lives(p)]
        self.nodes = sorted(nodes, key=lambda n: n["metadata"]["name"])
        pods = [self.read(body, PodDocument) for body in question.pods]
        return Verdict(placements=tuple(self.placement(p) for p in pods))

    def read(self, body: bytes, kind: Any) -> Json:
        document = read(body, kind, "object")
        found: Json = msgspec.json.decode(body)
        if isinstance(document, PodDocument):
            self.demand(found)
        return found

    def lives(self, pod: Json) -> bool:
        return pod["status"].get("phase") not in ("Succeeded", "Failed")

    def placement(self, pod: Json) -> Placement:
        meta = pod["metadata"]
        node, why = "", "Scheduling is blocked due to non-empty scheduling gates"
        if not self.gated(pod):
            node, why = self.choose(pod)
        if node:
            self.take({**pod, "spec": {**pod["spec"], "nodeName": node}})
        reasons = () if node else (why,)
        return Placement(namespace=meta["namespace"], name=meta["name"], node=node, reasons=reasons)

    def take(self, pod: Json) -> None:
        self.bound.append(pod)

    def gated(self, pod: Json) -> bool:
        return bool(pod["spec"].get("schedulingGates"))

    def choose(self, pod: Json) -> tuple[str, str]:
        if not self.nodes:
            return "", "no nodes available to schedule pods"
        counts: Counter[str] = Counter()
        for node in self.nodes:
            reasons = self.refusals(pod, node)
            if not reasons:
                return node["metadata"]["name"], ""
            counts.update(reasons)
        return "", self.message(counts)

    def message(self, counts: Counter[str]) -> str:
        listed = ", ".join(sorted(f"{number} {reason}" for reason, number in counts.items()))
        return f"0/{len(self.nodes)} nodes are available: {listed}."

    def refusals(self, pod: Json, node: Json) -> list[str]:
        for filter_ in (
            self.cordon,
            self.name,
            self.taints,
            self.node_affinity,
            self.ports,
            self.room,
            self.spread,
            self.near,
            self.far,
            self.unwanted,
        ):
            reasons = filter_(pod, node)
            if reasons:
                return reasons
        return []

    def on(self, node: Json) -> list[Json]:
        return [p for p in self.bound if p["spec"]["nodeName"] == node["metadata"]["name"]]

    # filters

    def bears(self, pod: Json, taint: Json) -> bool:
        for toleration in pod["spec"].get("tolerations", ()):
            same_key = toleration.get("key", "") in ("", taint["key"])
            same_effect = toleration.get("effect", "") in ("", taint["effect"])
            exists = toleration.get("operator") == "Exists"
            same_value = exists or toleration.get("value", "") == taint.get("value", "")
            if same_key and same_effect and same_value:
                return True
        return False

    def cordon(self, pod: Json, node: Json) -> list[str]:
        taint = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
        cordoned = node["spec"].get("unschedulable") and not self.bears(pod, taint)
        return ["node(s) were unschedulable"] if cordoned else []

    def name(self, pod: Json, node: Json) -> list[str]:
        wanted = pod["spec"].get("nodeName")
        wrong = wanted and wanted != node["metadata"]["name"]
        return ["node(s) didn't match the requested node name"] if wrong else []

    def taints(self, pod: Json, node: Json) -> list[str]:
        for taint in node["spec"].get("taints", ()):
            if taint["effect"] != "PreferNoSchedule" and not self.bears(pod, taint):
                return [f"node(s) had untolerated taint {{{taint['key']}: {taint['value']}}}"]
        return []

    def node_affinity(self, pod: Json, node: Json) -> list[str]:
        spec, labels = pod["spec"], node["metadata"]["labels"]
        good = all(labels.get(k) == v for k, v in spec.get("nodeSelector", {}).items())
        required = spec.get("affinity", {}).get("nodeAffinity", {}).get(REQUIRED)
        if required is not None:
            good = good and self.any_term(required["nodeSelectorTerms"], node)
        return [] if good else ["node(s) didn't match Pod's node affinity/selector"]

    def any_term(self, terms: list[Json], node: Json) -> bool:
        return any(self.term(term, node) for term in terms)

    def term(self, term: Json, node: Json) -> bool:
        fields = {"metadata.name": node["metadata"]["name"]}
        rules = [(r, node["metadata"]["labels"]) for r in term.get("matchExpressions", ())]
        rules += [(r, fields) for r in term.get("matchFields", ())]
        return bool(rules) and all(self.holds(rule, labels) for rule, labels in rules)

    def holds(self, rule: Json, labels: dict[str, str]) -> bool:
        found, values = labels.get(rule["key"]), rule.get("values", [])
        match rule["operator"]:
            case "In":
                return found in values
            case "NotIn":
                return found not in values
            case "Exists":
                return found is not None
            case "DoesNotExist":
                return found is None
            case "Gt":
                return found is not None and int(found) > int(values[0])
        return found is not None and int(found) < int(values[0])

    def ports(self, pod: Json, node: Json) -> list[str]:
        taken = [port for other in self.on(node) for port in self.host_ports(other)]
        for ip, protocol, number in self.host_ports(pod):
            for other_ip, other_protocol, other_number in taken:
                any_ip = "0.0.0.0" in (ip, other_ip)
                same = (protocol, number) == (other_protocol, other_number)
                if same and (any_ip or ip == other_ip):
                    return ["node(s) didn't have free ports for the requested pod ports"]
        return []

    def host_ports(self, pod: Json) -> Iterator[tuple[str, str, int]]:
        for container in pod["spec"]["containers"]:
            for port in container.get("ports", ()):
                yield port.get("hostIP") or "0.0.0.0", port["protocol"], port["hostPort"]

    def requests(self, container: Json) -> Counter[str]:
        said = container.get("resources", {}).get("requests", {})
        return Counter({key: quantity.nano(value) for key, value in said.items()})

    def demand(self, pod: Json) -> Counter[str]:
        spec = pod["spec"]
        total: Counter[str] = Counter()
        for container in spec.get("containers", ()):
            total.update(self.requests(container))
        sidecars: Counter[str] = Counter()
        highest: Counter[str] = Counter()
        for container in spec.get("initContainers", ()):
            wants = self.requests(container)
            if container.get("restartPolicy") == "Always":
                sidecars.update(wants)
                wants = Counter()
            highest |= sidecars + wants
        total = (total + sidecars) | highest
        total.update(self.requests({"resources": {"requests": spec.get("overhead", {})}}))
        return total

    def room(self, pod: Json, node: Json) -> list[str]:
        offered = self.requests({"resources": {"requests": node["status"]["allocatable"]}})
        others = self.on(node)
        for other in others:
            offered.subtract(self.demand(other))
        lacking = [f"Insufficient {k}" for k, v in self.demand(pod).items() if v > offered[k]]
        if len(others) + 1 > int(node["status"]["allocatable"]["pods"]):
            lacking.append("Too many pods")
        return lacking

    def meant(self, term: Json, owner: Json, other: Json) -> bool:
        own, theirs = owner["metadata"], other["metadata"]
        named = term.get("namespaces") or [own["namespace"]]
        inside = theirs["namespace"] in named or "namespaceSelector" in term
        return inside and from_object(term["labelSelector"]).matches(theirs["labels"])

    def place_of(self, pod: Json, key: str) -> str | None:
        for node in self.nodes:
            if node["metadata"]["name"] == pod["spec"]["nodeName"]:
                found: str | None = node["metadata"]["labels"].get(key)
                return found
        return None

    def spread(self, pod: Json, node: Json) -> list[str]:
        said = "node(s) didn't match pod topology spread constraints"
        for rule in pod["spec"].get("topologySpreadConstraints", ()):
            key, labels = rule["topologyKey"], node["metadata"]["labels"]
            if key not in labels:
                return [f"{said} (missing required label)"]
            known = [n["metadata"]["labels"] for n in self.nodes]
            counts = Counter({found[key]: 0 for found in known if key in found})
            for other in self.bound:
                if self.meant(rule, pod, other):
                    counts[self.place_of(other, key) or ""] += 1
            if counts[labels[key]] + 1 - min(counts.values()) > rule["maxSkew"]:
                return [said]
        return []

    def terms(self, pod: Json, kind: str) -> list[Json]:
        found: list[Json] = pod["spec"].get("affinity", {}).get(kind, {}).get(REQUIRED, [])
        return found

    def near(self, pod: Json, node: Json) -> list[str]:
        for term in self.terms(pod, "podAffinity"):
            key = term["topologyKey"]
            value = node["metadata"]["labels"].get(key)
            places = [self.place_of(p, key) for p in self.bound if self.meant(term, pod, p)]
            first = not places and self.may_be_first(term, pod)
            if value is None or (not first and value not in places):
                return ["node(s) didn't match pod affinity rules"]
        return []

    def may_be_first(self, term: Json, pod: Json) -> bool:
        return self.meant(term, pod, pod)

    def far(self, pod: Json, node: Json) -> list[str]:
        for term in self.terms(pod, "podAntiAffinity"):
            key = term["topologyKey"]
            value = node["metadata"]["labels"].get(key)
            places = [self.place_of(p, key) for p in self.bound if self.meant(term, pod, p)]
            if value is not None and value in places:
                return ["node(s) didn't match pod anti-affinity rules"]
        return []

    def unwanted(self, pod: Json, node: Json) -> list[str]:
        for other in self.bound:
            for term in self.terms(other, "podAntiAffinity"):
                key = term["topologyKey"]
                value = node["metadata"]["labels"].get(key)
                if self.meant(term, other, pod) and value == self.place_of(other, key) is not None:
                    return ["node(s) didn't satisfy existing pods anti-affinity rules"]
        return []


class IgnoresResources(FakeScheduler):
    caught_by = "fits_exactly"

    def room(self, pod: Json, node: Json) -> list[str]:
        return []


class IgnoresBound(FakeScheduler):
    caught_by = "bound_pods_take_their_room"

    def on(self, node: Json) -> list[Json]:
        return []


class ForgetsEarlierPods(FakeScheduler):
    caught_by = "earlier_pods_go_first"

    def take(self, pod: Json) -> None:
        pass


class LaterPodsFirst(FakeScheduler):
    caught_by = "two_many_are_not_squeezed_in"

    def place(self, question: Question) -> Verdict:
        turned = msgspec.structs.replace(question, pods=question.pods[::-1])
        return Verdict(placements=super().place(turned).placements[::-1])


class IgnoresCordon(FakeScheduler):
    caught_by = "cordoned_node_is_left_out"

    def cordon(self, pod: Json, node: Json) -> list[str]:
        return []


class TakesPreferenceForDuty(FakeScheduler):
    caught_by = "taints_need_tolerations"

    def taints(self, pod: Json, node: Json) -> list[str]:
        taints = node["spec"].get("taints", ())
        return ["no"] if any(not self.bears(pod, taint) for taint in taints) else []


class ToleratesByKeyAlone(FakeScheduler):
    caught_by = "all_tolerations_forms"

    def bears(self, pod: Json, taint: Json) -> bool:
        tolerations = pod["spec"].get("tolerations", ())
        return any(t.get("key", "") in ("", taint["key"]) for t in tolerations)


class NeedsAllTerms(FakeScheduler):
    caught_by = "terms_are_alternatives"

    def any_term(self, terms: list[Json], node: Json) -> bool:
        return all(self.term(term, node) for term in terms)


class ForgetsProtocol(FakeScheduler):
    caught_by = "port_conflict_is_seen"

    def host_ports(self, pod: Json) -> Iterator[tuple[str, str, int]]:
        for ip, _, number in super().host_ports(pod):
            yield ip, "TCP", number


class AddsInitContainers(FakeScheduler):
    caught_by = "init_containers_count_by_their_highest"

    def demand(self, pod: Json) -> Counter[str]:
        total = super().demand(pod)
        for container in pod["spec"].get("initContainers", ()):
            total.update(self.requests(container))
        return total


class ForgetsOverhead(FakeScheduler):
    caught_by = "overhead_counts"

    def demand(self, pod: Json) -> Counter[str]:
        return super().demand({"spec": {**pod["spec"], "overhead": {}}})


class CountsEndedPods(FakeScheduler):
    caught_by = "ended_pods_take_nothing"

    def lives(self, pod: Json) -> bool:
        return True


class IgnoresGates(FakeScheduler):
    caught_by = "gated_pod_waits"

    def gated(self, pod: Json) -> bool:
        return False


class SaysItInOtherWords(FakeScheduler):
    caught_by = "reasons_are_upstreams"

    def message(self, counts: Counter[str]) -> str:
        return f"none of {len(self.nodes)} nodes: {dict(counts)}"


class Guesses(FakeScheduler):
    caught_by = "same_question_has_the_same_answer"

    def choose(self, pod: Json) -> tuple[str, str]:
        random.shuffle(self.nodes)
        return super().choose(pod)


class SkipsBroken(FakeScheduler):
    caught_by = "broken_object_is_invalid"

    def place(self, question: Question) -> Verdict:
        try:
            return super().place(question)
        except InvalidArgument:
            return Verdict(placements=())


class NeedsSomebodyToBeNear(FakeScheduler):
    caught_by = "first_of_a_group_may_go_anywhere"

    def may_be_first(self, term: Json, pod: Json) -> bool:
        return False


class ForgetsPresentWishes(FakeScheduler):
    caught_by = "present_anti_affinity_holds_for_newcomers"

    def unwanted(self, pod: Json, node: Json) -> list[str]:
        return []


class IgnoresSpread(FakeScheduler):
    caught_by = "topology_spread_is_kept"

    def spread(self, pod: Json, node: Json) -> list[str]:
        return []


MUTATIONS = [
    IgnoresResources,
    IgnoresBound,
    ForgetsEarlierPods,
    LaterPodsFirst,
    IgnoresCordon,
    TakesPreferenceForDuty,
    ToleratesByKeyAlone,
    NeedsAllTerms,
    ForgetsProtocol,
    AddsInitContainers,
    ForgetsOverhead,
    CountsEndedPods,
    IgnoresGates,
    SaysItInOtherWords,
    Guesses,
    SkipsBroken,
    NeedsSomebodyToBeNear,
    ForgetsPresentWishes,
    IgnoresSpread,
]
