"""Docker's health checks: a command in the container, again and again, and what follows from it."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any

import msgspec

from sagong.contracts.node import ExecSpec, HealthSpec, HealthState, StatusState
from sagong.contracts.runtime import ExecStatus
from sagong.errors import SagongError
from sagong.host import Host
from sagong.model.times import duration_text
from sagong.streams import framed
from sagong_node.execution import Execution
from sagong_node.lifecycle import Lifecycle
from sagong_node.outcome import outcome
from sagong_node.records import ContainerRecord
from sagong_node.registry import Registry

__all__ = ["Health", "check_of", "judge"]

_KEPT_PROBES = 5
_OUTPUT = 4096
_INTERVAL, _START_INTERVAL, _TIMEOUT = 30.0, 5.0, 30.0
# What a busy machine takes to start a command is not the command's fault.
_START_TIMEOUT = 30.0


def check_of(own: HealthSpec | None, image: str) -> HealthSpec | None:
    """A container's check: what it leaves out is that of its image (JSON, nanoseconds). Pure.

    None if there is nothing to check.
    """
    given: dict[str, Any] = msgspec.json.decode(image) if image else {}
    known = HealthSpec(
        test=tuple(given.get("Test") or ()),
        interval=(given.get("Interval") or 0) / 1e9,
        timeout=(given.get("Timeout") or 0) / 1e9,
        start_period=(given.get("StartPeriod") or 0) / 1e9,
        start_interval=(given.get("StartInterval") or 0) / 1e9,
        retries=given.get("Retries") or 0,
    )
    changes = {k: v for k in known.__struct_fields__ if own and (v := getattr(own, k))}
    found = msgspec.structs.replace(known, **changes)
    return found if found.test and found.test[0] not in ("", "NONE") else None


def judge(
    state: HealthState, probe: tuple[float, float, int, str], spec: HealthSpec, started: float
) -> HealthState:
    """The state after one more probe (start, end, code, output). Pure.

    Failures within the start period don't count until the first success.
    """
    begin, _, code, _ = probe
    probes = (*state.probes, probe)[-_KEPT_PROBES:]
    if code == 0:
        return HealthState(status="healthy", failing_streak=0, probes=probes)
    starting = state.status == "starting" and begin - started < spec.start_period
    streak = state.failing_streak + (0 if starting else 1)
    status = "unhealthy" if streak >= (spec.retries or 3) else state.status
    return HealthState(status=status, failing_streak=streak, probes=probes)


class Health:
    """One probing task a container that has a check and runs."""

    def __init__(
        self, host: Host, registry: Registry, lifecycle: Lifecycle, execution: Execution
    ) -> None:
        self._execution = execution
        self._host = host
        self._registry = registry
        self._lifecycle = lifecycle
        self._tasks: dict[str, asyncio.Task[None]] = {}
        lifecycle.started.append(self.begin)

    def begin(self, record: ContainerRecord) -> None:
        """Probe a container that has started, until its run ends."""
        of_image = record.spec.image_health and record.image is not None
        image = record.image.config.healthcheck if of_image and record.image else ""
        spec = check_of(record.spec.health, image)
        if spec is None:
            return
        old = self._tasks.pop(record.spec.id, None)
        if old is not None:
            old.cancel()
        record.health, record.probe = HealthState(status="starting"), ""
        work = self._probe_all(record, spec, record.run)
        self._tasks[record.spec.id] = self._host.spawn(work, f"health {record.spec.id[:12]}")

    async def _probe_all(self, record: ContainerRecord, spec: HealthSpec, run: int) -> None:
        try:
            while True:
                await asyncio.sleep(self._pause(record, spec))
                if not record.alive or record.run != run:
                    return
                if record.state is StatusState.RUNNING:
                    await self._probe(record, spec)
        finally:
            if self._tasks.get(record.spec.id) is asyncio.current_task():
                del self._tasks[record.spec.id]

    def _pause(self, record: ContainerRecord, spec: HealthSpec) -> float:
        starting = record.health is not None and record.health.status == "starting"
        young = time.time() - record.started_at < spec.start_period
        if starting and young:
            return spec.start_interval or _START_INTERVAL
        return spec.interval or _INTERVAL

    async def _probe(self, record: ContainerRecord, spec: HealthSpec) -> None:
        begin, bound, said = time.time(), spec.timeout or _TIMEOUT, bytearray()
        late = f"timed out starting health check for container {record.spec.id}"
        command = _command(record, spec)
        record.probe = command.exec_id
        try:
            async with asyncio.timeout(_START_TIMEOUT) as limit:
                status = await self._execution.probe(record, command)
                late = f"Health check exceeded timeout ({duration_text(bound)})"
                limit.reschedule(asyncio.get_running_loop().time() + bound)
                code, output = await _outcome(status, said)
            facts = {"execID": command.exec_id, "exitCode": str(code)}
            self._lifecycle.note(record, "exec_die", **facts)
        except TimeoutError:
            # With what it said until then.
            code, text = -1, said.decode(errors="replace")
            output = f"{late}: {text}" if text else late
        except (SagongError, OSError) as error:
            code, output = -1, str(error)
        finally:
            record.probe = ""
        if not record.alive or record.health is None:
            return
        before = record.health.status
        probe = (begin, time.time(), code, output)
        record.health = judge(record.health, probe, spec, record.started_at)
        self._registry.keep(record)
        if record.health.status != before:
            self._lifecycle.note(record, f"health_status: {record.health.status}")


def _command(record: ContainerRecord, spec: HealthSpec) -> ExecSpec:
    kind, *args = spec.test
    if kind == "CMD-SHELL":
        shell = record.image.config.shell if record.image is not None else ()
        args = [*(shell or ("/bin/sh", "-c")), *args]
    return ExecSpec(id=record.spec.id, exec_id=secrets.token_hex(32), args=tuple(args))


async def _outcome(status: ExecStatus, said: bytearray) -> tuple[int, str]:
    """The check's code and output; what it has said so far is in `said`."""
    if status.stream is None:
        return status.code, ""
    async with framed(status.stream) as frames:
        ended, output = await outcome(frames, most=_OUTPUT + 1, said=said)
    if len(said) > _OUTPUT:
        output = said[:_OUTPUT].decode(errors="replace") + "..."
    return -1 if ended is None else ended, output
