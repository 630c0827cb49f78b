"""`docker stats`: samples in the Docker API's shape."""

from __future__ import annotations

import asyncio
import time
from typing import Any, NamedTuple

import msgspec

from sagong.contracts.metrics import Machine, Sample, SampleQuery
from sagong.contracts.network import Counters, CountersQuery
from sagong.contracts.node import ContainerStatus, StatusState
from sagong.errors import InvalidArgument, NotFound
from sagong_docker.ask import Ask
from sagong_docker.engine import Engine
from sagong_docker.machine import this_machine
from sagong_docker.moment import NEVER, moment_text
from sagong_docker.record import ContainerRecord

__all__ = ["stats", "stats_view"]

_INTERVAL = 1.0
# A container is measured from a moment after its start on, and a moment after a new measurer's.
_UNMEASURED, _PAUSE = 10.0, 0.1
_COUNTED = tuple(name for name in Counters.__struct_fields__ if name != "interface")


class Taken(NamedTuple):
    """One look at a container: what it uses, what its interfaces count, and the machine."""

    sample: Sample
    interfaces: tuple[Counters, ...]
    machine: Machine


async def stats(engine: Engine, ask: Ask) -> None:
    """A stream of one sample a second; one with the one before it; or one alone (one-shot)."""
    record = await engine.container(ask["id"])
    following, one_shot = ask.flag("stream", True), ask.flag("one-shot")
    if following and one_shot:
        raise InvalidArgument("cannot have stream=true and one-shot=true")
    out = ask.request.stream(200, {"Content-Type": "application/json"})
    before: Taken | None = None
    if not following and not one_shot:
        before = await _take(engine, record)
        await asyncio.sleep(_INTERVAL)
    while True:
        try:
            now = await _take(engine, record)
        except NotFound:
            return  # it was removed: the stream ends with it
        await out.write(msgspec.json.encode(stats_view(record, now, before)) + b"\n")
        if not following:
            return
        before = now
        await asyncio.sleep(_INTERVAL)


async def _take(engine: Engine, record: ContainerRecord) -> Taken | None:
    """None while it doesn't run: Docker answers with zeros then."""
    limit = time.monotonic() + _UNMEASURED
    while True:
        status = await engine.status(record)
        if status.state not in (StatusState.RUNNING, StatusState.PAUSED):
            return None
        try:
            return await _taken(engine, record, status)
        except NotFound:
            if time.monotonic() > limit:
                return None
            await asyncio.sleep(_PAUSE)


async def _taken(engine: Engine, record: ContainerRecord, status: ContainerStatus) -> Taken | None:
    found, counted, machine = await asyncio.gather(
        engine.metrics.sample(SampleQuery(ids=(record.id,), fresh=True)),
        engine.network.counters(CountersQuery(ids=(_sandbox(record, status),))),
        engine.metrics.machine(),
    )
    interfaces = tuple(each for one in counted.sandboxes for each in one.interfaces)
    return Taken(found.samples[-1], interfaces, machine) if found.samples else None


def _sandbox(record: ContainerRecord, status: ContainerStatus) -> str:
    """Whose network it is on: its own, or that of the container whose id its mode names."""
    mode, _, other = str(record.host.get("NetworkMode") or "").partition(":")
    return other if mode == "container" else status.spec.sandbox


def stats_view(record: ContainerRecord, now: Taken | None, before: Taken | None) -> dict[str, Any]:
    """One sample, with the CPU counters of the one before."""
    view: dict[str, Any] = {
        "id": record.id,
        "name": f"/{record.name}",
        "read": moment_text(now.sample.time) if now else NEVER,
        "preread": moment_text(before.sample.time) if before else NEVER,
        "num_procs": 0,
        "storage_stats": {},
        "pids_stats": _pids(now.sample) if now else {},
        "blkio_stats": _blkio(now.sample) if now else _blkio_empty(),
        "cpu_stats": _cpu(now),
        "precpu_stats": _cpu(before),
        "memory_stats": _memory(now.sample, now.machine) if now else {},
    }
    if now and now.interfaces:
        view["networks"] = {each.interface: _network(each) for each in now.interfaces}
    return view


def _pids(sample: Sample) -> dict[str, int]:
    view = {"current": sample.pids}
    if sample.pids_limit > 0:
        view["limit"] = sample.pids_limit
    return view


def _cpu(taken: Taken | None) -> dict[str, Any]:
    sample = taken.sample if taken else None
    view: dict[str, Any] = {
        "cpu_usage": {
            "total_usage": sample.cpu_total if sample else 0,
            "usage_in_kernelmode": sample.cpu_system if sample else 0,
            "usage_in_usermode": sample.cpu_user if sample else 0,
        },
        "throttling_data": {
            "periods": sample.periods if sample else 0,
            "throttled_periods": sample.throttled_periods if sample else 0,
            "throttled_time": sample.throttled_time if sample else 0,
        },
    }
    if sample and sample.cpu_by_core:
        view["cpu_usage"]["percpu_usage"] = sample.cpu_by_core
    if taken:
        view["system_cpu_usage"] = taken.machine.system_total
        view["online_cpus"] = taken.machine.cores
    return view


def _memory(sample: Sample, machine: Machine) -> dict[str, Any]:
    limit = sample.memory_limit
    if limit <= 0 or limit > machine.memory_total:
        limit = machine.memory_total
    view: dict[str, Any] = {
        "usage": sample.memory_usage,
        "limit": limit,
        "stats": dict(sample.memory_stat),
    }
    if sample.memory_max:
        view["max_usage"] = sample.memory_max
    if sample.memory_fail_count:
        view["failcnt"] = sample.memory_fail_count
    return view


def _blkio_empty() -> dict[str, Any]:
    names = ("service_bytes", "serviced", "queue", "service_time", "wait_time", "merged", "time")
    # Docker reads lists of cgroup v1, and nothing where there are none.
    none = None if this_machine().unified else ()
    view: dict[str, Any] = {f"io_{name}_recursive": none for name in names}
    view["sectors_recursive"] = none
    return view


def _blkio(sample: Sample) -> dict[str, Any]:
    view = _blkio_empty()
    sized: list[dict[str, Any]] = []
    counted: list[dict[str, Any]] = []
    for device, name, value in sample.io:
        major, _, minor = device.partition(":")
        if not (major.isdigit() and minor.isdigit()):
            continue
        target, op = _IO.get(name, ("", ""))
        if not target:
            continue
        entry = {"major": int(major), "minor": int(minor), "op": op, "value": value}
        (sized if target == "bytes" else counted).append(entry)
    view["io_service_bytes_recursive"] = sized or view["io_service_bytes_recursive"]
    view["io_serviced_recursive"] = counted or view["io_serviced_recursive"]
    return view


_IO = {
    "read_bytes": ("bytes", "read"),
    "write_bytes": ("bytes", "write"),
    "reads": ("count", "read"),
    "writes": ("count", "write"),
}


def _network(counters: Counters) -> dict[str, int]:
    return {name: getattr(counters, name) for name in _COUNTED}
