"""What else happens when a container starts or ends: its networks and volumes, in Docker's order.

The node tells of containers and their volumes; what networks they are on follows from their create
bodies. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sagong.contracts.network import Network
from sagong_docker.history import Event
from sagong_docker.record import ContainerRecord

__all__ = ["attempted", "told"]

Volumes = tuple[tuple[str, str, bool], ...]


def told(
    event: Event, volumes: Volumes, record: ContainerRecord, networks: Mapping[str, Network]
) -> Iterator[Event]:
    """An event after those that belong to it: of a start connections and mounts, of an end the same
    taken back, of a removal the volumes that went with it."""
    if event.action == "start":
        yield from _connections("connect", event.time, record, networks)
        for name, target, writable in volumes:
            facts = {
                "container": record.id,
                "destination": target,
                "driver": "local",
                "propagation": "",
                "read/write": "true" if writable else "false",
            }
            yield Event("volume", "mount", name, facts, event.time)
    elif event.action == "die":
        yield from _connections("disconnect", event.time, record, networks)
        for name, _, _ in volumes:
            facts = {"container": record.id, "driver": "local"}
            yield Event("volume", "unmount", name, facts, event.time)
    elif event.action == "destroy":
        for name, _, _ in volumes:
            yield Event("volume", "destroy", name, {"driver": "local"}, event.time)
    yield event


def attempted(
    record: ContainerRecord, networks: Mapping[str, Network], time: int
) -> Iterator[Event]:
    """Of a start whose program could not be executed."""
    for action in ("connect", "disconnect"):
        yield from _connections(action, time, record, networks)


def _connections(
    action: str, time: int, record: ContainerRecord, networks: Mapping[str, Network]
) -> Iterator[Event]:
    mode = str(record.host.get("NetworkMode") or "bridge").replace("default", "bridge")
    given = (record.networking or {}).get("EndpointsConfig") or {}
    for reference in () if mode.startswith("container:") else dict.fromkeys((mode, *given)):
        network = networks.get(reference)
        if network is not None and network.id not in record.left:
            facts = {"container": record.id, "name": network.name, "type": network.driver}
            yield Event("network", action, network.id, facts, time)
