"""Tallies: how many pods that some terms select there are in each place, kept as pods come and go."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sagong.scheduling.node import Node
from sagong.scheduling.shape import PodTerm, Shape

__all__ = ["Tally", "TermTable"]

NamespaceLabels = Callable[[str], Mapping[str, str]]


class Tally:
    """Counts of selected pods by the value of a topology label.

    With `domain` (the eligible nodes, by name) only pods there count, and every value of theirs is
    a place even if its count is 0: `least` is the smallest of all places.
    """

    __slots__ = (
        "_levels",
        "_memo",
        "_of",
        "domain",
        "least",
        "living",
        "terms",
        "topology_key",
        "values",
    )

    def __init__(
        self,
        terms: tuple[PodTerm, ...],
        topology_key: str,
        of: NamespaceLabels,
        domain: Mapping[str, Node] | None = None,
    ) -> None:
        self.terms = terms
        self.topology_key = topology_key
        self.domain = domain
        self.living = domain is not None
        self.values: dict[str, int] = {}
        self.least = 0
        self._levels: dict[int, int] = {}
        self._memo: dict[Shape, bool] = {}
        self._of = of
        if domain is not None:
            self.values = {node.labels[topology_key]: 0 for node in domain.values()}
            self._levels = {0: len(self.values)}

    def selects(self, shape: Shape) -> bool:
        """Whether pods of the shape count."""
        found = self._memo.get(shape)
        if found is None:
            of = self._of(shape.namespace)
            found = all(t.selects(shape.namespace, shape.labels, of) for t in self.terms)
            self._memo[shape] = found
        return found

    def count(self, node: Node) -> int:
        """Pods in the node's place."""
        value = node.labels.get(self.topology_key)
        return 0 if value is None else self.values.get(value, 0)

    def change(self, node: Node, by: int) -> None:
        """A selected pod came to (1) or left (-1) the node."""
        if self.domain is not None and node.name not in self.domain:
            return
        value = node.labels.get(self.topology_key)
        if value is None:
            return
        before = self.values.get(value, 0)
        after = before + by
        if self.domain is None:
            if after:
                self.values[value] = after
            else:
                self.values.pop(value, None)
            return
        self.values[value] = after
        self._level(before, after)

    def _level(self, before: int, after: int) -> None:
        """Keep the smallest count without looking at all places."""
        levels = self._levels
        levels[before] -= 1
        if not levels[before]:
            del levels[before]
        levels[after] = levels.get(after, 0) + 1
        if after < self.least or (before == self.least and before not in levels):
            self.least = after


class TermTable:
    """Terms that pods on nodes carry, with the weight of each in each place.

    It answers what present pods wish about a new one: whether they keep it away, or like it.
    """

    def __init__(self, of: NamespaceLabels) -> None:
        self._of = of
        self._named: dict[str, dict[PodTerm, dict[str, int]]] = {}
        self._chosen: dict[PodTerm, dict[str, int]] = {}
        self._memo: dict[tuple[PodTerm, Shape], bool] = {}

    def change(self, term: PodTerm, node: Node, by: int) -> None:
        """A pod with the term came to or left the node; `by` is its weight."""
        value = node.labels.get(term.topology_key)
        if value is None:
            return
        tables = [self._named.setdefault(namespace, {}) for namespace in term.namespaces]
        if term.chosen is not None:
            tables = [self._chosen]
        for table in tables:
            places = table.setdefault(term, {})
            places[value] = places.get(value, 0) + by
            if not places[value]:
                del places[value]
                if not places:
                    del table[term]

    def about(self, shape: Shape) -> list[tuple[str, dict[str, int]]]:
        """Topology keys and weights by value of all terms that select pods of the shape."""
        named = self._named.get(shape.namespace)
        found = []
        for table in (named, self._chosen):
            for term, places in (table or {}).items():
                if self._selects(term, shape):
                    found.append((term.topology_key, places))
        return found

    def _selects(self, term: PodTerm, shape: Shape) -> bool:
        found = self._memo.get((term, shape))
        if found is None:
            if len(self._memo) > 100_000:
                self._memo.clear()
            of = self._of(shape.namespace)
            found = term.selects(shape.namespace, shape.labels, of)
            self._memo[term, shape] = found
        return found

    def forget(self) -> None:
        """Labels of namespaces have changed."""
        self._memo.clear()
