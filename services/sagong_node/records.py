"""Records of sandboxes and containers: what node knows of each, as it is kept in the state."""

from __future__ import annotations

import msgspec

from sagong.contracts.image import Image
from sagong.contracts.network import Sandbox
from sagong.contracts.node import (
    ContainerSpec,
    ContainerStatus,
    HealthState,
    SandboxSpec,
    SandboxStatus,
    StatusState,
)

__all__ = ["ContainerRecord", "Ended", "SandboxRecord"]


class SandboxRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A sandbox; `network` while it is joined; `user_base` is where its range of ids begins."""

    spec: SandboxSpec
    network: Sandbox | None = None
    user_base: int = 0

    def status(self) -> SandboxStatus:
        """As others see it."""
        return SandboxStatus(spec=self.spec, network=self.network)


class Ended(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How a container ended that is removed: for those who wait for it and were cut off."""

    id: str
    code: int = 0
    error: str = ""
    at: float = 0.0


class ContainerRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A container. `wanted` is whether it should run: false after a stop that somebody asked for.

    `stopping` is of a stop that a process of before passed on: the signal, and when it was sent by
    CLOCK_MONOTONIC. `felled`: the machine, or the platform, went down while it ran. `probe` is the
    exec of a health check that is under way.
    """

    spec: ContainerSpec
    state: StatusState = StatusState.CREATED
    run: int = 0
    pid: int = 0
    code: int = 0
    oom_killed: bool = False
    error: str = ""
    wanted: bool = False
    created_at: float = 0.0
    started_at: float = 0.0
    finished_at: float = 0.0
    restart_count: int = 0
    failures: int = 0
    image: Image | None = None
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    cwd: str = "/"
    mounts: tuple[tuple[str, str, str, str, str, bool, str], ...] = ()
    anonymous: tuple[str, ...] = ()
    log_path: str = ""
    resolv_path: str = ""
    hosts_path: str = ""
    hostname_path: str = ""
    upper: str = ""
    lower: tuple[str, ...] = ()
    cgroup: str = ""
    exec_ids: tuple[str, ...] = ()
    probe: str = ""
    health: HealthState | None = None
    stopping: tuple[int, float] | None = None
    felled: bool = False

    @property
    def alive(self) -> bool:
        """Whether its processes exist."""
        return self.state in (StatusState.RUNNING, StatusState.PAUSED)

    @property
    def begun(self) -> bool:
        """Whether they exist, or will by themselves."""
        return self.alive or self.state is StatusState.RESTARTING

    @property
    def written(self) -> tuple[tuple[str, str], ...]:
        """The files that are written for each run, as (target, path); they go with its end."""
        if not (self.alive and self.hosts_path):
            return ()
        return (
            ("/etc/resolv.conf", self.resolv_path),
            ("/etc/hosts", self.hosts_path),
            ("/etc/hostname", self.hostname_path),
        )

    @property
    def mounting(self) -> bool:
        """Whether volumes or images are mounted in it, by its spec or its image."""
        return bool(self.spec.mounts or (self.image and self.image.config.volumes))

    def status(self, network: Sandbox | None) -> ContainerStatus:
        """As others see it."""
        return ContainerStatus(
            spec=self.spec,
            state=self.state,
            pid=self.pid,
            run=self.run,
            code=self.code,
            oom_killed=self.oom_killed,
            error=self.error,
            created_at=self.created_at,
            started_at=self.started_at,
            finished_at=self.finished_at,
            restart_count=self.restart_count,
            image=self.image,
            args=self.args,
            env=self.env,
            cwd=self.cwd,
            mounts=self.mounts,
            log_path=self.log_path,
            resolv_path=self.resolv_path,
            hosts_path=self.hosts_path,
            hostname_path=self.hostname_path,
            upper=self.upper,
            lower=self.lower,
            cgroup=self.cgroup,
            exec_ids=(*self.exec_ids, self.probe) if self.probe and self.alive else self.exec_ids,
            health=self.health,
            network=network,
        )
