"""Reports: what a process has done, read from the operating system and its provider's meters."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sagong.bus import Provider
from sagong.contracts.kernel import Gauge, ProcessReport
from sagong.linux.process import start_time

__all__ = ["GaugeReader", "account"]


@dataclass(frozen=True)
class GaugeReader:
    """A plugin's figure by name; `read` is called whenever somebody wants to know."""

    name: str
    function: Callable[[], float]
    help: str

    def read(self) -> Gauge:
        """The figure now."""
        return Gauge(name=self.name, value=float(self.function()), help=self.help)


def account(unit: str, plugin: str, generation: int, provider: Provider | None) -> ProcessReport:
    """This process's report, without gauges."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return ProcessReport(
        unit=unit,
        plugin=plugin,
        generation=generation,
        pid=os.getpid(),
        started=_began(),
        cpu=used.ru_utime + used.ru_stime,
        memory=_resident(),
        refused=provider.counters.refused if provider else 0,
        in_flight=provider.counters.in_flight if provider else 0,
        methods=provider.counts() if provider else (),
    )


def _began() -> float:
    """When the process began, in seconds since the epoch."""
    ticks = start_time() / os.sysconf("SC_CLK_TCK")
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks)


def _resident() -> int:
    """Bytes in memory (proc_pid_statm(5))."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGESIZE")
