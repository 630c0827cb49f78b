"""Ends containers of a pod in order, and reads what they left as their last words."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from sagong.contracts.network import Attachment
from sagong.contracts.node import ConnectSpec, StopRequest
from sagong.errors import NotFound, SagongError
from sagong.model.k8s.core_v1 import LifecycleHandler, Pod
from sagong_node.logs import parse
from sagong_node.pods.attempt import Attempt
from sagong_node.pods.decision import is_sidecar
from sagong_node.pods.naming import (
    AnyContainer,
    Origin,
    log_path,
    termination_path,
)
from sagong_node.pods.probing import Target, run_hook
from sagong_node.pods.surroundings import Surroundings
from sagong_node.records import SandboxRecord

__all__ = ["Ender", "last_words"]

_LEAST_GRACE = 2.0
_LONGEST_HOOK = 600.0
_LONGEST_MESSAGE = 4096
_LOG_LINES, _LOG_BYTES = 80, 2048


class Ender:
    """Stops containers; `address` is asked for when a hook wants to connect."""

    def __init__(self, around: Surroundings, address: Callable[[], str]) -> None:
        self._around = around
        self._address = address

    async def stop(self, pod: Pod, container: AnyContainer, id_: str, grace: float) -> None:
        """preStop, the stop signal, and after the rest of the grace SIGKILL; gone is no error."""
        left = await self._pre_stop(pod, container, id_, grace)
        with contextlib.suppress(NotFound):
            await self._around.node.stop(StopRequest(id=id_, seconds=left))

    async def post_start(self, container: AnyContainer, id_: str, hook: LifecycleHandler) -> str:
        """Run the hook of a start to its end; what went wrong, or ""."""
        target = Target(container, id_, self._address())
        return await run_hook(self._around.node, hook, target, _LONGEST_HOOK)

    async def kill(self, id_: str) -> None:
        """At once."""
        with contextlib.suppress(NotFound):
            await self._around.node.stop(StopRequest(id=id_, seconds=0.0, signal="SIGKILL"))

    async def stop_all(
        self, pod: Pod, attempts: Mapping[str, Attempt], grace: Callable[[], float]
    ) -> None:
        """All but sidecars at once, then the sidecars, the last one first."""
        spec = pod.spec
        sidecars = [c for c in spec.init_containers if is_sidecar(c)]
        others: list[AnyContainer] = [c for c in spec.init_containers if not is_sidecar(c)]
        others += [*spec.containers, *spec.ephemeral_containers]
        async with asyncio.TaskGroup() as group:
            for container in others:
                attempt = attempts.get(container.name)
                if attempt is not None and attempt.alive:
                    group.create_task(self._end(pod, container, attempt.id, grace()))
        for container in reversed(sidecars):
            attempt = attempts.get(container.name)
            if attempt is not None and attempt.alive:
                await self._end(pod, container, attempt.id, grace())

    async def free_address(self, box: SandboxRecord | None) -> None:
        """Take a sandbox off its networks; its containers' logs stay to be read."""
        if box is None or box.network is None:
            return
        for endpoint in box.network.endpoints:
            request = ConnectSpec(
                id=box.spec.id,
                attachment=Attachment(network=endpoint.network),
                disconnect=True,
                force=True,
            )
            try:
                await self._around.node.connect(request)
            except SagongError as error:
                self._around.log.info("the address of an ended pod stays taken: %s", error.message)

    async def _end(self, pod: Pod, container: AnyContainer, id_: str, grace: float) -> None:
        text = f"Stopping container {container.name}"
        self._around.occurrences.pod(pod, "Killing", text, container=container.name)
        try:
            await self.stop(pod, container, id_, grace)
        except SagongError as error:
            self._around.log.warning("can't stop container %s: %s", id_[:12], error.message)
            await self.kill(id_)

    async def _pre_stop(self, pod: Pod, container: AnyContainer, id_: str, grace: float) -> float:
        hook = container.lifecycle.pre_stop if container.lifecycle else None
        if hook is None or grace <= 0:
            return max(grace, 0.0)
        began = time.monotonic()
        target = Target(container, id_, self._address())
        wrong = await run_hook(self._around.node, hook, target, grace)
        if wrong:
            text = f"PreStopHook failed: {wrong}"
            self._around.occurrences.pod(
                pod, "FailedPreStopHook", text, container=container.name, warning=True
            )
        return max(grace - (time.monotonic() - began), _LEAST_GRACE)


def last_words(
    around: Surroundings, container: AnyContainer | None, origin: Origin, *, code: int
) -> str:
    """The termination message: the file, or the end of the log if the policy falls back to it."""
    text = _end_of(termination_path(around.pods, origin), _LONGEST_MESSAGE)
    fallback = container is not None and (
        container.termination_message_policy == "FallbackToLogsOnError"
    )
    if text or not fallback or code == 0:
        return text
    return _end_of_log(log_path(around.logs, origin))


def _end_of(path: Path, size: int) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(size).decode(errors="replace")
    except OSError:
        return ""


def _end_of_log(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(0, 2)
            file.seek(max(file.tell() - 64 * 1024, 0))
            lines, _ = parse(file.read(), "cri")
    except OSError:
        return ""
    text = b"".join(line.data for line in lines[-_LOG_LINES:])
    return text[-_LOG_BYTES:].decode(errors="replace")
