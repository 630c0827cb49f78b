"""The installed firewall: what is in the kernel, what each part wants there, and one batch between.

Parts are "networks", "sandboxes", "services", "policies" and "ranges". An element stays while any
part wants it; chains and sets belong to one part. Changes are computed against what we know to be
installed, so a change costs what it changes, however much there is.
"""

from __future__ import annotations

import errno
import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from sagong_network_bridge.elements import Change, Content, difference
from sagong_network_bridge.handover import Installed
from sagong_network_bridge.netlink import Channel, Request
from sagong_network_bridge.nft import Element, Nftables, Rule, SetKind
from sagong_network_bridge.ruleset import BASE_CHAINS, PLAIN_CHAINS, SETS, fixed_rules
from sagong_network_bridge.services import Piece

__all__ = ["Firewall", "Wanted"]

_FIXED_SETS = frozenset(kind.name for kind in SETS)
_FIXED_CHAINS = frozenset((*(chain.name for chain in BASE_CHAINS), *PLAIN_CHAINS))
# Filled by packets, not by us.
_LIVING = frozenset(("sticky4", "sticky6"))
_FIXED_RULES = tuple(fixed_rules())
_FORM = hashlib.sha256(repr((SETS, BASE_CHAINS, PLAIN_CHAINS, _FIXED_RULES)).encode()).digest()
_OTHER_FORM = (errno.EEXIST, errno.EBUSY, errno.EINVAL, errno.EOPNOTSUPP)


@dataclass
class Wanted:
    """What a part wants: elements, and chains and sets of its own."""

    content: Content = field(default_factory=dict)
    chains: dict[str, tuple[Rule, ...]] = field(default_factory=dict)
    sets: dict[str, SetKind] = field(default_factory=dict)


@dataclass
class _Step:
    """One transaction: what enters and what leaves."""

    changes: list[Change] = field(default_factory=list)
    chains: dict[str, tuple[Rule, ...]] = field(default_factory=dict)
    gone_chains: set[str] = field(default_factory=set)
    sets: dict[str, SetKind] = field(default_factory=dict)
    gone_sets: set[str] = field(default_factory=set)


class Firewall:
    """One table of nftables."""

    def __init__(self, channel: Channel, table: str, log: logging.Logger) -> None:
        self._nft = Nftables(channel, table)
        self._log = log
        self._parts: dict[str, Wanted] = {}
        self._content: Content = {}
        self._chains: set[str] = set()

    @property
    def table(self) -> str:
        """The table's name."""
        return self._nft.table

    def install(self, parts: Mapping[str, Wanted], given: Installed | None = None) -> None:
        """Make the table be what all parts want, whatever a predecessor left of it.

        Rules are replaced in one transaction and only elements that differ are touched, so no
        packet sees a half of it and clients stay with their backends. What a predecessor `given`
        is believed if nobody has changed any rule since.
        """
        if given is not None and given.form == _FORM and given.generation == self._nft.generation():
            found = self._take(given)
        else:
            self._renew_fixed()
            found = self._read()
        self._parts = dict(parts)
        content: Content = {}
        step = _Step()
        for wanted in parts.values():
            for name, elements in wanted.content.items():
                content.setdefault(name, {}).update(elements)
            step.chains |= wanted.chains
            step.sets |= wanted.sets
        step.changes = list(difference(self._content, content))
        step.gone_chains = self._chains - step.chains.keys()
        step.gone_sets = found - _FIXED_SETS - step.sets.keys()
        step.sets = {name: kind for name, kind in step.sets.items() if name not in found}
        self._do(step)

    def _renew_fixed(self) -> None:
        try:
            self._nft.commit(self._fixed())
        except OSError as error:
            if error.errno not in _OTHER_FORM:
                raise
            self._log.info("the table of another version is replaced", extra={"table": self.table})
            anew = [self._nft.add_table(), self._nft.delete_table()]
            self._nft.commit([*anew, *self._fixed()])

    def installed(self) -> Installed:
        """What a successor may rely on, as long as nobody changes a rule of the machine."""
        return Installed(
            generation=self._nft.generation(),
            form=_FORM,
            elements=tuple(
                (name, key, end, data)
                for name, elements in self._content.items()
                for (key, end), data in elements.items()
            ),
            chains=tuple(self._chains),
            sets=tuple({*_FIXED_SETS, *(n for part in self._parts.values() for n in part.sets)}),
        )

    def _take(self, given: Installed) -> set[str]:
        self._content = {}
        for name, key, end, data in given.elements:
            self._content.setdefault(name, {})[key, end] = data
        self._chains = set(given.chains)
        return set(given.sets)

    def stands(self) -> bool:
        """Whether the kernel has the table."""
        return any(table == self.table for table, _, _ in self._nft.chains())

    def remove(self) -> None:
        """Take the table away."""
        self._nft.commit([self._nft.add_table(), self._nft.delete_table()])

    def _fixed(self) -> Iterator[Request]:
        nft = self._nft
        yield nft.add_table()
        yield from map(nft.add_set, SETS)
        yield from map(nft.add_base_chain, BASE_CHAINS)
        yield from map(nft.add_chain, PLAIN_CHAINS)
        yield from map(nft.flush_chain, sorted(_FIXED_CHAINS))
        yield from map(nft.add_rule, _FIXED_RULES)

    def _read(self) -> set[str]:
        """What is installed now; the names of all sets."""
        names = set(self._nft.sets())
        self._content = {
            name: {(e.key, e.end): e.data for e in self._nft.elements(name)}
            for name in sorted(names - _LIVING)
        }
        found = {chain for table, chain, _ in self._nft.chains() if table == self.table}
        self._chains = found - _FIXED_CHAINS
        return names

    def replace(self, part: str, wanted: Wanted) -> None:
        """A part wants something else."""
        before = self._parts.get(part, Wanted())
        changes = (self._net(part, change) for change in difference(before.content, wanted.content))
        step = _Step(
            changes=[change for change in changes if change.gone or change.new],
            chains={n: r for n, r in wanted.chains.items() if before.chains.get(n) != r},
            gone_chains=set(before.chains) - set(wanted.chains),
            sets={n: s for n, s in wanted.sets.items() if n not in before.sets},
            gone_sets=set(before.sets) - set(wanted.sets),
        )
        self._do(step)
        self._parts[part] = wanted

    def alter(
        self,
        part: str,
        gone: Iterable[Piece] = (),
        new: Iterable[Piece] = (),
        chains: Mapping[str, tuple[Rule, ...]] | None = None,
        gone_chains: Iterable[str] = (),
    ) -> None:
        """A part wants some elements and chains more, and some no more."""
        leaving: dict[str, dict[bytes, bytes]] = {}
        coming: dict[str, dict[bytes, bytes]] = {}
        for pieces, table in ((gone, leaving), (new, coming)):
            for piece in pieces:
                table.setdefault(piece.set, {})[piece.key] = piece.data
        step = _Step(chains=dict(chains or {}), gone_chains=set(gone_chains))
        for name in dict.fromkeys([*leaving, *coming]):
            away, here = leaving.get(name, {}), coming.get(name, {})
            change = Change(
                name,
                tuple(Element(key, data) for key, data in away.items() if here.get(key) != data),
                tuple(Element(key, data) for key, data in here.items() if away.get(key) != data),
            )
            step.changes.append(self._net(part, change))
        self._do(step)
        self._record(part, step, leaving, coming)

    def _record(
        self,
        part: str,
        step: _Step,
        leaving: Mapping[str, Mapping[bytes, bytes]],
        coming: Mapping[str, Mapping[bytes, bytes]],
    ) -> None:
        mine = self._parts.setdefault(part, Wanted())
        for name, elements in leaving.items():
            there = mine.content.setdefault(name, {})
            for key in elements:
                there.pop((key, False), None)
        for name, elements in coming.items():
            there = mine.content.setdefault(name, {})
            there.update({(key, False): data for key, data in elements.items()})
        mine.chains |= step.chains
        for chain in step.gone_chains:
            mine.chains.pop(chain, None)

    def _net(self, part: str, change: Change) -> Change:
        """Without what is there already, and what is gone or wanted by another part."""
        others = [
            wanted.content[change.name]
            for name, wanted in self._parts.items()
            if name != part and change.name in wanted.content
        ]
        there = self._content.get(change.name, {})

        def kept(element: Element) -> bool:
            return any((element.key, element.end) in other for other in others)

        gone = [e for e in change.gone if (e.key, e.end) in there and not kept(e)]
        away = {(e.key, e.end) for e in gone}
        new = []
        for element in change.new:
            key = (element.key, element.end)
            if key in away or key not in there:
                new.append(element)
            elif there[key] != element.data:
                gone.append(element)
                new.append(element)
        return Change(change.name, tuple(gone), tuple(new))

    def _do(self, step: _Step) -> None:
        """Commit a step and remember it; if somebody took our table away, it is made anew first."""
        try:
            self._nft.commit(self._requests(step))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            self._log.warning("the firewall is made anew: %s", error)
            self.reinstall()
            self._nft.commit(self._requests(step))
        for change in step.changes:
            there = self._content.setdefault(change.name, {})
            for element in change.gone:
                there.pop((element.key, element.end), None)
            for element in change.new:
                there[element.key, element.end] = element.data
        self._chains = (self._chains | step.chains.keys()) - step.gone_chains
        for name in step.gone_sets:
            self._content.pop(name, None)

    def reinstall(self) -> None:
        """Everything again, from nothing but what the parts want."""
        self.install(self._parts)

    def _requests(self, step: _Step) -> Iterator[Request]:
        """Sets and chains first, references then, and what nothing refers to any more last."""
        nft = self._nft
        yield from map(nft.add_set, step.sets.values())
        yield from (nft.add_chain(name) for name in step.chains if name not in self._chains)
        changes = [change for change in step.changes if change.name not in step.gone_sets]
        for change in changes:
            yield from nft.delete_elements(change.name, change.gone)
        for name, rules in step.chains.items():
            if name in self._chains:
                yield nft.flush_chain(name)
            yield from map(nft.add_rule, rules)
        for change in changes:
            yield from nft.add_elements(change.name, change.new)
        yield from map(nft.flush_chain, sorted(step.gone_chains))
        yield from map(nft.delete_chain, sorted(step.gone_chains))
        yield from map(nft.delete_set, sorted(step.gone_sets))
