"""Follows services, slices and policies and gives the network what follows from them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from sagong.contracts.network import Networks, Rules
from sagong.contracts.objects import Objects
from sagong.errors import SagongError
from sagong.following import Kept
from sagong.model.k8s.core_v1 import Namespace, Pod, Service
from sagong.model.k8s.discovery_v1 import EndpointSlice
from sagong.model.k8s.networking_v1 import NetworkPolicy
from sagong_node.pods.policies import policies
from sagong_node.pods.routing import SERVICE_LABEL, routes
from sagong_node.pods.settings import PodSettings

__all__ = ["Router"]

Spawn = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]
_TICK = 0.01
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0


class Router:
    """Applies the whole whenever a part has changed, at most once a tick."""

    def __init__(
        self, objects: Objects, networks: Networks, settings: PodSettings, spawn: Spawn, log: Any
    ) -> None:
        self._networks = networks
        self._settings = settings
        self._spawn = spawn
        self._log = log
        self._wake = asyncio.Event()
        self._applied: Rules | None = None
        self._watching = False
        wake = self._wake.set
        self.services = Kept(objects, "v1/services", Service, wake)
        self._slices = Kept(objects, "discovery.k8s.io/v1/endpointslices", EndpointSlice, wake)
        self._policies = Kept(objects, "networking.k8s.io/v1/networkpolicies", NetworkPolicy, wake)
        self._pods = Kept(objects, "v1/pods", Pod, wake)
        self._namespaces = Kept(objects, "v1/namespaces", Namespace, wake)

    def start(self) -> None:
        """Begin to follow."""
        self._spawn(self.services.run(self._log), "follow services")
        self._spawn(self._slices.run(self._log), "follow endpointslices")
        self._spawn(self._policies.run(self._log), "follow networkpolicies")
        self._spawn(self._apply_all(), "route services")

    def of_namespace(self, namespace: str) -> list[Service]:
        """Services that pods of a namespace may be told of."""
        return [
            service
            for (where, name), service in self.services.items.items()
            if where == namespace or (where, name) == ("default", "kubernetes")
        ]

    def renew(self) -> None:
        """The network plugin is another one now: give it everything again."""
        self._applied = None
        self._wake.set()

    async def _apply_all(self) -> None:
        pause = _FIRST_PAUSE
        await self.services.synced.wait()
        await self._slices.synced.wait()
        await self._policies.synced.wait()
        while True:
            await self._wake.wait()
            await asyncio.sleep(_TICK)
            self._wake.clear()
            rules = self.rules()
            if rules is None or (self._applied is not None and _same(rules, self._applied)):
                continue
            try:
                await self._networks.apply(rules)
                self._applied, pause = rules, _FIRST_PAUSE
            except SagongError as error:
                self._log.warning("can't route services: %s", error.message)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
                self._wake.set()

    def rules(self) -> Rules | None:
        """All that follows from what is known; None while policies wait for their pods."""
        slices: dict[tuple[str, str], list[EndpointSlice]] = {}
        for (namespace, _), part in self._slices.items.items():
            name = part.metadata.labels.get(SERVICE_LABEL, "")
            slices.setdefault((namespace, name), []).append(part)
        found = list(self._policies.items.values())
        if found and not self._watching:
            self._watching = True
            self._spawn(self._pods.run(self._log), "follow all pods")
            self._spawn(self._namespaces.run(self._log), "follow namespaces")
        if found and not (self._pods.synced.is_set() and self._namespaces.synced.is_set()):
            return None
        labels = {name: n.metadata.labels for (_, name), n in self._namespaces.items.items()}
        settings = self._settings
        return Rules(
            generation=time.time_ns(),
            services=routes(self.services.items.values(), slices, settings.name),
            policies=policies(found, list(self._pods.items.values()), labels, settings.name),
            pod_cidrs=settings.cluster_cidrs,
            service_cidrs=settings.service_cidrs,
        )


def _same(new: Rules, old: Rules) -> bool:
    return msgspec.structs.replace(new, generation=old.generation) == old
