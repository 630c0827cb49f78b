"""The herald tells each process what changed for it: routes, accesses, what is down, who is gone."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from functools import reduce

import msgspec

from sagong.contracts.kernel import Order
from sagong.kernel import directory, outages
from sagong.kernel.cell import Cells
from sagong.kernel.directory import Serving
from sagong.kernel.life import Life
from sagong.kernel.population import Population, Process
from sagong.kernel.units import Unit

__all__ = ["Herald", "joined"]

# Tellings of deaths, for who has to attend anew.
_REMEMBERED = 256
# Deaths that the next kernel is told of: it comes soon, and stands in the journal.
_PASSED_ON = 64


class Herald:
    """Remembers whose death is still to be told. Of processes: `dead`, of porters: `deserted`."""

    def __init__(self, cells: Cells, population: Population, lives: Mapping[str, Life]) -> None:
        self.dead: list[str] = []
        self.deserted: list[str] = []
        self._told: deque[Order] = deque(maxlen=_REMEMBERED)
        self._cells = cells
        self._population = population
        self._lives = lives

    def take(self) -> Order:
        """Whose death is to be told now; it is told."""
        gone = Order(id=0, dead=tuple(self.dead), deserted=tuple(self.deserted))
        if self.dead or self.deserted:
            self._told.append(gone)
        self.dead.clear()
        self.deserted.clear()
        return gone

    def recall(self, gone: Order) -> None:
        """An earlier kernel heard of these deaths; whom it told nobody knows."""
        self._told.append(gone)

    def known(self) -> Order:
        """The latest deaths, told or not, for the next kernel."""
        every = reduce(joined, self._told, Order(id=0))
        dead, deserted = (*every.dead, *self.dead), (*every.deserted, *self.deserted)
        return Order(id=0, dead=dead[-_PASSED_ON:], deserted=deserted[-_PASSED_ON:])

    def missed_by(self, process: Process) -> Order:
        """Deaths that a process which attends now may not have heard of.

        One that attends anew may have lost what it was told last: it is told again.
        """
        missed, process.missed = process.missed, Order(id=0)
        return reduce(joined, self._told, missed) if process.attended.is_set() else missed

    def tell(
        self,
        process: Process,
        configured: Mapping[str, Unit],
        serving: Mapping[str, Serving],
        gone: Order,
    ) -> None:
        """Tell a process what it does not know yet."""
        # A process of an earlier or later generation than the serving one has the same callers.
        units = {**configured, process.unit.name: process.unit}
        callers = [*(p.unit for p in self._population), *units.values()]
        uids = self._cells.uids(callers)
        if process.orders is not None:  # it has attended, so it is inside its sandbox
            living = frozenset(p.unit.name for p in self._population)
            self._cells.show(process, units, living)
        routes = directory.routes_of(process.unit, units, serving)
        access = directory.access_of(process.unit, callers, units, uids)
        down = tuple(outages.known_to(process.unit, units, self._lives))
        order = msgspec.structs.replace(
            gone,
            routes=routes if routes != process.routes else None,
            access=access if access != process.access else None,
            down=down if down != process.down else None,
        )
        process.routes, process.access, process.down = routes, access, down
        if process.orders is not None:
            if order != Order(id=0):
                process.tell(order)
        elif not process.attended.is_set():
            process.missed = joined(process.missed, gone)


def joined(one: Order, other: Order) -> Order:
    """The deaths that both tell of."""
    dead, deserted = one.dead + other.dead, one.deserted + other.deserted
    return Order(id=0, dead=dead, deserted=deserted)
