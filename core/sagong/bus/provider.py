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

from sagong.bus.socket import BusSocket
from sagong.call import Call, Rules, serving
from sagong.contract import MethodSpec, slot_of
from sagong.errors import (
    Cancelled,
    Internal,
    InvalidArgument,
    PermissionDenied,
    ResourceExhausted,
    SagongError,
    Unimplemented,
)
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
    """What a provider has done since it started."""

    calls: int = 0
    errors: int = 0
    refused: int = 0
    in_flight: int = 0


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
        self._methods: dict[str, tuple[MethodSpec, Callable[..., Any]]] = {}
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
            self._methods[spec.wire_name] = (spec, getattr(implementation, spec.name))

    def add(self, spec: MethodSpec, function: Callable[..., Any]) -> None:
        """Add one method beside those of slots."""
        self._methods[spec.wire_name] = (spec, function)

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
            try:
                self._begin(peer, uid, envelope)
            except SagongError as error:
                self._fail(peer, envelope.id, error)
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
        spec, function, access = self._authorized(uid, envelope)
        if envelope.deadline and time.monotonic_ns() > envelope.deadline:
            return
        if len(self._tasks.get(peer, ())) >= _CALLS_PER_PEER:
            raise ResourceExhausted(f"more than {_CALLS_PER_PEER} calls in flight; wait for some")
        try:
            request = spec.request_decoder.decode(envelope.body)
        except msgspec.MsgspecError as error:
            raise InvalidArgument(f"{spec.wire_name}: {error}") from None
        self.counters.calls += 1
        name, rules = (access.name, access.rules) if access else ("operator", None)
        call = Call(envelope.deadline, envelope.cause, name, uid, rules)
        arguments = () if spec.parameter is None else (request,)
        if spec.stream:
            self._start(peer, envelope.id, call, self._stream(peer, envelope, function(*arguments)))
            return
        with serving(call):
            self._run(peer, envelope.id, function, arguments)

    def _authorized(
        self, uid: int, envelope: Envelope
    ) -> tuple[MethodSpec, Callable[..., Any], Access | None]:
        found = self._methods.get(envelope.method)
        if found is None or envelope.version != VERSION:
            raise Unimplemented(
                f"no method {envelope.method} (wire version {envelope.version}) here; "
                f"this process serves {sorted({m.rpartition('/')[0] for m in self._methods})}"
            )
        access = self._access.get(uid)
        if access is not None and access.allows(envelope.method):
            return *found, access
        if uid in self._trusted:
            return *found, None
        self.counters.refused += 1
        who = access.name if access else f"uid {uid}"
        _LOG.warning("call refused", extra={"caller": who, "method": envelope.method})
        raise PermissionDenied(
            f"{who} may not call {envelope.method}; grant it in [uses] of its plugin.toml"
        )

    def _run(
        self, peer: bytes, id_: int, function: Callable[..., Any], arguments: Iterable[Any]
    ) -> None:
        try:
            result = function(*arguments)
            if not inspect.iscoroutine(result):
                self._answer(peer, id_, Kind.REPLY, pack_value(result))
                return
        except SagongError:
            raise
        except Exception as error:
            raise _defect(function, error) from error
        task = asyncio.get_running_loop().create_task(self._finish(peer, id_, function, result))
        self._own(peer, id_, task)

    async def _finish(self, peer: bytes, id_: int, function: Callable[..., Any], work: Any) -> None:
        try:
            self._answer(peer, id_, Kind.REPLY, pack_value(await work))
        except SagongError as error:
            self._fail(peer, id_, error)
        except asyncio.CancelledError:
            self._fail(peer, id_, Cancelled("the call was cancelled"))
        except Exception as error:
            self._fail(peer, id_, _defect(function, error))

    def _start(self, peer: bytes, id_: int, call: Call, work: Any) -> None:
        with serving(replace(call, deadline=0)):
            self._own(peer, id_, asyncio.get_running_loop().create_task(work))

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

    async def _stream(self, peer: bytes, envelope: Envelope, items: Any) -> None:
        stream = self._streams[peer, envelope.id] = _Stream()
        self._sweep_later()
        try:
            async with contextlib.aclosing(items):
                async for item in items:
                    while stream.credit <= 0:
                        stream.refill.clear()
                        await stream.refill.wait()
                    stream.credit -= 1
                    self._answer(peer, envelope.id, Kind.ITEM, pack_value(item))
            self._answer(peer, envelope.id, Kind.END)
        except SagongError as error:
            self._fail(peer, envelope.id, error)
        except asyncio.CancelledError:
            pass
        except Exception as error:
            self._fail(peer, envelope.id, _defect(items, error))

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

    def _fail(self, peer: bytes, id_: int, error: SagongError) -> None:
        self.counters.errors += 1
        self._answer(peer, id_, Kind.ERROR, pack_error(error))

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
