"""The runtimes of this machine: which one holds a container, by the name its user chose."""

from __future__ import annotations

import contextlib
import time
from typing import Final

from sagong.contracts.runtime import Runtime
from sagong.errors import InvalidArgument, NotFound, SagongError, Unavailable
from sagong.host import Host
from sagong_node.records import ContainerRecord

__all__ = ["Runtimes"]

# What users of Docker and Kubernetes call the default one, unless an instance has the name.
_DEFAULT: Final = frozenset({"", "runc", "io.containerd.runc.v2"})
# Who was asked so lately is awake.
_AWAKE_SECONDS = 30.0


class Runtimes:
    """Follows the providers of slot `runtime` as they come and go."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._providers = host.providers(Runtime)
        self._asked: dict[str, float] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the instances; "" is the default one."""
        return self._providers.names

    def instance(self, name: str) -> str:
        """The instance behind a user's name; InvalidArgument in Docker's words if there is none."""
        if name in self.names:
            return name
        if name in _DEFAULT:
            return ""
        raise InvalidArgument(f"unknown or invalid runtime name: {name}")

    def named(self, instance: str) -> Runtime:
        """One of those that there are."""
        return self._host.use(Runtime, instance)

    def of(self, record: ContainerRecord) -> Runtime:
        """The one that holds a container; Unavailable while it is taken away."""
        holder = self.holder(record)
        self._asked[holder] = time.monotonic()
        try:
            return self.named(holder)
        except NotFound:
            raise Unavailable(
                f"container {record.spec.id[:12]} is held by runtime {record.spec.runtime}, which "
                "is not here now; `sagong enable` it again"
            ) from None

    def rouse(self, record: ContainerRecord) -> None:
        """It will be needed soon: if it is asleep it wakes while other things are done."""
        if time.monotonic() - self._asked.get(self.holder(record), 0.0) > _AWAKE_SECONDS:
            self._host.spawn(self._wake(record), f"rouse the runtime of {record.spec.id[:12]}")

    async def _wake(self, record: ContainerRecord) -> None:
        with contextlib.suppress(SagongError):
            await self.of(record).list()

    def holder(self, record: ContainerRecord) -> str:
        """The instance that holds a container. Where all have names, the only one is the default."""
        name = record.spec.runtime
        if not name and "" not in self.names and len(self.names) == 1:
            return self.names[0]
        return name
