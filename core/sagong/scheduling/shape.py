"""Shapes: all that placing a pod depends on, shared by the pods of a template.

Two pods with the same namespace, labels, owner and relevant spec have the same shape object, so
whatever is computed for one (selectors matched, nodes refused) is known for the others.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from sagong.errors import InvalidArgument
from sagong.model.numbers import natural
from sagong.model.selectors import NOTHING, LabelSelector, LabelTerm, from_object
from sagong.model.times import parse_time
from sagong.scheduling.demand import Demand, demand
from sagong.scheduling.documents import (
    AffinityDocument,
    LabelSelectorDocument,
    PodAffinityDocument,
    PodDocument,
    PodTermDocument,
    SpreadDocument,
)
from sagong.scheduling.nodes import Stance, stance

__all__ = ["Pod", "PodTerm", "Shape", "Shapes", "Spread"]

# Without a request of a resource its scarcity doesn't matter: a floor that nothing falls below.
BOTTOMLESS: Final = -(1 << 62)
_SPREAD_KINDS: Final = frozenset(("ReplicaSet", "ReplicationController", "StatefulSet"))


class PodTerm(msgspec.Struct, frozen=True):
    """Which pods are meant, and what counts as one place.

    `namespaces` are named ones; `chosen` selects more by their labels (None: no more).
    """

    topology_key: str
    selector: LabelSelector
    namespaces: frozenset[str]
    chosen: LabelSelector | None = None

    def selects(self, namespace: str, labels: Mapping[str, str], of: Mapping[str, str]) -> bool:
        """Whether a pod is meant; `of` are its namespace's labels."""
        if namespace not in self.namespaces and (
            self.chosen is None or not self.chosen.matches(of)
        ):
            return False
        return self.selector.matches(labels)


class Spread(msgspec.Struct, frozen=True):
    """A topology spread constraint."""

    topology_key: str
    selector: LabelSelector
    max_skew: int
    min_domains: int
    honor_affinity: bool
    honor_taints: bool


class Shape:
    """What is equal for all pods of a template; compared by identity."""

    __slots__ = (
        "affinity",
        "anti_affinity",
        "claims",
        "cpu_floor",
        "demand",
        "hard_spread",
        "labels",
        "liked_pods",
        "memory_floor",
        "namespace",
        "owner",
        "soft_spread",
        "stance",
    )

    def __init__(self, document: PodDocument, only_node: str = "") -> None:
        meta, spec = document.metadata, document.spec
        self.namespace = meta.namespace
        self.labels: dict[str, str] = meta.labels or {}
        self.owner = _spread_owner(document)
        self.demand: Demand = demand(spec)
        self.cpu_floor = self.demand.cpu or BOTTOMLESS
        self.memory_floor = self.demand.memory or BOTTOMLESS
        self.stance: Stance = stance(spec, only_node)
        affinity = spec.affinity or AffinityDocument()
        near, far = affinity.pod_affinity, affinity.pod_anti_affinity
        self.affinity = tuple(self._terms(near))
        self.anti_affinity = tuple(self._terms(far))
        self.liked_pods = (*self._weighted(near, 1), *self._weighted(far, -1))
        spreads = spec.topology_spread_constraints or ()
        self.hard_spread = tuple(
            self._spread(s) for s in spreads if s.when_unsatisfiable == "DoNotSchedule"
        )
        self.soft_spread = tuple(
            self._spread(s) for s in spreads if s.when_unsatisfiable != "DoNotSchedule"
        )
        self.claims = _claims(document)

    def _terms(self, document: PodAffinityDocument | None) -> Iterable[PodTerm]:
        for term in (document.required if document is not None else None) or ():
            yield self._term(term)

    def _weighted(
        self, document: PodAffinityDocument | None, sign: int
    ) -> Iterable[tuple[int, PodTerm]]:
        for term in (document.preferred if document is not None else None) or ():
            if term.weight:
                yield sign * term.weight, self._term(term.pod_affinity_term)

    def _term(self, document: PodTermDocument) -> PodTerm:
        chosen = document.namespace_selector
        named = frozenset(document.namespaces or ())
        if not named and chosen is None:
            named = frozenset((self.namespace,))
        selector = self._selector(document.label_selector, document.match_label_keys)
        for key in document.mismatch_label_keys or ():
            if key in self.labels:
                selector = _narrowed(selector, LabelTerm(key, "notin", (self.labels[key],)))
        return PodTerm(
            document.topology_key, selector, named, None if chosen is None else _compiled(chosen)
        )

    def _spread(self, document: SpreadDocument) -> Spread:
        return Spread(
            topology_key=document.topology_key,
            selector=self._selector(document.label_selector, document.match_label_keys),
            max_skew=document.max_skew,
            min_domains=document.min_domains or 1,
            honor_affinity=document.node_affinity_policy != "Ignore",
            honor_taints=document.node_taints_policy == "Honor",
        )

    def _selector(
        self, document: LabelSelectorDocument | None, keys: tuple[str, ...] | None
    ) -> LabelSelector:
        selector = _compiled(document)
        for key in keys or ():
            if key in self.labels:
                selector = _narrowed(selector, LabelTerm(key, "in", (self.labels[key],)))
        return selector


def _narrowed(selector: LabelSelector, term: LabelTerm) -> LabelSelector:
    if selector.nothing or term in selector.terms:
        return selector
    return LabelSelector(tuple(sorted((*selector.terms, term))))


def _compiled(document: LabelSelectorDocument | None) -> LabelSelector:
    return NOTHING if document is None else from_object(msgspec.to_builtins(document))


def _spread_owner(document: PodDocument) -> str:
    """The controller whose pods are spread over the nodes although nobody says so."""
    for owner in document.metadata.owner_references or ():
        if owner.controller and owner.kind in _SPREAD_KINDS:
            return owner.uid
    return ""


def _claims(document: PodDocument) -> tuple[str, ...]:
    found = []
    for volume in document.spec.volumes or ():
        if volume.persistent_volume_claim is not None:
            found.append(volume.persistent_volume_claim.claim_name)
        elif volume.ephemeral is not None:
            found.append(f"{document.metadata.name}-{volume.name}")
    return tuple(found)


class Pod:
    """A pod as the snapshot keeps it."""

    __slots__ = (
        "created",
        "gated",
        "may_preempt",
        "name",
        "node",
        "nominated",
        "priority",
        "revision",
        "scheduler",
        "shape",
        "started",
        "terminating",
        "uid",
    )

    def __init__(self, document: PodDocument, shape: Shape) -> None:
        meta, spec, status = document.metadata, document.spec, document.status
        self.name = meta.name
        self.uid = meta.uid
        self.shape = shape
        self.node = spec.node_name
        self.priority = spec.priority or 0
        self.may_preempt = spec.preemption_policy != "Never"
        self.scheduler = spec.scheduler_name
        self.gated = bool(spec.scheduling_gates)
        self.terminating = meta.deletion_timestamp is not None
        self.created = _moment(meta.creation_timestamp)
        self.started = _moment(status.start_time) if status is not None else 0.0
        self.nominated = status.nominated_node_name if status is not None else ""
        self.revision = natural(meta.resource_version) or 0

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return self.shape.namespace

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return (self.shape.namespace, self.name)


def _moment(text: str | None) -> float:
    if text:
        with contextlib.suppress(InvalidArgument):
            return parse_time(text)
    return 0.0


def over(document: PodDocument) -> bool:
    """Whether the pod has ended and takes nothing any more."""
    return document.status is not None and document.status.phase in ("Succeeded", "Failed")


class Shapes:
    """Shapes by what makes them equal; the least recently used are forgotten beyond `limit`."""

    def __init__(self, limit: int = 4096) -> None:
        self._limit = limit
        self._known: OrderedDict[bytes, Shape] = OrderedDict()
        self._encoder = msgspec.msgpack.Encoder()

    def of(self, document: PodDocument, only_node: str = "") -> Shape:
        """The shape of a pod; InvalidArgument when a quantity or a selector of it is wrong.

        A pod on a node has the shape that it had when it waited; one that may only go to one node
        says so by `only_node`.
        """
        key = self._key(document, only_node)
        shape = self._known.get(key)
        if shape is None:
            shape = self._known[key] = Shape(document, only_node)
            if len(self._known) > self._limit:
                self._known.popitem(last=False)
        return shape

    def _key(self, document: PodDocument, only_node: str) -> bytes:
        meta, spec = document.metadata, document.spec
        claims = _claims(document) if spec.volumes else ()
        return self._encoder.encode(
            (
                meta.namespace,
                meta.labels,
                _spread_owner(document),
                claims,
                only_node,
                spec.containers,
                spec.init_containers,
                spec.overhead,
                spec.resources,
                spec.node_selector,
                spec.affinity,
                spec.tolerations,
                spec.topology_spread_constraints,
            )
        )
