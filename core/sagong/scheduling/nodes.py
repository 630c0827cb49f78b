"""Which nodes a pod may run on by what does not change: selectors, affinity, taints, names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from sagong.scheduling.documents import (
    AffinityDocument,
    NodeTermDocument,
    PodSpecDocument,
    RequirementDocument,
    TaintDocument,
)

__all__ = [
    "AFFINITY",
    "NAME",
    "UNSCHEDULABLE",
    "NodeTerm",
    "Stance",
    "Taint",
    "Toleration",
    "node_terms",
    "stance",
]

UNSCHEDULABLE: Final = "node(s) were unschedulable"
NAME: Final = "node(s) didn't match the requested node name"
AFFINITY: Final = "node(s) didn't match Pod's node affinity/selector"
_UNSCHEDULABLE_KEY: Final = "node.kubernetes.io/unschedulable"


class Taint(NamedTuple):
    """A taint of a node."""

    key: str
    value: str
    effect: str

    @classmethod
    def of(cls, document: TaintDocument) -> Taint:
        """From the object."""
        return cls(document.key, document.value, document.effect)


_CORDON: Final = Taint(_UNSCHEDULABLE_KEY, "", "NoSchedule")


class Toleration(NamedTuple):
    """What a pod bears."""

    key: str
    operator: str
    value: str
    effect: str

    def bears(self, taint: Taint) -> bool:
        """Whether it tolerates the taint."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        if self.operator == "Exists":
            return True
        if self.operator in ("", "Equal"):
            return self.value == taint.value
        return self.operator in ("Lt", "Gt") and self._compares(taint.value)

    def _compares(self, said: str) -> bool:
        try:
            bound, found = int(self.value), int(said)
        except ValueError:
            return False
        return found < bound if self.operator == "Lt" else found > bound


class NodeRequirement(NamedTuple):
    """One requirement on a label."""

    key: str
    operator: str
    values: tuple[str, ...]

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether a node with these labels meets it."""
        found = labels.get(self.key)
        match self.operator:
            case "In":
                return found is not None and found in self.values
            case "NotIn":
                return found is None or found not in self.values
            case "Exists":
                return found is not None
            case "DoesNotExist":
                return found is None
        return found is not None and self._compares(found)

    def _compares(self, found: str) -> bool:
        try:
            left, right = int(found), int(self.values[0])
        except (ValueError, IndexError):
            return False
        return left > right if self.operator == "Gt" else left < right


class NodeTerm(NamedTuple):
    """Requirements that must all hold; an empty term matches no node."""

    labels: tuple[NodeRequirement, ...]
    names: tuple[NodeRequirement, ...]

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether the node meets the term."""
        if not self.labels and not self.names:
            return False
        fields = {"metadata.name": name}
        return all(r.holds(labels) for r in self.labels) and all(
            r.holds(fields) for r in self.names
        )


class Stance(NamedTuple):
    """A pod's lasting wishes about nodes; equal for all pods of a template, so answers are kept."""

    node_name: str
    selector: tuple[tuple[str, str], ...]
    terms: tuple[NodeTerm, ...] | None
    preferred: tuple[tuple[int, NodeTerm], ...]
    tolerations: tuple[Toleration, ...]

    def refusal(
        self, name: str, labels: Mapping[str, str], taints: Iterable[Taint], *, cordoned: bool
    ) -> str:
        """Why the node is out of the question, in upstream's order and words; "" if it is not."""
        if cordoned and not self.bears(_CORDON):
            return UNSCHEDULABLE
        if self.node_name and self.node_name != name:
            return NAME
        taint = self.untolerated(taints)
        if taint is not None:
            return f"node(s) had untolerated taint {{{taint.key}: {taint.value}}}"
        return "" if self.wants(name, labels) else AFFINITY

    def wants(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether selector and required affinity admit the node."""
        for key, wanted in self.selector:
            if labels.get(key) != wanted:
                return False
        return self.terms is None or any(term.matches(name, labels) for term in self.terms)

    def untolerated(self, taints: Iterable[Taint]) -> Taint | None:
        """The first taint that keeps the pod away."""
        for taint in taints:
            if taint.effect in ("NoSchedule", "NoExecute") and not self.bears(taint):
                return taint
        return None

    def bears(self, taint: Taint) -> bool:
        """Whether some toleration covers the taint."""
        return any(toleration.bears(taint) for toleration in self.tolerations)

    def disliked(self, taints: Iterable[Taint]) -> int:
        """How many taints that only advise against the node are not tolerated."""
        return sum(t.effect == "PreferNoSchedule" and not self._advised(t) for t in taints)

    def _advised(self, taint: Taint) -> bool:
        return any(t.bears(taint) for t in self.tolerations if t.effect in ("", "PreferNoSchedule"))

    def liked(self, name: str, labels: Mapping[str, str]) -> int:
        """The weight of preferred terms that the node meets."""
        return sum(weight for weight, term in self.preferred if term.matches(name, labels))

    @property
    def pinned(self) -> frozenset[str] | None:
        """The only nodes possible by name (as daemons' pods have them); None for any."""
        if not self.terms:
            return None
        found: set[str] = set()
        for term in self.terms:
            names = [r for r in term.names if r.key == "metadata.name" and r.operator == "In"]
            if not names:
                return None
            found |= set(names[0].values).intersection(*(set(r.values) for r in names[1:]))
        return frozenset(found)


def stance(spec: PodSpecDocument, node_name: str) -> Stance:
    """A pod's stance; `node_name` is the only node it may have ("" for any)."""
    affinity = (spec.affinity or AffinityDocument()).node_affinity
    required = affinity.required if affinity is not None else None
    preferred = (affinity.preferred if affinity is not None else None) or ()
    return Stance(
        node_name=node_name,
        selector=tuple(sorted((spec.node_selector or {}).items())),
        terms=None if required is None else node_terms(required.node_selector_terms),
        preferred=tuple((p.weight, _term(p.preference)) for p in preferred if p.weight),
        tolerations=tuple(
            Toleration(t.key, t.operator, t.value, t.effect) for t in spec.tolerations or ()
        ),
    )


def node_terms(documents: Iterable[NodeTermDocument] | None) -> tuple[NodeTerm, ...]:
    """Terms of a node selector."""
    return tuple(_term(document) for document in documents or ())


def _term(document: NodeTermDocument) -> NodeTerm:
    return NodeTerm(_requirements(document.match_expressions), _requirements(document.match_fields))


def _requirements(
    documents: tuple[RequirementDocument, ...] | None,
) -> tuple[NodeRequirement, ...]:
    return tuple(NodeRequirement(d.key, d.operator, d.values or ()) for d in documents or ())
