"""Claims, volumes and classes: where a pod's storage can be, and what must be bound before it runs.

Source: https://kubernetes.io/docs/concepts/storage/storage-classes/#volume-binding-mode
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from sagong.model.quantity import value
from sagong.model.selectors import LabelSelector, from_object
from sagong.scheduling.documents import ClaimDocument, ClassDocument, VolumeDocument
from sagong.scheduling.node import Node
from sagong.scheduling.nodes import NodeTerm, node_terms
from sagong.scheduling.shape import Shape

__all__ = ["Binding", "Claims", "Volumes"]

SELECTED_NODE: Final = "volume.kubernetes.io/selected-node"
_STATIC: Final = "kubernetes.io/no-provisioner"
NODE_CONFLICT: Final = "node(s) had volume node affinity conflict"
NO_VOLUME: Final = "node(s) didn't find available persistent volumes to bind"
UNBOUND: Final = "pod has unbound immediate PersistentVolumeClaims"


class Binding(NamedTuple):
    """What to do for an unbound claim: take `volume`, or (if "") have one made for the node."""

    namespace: str
    claim: str
    volume: str


class Claims(NamedTuple):
    """A pod's claims: where bound ones can be reached, which are still to be bound, what is wrong."""

    places: tuple[tuple[NodeTerm, ...], ...]
    waiting: tuple[ClaimDocument, ...]
    problem: str


class Volumes:
    """Storage objects by name."""

    def __init__(self) -> None:
        self.claims: dict[tuple[str, str], ClaimDocument] = {}
        self.volumes: dict[str, VolumeDocument] = {}
        self.classes: dict[str, ClassDocument] = {}
        # Volumes promised to pods whose claims are being bound.
        self.promised: dict[str, tuple[str, str]] = {}

    def of(self, shape: Shape) -> Claims:
        """What a pod's claims mean, before any node is looked at."""
        places: list[tuple[NodeTerm, ...]] = []
        waiting: list[ClaimDocument] = []
        for name in shape.claims:
            claim = self.claims.get((shape.namespace, name))
            if claim is None:
                return Claims((), (), f'persistentvolumeclaim "{name}" not found')
            if claim.metadata.deletion_timestamp is not None:
                return Claims((), (), f'persistentvolumeclaim "{name}" is being deleted')
            problem = self._place(claim, places, waiting)
            if problem:
                return Claims((), (), problem)
        return Claims(tuple(places), tuple(waiting), "")

    def _place(
        self,
        claim: ClaimDocument,
        places: list[tuple[NodeTerm, ...]],
        waiting: list[ClaimDocument],
    ) -> str:
        volume_name = claim.spec.volume_name
        if volume_name and claim.status is not None and claim.status.phase == "Bound":
            volume = self.volumes.get(volume_name)
            if volume is None:
                return (
                    f'persistentvolumeclaim "{claim.metadata.name}" bound to non-existent '
                    f'persistentvolume "{volume_name}"'
                )
            terms = _terms(volume)
            if terms is not None:
                places.append(terms)
            return ""
        if volume_name or not self._waits(claim):
            return UNBOUND
        waiting.append(claim)
        return ""

    def _waits(self, claim: ClaimDocument) -> bool:
        found = self.classes.get(claim.spec.storage_class_name or "")
        return found is not None and found.volume_binding_mode == "WaitForFirstConsumer"

    def refusal(self, claims: Claims, node: Node) -> str:
        """Why the claims keep the pod off the node; "" if they do not."""
        for terms in claims.places:
            if not any(term.matches(node.name, node.labels) for term in terms):
                return NODE_CONFLICT
        if claims.waiting and self.plan(claims, node) is None:
            return NO_VOLUME
        return ""

    def plan(self, claims: Claims, node: Node) -> tuple[Binding, ...] | None:
        """How the waiting claims would be bound on the node; None if they can't be."""
        taken: set[str] = set()
        plan = []
        for claim in claims.waiting:
            meta = claim.metadata
            selected = (meta.annotations or {}).get(SELECTED_NODE)
            if selected:
                if selected != node.name:
                    return None
                plan.append(Binding(meta.namespace, meta.name, ""))
                continue
            volume = self._fitting(claim, node, taken)
            if volume is None and not self._can_make(claim):
                return None
            if volume is not None:
                taken.add(volume)
            plan.append(Binding(meta.namespace, meta.name, volume or ""))
        return tuple(plan)

    def _can_make(self, claim: ClaimDocument) -> bool:
        found = self.classes.get(claim.spec.storage_class_name or "")
        return found is not None and found.provisioner not in ("", _STATIC)

    def _fitting(self, claim: ClaimDocument, node: Node, taken: set[str]) -> str | None:
        """The smallest free volume that suits the claim and can be reached from the node."""
        spec = claim.spec
        wants = value((spec.resources.requests or {}).get("storage", 0)) if spec.resources else 0
        selector = _selector(claim)
        found: list[tuple[int, str]] = []
        for name, volume in self.volumes.items():
            if name in taken or not self._free(volume, claim) or not _suits(volume, claim):
                continue
            size = value((volume.spec.capacity or {}).get("storage", 0))
            terms = _terms(volume)
            if size < wants or not selector.matches(volume.metadata.labels):
                continue
            if terms is None or any(term.matches(node.name, node.labels) for term in terms):
                found.append((size, name))
        return min(found)[1] if found else None

    def _free(self, volume: VolumeDocument, claim: ClaimDocument) -> bool:
        meta, held = claim.metadata, volume.spec.claim_ref
        promised = self.promised.get(volume.metadata.name)
        if promised is not None and promised != (meta.namespace, meta.name):
            return False
        if held is not None:
            return (held.namespace, held.name) == (meta.namespace, meta.name)
        return volume.status is None or volume.status.phase in ("", "Available", "Pending")


def _suits(volume: VolumeDocument, claim: ClaimDocument) -> bool:
    offers, wants = volume.spec, claim.spec
    return (
        offers.storage_class_name == (wants.storage_class_name or "")
        and (offers.volume_mode or "Filesystem") == (wants.volume_mode or "Filesystem")
        and set(wants.access_modes or ()) <= set(offers.access_modes or ())
        and volume.metadata.deletion_timestamp is None
    )


def _selector(claim: ClaimDocument) -> LabelSelector:
    said = claim.spec.selector
    return from_object({} if said is None else msgspec.to_builtins(said))


def _terms(volume: VolumeDocument) -> tuple[NodeTerm, ...] | None:
    affinity = volume.spec.node_affinity
    if affinity is None or affinity.required is None:
        return None
    return node_terms(affinity.required.node_selector_terms)
