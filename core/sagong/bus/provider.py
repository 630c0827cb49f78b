"""The serving side of the bus: one ROUTER, a method table, access by the operating system's uid."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import zmq

from sagong.bus.meter import Meter
from sagong.bus.socket import BusSocket
from sagong.call import Call, Rules, serving
from sagong.contract import MethodSpec, slot_of
from sagong.contracts.kernel import MethodCount
from sagong.errors import (
    Cancelled,
    Internal,
    InvalidArgument,
    PermissionDenied,
    ResourceExhausted,
    SagongError,
    Unimplemented,
)
from sagong.tracing import RECORDER
from sagong.wire import EMPTY, VERSION, WINDOW, Envelope, Kind, decode, pack_error, pack_value

__all__ = ["Access", "Counters", "Provider"]

_LOG = logging.getLogger("sagong.bus")
_CALLS_PER_PEER = 2048
_CREDIT = msgspec.msgpack.Decoder(int)


@dataclass(frozen=True)
class Access:
    """Who a uid is, and which methods (`slot/version/method`, or `slot/version/*`) it may call."""

    name: str
    methods: frozenset[str]
    rules: Rules = ()

    def allows(self, wire_name: str) -> bool:
        """Whether the method is granted."""
        return wire_name in self.methods or wire_name[: wire_name.rfind("/")] + "/*" in self.methods


@dataclass
class Counters:
    """What a provider counts beside its methods' meters: what it refused, and what is under way."""

    refused: int = 0
    in_flight: int = 0


@dataclass(frozen=True, slots=True)
class _Method:
    """A method that is served, and its meter."""

    spec: MethodSpec
    function: Callable[..., Any]
    meter: Meter


@dataclass(frozen=True, slots=True)
class _Asked:
    """A call or stream being served: whom it is owed, and since when (monotonic nanoseconds)."""

    peer: bytes
    id: int
    cause: str
    method: _Method
    began: int

    def settle(self, error: str = "") -> None:
        """It ended, with an error's code or well."""
        took = time.monotonic_ns() - self.began
        self.method.meter.add(took, failed=bool(error))
        if RECORDER.on:
            spec = self.method.spec
            RECORDER.note(
                self.cause, spec.wire_name, took, error, "stream" if spec.stream else "call"
            )


@dataclass
class _Stream:
    credit: int = WINDOW
    refill: asyncio.Event = field(default_factory=asyncio.Event)


class Provider:
    """Serves implementations of slots on `ipc://path`.

    uid 0 and our own uid may call everything (the operator, and tests); every other uid only what
    `grant` gave it. Handlers that are plain functions are answered within the tick; coroutines and
    streams get a task each.
    """

    def __init__(self, context: zmq.Context[Any], path: str) -> None:
        self.path = path
        self.counters = Counters()
        self._socket = BusSocket(context, zmq.ROUTER, receive=self._receive, lost=self._forget_peer)
        self._methods: dict[str, _Method] = {}
        self._access: dict[int, Access] = {}
        self._trusted = {0, os.geteuid()}
        self._tasks: dict[bytes, dict[int, asyncio.Task[None]]] = {}
        self._streams: dict[tuple[bytes, int], _Stream] = {}
        self._draining = False
        self._idle = asyncio.Event()
        self._sweeper: asyncio.TimerHandle | None = None

    def bind(self) -> None:
        """Begin to listen; who may connect is decided by directories, who may call by uid."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self._socket.raw.bind(f"ipc://{self.path}")
        os.chmod(self.path, 0o666)

    def serve(self, protocol: type, implementation: object) -> None:
        """Add a slot's methods to the table."""
        for spec in slot_of(protocol).methods.values():
            self.add(spec, getattr(implementation, spec.name))

    def add(self, spec: MethodSpec, function: Callable[..., Any]) -> None:
        """Add one method beside those of slots."""
        self._methods[spec.wire_name] = _Method(spec, function, Meter(spec.wire_name))

    def counts(self) -> tuple[MethodCount, ...]:
        """What each method that was ever called has done."""
        return tuple(m.meter.count() for m in self._methods.values() if m.meter.calls)

    def grant(self, access: Mapping[int, Access]) -> None:
        """Replace the table of who may call what."""
        self._access = dict(access)

    async def drain(self, seconds: float) -> None:
        """Refuse new calls with GOAWAY, end streams, wait for calls in flight; bounded."""
        self._draining = True
        for peer, id_ in list(self._streams):
            self._cancel(peer, id_)
            self._answer(peer, id_, Kind.GOAWAY)
        if any(self._tasks.values()):
            self._idle.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._idle.wait()

    async def close(self) -> None:
        """Cancel what still runs and close the socket."""
        self._draining = True
        tasks = [task for calls in self._tasks.values() for task in calls.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._sweeper:
            self._sweeper.cancel()
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    def _receive(self, frames: list[zmq.Frame]) -> None:
        peer = frames[0].bytes
        try:
            envelopes = decode([frame.buffer for frame in frames[1:]])
        except InvalidArgument as error:
            self.counters.refused += 1
            _LOG.warning("malformed message refused", extra={"uid": _uid(frames[-1])})
            self._answer(peer, 0, Kind.ERROR, pack_error(error))
            return
        uid = _uid(frames[-1])
        for envelope in envelopes:
            self._dispatch(peer, uid, envelope)

    def _dispatch(self, peer: bytes, uid: int, envelope: Envelope) -> None:
        if envelope.kind == Kind.CALL or envelope.kind == Kind.OPEN:
            self._begin(peer, uid, envelope)
        elif envelope.kind == Kind.CREDIT:
            self._add_credit(peer, envelope)
        elif envelope.kind == Kind.CANCEL:
            self._cancel(peer, envelope.id)
        elif envelope.kind == Kind.PING:
            self._answer(peer, envelope.id, Kind.PONG)

    def _begin(self, peer: bytes, uid: int, envelope: Envelope) -> None:
        if self._draining:
            self._answer(peer, envelope.id, Kind.GOAWAY)
            return
        try:
            method, access = self._authorized(uid, envelope)
        except SagongError as error:
            self._answer(peer, envelope.id, Kind.ERROR, pack_error(error))
            return
        began = time.monotonic_ns()
        if envelope.deadline and began > envelope.deadline:
            return
        asked = _Asked(peer, envelope.id, envelope.cause, method, began)
        try:
            arguments = self._arguments(asked, envelope.body)
            name, rules = (access.name, access.rules) if access else ("operator", None)
            children = RECORDER.children(envelope.cause)
            call = Call(envelope.deadline, envelope.cause, name, uid, rules, children)
            if method.spec.stream:
                self._start(asked, call, method.function(*arguments))
            else:
                with serving(call):
                    self._run(asked, arguments)
        except SagongError as error:
            self._fail(asked, error)

    def _arguments(self, asked: _Asked, body: msgspec.Raw) -> tuple[Any, ...]:
        """The decoded request, if there is room for it."""
        if len(self._tasks.get(asked.peer, ())) >= _CALLS_PER_PEER:
            raise ResourceExhausted(f"more than {_CALLS_PER_PEER} calls in flight; wait for some")
        spec = asked.method.spec
        try:
            request = spec.request_decoder.decode(body)
        except msgspec.MsgspecError as error:
            raise InvalidArgument(f"{spec.wire_name}: {error}") from None
        return () if spec.parameter is None else (request,)

    def _authorized(self, uid: int, envelope: Envelope) -> tuple[_Method, Access | None]:
        found = self._methods.get(envelope.method)
        if found is None or envelope.version != VERSION:
            raise Unimplemented(
                f"no method {envelope.method} (wire version {envelope.version}) here; "
                f"this process serves {sorted({m.rpartition('/')[0] for m in self._methods})}"
            )
        access = self._access.get(uid)
        if access is not None and access.allows(envelope.method):
            return found, access
        if uid in self._trusted:
            return found, None
        self.counters.refused += 1
        who = access.name if access else f"uid {uid}"
        _LOG.warning("call refused", extra={"caller": who, "method": envelope.method})
        raise PermissionDenied(
            f"{who} may not call {envelope.method}; grant it in [uses] of its plugin.toml"
        )

    def _run(self, asked: _Asked, arguments: Iterable[Any]) -> None:
        function = asked.method.function
        try:
            result = function(*arguments)
            if not inspect.iscoroutine(result):
                self._reply(asked, result)
                return
        except SagongError:
            raise
        except Exception as error:
            raise _defect(function, error) from error
        task = asyncio.get_running_loop().create_task(self._finish(asked, result))
        self._own(asked.peer, asked.id, task)

    async def _finish(self, asked: _Asked, work: Any) -> None:
        try:
            self._reply(asked, await work)
        except SagongError as error:
            self._fail(asked, error)
        except asyncio.CancelledError:
            self._fail(asked, Cancelled("the call was cancelled"))
        except Exception as error:
            self._fail(asked, _defect(asked.method.function, error))

    def _start(self, asked: _Asked, call: Call, items: Any) -> None:
        with serving(replace(call, deadline=0)):
            task = asyncio.get_running_loop().create_task(self._stream(asked, items))
            self._own(asked.peer, asked.id, task)

    def _own(self, peer: bytes, id_: int, task: asyncio.Task[None]) -> None:
        calls = self._tasks.setdefault(peer, {})
        calls[id_] = task
        self.counters.in_flight += 1
        task.add_done_callback(lambda _: self._done(peer, id_))

    def _done(self, peer: bytes, id_: int) -> None:
        self.counters.in_flight -= 1
        self._streams.pop((peer, id_), None)
        calls = self._tasks.get(peer)
        if calls is not None:
            calls.pop(id_, None)
            if not calls:
                del self._tasks[peer]
        if not self._tasks:
            self._idle.set()

    async def _stream(self, asked: _Asked, items: Any) -> None:
        peer, id_ = asked.peer, asked.id
        stream = self._streams[peer, id_] = _Stream()
        self._sweep_later()
        try:
            async with contextlib.aclosing(items):
                async for item in items:
                    while stream.credit <= 0:
                        stream.refill.clear()
                        await stream.refill.wait()
                    stream.credit -= 1
                    self._answer(peer, id_, Kind.ITEM, pack_value(item))
            self._answer(peer, id_, Kind.END)
            asked.settle()
        except SagongError as error:
            self._fail(asked, error)
        except asyncio.CancelledError:
            asked.settle()
        except Exception as error:
            self._fail(asked, _defect(items, error))

    def _add_credit(self, peer: bytes, envelope: Envelope) -> None:
        stream = self._streams.get((peer, envelope.id))
        if stream is not None:
            with contextlib.suppress(msgspec.MsgspecError):
                stream.credit += min(_CREDIT.decode(envelope.body), WINDOW)
                stream.refill.set()

    def _cancel(self, peer: bytes, id_: int) -> None:
        task = self._tasks.get(peer, {}).get(id_)
        if task is not None:
            task.cancel()

    def _forget_peer(self, peer: bytes) -> None:
        for task in list(self._tasks.get(peer, {}).values()):
            task.cancel()

    def _sweep_later(self) -> None:
        """Look for peers that vanished while their streams were silent, as long as there are any."""
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(60.0, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        for peer in {peer for peer, _ in self._streams}:
            self._answer(peer, 0, Kind.PONG)
        if self._streams:
            self._sweep_later()

    def _reply(self, asked: _Asked, result: Any) -> None:
        self._answer(asked.peer, asked.id, Kind.REPLY, pack_value(result))
        asked.settle()

    def _fail(self, asked: _Asked, error: SagongError) -> None:
        asked.settle(error.code)
        self._answer(asked.peer, asked.id, Kind.ERROR, pack_error(error))

    def _answer(self, peer: bytes, id_: int, kind: Kind, body: msgspec.Raw = EMPTY) -> None:
        self._socket.send(Envelope(VERSION, kind, id_, "", 0, 0, "", body), peer)


def _defect(function: Any, error: Exception) -> Internal:
    where = getattr(function, "__qualname__", repr(function))
    _LOG.error("defect in %s", where, exc_info=error)
    return Internal(f"{where}: {type(error).__name__}: {error}")


def _uid(frame: zmq.Frame) -> int:
    """The peer's uid as the operating system says it: Peer-Address is `localhost:uid:gid:pid`."""
    try:
        return int(str(frame.get("Peer-Address")).split(":")[1])
    except (IndexError, ValueError, zmq.ZMQError):
        return -1
