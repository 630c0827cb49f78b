"""An attempt: one container made for a pod's container, as a fact to decide by. Pure."""

from __future__ import annotations

import msgspec

from sagong.contracts.node import ContainerStatus, StatusState
from sagong_node.pods.naming import Origin

__all__ = ["Attempt", "attempt_of", "next_delay", "next_start"]

FIRST_DELAY, LONGEST_DELAY, SETTLED = 10.0, 300.0, 600.0
_START_ERROR = 128


class Attempt(msgspec.Struct, frozen=True):
    """`state`: created, running, exited. `error` is why it could not be started.

    `felled`: it ended with its machine, and would run on otherwise.
    """

    id: str
    origin: Origin
    state: str
    code: int = 0
    oom_killed: bool = False
    error: str = ""
    created_at: float = 0.0
    started_at: float = 0.0
    finished_at: float = 0.0
    image_id: str = ""
    message: str = ""
    felled: bool = False

    @property
    def number(self) -> int:
        """Which attempt it is, from 0."""
        return self.origin.attempt

    @property
    def alive(self) -> bool:
        """Whether its processes exist."""
        return self.state == "running"

    @property
    def ended(self) -> bool:
        """Whether it has ended, or could not be started."""
        return self.state == "exited"

    @property
    def pause(self) -> float:
        """Seconds that must pass before the next one: none if it ran for ten minutes, or was felled."""
        settled = self.finished_at - self.created_at > SETTLED
        return 0.0 if settled or self.felled else self.origin.delay


def attempt_of(
    status: ContainerStatus, origin: Origin, *, message: str = "", felled: bool = False
) -> Attempt:
    """The fact behind a container of the node; one that failed to start counts as ended."""
    state, code = _state(status)
    digest = (status.image.digests or (status.image.id,))[0] if status.image else ""
    return Attempt(
        id=status.spec.id,
        origin=origin,
        state=state,
        code=code,
        oom_killed=status.oom_killed,
        error=status.error,
        created_at=status.created_at,
        started_at=status.started_at,
        finished_at=status.finished_at or (status.created_at if state == "exited" else 0.0),
        image_id=digest,
        message=message,
        felled=felled and state == "exited",
    )


def _state(status: ContainerStatus) -> tuple[str, int]:
    if status.state in (StatusState.RUNNING, StatusState.PAUSED):
        return "running", 0
    if status.state is StatusState.CREATED:
        return ("exited", _START_ERROR) if status.error else ("created", 0)
    return "exited", status.code


def next_start(attempt: Attempt) -> float:
    """When the next attempt may start: at once after the first end, later after each further one."""
    return attempt.finished_at + attempt.pause


def next_delay(attempt: Attempt) -> float:
    """The delay that the next attempt carries; one that was felled has its successor begin anew."""
    if attempt.felled:
        return 0.0
    return min(attempt.pause * 2, LONGEST_DELAY) or FIRST_DELAY
