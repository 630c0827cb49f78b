"""The kernel's program: adopts or starts everything, serves its contract, ends on demand."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import uvloop
import zmq

from sagong import config as configuration
from sagong.bus import Access, Provider
from sagong.bus.refusals import Refusals
from sagong.config import Config, Paths, UnitConfig
from sagong.contracts.kernel import Kernel, Order
from sagong.errors import ResourceExhausted, SagongError
from sagong.failures import no_room
from sagong.keeper import CONFIGURATION_ERROR
from sagong.kernel import outages
from sagong.kernel.bounds import Bounds
from sagong.kernel.cell import Cells
from sagong.kernel.guardian import Guardian
from sagong.kernel.listeners import Listeners
from sagong.kernel.pulse import Pulse
from sagong.kernel.renewal import RENEWED, Renewal
from sagong.kernel.service import KernelService
from sagong.kernel.succession import Succession
from sagong.kernel.supervisor import Supervisor
from sagong.kernel.units import Unit, resolve_one
from sagong.kernel.zygote import Zygote, fork_zygote
from sagong.linux import process
from sagong.manifest import Manifest
from sagong.pace import Pace
from sagong.process import configure_logging

__all__ = ["main"]

_LOG = logging.getLogger("sagong.kernel")
# Of the kernel a process asks next to nothing: it tells what became of orders.
_CALLS_AT_ONCE, _CALLS_A_SECOND = 512, 64.0
# Processes of a unit whose threads are looked at: twenty times a second, some 50 µs each.
_LOOKED_AT = 12
_ATTEND = frozenset(f"kernel/1/{name}" for name in ("attend", "done", "flooded", "idle", "wake"))


def main() -> None:
    """`python -m sagong.kernel --root DIR --keeper FD --kept NAME=FD,…`."""
    parser = argparse.ArgumentParser(prog="sagong-kernel")
    parser.add_argument("--root", default="/")
    parser.add_argument("--profile", default="")
    parser.add_argument("--keeper", type=int, default=-1)
    parser.add_argument("--kept", action="append", default=[])
    parser.add_argument("--check", action="store_true", help="read all there is to read, and end")
    options = parser.parse_args()
    configure_logging()
    if options.check:
        raise SystemExit(_check(Path(options.root), options.profile))
    process.set_title("sagong-kernel")
    kept = dict(_kept(entry) for entry in options.kept)
    keeper = socket.socket(fileno=options.keeper) if options.keeper >= 0 else None
    if keeper is not None:
        keeper.set_inheritable(False)
    root, profile = Path(options.root), options.profile
    zygote = fork_zygote(_preloaded(root, profile))
    try:
        raise SystemExit(uvloop.run(_live(root, profile, keeper, kept, zygote)))
    except (SagongError, OSError) as error:
        full = no_room("the kernel", error)
        if full is None and isinstance(error, OSError):
            raise
        _LOG.error("the kernel can't start: %s", full or error)
        # There may be room in a moment; the configuration will not mend itself.
        again = isinstance(full or error, ResourceExhausted)
        raise SystemExit(1 if again else CONFIGURATION_ERROR) from error


def _check(root: Path, profile: str) -> int:
    """Whether this code can be the kernel: everything is imported, configuration and units read."""
    try:
        importlib.import_module("sagong.kernel.zygote")
        paths = Paths.below(root)
        config = configuration.load(paths, profile)
        _resolved(Cells(paths, config), config)
    except SagongError as error:
        print(error, file=sys.stderr)
        return CONFIGURATION_ERROR
    return 0


def _kept(entry: str) -> tuple[str, int]:
    name, _, fd = entry.rpartition("=")
    os.set_inheritable(int(fd), False)
    return name, int(fd)


def _preloaded(root: Path, profile: str) -> tuple[str, ...]:
    """What the configuration says is to be imported before the zygote is forked.

    It is read in a process of its own: units' settings may hold secrets, and what this process has
    read before the fork all plugins have.
    """
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            # A mistake in it is told when the kernel itself reads it.
            with contextlib.suppress(SagongError, OSError):
                names = configuration.load(Paths.below(root), profile).preload
                os.write(write, "\n".join(names).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read) as pipe:
        found = tuple(pipe.read().split())
    os.wait()
    return found


async def _live(
    root: Path,
    profile: str,
    keeper: socket.socket | None,
    kept: dict[str, int],
    zygote: Zygote,
) -> int:
    paths = Paths.below(root)
    config = configuration.load(paths, profile)
    cells = Cells(paths, config)
    units = _with_choices(_resolved(cells, config), cells)
    _make_shared(paths)
    context: zmq.Context[Any] = zmq.Context()
    listeners = Listeners(paths, kept, keeper)
    listeners.retain(units.values())
    succession = Succession(lambda: cells.configured, cells.programs.load)
    supervisor = Supervisor(paths, config, units, cells, listeners, succession, context)
    supervisor.spawner.adopt(zygote)
    ended: asyncio.Future[tuple[float, bool] | None] = asyncio.get_running_loop().create_future()

    def end(seconds: float = 10.0, purge: bool = False) -> None:
        if not ended.done():
            ended.set_result((seconds, purge))

    def leave() -> None:
        if not ended.done():
            ended.set_result(None)

    check = [sys.executable, "-m", "sagong.kernel", "--check", "--root", str(root)]
    renewal = Renewal(supervisor, [*check, "--profile", profile], leave if keeper else None)
    service = KernelService(supervisor, cells, config, succession, renewal, end)
    provider = _provide(context, paths, service, supervisor, cells)
    guardian = Guardian(keeper, root, profile, listeners)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)
    await supervisor.begin()
    service.restraint.begin()
    silence = config.silence_seconds
    pulse = Pulse(supervisor.population, supervisor.lives, cells, supervisor.feed, patience=silence)
    bounds = _bounds(paths, config, supervisor, cells, service)
    work = (_announce(supervisor, guardian), bounds.watch(), pulse.watch(), guardian.beat(silence))
    tasks = [asyncio.create_task(one) for one in work]
    for task in tasks:
        task.add_done_callback(_failed)
    stopping = await ended
    for task in tasks:
        task.cancel()
    if stopping is None:
        await provider.close()
        return RENEWED
    seconds, purge = stopping
    guardian.stop()
    await supervisor.stop(seconds, purge=purge)
    await provider.close()
    context.destroy(linger=100)
    return 0


def _failed(task: asyncio.Task[None]) -> None:
    """What goes on all the time ended by a defect: the kernel goes on without it."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _LOG.error("background work failed", exc_info=error)


def _resolved(cells: Cells, config: Config) -> dict[str, Unit]:
    """All units; one that the operator added and whose plugin is gone keeps nothing from starting."""
    units = {}
    for name, unit in cells.configured.items():
        try:
            units[name] = resolve_one(name, unit, cells.programs.load)
        except SagongError as error:
            if name in config.units and config.units[name] is unit:
                raise _of_unit(name, error) from None
            _LOG.error("an enabled unit can't run: %s", error, extra={"unit": name})
    return units


def _of_unit(name: str, error: SagongError) -> SagongError:
    """The same error, with the place in the configuration that it comes from."""
    where = f"units.{name}"
    return error if where in error.message else type(error)(f"{where}: {error.message}")


async def _announce(supervisor: Supervisor, guardian: Guardian) -> None:
    """Say how far all units have come, at every change; the keeper tells its service manager."""
    changes: asyncio.Queue[Order] = asyncio.Queue()
    supervisor.observers.add(changes)
    try:
        while True:
            guardian.tell(outages.standing(supervisor.lives))
            await changes.get()
            while not changes.empty():
                changes.get_nowait()
    finally:
        supervisor.observers.discard(changes)


@dataclass(frozen=True)
class _Bounded:
    """A living process, for `Bounds`."""

    name: str
    generation: int
    manifest: Manifest
    pidfd: int
    own: tuple[Path, ...]
    counters: tuple[str, ...]
    usage: str
    pids: Callable[[], Iterable[int]]

    def threads(self) -> dict[int, int]:
        """Nanoseconds that each of its threads has run or waited for a core, of its first processes."""
        some = islice(self.pids(), _LOOKED_AT)
        times = (entry for pid in some for entry in process.thread_times(pid).items())
        return {thread: ran + waited for thread, (ran, waited) in times}


def _bounds(
    paths: Paths,
    config: Config,
    supervisor: Supervisor,
    cells: Cells,
    service: KernelService,
) -> Bounds:
    def living() -> Iterator[_Bounded]:
        for one in supervisor.population:
            unit, generation = one.unit, one.generation
            yield _Bounded(
                unit.name,
                generation,
                unit.manifest,
                one.pidfd,
                cells.own(unit),
                cells.counters(unit, generation),
                cells.usage(unit, generation),
                partial(cells.pids, unit, generation),
            )

    logs = paths.run / "log"
    bounds = Bounds(logs, config.log_limit, Refusals(_LOG), living, service.restraint)
    supervisor.came = bounds.follow
    return bounds


def _with_choices(units: dict[str, Unit], cells: Cells) -> dict[str, Unit]:
    """What the operator swapped in stays, as long as it is installed."""
    for name, plugin in cells.chosen.items():
        unit = units.get(name)
        if unit is None or unit.manifest.plugin.name == plugin:
            continue
        choice = UnitConfig(plugin=plugin, instance=unit.instance, listens=dict(unit.listens))
        try:
            units[name] = resolve_one(name, choice, cells.programs.load)
        except SagongError as error:
            _LOG.warning("swapped-in plugin is gone: %s", error, extra={"unit": name})
    return units


def _provide(
    context: zmq.Context[Any],
    paths: Paths,
    service: KernelService,
    supervisor: Supervisor,
    cells: Cells,
) -> Provider:
    bus = paths.run / "kernel" / "bus"
    bus.mkdir(parents=True, exist_ok=True)
    pace = Pace(burst=_CALLS_AT_ONCE, rate=_CALLS_A_SECOND)
    provider = Provider(context, str(bus / "s"), service.restraint.flooded, pace=pace)
    provider.serve(Kernel, service)
    service.sight.observe(provider)
    grants: dict[int, Access] = {}

    def admit(unit: Unit) -> None:
        grants[cells.uid(unit)] = Access(unit.name, _ATTEND | set(_asked_of_kernel(unit)))
        provider.grant(grants)
        provider.forgive(cells.uid(unit))

    def expel(unit: Unit) -> None:
        grants.pop(cells.uid(unit), None)
        provider.grant(grants)

    for unit in supervisor.units.values():
        admit(unit)
    supervisor.admit, supervisor.expel = admit, expel
    supervisor.gone = service.restraint.gone
    provider.bind()
    return provider


def _asked_of_kernel(unit: Unit) -> Iterator[str]:
    """Methods of the kernel that a manifest names, beside those that every process needs."""
    for slot, use in unit.uses():
        if slot == "kernel":
            yield from (f"kernel/{use.version}/{name}" for name in use.methods)


def _make_shared(paths: Paths) -> None:
    """`netns` and `mounts` below the run directory are shared mounts, made before any sandbox."""
    from sagong.linux import mounts

    mounted = {entry.target for entry in mounts.mount_table()}
    for name in ("netns", "mounts"):
        path = paths.run / name
        path.mkdir(parents=True, exist_ok=True)
        if str(path) not in mounted:
            mounts.bind(str(path), str(path))
            mounts.set_propagation(str(path), "shared")


if __name__ == "__main__":
    main()
