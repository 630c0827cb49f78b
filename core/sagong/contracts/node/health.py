"""Health checks of containers in Docker's sense, as contract `node` has them."""

from __future__ import annotations

from sagong.contract import Message

__all__ = ["HealthSpec", "HealthState"]


class HealthSpec(Message):
    """A health check in Docker's sense; `test` begins with CMD, CMD-SHELL or NONE. Seconds.

    0 takes the default: 30 s, 5 s while it starts, 3 tries.
    """

    test: tuple[str, ...] = ()
    interval: float = 0.0
    timeout: float = 0.0
    start_period: float = 0.0
    start_interval: float = 0.0
    retries: int = 0


class HealthState(Message):
    """`status`: starting, healthy, unhealthy; the last probes as (start, end, code, output)."""

    status: str
    failing_streak: int = 0
    probes: tuple[tuple[float, float, int, str], ...] = ()
