"""What else happens when a container starts or ends: its networks and volumes, in Docker's order.

The node tells of containers alone; what they are on follows from their create bodies. Pure.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping

from sagong.contracts.network import Network
from sagong_docker.history import Event
from sagong_docker.record import ContainerRecord

__all__ = ["after", "before"]


def before(
    event: Event, record: ContainerRecord, networks: Mapping[str, Network]
) -> Iterator[Event]:
    """What is told before this event: of a start, connections and mounts."""
    if event.action == "start":
        yield from _connections("connect", event, record, networks)
        for name, target, writable in _volumes(record):
            facts = {
                "container": record.id,
                "destination": target,
                "driver": "local",
                "propagation": "",
                "read/write": "true" if writable else "false",
            }
            yield Event("volume", "mount", name, facts, event.time)


def after(
    event: Event, record: ContainerRecord, networks: Mapping[str, Network]
) -> Iterator[Event]:
    """What is told after this event: of an end, the same taken back."""
    if event.action == "die":
        yield from _connections("disconnect", event, record, networks)
        for name, _, _ in _volumes(record):
            facts = {"container": record.id, "driver": "local"}
            yield Event("volume", "unmount", name, facts, event.time)


def _connections(
    action: str, event: Event, record: ContainerRecord, networks: Mapping[str, Network]
) -> Iterator[Event]:
    mode = str(record.host.get("NetworkMode") or "bridge").replace("default", "bridge")
    given = (record.networking or {}).get("EndpointsConfig") or {}
    for reference in () if mode.startswith("container:") else dict.fromkeys((mode, *given)):
        network = networks.get(reference)
        if network is not None:
            facts = {"container": record.id, "name": network.name, "type": network.driver}
            yield Event("network", action, network.id, facts, event.time)


def _volumes(record: ContainerRecord) -> Iterator[tuple[str, str, bool]]:
    for text in record.host.get("Binds") or ():
        source, _, rest = text.partition(":")
        target, _, mode = rest.partition(":")
        if not source.startswith("/"):
            yield source, posixpath.normpath(target), "ro" not in mode.split(",")
    for mount in record.host.get("Mounts") or ():
        if mount.get("Type") == "volume" and mount.get("Source"):
            target = posixpath.normpath(mount.get("Target") or "")
            yield mount["Source"], target, not mount.get("ReadOnly")
