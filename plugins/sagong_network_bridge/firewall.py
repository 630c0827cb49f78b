"""The installed firewall: what is in the kernel, what each part wants there, and one batch between.

Parts are "networks", "sandboxes" and "rules". An element stays while any part wants it. Changes are
computed against what we know to be installed, so a change costs what it changes.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sagong_network_bridge.elements import Content, difference
from sagong_network_bridge.netlink import Channel, Request
from sagong_network_bridge.nft import Element, Nftables, Rule, SetKind
from sagong_network_bridge.ruleset import BASE_CHAINS, PLAIN_CHAINS, SETS, fixed_rules
from sagong_network_bridge.services import Piece

__all__ = ["Firewall", "Wanted"]

_FIXED_SETS = frozenset(kind.name for kind in SETS)
_FIXED_CHAINS = frozenset((*(chain.name for chain in BASE_CHAINS), *PLAIN_CHAINS))
# Filled by packets, not by us.
_LIVING = frozenset(("sticky4", "sticky6"))
_OTHER_FORM = (errno.EEXIST, errno.EBUSY, errno.EINVAL, errno.EOPNOTSUPP)


class Wanted(NamedTuple):
    """What a part wants: elements, and chains and sets of its own."""

    content: Content
    chains: dict[str, tuple[Rule, ...]] = {}
    sets: dict[str, SetKind] = {}


class Firewall:
    """One table of nftables."""

    def __init__(self, channel: Channel, table: str, log: logging.Logger) -> None:
        self._nft = Nftables(channel, table)
        self._log = log
        self._parts: dict[str, Content] = {}
        self._content: Content = {}
        self._chains: dict[str, tuple[Rule, ...]] = {}
        self._sets: dict[str, SetKind] = {}

    @property
    def table(self) -> str:
        """The table's name."""
        return self._nft.table

    def install(self, parts: dict[str, Wanted]) -> None:
        """Make the table be what all parts want, whatever a predecessor left of it.

        Rules are replaced in one transaction and only elements that differ are touched, so no
        packet sees a half of it and clients stay with their backends.
        """
        try:
            self._nft.commit(self._fixed())
        except OSError as error:
            if error.errno not in _OTHER_FORM:
                raise
            self._log.info("the table of another version is replaced", extra={"table": self.table})
            self._nft.commit([self._nft.add_table(), self._nft.delete_table(), *self._fixed()])
        self._read()
        self._parts = {name: wanted.content for name, wanted in parts.items()}
        chains = {name: rules for wanted in parts.values() for name, rules in wanted.chains.items()}
        sets = {name: kind for wanted in parts.values() for name, kind in wanted.sets.items()}
        self._change(self._merged(), chains, sets)

    def _fixed(self) -> Iterator[Request]:
        nft = self._nft
        yield nft.add_table()
        yield from map(nft.add_set, SETS)
        yield from map(nft.add_base_chain, BASE_CHAINS)
        yield from map(nft.add_chain, PLAIN_CHAINS)
        yield from map(nft.flush_chain, sorted(_FIXED_CHAINS))
        yield from map(nft.add_rule, fixed_rules())

    def _read(self) -> None:
        """What is installed now; of chains only that they are there."""
        names = set(self._nft.sets())
        self._content = {
            name: {(e.key, e.end): e.data for e in self._nft.elements(name)}
            for name in sorted(names - _LIVING)
        }
        found = (chain for table, chain, _ in self._nft.chains() if table == self.table)
        self._chains = {chain: () for chain in found if chain not in _FIXED_CHAINS}
        self._sets = {name: SetKind(name, 0, 0) for name in sorted(names - _FIXED_SETS)}

    def replace(self, part: str, wanted: Wanted) -> None:
        """A part wants something else; only "rules" has chains and sets of its own."""
        before = self._parts.get(part, {})
        self._parts[part] = wanted.content
        own = part == "rules"
        chains, sets = (wanted.chains, wanted.sets) if own else (self._chains, self._sets)
        try:
            self._change(self._merged(), chains, sets)
        except OSError:
            self._parts[part] = before
            raise

    def put(self, part: str, pieces: Iterable[Piece]) -> None:
        """Add elements; those that are there already are no error."""
        new: dict[str, list[Element]] = {}
        for piece in pieces:
            key = (piece.key, False)
            self._parts.setdefault(part, {}).setdefault(piece.set, {})[key] = piece.data
            there = self._content.setdefault(piece.set, {})
            if there.get(key) != piece.data:
                new.setdefault(piece.set, []).append(Element(piece.key, piece.data))
                there[key] = piece.data
        self._commit_elements({}, new)

    def remove(self, part: str, pieces: Iterable[Piece]) -> None:
        """Remove elements unless another part wants them; absent ones are no error."""
        gone: dict[str, list[Element]] = {}
        for piece in pieces:
            key = (piece.key, False)
            self._parts.get(part, {}).get(piece.set, {}).pop(key, None)
            wanted = any(key in other.get(piece.set, {}) for other in self._parts.values())
            if not wanted and self._content.get(piece.set, {}).pop(key, None) is not None:
                gone.setdefault(piece.set, []).append(Element(piece.key))
        self._commit_elements(gone, {})

    def _commit_elements(
        self, gone: dict[str, list[Element]], new: dict[str, list[Element]]
    ) -> None:
        requests = [
            r for name, items in gone.items() for r in self._nft.delete_elements(name, items)
        ]
        requests += [r for name, items in new.items() for r in self._nft.add_elements(name, items)]
        try:
            self._nft.commit(requests)
        except OSError as error:
            self._recover(error)

    def _recover(self, error: OSError) -> None:
        """Somebody changed our table (`nft flush ruleset`): make all of it again."""
        self._log.warning("the firewall is made anew: %s", error)
        self.reinstall()

    def reinstall(self) -> None:
        """Everything again, from nothing but what the parts want."""
        parts = {name: Wanted(content) for name, content in self._parts.items()}
        parts["rules"] = Wanted(self._parts.get("rules", {}), self._chains, self._sets)
        self.install(parts)

    def remove_table(self) -> None:
        """Take all of it away."""
        self._nft.commit([self._nft.add_table(), self._nft.delete_table()])

    def _merged(self) -> Content:
        merged: Content = {}
        for content in self._parts.values():
            for name, elements in content.items():
                merged.setdefault(name, {}).update(elements)
        return merged

    def _change(
        self, content: Content, chains: dict[str, tuple[Rule, ...]], sets: dict[str, SetKind]
    ) -> None:
        requests = list(self._steps(content, chains, sets))
        self._nft.commit(requests)
        self._content = {name: dict(elements) for name, elements in content.items() if elements}
        self._chains, self._sets = dict(chains), dict(sets)

    def _steps(
        self, content: Content, chains: dict[str, tuple[Rule, ...]], sets: dict[str, SetKind]
    ) -> Iterator[Request]:
        """Sets and chains first, references then, and what nothing refers to any more last."""
        nft = self._nft
        gone_sets = self._sets.keys() - sets.keys()
        gone_chains = self._chains.keys() - chains.keys()
        yield from (nft.add_set(sets[name]) for name in sets.keys() - self._sets.keys())
        yield from (nft.add_chain(name) for name in chains.keys() - self._chains.keys())
        changes = [c for c in difference(self._content, content) if c.name not in gone_sets]
        for change in changes:
            yield from nft.delete_elements(change.name, change.gone)
        for name, rules in chains.items():
            if self._chains.get(name) != rules:
                if name in self._chains:
                    yield nft.flush_chain(name)
                yield from map(nft.add_rule, rules)
        for change in changes:
            yield from nft.add_elements(change.name, change.new)
        yield from map(nft.flush_chain, sorted(gone_chains))
        yield from map(nft.delete_chain, sorted(gone_chains))
        yield from map(nft.delete_set, sorted(gone_sets))
