"""The services that clients of BuildKit call: Control, gateway, content, health, in one table."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from sagong.contracts.builder import Dialogue, PruneRequest, Surroundings
from sagong.errors import InvalidArgument, NotFound, SagongError, Unimplemented
from sagong.model import oci
from sagong_builder.buildkit import messages as m
from sagong_builder.buildkit import records as r
from sagong_builder.buildkit.filters import matching
from sagong_builder.buildkit.history import History
from sagong_builder.buildkit.recording import Recording
from sagong_builder.buildkit.rpc import Call, Connection
from sagong_builder.buildkit.session import Session, Sessions, carry
from sagong_builder.buildkit.solve import Solve
from sagong_builder.caches import Caches
from sagong_builder.shop import Shop

__all__ = ["Control"]

M = TypeVar("M")

_PATIENCE = 20.0
_VERSION = m.BuildkitVersion(package="sagong", version="v0.1.0")
_GATEWAY_LABEL = "org.mobyproject.buildkit.worker.moby.host-gateway-ip"
# Its presence says that results may have several platforms, go out as archives, and that they and
# caches are pushed by the builder itself (ADR 0325).
_SNAPSHOTTER = "org.mobyproject.buildkit.worker.snapshotter"
_BUILD = "buildkit-controlapi-buildid"
_MOMENT = "buildkit-current-timestamp"
_PIECE = 1 << 20
# What the gateway can do: results are returned, references travel as messages.
_CAPS = (
    "solve.base", "solve.inlinereturn", "return", "returnmap", "proto.refarray",
    "gateway.solve.metadata", "gateway.solve.evaluate", "frontend.caps", "importcaches",
    "frontend.inputs", "reference.output", "gateway.evaluate",
)  # fmt: skip
# What needs no graph: several outputs of a build, and that they tell how they were made. What graphs
# ask for that clients make of results.
_LLB_CAPS = (
    "exporter.multiple", "exporter.image.attestations",
    "source.image", "constraints", "platform", "meta.ignorecache",
)  # fmt: skip


class Control:
    """All clients of this process."""

    def __init__(self, shop: Shop, caches: Caches, sockets: Path, history: History) -> None:
        self._shop = shop
        self._history = history
        self._caches = caches
        self._sockets = sockets
        self._sessions = Sessions()
        self._solves: dict[str, Solve] = {}
        self._changed = asyncio.Event()
        self._worker = secrets.token_hex(12)

    def drain(self) -> None:
        """Who listens to the history is let go when the last build has ended."""
        self._history.close()

    async def converse(
        self, dialogue: Dialogue, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """A connection until it is closed."""
        if dialogue.kind == "session":
            headers = [(name.lower(), value) for name, value in dialogue.headers]
            await self._session(headers, reader, writer)
            return

        async def serve(call: Call) -> None:
            await self._serve(call, dialogue.surroundings)

        await Connection(reader, writer, client=False, serve=serve).run()

    async def _session(
        self,
        headers: Sequence[tuple[str, str]],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        name = next((v for n, v in headers if n == "x-docker-expose-session-uuid"), "")
        methods = [v for n, v in headers if n == "x-docker-expose-session-grpc-method"]
        connection = Connection(reader, writer, client=True)
        shared = next((v for n, v in headers if n == "x-docker-expose-session-sharedkey"), "")
        exposed = [one.strip() for text in methods for one in text.split(",")]
        session = Session(connection, exposed, shared, self._sockets)
        await self._sessions.serve(name, session, connection)

    async def _serve(self, call: Call, surroundings: Surroundings) -> None:
        method = _METHODS.get(call.path)
        if method is None:
            raise Unimplemented(f"unknown method {call.path[:200]}")
        await method(self, call, surroundings)

    # Control.

    async def solve(self, call: Call, surroundings: Surroundings) -> None:
        """Build, and wait for the end."""
        request = await _asked(call, m.SolveRequest)
        if not request.ref or request.ref in self._solves:
            raise InvalidArgument(f"the build needs a ref of its own, not {request.ref[:80]!r}")
        solve = Solve(self._shop, self._caches, self._sessions, request, surroundings)
        self._solves[request.ref] = solve
        self._changed.set()
        try:
            if request.internal:
                response = await solve.run()
            else:
                response = await self._recorded(
                    solve, request, call.metadata.get("traceparent", "")
                )
            await solve.graph.wait_told()
            await call.send(response)
        except SagongError:
            # Clients that have their answer wait for the rest of the progress for three seconds only.
            await solve.graph.wait_told()
            raise
        finally:
            # Whoever follows the progress may ask for it a moment late.
            asyncio.get_running_loop().call_later(_PATIENCE, self._solves.pop, request.ref, None)

    async def _recorded(
        self, solve: Solve, request: m.SolveRequest, parent: str
    ) -> m.SolveResponse:
        """A solve that the history knows: clients look there for it when they are answered."""
        recording = Recording(self._history, request, solve.graph, parent)
        recording.begin()
        try:
            response = await solve.run()
            recording.complete(response, await solve.told())
        except BaseException as error:
            recording.fail(error)
            raise
        return response

    async def session(self, call: Call, surroundings: Surroundings) -> None:
        """A session inside of a call: its connection's bytes are the call's messages."""
        ours, theirs = socket.socketpair()
        session = asyncio.create_task(
            self._session(
                list(call.metadata.items()), *await asyncio.open_unix_connection(sock=ours)
            )
        )
        try:
            await carry(call, *await asyncio.open_unix_connection(sock=theirs))
        finally:
            session.cancel()
            await asyncio.gather(session, return_exceptions=True)

    async def status(self, call: Call, surroundings: Surroundings) -> None:
        """Progress of a build, or what one that has ended told."""
        ref = (await _asked(call, m.StatusRequest)).ref
        record = self._history.find(ref) if ref not in self._solves else None
        if record is not None:
            for told in self._history.log(record):
                await call.send(told)
            return
        solve = await self._known(ref)
        async with contextlib.aclosing(solve.graph.follow()) as progress:
            async for told in progress:
                await call.send(told)

    async def _known(self, ref: str) -> Solve:
        """A build that has begun, or is about to."""
        try:
            async with asyncio.timeout(_PATIENCE):
                while ref not in self._solves:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise NotFound(f"no such job {ref[:80]}") from None
        return self._solves[ref]

    async def workers(self, call: Call, surroundings: Surroundings) -> None:
        """This machine."""
        await call.send(m.ListWorkersResponse(record=[self._record(surroundings)]))

    def _record(self, surroundings: Surroundings) -> m.WorkerRecord:
        here = oci.parse_platform("", os.uname().machine)
        return m.WorkerRecord(
            id=self._worker,
            labels={
                "org.mobyproject.buildkit.worker.executor": "sagong",
                "org.mobyproject.buildkit.worker.hostname": os.uname().nodename,
                _SNAPSHOTTER: "overlay",
                **({_GATEWAY_LABEL: surroundings.gateway} if surroundings.gateway else {}),
            },
            platforms=[m.Platform(here.architecture, here.os, here.variant)],
            buildkit_version=_VERSION,
        )

    async def info(self, call: Call, surroundings: Surroundings) -> None:
        """Who this is."""
        await call.send(m.InfoResponse(buildkit_version=_VERSION))

    async def usage(self, call: Call, surroundings: Surroundings) -> None:
        """`docker buildx du`."""
        request = await _asked(call, m.DiskUsageRequest)
        await call.send(m.DiskUsageResponse(record=await self._records(request.filter)))

    async def _records(self, filters: Sequence[str]) -> list[m.UsageRecord]:
        records = [
            m.UsageRecord(
                id=record.id,
                mutable=True,
                in_use=record.in_use,
                size=record.size,
                created_at=m.Timestamp(int(record.created_at)),
                last_used_at=m.Timestamp(int(record.used_at)),
                usage_count=record.uses,
                description=record.description,
                record_type=record.kind,
            )
            for record in await self._caches.records()
        ]
        return matching(records, filters)

    async def prune(self, call: Call, surroundings: Surroundings) -> None:
        """`docker buildx prune`."""
        request = await _asked(call, m.PruneRequest)
        before = {record.id: record for record in await self._records(request.filter)}
        if request.filter and not before:
            return
        done = await self._caches.prune(
            PruneRequest(
                unused_for=request.keep_duration / 1e9,
                keep=max(0, request.reserved_space),
                ids=tuple(before) if request.filter else (),
            )
        )
        for id_ in done.deleted:
            await call.send(before[id_])

    # The history.

    async def history(self, call: Call, surroundings: Surroundings) -> None:
        """Builds that go on and those that have ended."""
        request = await _asked(call, r.HistoryRequest)
        call.head((_MOMENT, m.now().text))
        async with contextlib.aclosing(self._history.listen(request)) as events:
            async for event in events:
                await call.send(event)

    async def update_history(self, call: Call, surroundings: Surroundings) -> None:
        """Drop a record, or keep it for good. Records are final when builds are answered."""
        request = await _asked(call, r.UpdateRequest)
        if request.delete:
            self._history.delete(request.ref)
        elif not request.finalize:
            self._history.pin(request.ref, pinned=request.pinned)
        await call.send(m.Empty())

    async def blob_info(self, call: Call, surroundings: Surroundings) -> None:
        """Of a blob that a record names."""
        digest = (await _asked(call, m.InfoContentRequest)).digest
        facts = self._history.blob(digest).stat()
        made = m.Timestamp(int(facts.st_mtime), facts.st_mtime_ns % 10**9)
        info = r.ContentInfo(digest, facts.st_size, made, made)
        await call.send(r.InfoContentResponse(info))

    async def blob(self, call: Call, surroundings: Surroundings) -> None:
        """Its bytes."""
        request = await _asked(call, m.ReadContentRequest)
        if request.offset < 0 or request.size < 0:
            raise InvalidArgument(f"content {request.digest} from {request.offset}: out of range")
        with self._history.blob(request.digest).open("rb") as file:
            end = request.offset + request.size if request.size else os.fstat(file.fileno()).st_size
            file.seek(request.offset)
            while piece := file.read(min(_PIECE, end - file.tell())):
                await call.send(m.ReadContentResponse(file.tell() - len(piece), piece))

    # The gateway.

    async def ping(self, call: Call, surroundings: Surroundings) -> None:
        """What the gateway can do."""
        caps = [m.Cap(id=name, enabled=True) for name in _CAPS]
        graphs = [m.Cap(id=name, enabled=True) for name in _LLB_CAPS]
        workers = [self._record(surroundings)]
        await call.send(m.PongResponse(frontend_caps=caps, llb_caps=graphs, workers=workers))

    async def gateway_solve(self, call: Call, surroundings: Surroundings) -> None:
        """The client's build function asks for the frontend."""
        solve = await self._known(call.metadata.get(_BUILD, ""))
        await call.send(await solve.solve(await _asked(call, m.GatewaySolveRequest)))

    async def gateway_evaluate(self, call: Call, surroundings: Surroundings) -> None:
        """The client wants a result to be made: it is."""
        await _asked(call, m.Empty)
        await call.send(m.Empty())

    async def gateway_return(self, call: Call, surroundings: Surroundings) -> None:
        """The client's build function has ended."""
        solve = await self._known(call.metadata.get(_BUILD, ""))
        solve.give_back(await _asked(call, m.ReturnRequest))
        await call.send(m.Empty())

    async def health(self, call: Call, surroundings: Surroundings) -> None:
        """Well."""
        await call.send(m.Health(status=1))


async def _asked(call: Call, kind: type[M]) -> M:
    request = await call.receive(kind)
    return kind() if request is None else request


Method = Callable[[Control, Call, Surroundings], Awaitable[None]]
_CONTENT = "/containerd.services.content.v1.Content/"
_CONTROL, _GATEWAY = "/moby.buildkit.v1.Control/", "/moby.buildkit.v1.frontend.LLBBridge/"
_METHODS: dict[str, Method] = {
    f"{_CONTROL}Solve": Control.solve,
    f"{_CONTROL}Session": Control.session,
    f"{_CONTROL}Status": Control.status,
    f"{_CONTROL}ListWorkers": Control.workers,
    f"{_CONTROL}Info": Control.info,
    f"{_CONTROL}DiskUsage": Control.usage,
    f"{_CONTROL}Prune": Control.prune,
    f"{_CONTROL}ListenBuildHistory": Control.history,
    f"{_CONTROL}UpdateBuildHistory": Control.update_history,
    f"{_CONTENT}Info": Control.blob_info,
    f"{_CONTENT}Read": Control.blob,
    f"{_GATEWAY}Ping": Control.ping,
    f"{_GATEWAY}Solve": Control.gateway_solve,
    f"{_GATEWAY}Evaluate": Control.gateway_evaluate,
    f"{_GATEWAY}Return": Control.gateway_return,
    "/grpc.health.v1.Health/Check": Control.health,
}
