"""The runtimes of this machine: which one holds a container, by the name its user chose."""

from __future__ import annotations

from typing import Final

from sagong.contracts.runtime import Runtime
from sagong.errors import InvalidArgument, NotFound, Unavailable
from sagong.host import Host
from sagong_node.records import ContainerRecord

__all__ = ["Runtimes"]

# What users of Docker and Kubernetes call the default one, unless an instance has the name.
_DEFAULT: Final = frozenset({"", "runc", "io.containerd.runc.v2"})


class Runtimes:
    """Follows the providers of slot `runtime` as they come and go."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._providers = host.providers(Runtime)

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
        try:
            return self.named(self.holder(record))
        except NotFound:
            raise Unavailable(
                f"container {record.spec.id[:12]} is held by runtime {record.spec.runtime}, which "
                "is not here now; `sagong enable` it again"
            ) from None

    def holder(self, record: ContainerRecord) -> str:
        """The instance that holds a container. Where all have names, the only one is the default."""
        name = record.spec.runtime
        if not name and "" not in self.names and len(self.names) == 1:
            return self.names[0]
        return name
