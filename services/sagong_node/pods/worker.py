"""One pod: decides again whenever something has happened, and carries out what was decided."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable
from typing import Any

from sagong.contracts.node import UpdateSpec
from sagong.errors import SagongError
from sagong.failures import tell
from sagong.model.k8s.core_v1 import Pod
from sagong_node.pods.boxing import sandbox_spec
from sagong_node.pods.decision import (
    Decision,
    Failure,
    Kill,
    Pause,
    Prepare,
    Situation,
    Start,
    decide,
)
from sagong_node.pods.ending import Ender
from sagong_node.pods.history import History
from sagong_node.pods.mounting import Source
from sagong_node.pods.naming import EPHEMERAL, AnyContainer, Origin
from sagong_node.pods.payload import Downward
from sagong_node.pods.pulling import Missing
from sagong_node.pods.removal import remove_pod
from sagong_node.pods.reporting import Reporter
from sagong_node.pods.resources import limits_of, resized
from sagong_node.pods.runtime_class import runtime_of
from sagong_node.pods.starter import Place, Refused, Starter
from sagong_node.pods.status import Picture, phase_of, pod_status, ready_names
from sagong_node.pods.surroundings import Surroundings
from sagong_node.pods.tending import Tending
from sagong_node.pods.volumes import MountFailed
from sagong_node.records import SandboxRecord

__all__ = ["PodWorker"]

_FIRST_RETRY, _LONGEST_RETRY = 0.5, 120.0
_DEFECT_PAUSE = 10.0
_PREPARE, _END = "/prepare", "/end"  # jobs beside those of containers, whose names have no slash
_CONFIG_REASONS = ("CreateContainerConfigError", "ErrImagePull", "ImagePullBackOff")


class PodWorker:
    """Lives from the pod's arrival on this node until nothing of it is left."""

    def __init__(self, around: Surroundings, body: bytes) -> None:
        self._around = around
        self._wake = asyncio.Event()
        self._report = Reporter(around, body, compute=self._compute, wake=self._wake.set)
        self._starter = Starter(around)
        self._tending = Tending(around, self._wake.set)
        self._ender = Ender(around, self._address)
        self._begun = time.time()
        self._history = History(around, self._container)
        self._pauses: dict[str, Pause] = {}
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._fixed: set[str] = set()
        self._box: SandboxRecord | None = None
        self._sources: dict[str, Source] | None = None
        self._prepare_pause: Pause | None = None
        self._prepare_retry = _FIRST_RETRY
        self._failure: Failure | None = None
        self._stale = False
        self._gone = False
        self._over = False
        self._ended = False
        self._grace: float | None = None

    @property
    def pod(self) -> Pod:
        """The newest version that is known."""
        return self._report.pod

    @property
    def body(self) -> bytes:
        """The newest version as the API wrote it."""
        return self._report.body

    def update(self, body: bytes) -> None:
        """The API has another version."""
        if self._report.take(body):
            self._stale = True
            self._wake.set()

    @property
    def is_gone(self) -> bool:
        """Whether the API has it no more."""
        return self._gone

    def gone(self) -> None:
        """The API has it no more."""
        self._gone = True
        self._wake.set()

    def sources_changed(self) -> None:
        """Something that the pod refers to has changed: write volumes anew, try again at once."""
        self._stale = True
        self._prepare_pause, self._prepare_retry = None, _FIRST_RETRY
        for name in [n for n, p in self._pauses.items() if p.reason == _CONFIG_REASONS[0]]:
            del self._pauses[name]
        self._wake.set()

    def adopt(self, origins: Iterable[Origin], box: SandboxRecord | None) -> None:
        """Take over what a former process has made."""
        self._box = box
        self._history.adopt(origins)
        held = {
            status.container_id.rpartition("/")[2]: (bool(status.started), status.ready)
            for status in (
                *self.pod.status.container_statuses,
                *self.pod.status.init_container_statuses,
            )
        }
        for name, attempt in self._history.attempts().items():
            container = self._container(name)
            if attempt.alive:
                self._tending.follow(attempt.id, self._one_ended)
                if container is not None:
                    known = held.get(attempt.id, (False, False))
                    self._tending.begin(
                        self.pod, container, attempt.id, self._address(), known=known
                    )

    async def run(self) -> None:
        """Until nothing of the pod is left."""
        while not (self._gone or self.pod.metadata.deletion_timestamp):
            self._wake.clear()
            wake = await self._step()
            await self._pause(wake)
        await self._leave()

    async def close(self) -> None:
        """The process ends, the pod stays."""
        self._tending.close()
        jobs = list(self._jobs.values())
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    async def _pause(self, until: float) -> None:
        try:
            async with asyncio.timeout(max(until - time.time(), 0.001) if until else None):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _step(self) -> float:
        """Decide and begin; when to decide again."""
        if self._report.doubtful:
            if await self._report.read_again():
                self._wake.set()  # it may be about to be deleted; the watch's word comes too late
            else:
                await asyncio.sleep(0.1)
        if self._stale and self._sources is not None:
            self._stale = False
            await self._around.volumes.refresh(self.pod, self._downward())
        decision = decide(self.pod, self._situation(), time.time())
        for action in decision.actions:
            if isinstance(action, Prepare):
                self._begin(_PREPARE, self._prepare())
            elif isinstance(action, Start):
                self._begin(action.container, self._start(action))
            else:
                self._begin(action.container, self._kill(action))
        self._resize()
        if decision.over and not self._over:
            self._over, self._failure = True, decision.failure
            self._tending.quiet()
            self._begin(_END, self._finish())
        self._tell()
        return self._next_look(decision)

    def _next_look(self, decision: Decision) -> float:
        renewal = self._around.volumes.next_renewal(self.pod.metadata.uid)
        if renewal and renewal <= time.time():
            self._stale, renewal = True, time.time() + 1.0
        return min((t for t in (decision.wake, renewal) if t), default=0.0)

    # What there is

    def _container(self, name: str) -> AnyContainer | None:
        spec = self.pod.spec
        every: tuple[AnyContainer, ...] = (
            *spec.containers,
            *spec.init_containers,
            *spec.ephemeral_containers,
        )
        return next((c for c in every if c.name == name), None)

    def _situation(self) -> Situation:
        return Situation(
            attempts=self._history.attempts(),
            started=frozenset(self._tending.started),
            sick=dict(self._tending.sick),
            pauses=self._pauses,
            busy=frozenset(self._jobs),
            prepared=self._sources is not None and self._box is not None,
            preparing=_PREPARE in self._jobs,
            prepare_pause=self._prepare_pause,
            begun=self._begun,
        )

    def _picture(self) -> Picture:
        return Picture(
            pod=self.pod,
            situation=self._situation(),
            previous=self._history.previous,
            ready=frozenset(self._tending.ready),
            addresses=self._addresses(),
            host=self._around.host,
            failure=self._failure,
            ended=self._ended,
            boxed=self._box is not None and self._box.network is not None,
        )

    def _addresses(self) -> tuple[str, ...]:
        if self.pod.spec.host_network:
            return (self._around.host,) if self._box is not None else ()
        network = self._box.network if self._box is not None else None
        endpoints = network.endpoints if network is not None else ()
        return tuple(a for e in endpoints for a in (e.ipv4, e.ipv6) if a)

    def _address(self) -> str:
        return next(iter(self._addresses()), self.pod.status.pod_ip)

    def _downward(self) -> Downward:
        around = self._around
        return Downward(self._address(), around.settings.name, around.host, around.capacity)

    # What is told

    def _compute(self) -> dict[str, Any] | None:
        """The status to write; one that is final is not touched again."""
        if self.pod.status.phase in ("Succeeded", "Failed") or self._gone:
            return None
        return pod_status(self._picture(), time.time())

    def _tell(self) -> None:
        picture = self._picture()
        phase = phase_of(picture)
        # While it is pending nothing is urgent: it will soon be more.
        facts = (phase, *sorted(ready_names(picture)))
        self._report.tell(() if phase == "Pending" else facts)

    # What is done

    def _begin(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        if name in self._jobs:
            work.close()
            return
        self._jobs[name] = asyncio.get_running_loop().create_task(self._guarded(name, work))

    async def _guarded(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """A defect in the handling of one pod must not end the others' node."""
        try:
            await work
        except Exception as error:
            about = self.pod.metadata
            told = tell(self._around.log, f"pod {about.namespace}/{about.name}", name, error)
            text = told.message if isinstance(told, SagongError) else "internal error"
            pause = Pause(time.time() + _DEFECT_PAUSE, "CreateContainerError", text)
            self._pauses[name] = pause
            self._prepare_pause = pause if name == _PREPARE else self._prepare_pause
        finally:
            self._jobs.pop(name, None)
            self._fixed.discard(name)
            self._wake.set()

    async def _prepare(self) -> None:
        pod = self.pod
        try:
            async with asyncio.TaskGroup() as group:
                boxing = group.create_task(self._make_box(pod))
                mounting = group.create_task(self._around.volumes.prepare(pod, self._downward()))
                group.create_task(self._starter.pull_volumes(pod))
        except BaseExceptionGroup as failures:
            self._prepare_failed(pod, failures)
            return
        self._box, self._sources = boxing.result(), mounting.result()
        self._prepare_pause, self._prepare_retry = None, _FIRST_RETRY

    def _prepare_failed(self, pod: Pod, failures: BaseExceptionGroup[BaseException]) -> None:
        error = failures.exceptions[0]
        if isinstance(error, MountFailed | Missing | Refused):
            self._around.occurrences.pod(pod, "FailedMount", error.message, warning=True)
        elif isinstance(error, SagongError):
            text = f"Failed to create pod sandbox: {error.message}"
            self._around.occurrences.pod(pod, "FailedCreatePodSandBox", text, warning=True)
        else:
            raise error
        self._prepare_pause = Pause(time.time() + self._prepare_retry, "")
        self._prepare_retry = min(self._prepare_retry * 2, _LONGEST_RETRY)

    async def _make_box(self, pod: Pod) -> SandboxRecord:
        around = self._around
        if self._box is not None and self._box.network is not None:
            return self._box
        generation = 0
        if self._box is not None:
            generation = int(dict(self._box.spec.labels).get("io.sagong.sandbox.generation", "0"))
        spec = sandbox_spec(
            pod,
            around.settings,
            network=around.network,
            generation=generation,
            runtime=await runtime_of(pod, around.objects, around.life.runtimes),
        )
        if self._box is not None:
            spec = self._box.spec
        await around.node.create_sandbox(spec)
        return around.registry.sandboxes[spec.id]

    async def _start(self, action: Start) -> None:
        pod, container = self.pod, self._container(action.container)
        if container is None or self._box is None or self._sources is None:
            return
        name = action.container
        place = Place(self._box.spec.id, self._address(), self._sources)
        try:
            image = await self._starter.ensure_image(pod, container)
            # From here on it is carried through: half a start could not be told from a whole one.
            self._fixed.add(name)
            id_ = await self._starter.create(pod, container, action, place, image)
        except Missing as error:
            self._pauses[name] = Pause(error.until, error.reason, error.message)
            return
        except Refused as error:
            self._pauses[name] = error.pause(time.time())
            return
        self._history.take(self._starter.origin(pod, container, action))
        self._pauses.pop(name, None)
        await self._run_attempt(pod, container, id_)

    async def _run_attempt(self, pod: Pod, container: AnyContainer, id_: str) -> None:
        try:
            await self._starter.start(pod, container, id_)
        except Refused as error:
            # It counts as an attempt that ended; the next one waits as after a crash.
            self._around.log.info("container %s of %s: %s", container.name, id_[:12], error.message)
            return
        self._tending.follow(id_, self._one_ended)
        await self._after_start(pod, container, id_)
        await self._starter.prune(self._history.latest[container.name])

    async def _after_start(self, pod: Pod, container: AnyContainer, id_: str) -> None:
        hook = container.lifecycle.post_start if container.lifecycle else None
        if hook is not None:
            self._wake.set()
            wrong = await self._ender.post_start(container, id_, hook)
            if wrong:
                text = f"PostStartHook failed: {wrong}"
                self._around.occurrences.pod(
                    pod, "FailedPostStartHook", text, container=container.name, warning=True
                )
                self._tending.sick[id_] = "FailedPostStartHook"
                return
        self._tending.begin(pod, container, id_, self._address())

    async def _kill(self, action: Kill) -> None:
        pod, container = self.pod, self._container(action.container)
        if container is None:
            return
        self._around.occurrences.pod(pod, "Killing", action.reason, container=container.name)
        grace = float(pod.spec.termination_grace_period_seconds or 0)
        probe = container.liveness_probe
        if probe is not None and probe.termination_grace_period_seconds is not None:
            grace = float(probe.termination_grace_period_seconds)
        await self._ender.stop(pod, container, action.id, grace)

    def _resize(self) -> None:
        """Follow limits that were changed in place."""
        for name, attempt in self._history.attempts().items():
            record = self._around.registry.containers.get(attempt.id)
            container = self._container(name)
            if record is None or container is None or not attempt.alive or name in self._jobs:
                continue
            if resized(record.spec.limits, limits_of(container)):
                self._begin(name, self._update_limits(attempt.id, container))

    async def _update_limits(self, id_: str, container: AnyContainer) -> None:
        try:
            limits = limits_of(container)
            await self._around.node.update(UpdateSpec(id=id_, limits=limits))
        except SagongError as error:
            text = f"Error: {error.message}"
            self._around.occurrences.pod(
                self.pod, "ResizeError", text, container=container.name, warning=True
            )
            # The same change is not tried again at once: the next look comes with the next change.
            await asyncio.sleep(_DEFECT_PAUSE)

    def _one_ended(self, id_: str) -> None:
        self._tending.forget(id_)
        origin = self._history.find(id_)
        record = self._around.registry.containers.get(id_)
        if origin is not None and not (record is not None and record.felled):
            self._tell_backoff(origin.container, origin)
        self._wake.set()

    def _tell_backoff(self, name: str, origin: Origin) -> None:
        if origin.delay and origin.kind != EPHEMERAL and not self._over:
            metadata = self.pod.metadata
            text = (
                f"Back-off restarting failed container {name} in pod "
                f"{metadata.name}_{metadata.namespace}({metadata.uid})"
            )
            self._around.occurrences.pod(self.pod, "BackOff", text, container=name, warning=True)

    async def _finish(self) -> None:
        """All has been done: end what is left, and free the address for others."""
        await self._settle_jobs()
        grace = float(self.pod.spec.termination_grace_period_seconds or 0)
        await self._ender.stop_all(self.pod, self._history.attempts(), lambda: grace)
        self._ended = True
        self._wake.set()
        await self._ender.free_address(self._box)

    # The end

    def _left(self) -> float:
        """Seconds of grace, as the API or the spec has it; none for what is gone already."""
        if self._gone:
            return 0.0
        metadata, spec = self.pod.metadata, self.pod.spec
        seconds = metadata.deletion_grace_period_seconds
        if seconds is None:
            seconds = spec.termination_grace_period_seconds
        return float(30 if seconds is None else seconds)

    async def _leave(self) -> None:
        self._tending.quiet()
        self._over = True
        await self._settle_jobs()
        began = time.monotonic()

        def grace() -> float:
            return max(self._left() - (time.monotonic() - began), 0.0)

        stopping = asyncio.get_running_loop().create_task(
            self._ender.stop_all(self.pod, self._history.attempts(), grace)
        )
        try:
            await self._hasten(stopping)
        finally:
            stopping.cancel()
        self._ended = True
        status = self._last_status()
        self._tending.close()
        await self._remove_all()
        self._around.ledger.drop(self.pod.metadata.uid)
        if self._gone:
            self._around.ended(self.pod.metadata.uid)
        else:
            uid = self.pod.metadata.uid
            self._report.last(status, lambda: self._around.ended(uid))

    def _last_status(self) -> dict[str, Any] | None:
        """What is written last; a pod that never had anything here keeps its status."""
        if self._gone or not self._history.latest:
            return None
        try:
            return self._compute()
        except Exception:
            self._around.log.exception("the last status of a pod can't be computed")
            return None

    async def _settle_jobs(self) -> None:
        """Give up what is only being prepared; what is being started is carried through."""
        own = asyncio.current_task()
        jobs = {name: job for name, job in self._jobs.items() if job is not own}
        for name, job in jobs.items():
            if name not in self._fixed:
                job.cancel()
        await asyncio.gather(*jobs.values(), return_exceptions=True)

    async def _hasten(self, stopping: asyncio.Task[None]) -> None:
        """Wait for the end; a shorter grace, given meanwhile, kills at once what is left."""
        known = self._left()
        stopping.add_done_callback(lambda _: self._wake.set())
        while not stopping.done():
            self._wake.clear()
            if self._left() < known:
                known = self._left()
                if known <= 1.0:
                    for attempt in self._history.attempts().values():
                        if attempt.alive:
                            await self._ender.kill(attempt.id)
            await self._wake.wait()

    async def _remove_all(self) -> None:
        """Try until nothing is left."""
        around, uid, retry = self._around, self.pod.metadata.uid, _FIRST_RETRY
        while True:
            try:
                await remove_pod(around, uid, around.volumes.made_names(self.pod))
                break
            except SagongError as error:
                around.log.warning("pod %s: can't clean up yet: %s", uid, error.message)
                await asyncio.sleep(retry)
                retry = min(retry * 2, _LONGEST_RETRY)
        around.puller.forget(uid)
