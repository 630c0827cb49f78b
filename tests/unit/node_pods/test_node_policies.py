"""What signals by hand, restarts and a reboot mean to a container, as in Docker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.unit.node_pods.pod_lab import Lab
from tests.unit.node_pods.test_node_records import ID, begin

from sagong.contracts.node import ContainerSpec, KillRequest, Ref, RestartPolicy, StatusState
from sagong.errors import FailedPrecondition
from sagong_node import boot
from sagong_node.ends import is_final
from sagong_node.records import ContainerRecord
from sagong_node.restarts import is_wanted, pause

HUP, TERM, KILL = 1, 15, 9


@pytest.mark.parametrize(
    "named, final", [("", (HUP, TERM, KILL)), ("SIGTERM", (TERM, KILL)), ("SIGHUP", (HUP, KILL))]
)
def test_a_signal_ends_it_for_good_if_it_stops_it_or_nobody_says_which_one_does(
    named: str, final: tuple[int, ...]
) -> None:
    spec = ContainerSpec(id=ID, sandbox=ID, name="x", image="", stop_signal=named)
    record = ContainerRecord(spec=spec)
    assert tuple(n for n in (HUP, TERM, KILL) if is_final(record, n)) == final


def ended(**facts: Any) -> ContainerRecord:
    policy = RestartPolicy(name="on-failure", maximum=2)
    spec = ContainerSpec(id=ID, sandbox=ID, name="x", image="", restart=policy)
    return ContainerRecord(spec=spec, code=1, wanted=True, **facts)


def test_pauses_double_up_to_a_minute_however_long_it_goes_on() -> None:
    """After a thousand failures the number was too large, and there was no further start."""
    assert [pause(ended(failures=n)) for n in (0, 1, 2)] == [0.1, 0.2, 0.4]
    assert pause(ended(failures=10)) == pause(ended(failures=5000)) == 60.0


def test_a_policy_counts_its_restarts() -> None:
    assert [is_wanted(ended(restart_count=n)) for n in (0, 1, 2)] == [True, True, False]


async def test_a_restart_that_fails_is_one_of_those_that_are_counted(tmp_path: Path) -> None:
    node = Lab(tmp_path)
    await node.start()
    try:
        await begin(node, restart=RestartPolicy(name="on-failure", maximum=2))

        async def refuse(spec: Any) -> Any:
            raise FailedPrecondition("not now")

        node.runtime.run = refuse  # type: ignore[method-assign]
        record = node.registry.containers[ID]
        node.runtime.end("main", 1)
        await node.until(lambda: record.state is StatusState.EXITED)
        assert (record.restart_count, record.error) == (2, "not now")
    finally:
        await node.stop()


async def test_who_waits_for_his_next_start_is_not_paused(tmp_path: Path) -> None:
    node = Lab(tmp_path)
    await node.start()
    try:
        await begin(node, restart=RestartPolicy(name="always"))
        record = node.registry.containers[ID]
        node.runtime.end("main", 1)
        await node.until(lambda: record.state is StatusState.RESTARTING)
        with pytest.raises(FailedPrecondition, match="is restarting, wait until"):
            await node.service.pause(Ref(id=ID))
    finally:
        await node.stop()


async def test_after_a_signal_by_hand_a_reboot_alone_starts_it_again(tmp_path: Path) -> None:
    node = Lab(tmp_path)
    await node.start()
    try:
        await begin(node, restart=RestartPolicy(name="always"))
        record = node.registry.containers[ID]
        await node.service.kill(KillRequest(id=ID, signal="HUP"))
        assert record.alive and not record.wanted
        boot.begin(node.registry, lambda record: "")
        assert record.wanted
    finally:
        await node.stop()
