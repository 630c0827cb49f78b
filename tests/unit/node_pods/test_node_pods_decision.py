"""What is done next with a pod, and what its status says: the pure parts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sagong.model.k8s.core_v1 import Pod
from sagong_node.pods.attempt import Attempt, next_delay, next_start
from sagong_node.pods.decision import (
    Decision,
    Kill,
    Pause,
    Prepare,
    Situation,
    Start,
    decide,
    init_complete,
)
from sagong_node.pods.naming import Origin, definition_hash
from sagong_node.pods.status import Picture, phase_of, pod_status

NOW = 1_700_000_000.0


def pod(**spec: Any) -> Pod:
    """A pod with the given spec; its one container is called main unless the spec says more."""
    status = spec.pop("status", {})
    metadata = {"name": "web", "namespace": "default", "uid": "u1"} | spec.pop("metadata", {})
    whole = {"restartPolicy": "Always", "containers": [{"name": "main", "image": "x"}], **spec}
    return msgspec.convert({"metadata": metadata, "spec": whole, "status": status}, Pod)


def attempt(name: str, state: str, code: int = 0, **fields: Any) -> Attempt:
    """An attempt of a container."""
    number, delay = fields.pop("number", 0), fields.pop("delay", 0.0)
    hash_ = fields.pop("hash", "")
    found = Origin("default", "web", "u1", name, attempt=number, delay=delay, hash=hash_)
    times = {"created_at": NOW - 20, "started_at": NOW - 20, "finished_at": 0.0}
    if state == "exited":
        times["finished_at"] = NOW - 5
    return Attempt(f"{name}-{number}", found, state, code, **{**times, **fields})


def situation(*attempts: Attempt, **fields: Any) -> Situation:
    """A prepared pod with these attempts; all that run have passed their startup."""
    started = frozenset(a.id for a in attempts if a.alive)
    known = {a.origin.container: a for a in attempts}
    return Situation(**{"attempts": known, "prepared": True, "started": started, **fields})


def starts(decision: Decision) -> list[str]:
    """Names of what is to be started."""
    return [action.container for action in decision.actions if isinstance(action, Start)]


def test_first_comes_the_ground() -> None:
    assert decide(pod(), Situation(), NOW).actions == (Prepare(),)
    assert decide(pod(), Situation(preparing=True), NOW).actions == ()


def test_a_ground_that_failed_is_tried_again_later() -> None:
    waiting = Situation(prepare_pause=Pause(NOW + 3, ""))
    assert decide(pod(), waiting, NOW) == Decision(wake=NOW + 3)
    assert decide(pod(), waiting, NOW + 3).actions == (Prepare(),)


def test_main_containers_start_together() -> None:
    two = [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]
    decision = decide(pod(containers=two), situation(), NOW)
    assert decision.actions == (Start("a", "main", 0, 0.0), Start("b", "main", 0, 0.0))


def test_what_is_being_done_is_not_done_again() -> None:
    assert decide(pod(), situation(busy=frozenset({"main"})), NOW).actions == ()


def test_a_container_that_was_made_and_not_started_is_started_as_it_is() -> None:
    made = attempt("main", "created", number=3, delay=40.0)
    decision = decide(pod(), situation(made), NOW)
    assert decision.actions == (Start("main", "main", 3, 40.0),)


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [
        ("Always", 0, True),
        ("Always", 1, True),
        ("OnFailure", 0, False),
        ("OnFailure", 1, True),
        ("Never", 1, False),
    ],
)
def test_restart_policies(policy: str, code: int, again: bool) -> None:
    ended = attempt("main", "exited", code)
    decision = decide(pod(restartPolicy=policy), situation(ended), NOW)
    assert bool(starts(decision)) is again
    assert decision.over is not again


def test_the_first_restart_is_at_once_and_the_next_ones_wait() -> None:
    first = attempt("main", "exited", 1)
    assert decide(pod(), situation(first), NOW).actions == (Start("main", "main", 1, 10.0),)
    second = attempt("main", "exited", 1, number=1, delay=10.0)
    decision = decide(pod(), situation(second), NOW)
    assert decision == Decision(wake=NOW + 5)
    assert decide(pod(), situation(second), NOW + 5).actions == (Start("main", "main", 2, 20.0),)


def test_the_delay_grows_to_five_minutes_and_is_forgotten_after_ten() -> None:
    delays, delay = [], 0.0
    for number in range(8):
        ended = attempt("main", "exited", 1, number=number, delay=delay)
        delay = next_delay(ended)
        delays.append(delay)
    assert delays == [10, 20, 40, 80, 160, 300, 300, 300]
    settled = attempt("main", "exited", 1, delay=300.0, created_at=NOW - 700)
    assert (next_start(settled), next_delay(settled)) == (settled.finished_at, 10.0)


def test_what_ended_with_its_machine_is_no_crash() -> None:
    felled = attempt("main", "exited", 255, number=4, delay=80.0, felled=True)
    assert decide(pod(), situation(felled), NOW).actions == (Start("main", "main", 5, 0.0),)


def test_a_paused_container_waits() -> None:
    waiting = situation(pauses={"main": Pause(NOW + 7, "ErrImagePull", "no")})
    assert decide(pod(), waiting, NOW) == Decision(wake=NOW + 7)


def test_a_sick_container_is_killed() -> None:
    running = attempt("main", "running")
    decision = decide(pod(), situation(running, sick={running.id: "why"}), NOW)
    assert decision.actions == (Kill("main", running.id, "why"),)


def test_a_container_of_another_image_is_replaced() -> None:
    known = pod()
    same = attempt("main", "running", hash=definition_hash(known.spec.containers[0]))
    other = attempt("main", "running", hash="other")
    assert decide(known, situation(same), NOW).actions == ()
    (action,) = decide(known, situation(other), NOW).actions
    assert isinstance(action, Kill)
    assert action.reason == "Container main definition changed, will be restarted"


INITS = [
    {"name": "one", "image": "x"},
    {"name": "side", "image": "x", "restartPolicy": "Always"},
    {"name": "two", "image": "x"},
]


def test_init_containers_come_one_after_the_other() -> None:
    known = pod(initContainers=INITS)
    assert starts(decide(known, situation(), NOW)) == ["one"]
    one = attempt("one", "exited")
    assert starts(decide(known, situation(one), NOW)) == ["side"]
    side = attempt("side", "running")
    not_yet = situation(one, side, started=frozenset())
    assert starts(decide(known, not_yet, NOW)) == []
    assert starts(decide(known, situation(one, side), NOW)) == ["two"]
    two = attempt("two", "exited")
    assert starts(decide(known, situation(one, side, two), NOW)) == ["main"]


def test_a_failing_init_container_is_retried_or_ends_the_pod() -> None:
    failed = attempt("one", "exited", 1)
    assert starts(decide(pod(initContainers=INITS), situation(failed), NOW)) == ["one"]
    never = pod(initContainers=INITS, restartPolicy="Never")
    assert decide(never, situation(failed), NOW).over


def test_a_sidecar_is_restarted_beside_the_main_containers() -> None:
    known = pod(initContainers=INITS, restartPolicy="Never")
    now = situation(
        attempt("one", "exited"),
        attempt("two", "exited"),
        attempt("side", "exited", 0),
        attempt("main", "running"),
    )
    assert starts(decide(known, now, NOW)) == ["side"]
    assert init_complete(known, now)


def test_sidecars_don_t_keep_a_pod_alive() -> None:
    known = pod(initContainers=INITS, restartPolicy="Never")
    now = situation(attempt("side", "running"), attempt("main", "exited"))
    assert decide(known, now, NOW).over


def test_a_pod_that_has_ended_is_never_started_again() -> None:
    done = pod(status={"phase": "Succeeded"})
    assert decide(done, Situation(), NOW) == Decision(over=True)


def test_an_active_deadline_counts_from_the_start() -> None:
    known = pod(activeDeadlineSeconds=30, status={"startTime": "2023-11-14T22:13:20Z"})
    running = situation(attempt("main", "running"))
    assert decide(known, running, NOW).wake == NOW + 30
    decision = decide(known, running, NOW + 30)
    assert decision.over and decision.failure and decision.failure.reason == "DeadlineExceeded"


def picture(known: Pod, *attempts: Attempt, **fields: Any) -> Picture:
    """All containers that run are ready."""
    inner = fields.pop("situation", situation(*attempts))
    ready = frozenset(a.id for a in attempts if a.alive)
    whole = {"ready": ready, "host": "1.2.3.4", "addresses": ("10.0.0.1",), "boxed": True}
    return Picture(pod=known, situation=inner, **{**whole, **fields})


def test_phases() -> None:
    running, ended, failed = (
        attempt("main", "running"),
        attempt("main", "exited"),
        attempt("main", "exited", 1),
    )
    never, always = pod(restartPolicy="Never"), pod()
    assert phase_of(picture(always)) == "Pending"
    assert phase_of(picture(always, running)) == "Running"
    assert phase_of(picture(always, ended)) == "Running"
    assert phase_of(picture(always, failed, ended=True)) == "Failed"
    assert phase_of(picture(never, ended)) == "Succeeded"
    assert phase_of(picture(never, failed)) == "Failed"
    with_side = pod(restartPolicy="Never", initContainers=INITS)
    assert phase_of(picture(with_side, ended, attempt("side", "running"))) == "Running"


def test_a_failed_init_container_fails_the_pod_only_when_all_has_ended() -> None:
    never = pod(initContainers=INITS, restartPolicy="Never")
    failed = attempt("one", "exited", 1)
    assert phase_of(picture(never, failed)) == "Pending"
    assert phase_of(picture(never, failed, ended=True)) == "Failed"


def test_conditions_keep_their_times_and_those_of_others() -> None:
    held = [
        {"type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"},
        {"type": "example.com/x", "status": "False", "lastTransitionTime": "2020-01-02T00:00:00Z"},
    ]
    known = pod(status={"phase": "Running", "conditions": held})
    status = pod_status(picture(known, attempt("main", "running")), NOW)
    found = {c["type"]: c for c in status["conditions"]}
    assert found["Ready"]["lastTransitionTime"] == "2020-01-01T00:00:00Z"
    assert found["ContainersReady"]["lastTransitionTime"] == "2023-11-14T22:13:20Z"
    assert found["example.com/x"]["status"] == "False"
    assert found["PodReadyToStartContainers"]["status"] == "True"


def test_a_waiting_container_says_why() -> None:
    def waiting(known: Pod, **fields: Any) -> Any:
        status = pod_status(picture(known, situation=situation(**fields)), NOW)
        return status["containerStatuses"][0]["state"]["waiting"]

    assert waiting(pod()) == {"reason": "ContainerCreating"}
    assert waiting(pod(initContainers=INITS)) == {"reason": "PodInitializing"}
    pause = Pause(NOW + 1, "ImagePullBackOff", "no such image")
    said = {"reason": "ImagePullBackOff", "message": "no such image"}
    assert waiting(pod(), pauses={"main": pause}) == said


def test_last_state_is_the_attempt_before() -> None:
    before = attempt("main", "exited", 2)
    status = pod_status(
        picture(pod(), attempt("main", "running", number=1), previous={"main": before}), NOW
    )
    (main,) = status["containerStatuses"]
    assert main["lastState"]["terminated"]["exitCode"] == 2
    assert (main["restartCount"], main["ready"], main["started"]) == (1, True, True)


def test_reasons_of_ends() -> None:
    def reason(**fields: Any) -> Any:
        ended = attempt("main", "exited", fields.pop("code", 0), **fields)
        status = pod_status(picture(pod(restartPolicy="Never"), ended), NOW)
        return status["containerStatuses"][0]["state"]["terminated"]["reason"]

    assert reason() == "Completed"
    assert reason(code=1) == "Error"
    assert reason(code=137, oom_killed=True) == "OOMKilled"
    assert reason(code=128, error="no such file") == "StartError"
