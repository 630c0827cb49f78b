"""A build's progress as BuildKit's clients show it: vertexes, their logs and statuses."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field, replace

from sagong.contracts.builder import BuildProgress, Happening
from sagong.contracts.image import Progress
from sagong.errors import SagongError
from sagong.model import references
from sagong_builder.buildkit import messages as m
from sagong_builder.buildkit.failures import CANCELLED, failed
from sagong_builder.buildkit.protobuf import encode
from sagong_builder.dockerfile.lint import Finding
from sagong_builder.reporter import Reporter

__all__ = ["Graph", "Tally"]

_KEPT = 20_000
_TOGETHER = 64
_PATIENCE = 30.0
# Of a stream of a step's output so much is told as it comes, and at its end the last of the rest.
_SHOWN, _LAST = 2 << 20, 256 << 10
_CLIPPED = b"\n[output clipped, log limit 2MiB reached]\n"


@dataclass
class Tally:
    """What a build has told so far: its steps as they are, and how often it warned."""

    vertexes: dict[str, m.Vertex] = field(default_factory=dict)
    warnings: int = 0


class _Log:
    """What was told, for whoever begins to listen later: messages as they travel."""

    def __init__(self) -> None:
        self.told: list[bytes] = []
        self.tally = Tally()
        self._dropped = 0
        self._followers = 0
        self._changed = asyncio.Event()
        self._ended = False
        self._open: dict[str, m.Vertex] = {}

    async def follow(self) -> AsyncGenerator[bytes, None]:
        """Everything, until the end. Messages that wait go together: one after the other they are the
        bytes of one that has it all."""
        seen = 0
        self._followers += 1
        try:
            while True:
                seen = max(seen, self._dropped)
                while waiting := self.told[seen - self._dropped :][:_TOGETHER]:
                    seen += len(waiting)
                    yield b"".join(waiting)
                    seen = max(seen, self._dropped)
                if self._ended:
                    return
                self._changed.clear()
                await self._changed.wait()
        finally:
            self._followers -= 1
            self._changed.set()

    async def wait_told(self) -> None:
        """Until who follows has it all; who takes very long does not count."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while self._followers:
                    self._changed.clear()
                    await self._changed.wait()

    def end(self) -> None:
        """No more comes; what goes on still was cancelled."""
        for vertex in list(self._open.values()):
            self.complete(vertex, CANCELLED)
        self._ended = True
        self._changed.set()

    def begin(self, vertex: m.Vertex) -> None:
        """A vertex goes on."""
        self._open[vertex.digest] = vertex
        self.say(m.StatusResponse(vertexes=[vertex]))

    def complete(self, vertex: m.Vertex, error: str) -> None:
        """It is done, or has failed."""
        self._open.pop(vertex.digest, None)
        done = replace(vertex, completed=m.now(), error=error)
        self.say(m.StatusResponse(vertexes=[done]))

    def say(self, response: m.StatusResponse) -> None:
        """One more."""
        self.tally.vertexes.update((vertex.digest, vertex) for vertex in response.vertexes)
        self.tally.warnings += len(response.warnings)
        self.told.append(encode(response))
        if len(self.told) >= 2 * _KEPT:
            del self.told[:_KEPT]
            self._dropped += _KEPT
        self._changed.set()


@dataclass
class _Output:
    """A stream of a step: how much of it came, and the last of what is not shown."""

    size: int = 0
    last: bytearray = field(default_factory=bytearray)

    def shown(self, data: bytes) -> bytes:
        """What of the data is shown now."""
        room = max(0, _SHOWN - self.size)
        clipping = self.size <= _SHOWN < self.size + len(data)
        self.size += len(data)
        self.last += data[room:]
        del self.last[:-_LAST]
        return data[:room] + (_CLIPPED if clipping else b"")


class Graph(Reporter):
    """Tells each step as a vertex, one at a time; others beside it are told by tracks of their own."""

    def __init__(self, log: _Log | None = None) -> None:
        super().__init__()
        self._log = log or _Log()
        self.follow = self._log.follow
        self.end = self._log.end
        self.wait_told = self._log.wait_told
        self._say = self._log.say
        self._vertex: m.Vertex | None = None
        self._outputs: defaultdict[int, _Output] = defaultdict(_Output)
        # The first step, which loads the Dockerfile.
        self._definition = ""
        # Layers that are coming, by their ids: how large each is.
        self._fetched: dict[str, int] = {}

    def track(self) -> Graph:
        """For steps beside these."""
        return Graph(self._log)

    @property
    def told(self) -> Sequence[bytes]:
        """What was told: StatusResponses; of very much the last."""
        return self._log.told

    @property
    def tally(self) -> Tally:
        """What it comes to."""
        return self._log.tally

    # Vertexes.

    def begin(self, name: str) -> None:
        """The next step; the one before is done."""
        self.complete()
        digest = "sha256:" + hashlib.sha256(secrets.token_bytes(16)).hexdigest()
        self._definition = self._definition or digest
        self._vertex = m.Vertex(digest=digest, name=name, started=m.now())
        self._log.begin(self._vertex)

    @contextlib.contextmanager
    def step_of_ours(self, name: str) -> Iterator[None]:
        """A step that no instruction stands for; it is done with the block."""
        self.begin(name)
        yield
        self.complete()

    def complete(self, error: str = "") -> None:
        """The present step is done, or has failed."""
        for stream, output in self._outputs.items():
            self._logged(bytes(output.last), stream)
        self._outputs.clear()
        vertex, self._vertex = self._vertex, None
        if vertex is not None:
            self._log.complete(vertex, error)

    async def step(self, text: str, title: str = "") -> None:
        """The next step; those that change the config alone are not shown."""
        self.trigger(title)

    def trigger(self, title: str) -> None:
        """A step, unless it changes the config alone."""
        self.complete()
        if title:
            self.begin(title)

    def rest(self) -> None:
        """The present step is done."""
        self.complete()

    def fail(self, error: BaseException) -> None:
        """The present step is done, with an error."""
        self.complete(failed(error) if isinstance(error, SagongError) else CANCELLED)

    async def found(self) -> None:
        """What the stage begins from is here."""
        if self._vertex is not None:
            self._vertex.cached = True

    def unresolved(self, name: str, error: SagongError) -> str:
        """The image is named: the reason may tell of a registry alone."""
        full = references.parse(name).tagged.canonical
        return f"{name}: failed to resolve source metadata for {full}: {error.message}"

    async def tell(self, item: BuildProgress) -> None:
        """An item of the build."""
        match item.kind:
            case Happening.CACHED if self._vertex is not None:
                self._vertex.cached = True
            case Happening.OUTPUT:
                self.log(item.data, 2 if item.stderr else 1)
            case Happening.PULL if item.transfer is not None:
                self._transfer(item.transfer)
            case Happening.WARNING:
                self.warn(item.text)

    def log(self, data: bytes, stream: int) -> None:
        """Output of the present step; of very much the beginning and the end."""
        self._logged(self._outputs[stream].shown(data), stream)

    def _logged(self, data: bytes, stream: int) -> None:
        if self._vertex is not None and data:
            entry = m.VertexLog(
                vertex=self._vertex.digest, timestamp=m.now(), stream=stream, msg=data
            )
            self._say(m.StatusResponse(logs=[entry]))

    def found_wanting(self, found: Sequence[Finding], name: str, dockerfile: bytes) -> None:
        """What checks found, as warnings of the step that is shown for the Dockerfile."""
        source = m.SourceInfo(name, dockerfile, m.Definition(), "Dockerfile")
        warnings = [
            m.VertexWarning(
                vertex=self._definition,
                level=1,
                short=one.short.encode(),
                detail=[one.description.encode()],
                url=one.url,
                info=source,
                ranges=[
                    m.SourceRange(m.SourcePosition(line), m.SourcePosition(line))
                    for line in range(one.line, one.last + 1)
                ],
            )
            for one in found
        ]
        if warnings:
            self._say(m.StatusResponse(warnings=warnings))

    def warn(self, text: str) -> None:
        """A warning about the present step."""
        if self._vertex is not None:
            warning = m.VertexWarning(
                vertex=self._vertex.digest, level=1, short=text.strip().encode()
            )
            self._say(m.StatusResponse(warnings=[warning]))

    def status(self, id_: str, current: int = 0, total: int = 0, *, done: bool = False) -> None:
        """Progress within the present step; without a total only what came is shown."""
        if self._vertex is None:
            return
        moment = m.now()
        status = m.VertexStatus(
            id=id_,
            vertex=self._vertex.digest,
            # What is done, where the id says what it is done to.
            name="transferring" if id_.startswith("transferring ") else id_,
            current=current,
            total=total,
            timestamp=moment,
            started=self._vertex.started,
            completed=moment if done else None,
        )
        self._say(m.StatusResponse(statuses=[status]))

    def _transfer(self, transfer: Progress) -> None:
        """A layer is first fetched, then extracted."""
        if not transfer.id:
            return
        match transfer.status:
            case "Downloading":
                self._fetched[transfer.id] = transfer.total
                self.status(transfer.id, transfer.current, transfer.total)
            case "Download complete":
                total = self._fetched.pop(transfer.id, 0)
                self.status(transfer.id, total, total, done=True)
            case "Extracting":
                self.status(f"extracting {transfer.id}")
            case "Pull complete":
                self.status(f"extracting {transfer.id}", done=True)
