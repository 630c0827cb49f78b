"""For tests of plugins, ours and strangers': a host without a kernel, and conformance suites.

A suite is a module of `sagong.conformance` with functions `async def check_<what holds>(lab)`; the
lab is whatever that suite says it needs: the candidate itself, or a dataclass with it inside. A
check raises `AssertionError` when the candidate breaks the contract::

    @pytest.mark.parametrize("check", checks(suite), ids=check_name)
    async def test_state_sqlite(check, tmp_path):
        async with local(StateSqlite, data=tmp_path) as candidate:
            await check(candidate)
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import socket
import subprocess
import tempfile
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar, cast

import msgspec

from sagong import manifest
from sagong.contract import Message, filling, slot_of
from sagong.deputy import Post, hire
from sagong.errors import InvalidArgument, NotFound
from sagong.hooks import points
from sagong.settings import decoded

__all__ = ["Check", "LocalHost", "awaited", "check_name", "checks", "deputy_of", "local"]

C = TypeVar("C", bound=msgspec.Struct)
S = TypeVar("S")
M = TypeVar("M", bound=Message)
Check = Callable[[Any], Awaitable[None]]


def checks(suite: ModuleType) -> list[Check]:
    """The checks of a conformance suite, in the order they are written."""
    return [value for key, value in vars(suite).items() if key.startswith("check_")]


def check_name(check: Check) -> str:
    """A check's name without its prefix, for reports."""
    return getattr(check, "__name__", repr(check)).removeprefix("check_")


def awaited(protocol: type[S], candidate: object) -> S:
    """The slot's methods of a candidate, all to be awaited as they are on the bus.

    An implementation may have plain functions where the contract has coroutines: what never waits
    is a plain `def`. A fake need not have methods that nobody calls.
    """
    spec = slot_of(cast(type, protocol))
    methods = {
        m.name: getattr(candidate, m.name)
        if m.stream
        else _awaited_method(getattr(candidate, m.name))
        for m in spec.methods.values()
        if hasattr(candidate, m.name)
    }
    return cast(S, SimpleNamespace(**methods))


def _awaited_method(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    async def call(*arguments: Any) -> Any:
        result = function(*arguments)
        return await result if inspect.iscoroutine(result) else result

    return call


class GivenProviders:
    """The instances of a slot that a test gives (`sagong.host.Providers`)."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(sorted(names))
        self._changed = asyncio.Event()

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        return self._names

    async def follow(self) -> AsyncIterator[tuple[str, ...]]:
        """The names now, and after each change."""
        while True:
            changed = self._changed
            yield self._names
            await changed.wait()

    def change(self, names: Iterable[str]) -> None:
        """Other ones."""
        self._names = tuple(sorted(names))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class LocalHost:
    """A `Host` for one plugin in the test's own process; other slots are given as objects."""

    def __init__(
        self,
        name: str,
        *,
        data: Path,
        run: Path,
        config: Mapping[str, Any] | None = None,
        uses: Mapping[type, Any] | None = None,
        listeners: Mapping[str, socket.socket] | None = None,
        instance: str = "",
        hooks: Sequence[object] = (),
        deputy: str | socket.socket = "",
    ) -> None:
        self.name = name
        self.instance = instance
        self.data = data
        self.run = run
        self.root = run
        self.log = logging.getLogger(f"sagong.{name}")
        self.events: list[Message] = []
        self.gauges: dict[str, Callable[[], float]] = {}
        self.woken: list[str] = []
        self.words: list[tuple[type, str]] = []
        self._config = dict(config or {})
        self._uses = dict(uses or {})
        self._hooks = tuple(hooks)
        self._providers: dict[type, GivenProviders] = {}
        self._listeners = dict(listeners or {})
        self._function = deputy
        self._deputy: tuple[socket.socket, subprocess.Popen[bytes]] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._hearers: dict[type, list[asyncio.Queue[Message | None]]] = {}

    def config(self, kind: type[C]) -> C:
        """The test's configuration, decoded as strictly as the real one."""
        places = {"run": str(self.run), "data": str(self.data), "etc": str(self.run / "etc")}
        return decoded(kind, self._config, self.name, places)

    def use(self, protocol: type[S], instance: str = "") -> S:
        """The object that the test gave for the slot."""
        found = self._uses.get(protocol)
        if isinstance(found, Mapping):
            found = found.get(instance)
        if found is None:
            slot = slot_of(cast(type, protocol)).name
            raise NotFound(f"the test gives no provider {instance!r} of slot {slot}")
        return awaited(protocol, filling(found, cast(type, protocol)))

    def providers(self, protocol: type) -> GivenProviders:
        """The test's providers of a slot; `provide` changes them."""
        if protocol not in self._providers:
            found = self._uses.get(protocol)
            names = found if isinstance(found, Mapping) else ("",) if found is not None else ()
            self._providers[protocol] = GivenProviders(names)
        return self._providers[protocol]

    def provide(self, protocol: type, given: Mapping[str, Any]) -> None:
        """Change the providers of a slot, as if units were added and taken away."""
        self._uses[protocol] = dict(given)
        self.providers(protocol).change(given)

    def emit(self, event: Message) -> None:
        """Keep the event in `events` and hand it to hearers of its type."""
        self.events.append(event)
        for queue in self._hearers.get(type(event), []):
            queue.put_nowait(event)

    async def hear(
        self, protocol: type, kind: type[M], instance: str = ""
    ) -> AsyncIterator[M | None]:
        """Events that the test puts in by `deliver`, after the first `None`."""
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self._hearers.setdefault(kind, []).append(queue)
        try:
            yield None
            while True:
                yield await queue.get()
        finally:
            self._hearers[kind].remove(queue)

    def deliver(self, event: Message) -> None:
        """Let the plugin hear an event of another slot."""
        for queue in self._hearers.get(type(event), []):
            queue.put_nowait(event)

    async def leave_word(self, protocol: type, instance: str = "") -> None:
        """Kept in `words`."""
        self.words.append((protocol, instance))

    async def wake(self, unit: str) -> None:
        """Kept in `woken`."""
        self.woken.append(unit)

    def gauge(self, name: str, read: Callable[[], float], help: str) -> None:
        """Kept in `gauges`, for the test to read."""
        self.gauges[name] = read

    @property
    def has_hooks(self) -> bool:
        """Whether the test gave any."""
        return bool(self._hooks)

    def hooks(self, kind: type[S]) -> S:
        """What the test's hooks say."""
        return points(cast(type, kind), self._hooks)

    def listener(self, name: str) -> socket.socket:
        """The test's listening socket of that name."""
        try:
            return self._listeners[name]
        except KeyError:
            raise NotFound(f"the test gives no listener {name}") from None

    def deputy(self) -> socket.socket:
        """To a process that runs the function which the test named, or what the test gave."""
        if isinstance(self._function, socket.socket):
            return self._function
        if not self._function:
            raise NotFound(f"the test names no deputy for {self.name}")
        if self._deputy is None:
            post = Post(self.data, self.run, self.root, self._config)
            self._deputy = hire(self._function, post)
        return self._deputy[0]

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Background work; its failure is raised when the host closes."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        return task

    async def close(self) -> None:
        """Cancel background work and raise what went wrong in it."""
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
        if self._deputy is not None:
            channel, child = self._deputy
            channel.close()
            await asyncio.to_thread(child.wait)


@contextlib.asynccontextmanager
async def local(
    plugin: Callable[[Any], S],
    *,
    name: str = "",
    data: Path | None = None,
    run: Path | None = None,
    config: Mapping[str, Any] | None = None,
    uses: Mapping[type, Any] | None = None,
    listeners: Mapping[str, socket.socket] | None = None,
    instance: str = "",
    hooks: Sequence[object] = (),
) -> AsyncIterator[S]:
    """Make, start and stop a plugin in this process.

    Without `data` and `run` it gets directories of its own below a temporary one (short paths: Unix
    sockets end at 107 bytes).
    """
    with tempfile.TemporaryDirectory(prefix="sagong-", dir="/tmp") as base:
        data, run = data or Path(base, "data"), run or Path(base, "run")
        for directory in (data, run):
            os.makedirs(directory, exist_ok=True)
        called = name or getattr(plugin, "__name__", "plugin").lower()
        host = LocalHost(
            called,
            data=data,
            run=run,
            config=config,
            uses=uses,
            listeners=listeners,
            instance=instance,
            hooks=hooks,
            deputy=deputy_of(plugin),
        )
        candidate = plugin(host)
        try:
            await _maybe(candidate, "start")
            yield candidate
        finally:
            await _maybe(candidate, "stop")
            await host.close()


def deputy_of(plugin: object) -> str:
    """The deputy's function that the manifest of a plugin's package names, "" for none."""
    package = getattr(plugin, "__module__", "").partition(".")[0]
    try:
        deputy = manifest.load(package).deputy
    except (InvalidArgument, NotFound, ValueError):
        return ""  # a class of a test, or one that is made by a function
    return deputy.function if deputy is not None else ""


async def _maybe(candidate: object, step: str) -> None:
    function = getattr(candidate, step, None)
    if function is not None:
        await function()
