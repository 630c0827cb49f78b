"""Which monitor a new container gets."""

from __future__ import annotations

from sagong.contracts.runtime import Mount, Process, RunSpec
from sagong.shim.records import Made, Record
from sagong.shim.rooms import Rooms

ROOT = Mount(target="/", kind="tmpfs")


class Machine:
    """Containers that were given to monitors of one generation."""

    def __init__(self, *, size: int, cores: int) -> None:
        self.rooms = Rooms(size, cores)
        self.records: list[Record] = []

    def begin(self, group: str = "") -> Record:
        """One more, which is being started."""
        name = f"c{len(self.records)}"
        spec = RunSpec(id=name, run=1, process=Process(args=("x",)), mounts=(ROOT,), group=group)
        record = Record(spec, self.rooms.choose(spec, self.records), "/g", Made("", {}))
        self.records.append(record)
        return record

    def started(self, group: str = "") -> Record:
        """One more, which runs."""
        record = self.begin(group)
        record.starting = False
        return record


def monitors(records: list[Record]) -> list[int]:
    """How many of them each has, in the order of their first ones."""
    keys = [record.key for record in records]
    return [keys.count(key) for key in dict.fromkeys(keys)]


def test_one_after_the_other_fill_a_monitor_before_the_next() -> None:
    machine = Machine(size=3, cores=8)
    assert monitors([machine.started() for _ in range(7)]) == [3, 3, 1]


def test_who_begin_together_are_divided_among_as_many_as_there_are_cores() -> None:
    for cores, found in ((1, [20]), (2, [10, 10]), (4, [5, 5, 5, 5])):
        machine = Machine(size=32, cores=cores)
        assert monitors([machine.begin() for _ in range(20)]) == found


def test_a_few_at_once_share_one() -> None:
    assert monitors([Machine(size=16, cores=8).begin()]) == [1]
    machine = Machine(size=16, cores=8)
    assert monitors([machine.begin() for _ in range(4)]) == [4]


def test_what_has_ended_makes_room_and_what_others_made_is_none() -> None:
    machine = Machine(size=2, cores=1)
    first, *_ = [machine.started() for _ in range(4)]
    machine.records.remove(first)
    assert machine.started().key == first.key
    successor = Machine(size=2, cores=1)
    successor.records = list(machine.records)
    assert successor.started().key not in {record.key for record in machine.records}


def test_a_group_is_not_divided_though_its_monitor_is_full() -> None:
    machine = Machine(size=2, cores=2)
    pod = [machine.started("pod") for _ in range(5)]
    assert monitors(pod) == [5]
    assert machine.started().key != pod[0].key
