"""Looks after the running containers of one pod: probes, ends, last words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from sagong.model.k8s.core_v1 import Pod
from sagong_node.pods.naming import AnyContainer
from sagong_node.pods.prober import Verdict, watch_all
from sagong_node.pods.probing import Target
from sagong_node.pods.surroundings import Surroundings

__all__ = ["Tending"]


class Tending:
    """`started`, `ready` and `sick` are ids; `wake` is called when one of them has changed."""

    def __init__(self, around: Surroundings, wake: Callable[[], None]) -> None:
        self._around = around
        self._wake = wake
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}
        self.started: set[str] = set()
        self.ready: set[str] = set()
        self.sick: dict[str, str] = {}

    def follow(self, id_: str, ended: Callable[[str], None]) -> None:
        """Call `ended` once the container does not run any more."""
        if id_ not in self._tasks:
            self._tasks[id_] = [self._task(self._wait_end(id_, ended))]

    def begin(
        self,
        pod: Pod,
        container: AnyContainer,
        id_: str,
        address: str,
        *,
        known: tuple[bool, bool] = (False, False),
    ) -> None:
        """Probe it from now on; `known` is (started, ready) of one that was adopted."""
        started, ready = known
        if container.startup_probe is None or started:
            self.started.add(id_)
        if container.readiness_probe is None or ready:
            self.ready.add(id_)
        self._wake()
        probes = (container.startup_probe, container.readiness_probe, container.liveness_probe)
        if not any(probes) or id_ not in self._tasks:
            return
        target = Target(container, id_, address)

        def tell(kind: str, verdict: Verdict) -> None:
            self._take(pod, container, id_, kind, verdict)

        work = watch_all(self._around.node, target, tell)
        self._tasks[id_].append(self._task(work))

    def forget(self, id_: str) -> None:
        """The container has ended."""
        for task in self._tasks.pop(id_, []):
            if task is not asyncio.current_task():
                task.cancel()
        self.started.discard(id_)
        self.ready.discard(id_)
        self.sick.pop(id_, None)

    def quiet(self) -> None:
        """No more probes: the pod ends. Ends are still followed."""
        for tasks in self._tasks.values():
            for task in tasks[1:]:
                task.cancel()
            del tasks[1:]

    def close(self) -> None:
        """Stop looking."""
        for id_ in list(self._tasks):
            for task in self._tasks.pop(id_):
                task.cancel()

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._looked)
        return task

    def _looked(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._around.log.error("a probe failed by a defect", exc_info=error)

    async def _wait_end(self, id_: str, ended: Callable[[str], None]) -> None:
        life, containers = self._around.life, self._around.registry.containers
        while (record := containers.get(id_)) is not None and record.alive:
            await life.changed[id_].wait()
        ended(id_)

    def _take(
        self, pod: Pod, container: AnyContainer, id_: str, kind: str, verdict: Verdict
    ) -> None:
        record = self._around.registry.containers.get(id_)
        if record is None or not record.alive:
            return
        if verdict.failed:
            text = f"{kind.capitalize()} probe failed: {verdict.message}"
            self._around.occurrences.pod(
                pod, "Unhealthy", text, container=container.name, warning=True
            )
        if verdict.success is None:
            return
        if kind == "readiness":
            (self.ready.add if verdict.success else self.ready.discard)(id_)
        elif not verdict.success:
            why = f"Container {container.name} failed {kind} probe, will be restarted"
            self.sick[id_] = why
        elif kind == "startup":
            self.started.add(id_)
        self._wake()
