"""The plugin's class: monitored containers whose plans are operations of our own."""

from __future__ import annotations

from typing import Any

import msgspec

from sagong.contracts.runtime import RunSpec
from sagong.host import Host
from sagong.shim.facts import HostFacts
from sagong.shim.rooms import ROOM
from sagong.shim.runtime import MonitoredRuntime
from sagong_runtime_linux.planning import run_request

__all__ = ["RuntimeConfig", "RuntimeLinux"]


class RuntimeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`cgroup_parent` is where containers without a parent of their own go.

    One monitor watches up to `containers_per_monitor` containers; 1 gives each its own.
    """

    cgroup_parent: str = "/sagong"
    containers_per_monitor: int = ROOM


class OperationPlans:
    """Plans of operations, which the launcher's engine applies in the forked child."""

    maker = "sagong_runtime_linux.starting:LinuxEngine"

    def __init__(self, cgroup_parent: str) -> None:
        self._parent = cgroup_parent

    def run(self, spec: RunSpec, facts: HostFacts) -> dict[str, Any]:
        """The message that makes a monitor start this container."""
        return run_request(spec, facts, parent=self._parent)

    @property
    def engine(self) -> dict[str, Any]:
        """Nothing: a plan says all."""
        return {}


class RuntimeLinux(MonitoredRuntime):
    """Runs containers by the launcher of this package."""

    def __init__(self, host: Host) -> None:
        config = host.config(RuntimeConfig)
        super().__init__(
            host,
            OperationPlans(config.cgroup_parent),
            cgroup_parent=config.cgroup_parent,
            containers_per_monitor=config.containers_per_monitor,
        )
