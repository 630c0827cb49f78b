"""What the workers of pods share: the node's parts, the ledger, caches, settings."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec

from sagong.contracts.objects import Objects
from sagong.model.k8s.core_v1 import Service
from sagong_node.lifecycle import Lifecycle
from sagong_node.pods.ledger import Ledger
from sagong_node.pods.occurrences import Occurrences
from sagong_node.pods.pulling import Puller
from sagong_node.pods.settings import PodSettings
from sagong_node.pods.sources import Sources
from sagong_node.pods.volumes import PodVolumes
from sagong_node.registry import Registry
from sagong_node.service import NodeService

__all__ = ["ServiceView", "Surroundings"]


class ServiceView(msgspec.Struct):
    """Services as far as known; `wait_synced` returns when they are all known."""

    services: Callable[[str], list[Service]]
    wait_synced: Callable[[], Awaitable[object]]


class Surroundings(msgspec.Struct):
    """One for the kubelet. `pods` is the directory of pods' files, `logs` that of their logs.

    `network` is the id of the pods' network once it is known; `host` the node's address; `capacity`
    what can be allocated, in nano-units by resource; `memory` the machine's, in bytes.
    """

    node: NodeService
    life: Lifecycle
    registry: Registry
    objects: Objects
    ledger: Ledger
    occurrences: Occurrences
    volumes: PodVolumes
    sources: Sources
    puller: Puller
    services: ServiceView
    settings: PodSettings
    log: logging.Logger
    pods: Path
    logs: Path
    host: str = ""
    network: str = ""
    memory: int = 0
    capacity: Mapping[str, int] = {}
    ended: Callable[[str], None] = lambda uid: None
