"""Filters: which nodes can take a pod now, and why the others can't, in upstream's order and words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from sagong.scheduling.node import Node
from sagong.scheduling.shape import Pod, PodTerm, Shape
from sagong.scheduling.snapshot import Filter, Snapshot, Standing
from sagong.scheduling.tally import Tally

__all__ = ["Feasibility", "Refusals", "message"]

PORTS: Final = "node(s) didn't have free ports for the requested pod ports"
PODS: Final = "Too many pods"
SKEW: Final = "node(s) didn't match pod topology spread constraints"
SKEW_LABEL: Final = f"{SKEW} (missing required label)"
NOT_NEAR: Final = "node(s) didn't match pod affinity rules"
NEAR_UNWANTED: Final = "node(s) didn't match pod anti-affinity rules"
UNWANTED: Final = "node(s) didn't satisfy existing pods anti-affinity rules"
GATED: Final = "Scheduling is blocked due to non-empty scheduling gates"
NO_NODES: Final = "no nodes available to schedule pods"
# Nothing that lower priorities could free would change these.
_FINAL: Final = frozenset((SKEW_LABEL, NOT_NEAR))

Check = Callable[[Node], str]


class Refusals:
    """Reasons by number of nodes, and the nodes that other pods' leaving could open."""

    __slots__ = ("counts", "helpable")

    def __init__(self, counts: Mapping[str, int]) -> None:
        self.counts = dict(counts)
        self.helpable: list[Node] = []

    def note(self, node: Node, reasons: tuple[str, ...], *, helpable: bool) -> None:
        """A node refused."""
        for reason in reasons:
            self.counts[reason] = self.counts.get(reason, 0) + 1
        if helpable:
            self.helpable.append(node)


def message(total: int, counts: Mapping[str, int]) -> str:
    """`0/3 nodes are available: 1 Insufficient cpu, 2 Too many pods.`"""
    listed = ", ".join(sorted(f"{number} {reason}" for reason, number in counts.items()))
    return f"0/{total} nodes are available:" + (f" {listed}." if listed else "")


class Feasibility:
    """One pod against the nodes of a snapshot; made once for a decision, then asked node by node."""

    def __init__(self, snapshot: Snapshot, pod: Pod) -> None:
        self.snapshot = snapshot
        self.pod = pod
        self.shape: Shape = pod.shape
        self.standing: Standing = snapshot.standing(pod.shape.stance)
        self.problem = ""
        self.checks: tuple[Check, ...] = tuple(self._checks())

    def _checks(self) -> list[Check]:
        """The filters beyond cpu, memory and number of pods that this pod needs, in order."""
        snapshot, shape = self.snapshot, self.shape
        checks: list[Check] = []
        if shape.claims and snapshot.volumes is not None:
            claims = snapshot.volumes.of(shape)
            self.problem = claims.problem
            volumes = snapshot.volumes
            if claims.places or claims.waiting:
                checks.append(lambda node: volumes.refusal(claims, node))
        if shape.hard_spread:
            checks.append(self._spread_check())
        if shape.affinity:
            checks.append(self._near_check(shape.affinity))
        for term in shape.anti_affinity:
            checks.append(_far_check(snapshot.tally((term,), term.topology_key)))
        kept_out = snapshot.repelling.about(shape)
        if kept_out:
            checks.append(_unwanted_check(kept_out))
        checks += [self._own_check(own) for own in snapshot.filters]
        return checks

    def _own_check(self, own: Filter) -> Check:
        pod = self.pod
        return lambda node: own(pod, node)

    def refuses(self, node: Node) -> tuple[tuple[str, ...], bool]:
        """Why the node can't take the pod now, and whether others' leaving could help; () if it can."""
        shape = self.shape
        if shape.demand.ports and any(node.port_taken(port) for port in shape.demand.ports):
            return (PORTS,), True
        lacking, hopeless = self._lacking(node)
        if lacking:
            return tuple(lacking), not hopeless
        for check in self.checks:
            why = check(node)
            if why:
                return (why,), why not in _FINAL and not why.startswith("node(s) had volume")
        return (), False

    def _lacking(self, node: Node) -> tuple[list[str], bool]:
        shape = self.shape
        lacking, hopeless = [], False
        if node.pods_free < 1:
            lacking.append(PODS)
        if node.cpu_free < shape.cpu_floor:
            lacking.append("Insufficient cpu")
            hopeless = node.cpu < shape.demand.cpu
        if node.memory_free < shape.memory_floor:
            lacking.append("Insufficient memory")
            hopeless = hopeless or node.memory < shape.demand.memory
        for resource, amount in shape.demand.other:
            if node.other_free(resource) < amount:
                lacking.append(f"Insufficient {resource}")
                hopeless = hopeless or node.other.get(resource, 0) < amount
        return lacking, hopeless

    def admits(self, node: Node) -> bool:
        """Whether the node can take the pod, also beside pods that room is being made for."""
        return not self.verdict(node)[0]

    def verdict(self, node: Node) -> tuple[tuple[str, ...], bool]:
        """As `refuses`, minding nominated pods of the same or higher priority."""
        rivals = self._rivals(node)
        if not rivals:
            return self.refuses(node)
        snapshot = self.snapshot
        for rival in rivals:
            rival.node = node.name
            snapshot.add(rival)
        try:
            found = Feasibility(snapshot, self.pod).refuses(node)
        finally:
            for rival in rivals:
                snapshot.remove(rival.key)
                rival.node = ""
        # Rivals may never come: what needs them there must hold without them too.
        return found if found[0] else self.refuses(node)

    def _rivals(self, node: Node) -> list[Pod]:
        nominated = self.snapshot.nominated.get(node.name)
        if not nominated:
            return []
        pod = self.pod
        return [
            rival
            for rival in nominated.values()
            if rival.priority >= pod.priority
            and rival.key != pod.key
            and rival.key not in self.snapshot.pods
        ]

    def find(self, limit: int, start: int = 0) -> tuple[list[Node], int, Refusals | None]:
        """Up to `limit` nodes that can take the pod, how many were looked at, and, if there are
        none, why.
        """
        nodes = self.standing.nodes
        total = len(nodes)
        shape = self.shape
        cpu, memory, wants = shape.cpu_floor, shape.memory_floor, shape.demand
        plain = not (wants.other or wants.ports or self.checks or self.snapshot.nominated)
        found: list[Node] = []
        start = start % total if total else 0
        seen = 0
        for node in (*nodes[start:], *nodes[:start]) if start else nodes:
            seen += 1
            if node.cpu_free < cpu or node.memory_free < memory or node.pods_free < 1:
                continue
            if plain or not self.verdict(node)[0]:
                found.append(node)
                if len(found) >= limit:
                    break
        return found, seen, None if found else self._refusals()

    def _refusals(self) -> Refusals:
        refusals = Refusals(self.standing.refusals)
        for node in self.standing.nodes:
            reasons, helpable = self.verdict(node)
            refusals.note(node, reasons, helpable=helpable)
        return refusals

    # filters about other pods

    def _spread_check(self) -> Check:
        shape = self.shape
        keys = tuple(sorted({spread.topology_key for spread in shape.hard_spread}))
        rules = []
        for spread in shape.hard_spread:
            tally = self.snapshot.spread_tally(shape.namespace, spread, shape.stance, keys)
            enough = len(tally.values) >= spread.min_domains
            itself = int(spread.selector.matches(shape.labels))
            most = spread.max_skew + (tally.least if enough else 0) - itself
            rules.append((spread.topology_key, tally.values, most))

        def check(node: Node) -> str:
            for key, values, most in rules:
                value = node.labels.get(key)
                if value is None:
                    return SKEW_LABEL
                if values.get(value, 0) > most:
                    return SKEW
            return ""

        return check

    def _near_check(self, terms: tuple[PodTerm, ...]) -> Check:
        snapshot, shape = self.snapshot, self.shape
        tallies = [snapshot.tally(terms, term.topology_key) for term in terms]
        # The first of a group that wants to be together may go anywhere.
        first = not any(tally.values for tally in tallies) and tallies[0].selects(shape)

        def check(node: Node) -> str:
            for tally in tallies:
                value = node.labels.get(tally.topology_key)
                if value is None or (not first and not tally.values.get(value)):
                    return NOT_NEAR
            return ""

        return check


def _far_check(tally: Tally) -> Check:
    def check(node: Node) -> str:
        return NEAR_UNWANTED if tally.count(node) > 0 else ""

    return check


def _unwanted_check(kept_out: list[tuple[str, dict[str, int]]]) -> Check:
    def check(node: Node) -> str:
        for key, places in kept_out:
            if node.labels.get(key) in places:
                return UNWANTED
        return ""

    return check
