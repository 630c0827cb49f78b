"""The snapshot: nodes, the pods on them and what is counted about them, kept up incrementally."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from sagong.scheduling.budgets import Budget
from sagong.scheduling.documents import NodeDocument, PodDocument, read
from sagong.scheduling.node import Node
from sagong.scheduling.nodes import Stance
from sagong.scheduling.shape import Pod, PodTerm, Shape, Shapes, Spread, over
from sagong.scheduling.tally import Tally, TermTable
from sagong.scheduling.volumes import Volumes

__all__ = ["Filter", "Image", "Snapshot", "Standing", "Trend"]

_NO_LABELS: Final[Mapping[str, str]] = {}
_MOST_KEPT: Final = 2048


class Standing:
    """What a stance means on the present nodes: who remains, and why the others do not."""

    __slots__ = ("nodes", "refusals", "soft")

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.refusals: dict[str, int] = {}
        # node name: (disliked taints, liked terms)
        self.soft: dict[str, tuple[int, int]] = {}


class Image(NamedTuple):
    """An image that nodes have."""

    size: int
    nodes: int


class Trend:
    """Where the pods of one controller are."""

    __slots__ = ("nodes", "zones")

    def __init__(self) -> None:
        self.nodes: dict[str, int] = {}
        self.zones: dict[str, int] = {}

    def change(self, node: Node, by: int) -> None:
        """A pod came to or left the node."""
        for table, key in ((self.nodes, node.name), (self.zones, node.zone)):
            table[key] = table.get(key, 0) + by
            if not table[key]:
                del table[key]


# Why a node can't take a pod, "" if it can: a rule beside the built-in ones.
Filter = Callable[[Pod, Node], str]


class Snapshot:
    """All that decisions depend on. Changing it is cheap; what is kept for reading follows.

    `epoch` grows when labels, taints or the set of nodes change: then standings and tallies start
    anew, while the coming and going of pods only changes counts. `changes` grows with everything.
    """

    def __init__(self, filters: tuple[Filter, ...] = ()) -> None:
        self.filters = filters
        self.nodes: dict[str, Node] = {}
        self.pods: dict[tuple[str, str], Pod] = {}
        self.namespaces: dict[str, dict[str, str]] = {}
        self.volumes: Volumes | None = None
        # Whom preemption had better spare, by namespace and name.
        self.budgets: dict[tuple[str, str], Budget] = {}
        self.shapes = Shapes()
        self.epoch = 0
        self.changes = 0
        self.trends: dict[str, Trend] = {}
        self.images: dict[str, Image] = {}
        self.advised = 0
        self.repelling = TermTable(self.labels_of)
        self.attracting = TermTable(self.labels_of)
        # Pods that wait for room made on a node (preemption), by node.
        self.nominated: dict[str, dict[tuple[str, str], Pod]] = {}
        self._homeless: dict[str, dict[tuple[str, str], Pod]] = {}
        self._by_namespace: dict[str, dict[tuple[str, str], Pod]] = {}
        self._order: list[Node] | None = None
        self._standings: dict[Stance, Standing] = {}
        self._tallies: dict[object, Tally] = {}

    @classmethod
    def of(
        cls, nodes: Iterable[bytes], bound: Iterable[bytes], filters: tuple[Filter, ...] = ()
    ) -> Snapshot:
        """A snapshot of a closed question; InvalidArgument names a broken object."""
        snapshot = cls(filters)
        for number, body in enumerate(nodes):
            snapshot.set_node(read(body, NodeDocument, f"node {number}"))
        for number, body in enumerate(bound):
            document = read(body, PodDocument, f"bound pod {number}")
            if document.spec.node_name and not over(document):
                snapshot.add(snapshot.pod(document))
        return snapshot

    def labels_of(self, namespace: str) -> Mapping[str, str]:
        """Labels of a namespace."""
        return self.namespaces.get(namespace, _NO_LABELS)

    def pod(self, document: PodDocument, only_node: str = "") -> Pod:
        """A pod from its object; `only_node` is where it must go ("" for anywhere)."""
        return Pod(document, self.shapes.of(document, only_node))

    # nodes

    def set_node(self, document: NodeDocument) -> Node:
        """A node appeared or changed."""
        self.changes += 1
        name = document.metadata.name
        node = self.nodes.get(name)
        fresh = node is None
        if node is None:
            node = Node(name)
        self._count_images(node, -1)
        pods = list(node.pods.values())
        changed = self._described(node, document, pods, fresh=fresh)
        self._count_images(node, 1)
        if fresh:
            self.nodes[name] = node
            for pod in self._homeless.pop(name, {}).values():
                node.add(pod)
                self._count(pod, node, 1)
        if fresh or changed:
            self._new_epoch()
        return node

    def _described(
        self, node: Node, document: NodeDocument, pods: list[Pod], *, fresh: bool
    ) -> bool:
        """Take over the object; pods are counted anew where the node's labels moved them."""
        labels = document.metadata.labels or {}
        if fresh or labels == node.labels:
            return node.describe(document)
        for pod in pods:
            self._count(pod, node, -1)
        changed = node.describe(document)
        for pod in pods:
            self._count(pod, node, 1)
        return changed

    def remove_node(self, name: str) -> None:
        """A node is gone; its pods are remembered in case it comes back."""
        node = self.nodes.pop(name, None)
        if node is None:
            return
        for pod in list(node.pods.values()):
            self._count(pod, node, -1)
            self._homeless.setdefault(name, {})[pod.key] = pod
        self._count_images(node, -1)
        self._new_epoch()

    def _new_epoch(self) -> None:
        self.epoch += 1
        self._order = None
        self._standings.clear()
        self._tallies.clear()
        self.advised = sum(
            any(t.effect == "PreferNoSchedule" for t in n.taints) for n in self.nodes.values()
        )

    def _count_images(self, node: Node, by: int) -> None:
        for name, size in node.images.items():
            count = (self.images[name].nodes if name in self.images else 0) + by
            if count > 0:
                self.images[name] = Image(size, count)
            else:
                self.images.pop(name, None)

    def set_namespace(self, name: str, labels: dict[str, str] | None) -> None:
        """A namespace has these labels, or is gone (None)."""
        if self.namespaces.get(name) == labels:
            return
        if labels is None:
            self.namespaces.pop(name, None)
        else:
            self.namespaces[name] = labels
        self._tallies.clear()
        self.repelling.forget()
        self.attracting.forget()

    # pods

    def add(self, pod: Pod) -> None:
        """A pod runs on `pod.node`; one that is known by its name is replaced."""
        self.changes += 1
        self.remove(pod.key)
        self.pods[pod.key] = pod
        node = self.nodes.get(pod.node)
        if node is None:
            self._homeless.setdefault(pod.node, {})[pod.key] = pod
            return
        node.add(pod)
        self._count(pod, node, 1)

    def remove(self, key: tuple[str, str]) -> Pod | None:
        """A pod left its node; unknown is no error."""
        pod = self.pods.pop(key, None)
        if pod is None:
            return None
        self.changes += 1
        node = self.nodes.get(pod.node)
        if node is None:
            homeless = self._homeless.get(pod.node, {})
            homeless.pop(key, None)
            if not homeless:
                self._homeless.pop(pod.node, None)
            return pod
        node.remove(pod)
        self._count(pod, node, -1)
        return pod

    def _count(self, pod: Pod, node: Node, by: int) -> None:
        shape = pod.shape
        peers = self._by_namespace.setdefault(shape.namespace, {})
        if by > 0:
            peers[pod.key] = pod
        else:
            peers.pop(pod.key, None)
        if shape.owner and not pod.terminating:
            trend = self.trends.setdefault(shape.owner, Trend())
            trend.change(node, by)
            if not trend.nodes:
                del self.trends[shape.owner]
        for tally in self._tallies.values():
            if not (tally.living and pod.terminating) and tally.selects(shape):
                tally.change(node, by)
        if shape.anti_affinity or shape.liked_pods or shape.affinity:
            self._count_terms(shape, node, by)

    def _count_terms(self, shape: Shape, node: Node, by: int) -> None:
        for term in shape.anti_affinity:
            self.repelling.change(term, node, by)
        for weight, term in shape.liked_pods:
            self.attracting.change(term, node, by * weight)
        for term in shape.affinity:
            # As upstream: what a present pod requires, a new one likes a little (weight 1).
            self.attracting.change(term, node, by)

    def doom(self, pod: Pod) -> None:
        """A pod on a node will end: it still takes its room, but is no longer counted as living."""
        known = self.remove(pod.key)
        pod.terminating = True
        if known is not None:
            self.add(pod)

    def nominate(self, pod: Pod, node: str) -> None:
        """The pod shall have the room that its victims leave on `node`."""
        self.dismiss(pod.key)
        pod.nominated = node
        self.nominated.setdefault(node, {})[pod.key] = pod

    def dismiss(self, key: tuple[str, str]) -> None:
        """A nominated pod is placed or gone; unknown is no error."""
        for name, pods in list(self.nominated.items()):
            if pods.pop(key, None) is not None and not pods:
                del self.nominated[name]

    # what is kept for reading

    @property
    def order(self) -> list[Node]:
        """All nodes, zone by zone in turn, so that a few neighbours lie in different zones."""
        if self._order is None:
            zones: dict[str, list[Node]] = {}
            for name in sorted(self.nodes):
                zones.setdefault(self.nodes[name].zone, []).append(self.nodes[name])
            lists = [zones[zone] for zone in sorted(zones)]
            longest = max(map(len, lists), default=0)
            self._order = [ns[at] for at in range(longest) for ns in lists if at < len(ns)]
        return self._order

    def standing(self, stance: Stance) -> Standing:
        """Which nodes the stance admits; kept until labels, taints or nodes change."""
        found = self._standings.get(stance)
        if found is None:
            if len(self._standings) >= _MOST_KEPT:
                self._standings.clear()
            found = self._standings[stance] = self._judge(stance)
        return found

    def _judge(self, stance: Stance) -> Standing:
        found = Standing()
        pinned = stance.pinned
        nodes = self.order
        if pinned is not None:
            nodes = [self.nodes[name] for name in sorted(pinned) if name in self.nodes]
            absent = len(self.nodes) - len(nodes)
            if absent:
                found.refusals["node(s) didn't satisfy plugin(s) [NodeAffinity]"] = absent
        soft = bool(stance.preferred or self.advised)
        for node in nodes:
            why = stance.refusal(node.name, node.labels, node.taints, cordoned=node.cordoned)
            if why:
                found.refusals[why] = found.refusals.get(why, 0) + 1
                continue
            found.nodes.append(node)
            if soft:
                liked = stance.liked(node.name, node.labels)
                found.soft[node.name] = (stance.disliked(node.taints), liked)
        return found

    def tally(self, terms: tuple[PodTerm, ...], topology_key: str) -> Tally:
        """Pods that all the terms select, by place."""
        key = (terms, topology_key)
        found = self._tallies.get(key)
        return found or self._filled(key, Tally(terms, topology_key, self.labels_of))

    def spread_tally(
        self, namespace: str, spread: Spread, stance: Stance, keys: tuple[str, ...]
    ) -> Tally:
        """Living pods that a constraint counts, in its places (nodes that have all `keys`)."""
        wishes = (stance.selector, stance.terms) if spread.honor_affinity else None
        bears = stance.tolerations if spread.honor_taints else None
        key = (namespace, spread.selector, spread.topology_key, keys, wishes, bears)
        found = self._tallies.get(key)
        if found is not None:
            return found
        term = PodTerm(spread.topology_key, spread.selector, frozenset((namespace,)))
        domain = {
            node.name: node
            for node in self.order
            if all(label in node.labels for label in keys)
            and (not spread.honor_affinity or stance.wants(node.name, node.labels))
            and (not spread.honor_taints or stance.untolerated(node.taints) is None)
        }
        return self._filled(key, Tally((term,), spread.topology_key, self.labels_of, domain))

    def _filled(self, key: object, tally: Tally) -> Tally:
        if len(self._tallies) >= _MOST_KEPT:
            self._tallies.clear()
        for pod in self._relevant(tally.terms):
            if not (tally.living and pod.terminating) and tally.selects(pod.shape):
                tally.change(self.nodes[pod.node], 1)
        self._tallies[key] = tally
        return tally

    def _relevant(self, terms: tuple[PodTerm, ...]) -> Iterable[Pod]:
        """Pods on known nodes in the namespaces that a term can mean."""
        term = terms[0]
        names = term.namespaces if term.chosen is None else self._by_namespace
        for namespace in names:
            yield from self._by_namespace.get(namespace, {}).values()
