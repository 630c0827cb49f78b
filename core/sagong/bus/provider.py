"""The serving side of the bus: one ROUTER, a method table, access by the operating system's uid."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import os
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import msgspec
import zmq

from sagong.bus.admission import Admission, Gate
from sagong.bus.handling import defect, items_of, unbound
from sagong.bus.meter import Meter
from sagong.bus.refusals import Refusals
from sagong.bus.sender import descriptor_of, uid_of
from sagong.bus.socket import BusSocket
from sagong.bus.turns import Turns
from sagong.call import Call, PassedOn, Rules, outliving, serving
from sagong.contract import MethodSpec, slot_of
from sagong.contracts.kernel import MethodCount
from sagong.errors import (
    Cancelled,
    InvalidArgument,
    PermissionDenied,
    ResourceExhausted,
    SagongError,
    Unavailable,
    Unimplemented,
)
from sagong.pace import Pace
from sagong.tracing import RECORDER
from sagong.wire import (
    EMPTY,
    VERSION,
    WINDOW,
    Envelope,
    Flag,
    Kind,
    decode,
    pack_error,
    pack_value,
)

__all__ = ["Access", "Counters", "Provider"]

_LOG = logging.getLogger("sagong.bus")
_CALLS_PER_PEER = 2048
_CALLS_PER_UID = 4096
_ROUTER_MARK = 1024
_PEERS = 4096
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


class _Method(msgspec.Struct, frozen=True):
    """A method that is served, and its meter; who calls a `passive` one keeps nobody from sleep."""

    spec: MethodSpec
    function: Callable[..., Any]
    meter: Meter
    passive: bool = False


class _Asked(msgspec.Struct, frozen=True):
    """A call or stream being served: whom it is owed, and since when (monotonic nanoseconds)."""

    peer: bytes
    uid: int
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


class _Absent(Exception):
    """Whoever serves the method is asleep."""


@dataclass
class _Stream:
    credit: int = WINDOW
    refill: asyncio.Event = field(default_factory=asyncio.Event)


class Provider:
    """Serves implementations of slots on `ipc://path`.

    uid 0 and our own uid may call everything (the operator, and tests); every other uid only what
    `grant` gave it, and no more of it than `sagong.bus.admission` and `sagong.bus.turns` allow.
    Handlers that are plain functions are answered within the tick; coroutines and streams get a task
    each. `flooded` hears of each uid that is shut out for so many seconds.

    `absent` makes it one that answers for a provider which is asleep: it is called for each call that
    would be allowed there, and the caller is told to ask the next generation.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        path: str,
        flooded: Callable[[int, float], None] = lambda uid, seconds: None,
        *,
        absent: Callable[[], None] | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.path = path
        self.counters = Counters()
        self.used = time.monotonic()
        self._engaged = 0
        self._absent = absent
        self._socket = BusSocket(
            context,
            zmq.ROUTER,
            receive=self._receive,
            lost=self._forget_peer,
            overrun=self._overrun,
            mark=_ROUTER_MARK,
        )
        self._methods: dict[str, _Method] = {}
        self._access: dict[int, Access] = {}
        self._trusted = {0, os.geteuid()}
        self._refusals = Refusals(_LOG)
        self._admission = Admission(self._trusted, self._refusals, self._who, flooded, pace)
        self._turns = Turns(self._decode, self._dispatch, self._admission.shuts_out)
        self._gate: Gate | None = None
        self._uids: dict[bytes, int] = {}
        self._under_way: dict[int, int] = {}
        self._tasks: dict[bytes, dict[int, asyncio.Task[None]]] = {}
        self._streams: dict[tuple[bytes, int], _Stream] = {}
        self._draining = False
        self._closing = False
        self._idle = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._sweeper: asyncio.TimerHandle | None = None

    def bind(self) -> None:
        """Begin to listen; who may connect is decided by directories, who may call by uid."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self._gate = Gate(self._socket.raw, self.path, self._admission)
        try:
            self._socket.raw.bind(f"ipc://{self.path}")
        except zmq.ZMQError as error:
            raise unbound(self.path, error.errno) from None
        os.chmod(self.path, 0o666)

    def serve(self, protocol: type, implementation: object) -> None:
        """Add a slot's methods to the table."""
        for spec in slot_of(protocol).methods.values():
            self.add(spec, getattr(implementation, spec.name))

    def add(self, spec: MethodSpec, function: Callable[..., Any], *, passive: bool = False) -> None:
        """Add one method beside those of slots."""
        self._methods[spec.wire_name] = _Method(spec, function, Meter(spec.wire_name), passive)

    @property
    def engaged(self) -> bool:
        """Whether a call or stream is served; `used` is when one was, last (monotonic seconds)."""
        return self._engaged > 0

    def counts(self) -> tuple[MethodCount, ...]:
        """What each method that was ever called has done."""
        return tuple(m.meter.count() for m in self._methods.values() if m.meter.calls)

    def grant(self, access: Mapping[int, Access]) -> None:
        """Replace the table of who may call what."""
        self._access = dict(access)

    def forgive(self, uid: int) -> None:
        """Another process has this uid from now on."""
        self._admission.forgive(uid)

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

    async def cut(self, seconds: float) -> None:
        """Give up the calls whose end a drain has not seen, and wait while they undo what they did.

        What is handed over is not changed any more then. Callers ask the successor; whoever must not
        ask twice is told that it may have been executed.
        """
        tasks = [
            task
            for peer, calls in self._tasks.items()
            for id_, task in calls.items()
            if (peer, id_) not in self._streams  # which were ended when the drain began
        ]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    async def wait_deserted(self, seconds: float) -> bool:
        """Refuse what still comes until all callers have left for a successor; whether they have.

        A caller that has not heard of the successor yet may ask here, and who is gone refuses nothing.
        """
        if self._gate is None:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._gate.deserted.wait()
        return self._gate.deserted.is_set()

    async def close(self) -> None:
        """Cancel what still runs and close the socket."""
        self._draining = self._closing = True
        tasks = [task for calls in self._tasks.values() for task in calls.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._sweeper:
            self._sweeper.cancel()
        if self._gate:
            self._gate.close()
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    def _receive(self, frames: list[zmq.Frame]) -> None:
        peer, uid = frames[0].bytes, uid_of(frames[-1])
        if uid in self._trusted:
            for envelope in self._decode(peer, uid, frames[1:]):
                self._dispatch(peer, uid, envelope)
            return
        if self._gate is not None and self._gate.unfinished:
            self._gate.unfinished.whole(descriptor_of(frames[-1]))
        if self._admission.shuts_out(uid):
            return
        if peer not in self._uids:
            self._remember(peer, uid)
        if not self._turns.put(peer, uid, frames[1:]):
            self._shut_out(uid, "more requests than it can be served")

    def _decode(self, peer: bytes, uid: int, frames: Sequence[zmq.Frame]) -> list[Envelope]:
        try:
            return decode([frame.buffer for frame in frames])
        except InvalidArgument as error:
            self.counters.refused += 1
            self._refusals.say("malformed message refused", uid, caller=self._who(uid))
            self._admission.strike(uid, self._who(uid))
            self._answer(peer, 0, Kind.ERROR, pack_error(error))
            return []

    def _remember(self, peer: bytes, uid: int) -> None:
        """Whose peer it is, of the last few thousand: needed when it does not take its answers."""
        while len(self._uids) >= _PEERS:
            del self._uids[next(iter(self._uids))]
        self._uids[peer] = uid

    def _overrun(self, peer: bytes) -> None:
        """It asks and does not take the answers: they were dropped, and it has to go."""
        self._forget_peer(peer)
        self._shut_out(self._uids.get(peer, -1), "it does not take its answers")

    def _shut_out(self, uid: int, why: str) -> None:
        self.counters.refused += 1
        self._admission.shut_out(uid, self._who(uid), why)

    def _who(self, uid: int) -> str:
        access = self._access.get(uid)
        return access.name if access else f"uid {uid}"

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
            self._answer(peer, envelope.id, Kind.GOAWAY, flags=Flag.UNBEGUN)
            return
        try:
            method, access = self._authorized(uid, envelope)
            self._admission.check_pace(uid)
        except _Absent:
            self._answer(peer, envelope.id, Kind.GOAWAY, flags=Flag.UNBEGUN)
            return
        except SagongError as error:
            self._admission.strike(uid, self._who(uid))
            self._answer(peer, envelope.id, Kind.ERROR, pack_error(error))
            return
        began = time.monotonic_ns()
        if envelope.deadline and began > envelope.deadline:
            return
        if not method.passive:
            self.used = began / 1e9
        asked = _Asked(peer, uid, envelope.id, envelope.cause, method, began)
        try:
            arguments = self._arguments(asked, envelope.body)
            name, rules = (access.name, access.rules) if access else ("operator", None)
            children = RECORDER.children(envelope.cause)
            call = Call(envelope.deadline, envelope.cause, name, uid, rules, children)
            if method.spec.stream:
                self._start(asked, call, items_of(method.function, arguments))
            else:
                with serving(call):
                    self._run(asked, arguments)
        except SagongError as error:
            self._fail(asked, error)

    def _arguments(self, asked: _Asked, body: msgspec.Raw) -> tuple[Any, ...]:
        """The decoded request, if there is room for it."""
        calls = self._tasks.get(asked.peer, {})
        if len(calls) >= _CALLS_PER_PEER:
            raise ResourceExhausted(f"more than {_CALLS_PER_PEER} calls in flight; wait for some")
        if self._under_way.get(asked.uid, 0) >= _CALLS_PER_UID and asked.uid not in self._trusted:
            raise ResourceExhausted(f"more than {_CALLS_PER_UID} calls in flight; wait for some")
        if asked.id in calls:
            raise InvalidArgument(f"a call with id {asked.id} is in flight already")
        spec = asked.method.spec
        try:
            request = spec.request_decoder.decode(body)
        except msgspec.MsgspecError as error:
            raise InvalidArgument(f"{spec.wire_name}: {error}") from None
        return () if spec.parameter is None else (request,)

    def _authorized(self, uid: int, envelope: Envelope) -> tuple[_Method, Access | None]:
        found = self._methods.get(envelope.method)
        if (found is None and self._absent is None) or envelope.version != VERSION:
            raise Unimplemented(
                f"no method {envelope.method} (wire version {envelope.version}) here; "
                f"this process serves {sorted({m.rpartition('/')[0] for m in self._methods})}"
            )
        access = self._access.get(uid)
        allowed = access is not None and access.allows(envelope.method)
        if not allowed and uid not in self._trusted:
            self._deny(uid, envelope.method)
        if found is None:
            assert self._absent is not None
            self._absent()
            raise _Absent
        return found, access if allowed else None

    def _deny(self, uid: int, method: str) -> NoReturn:
        self.counters.refused += 1
        who = self._who(uid)
        key = (uid, method.rpartition("/")[2])
        self._refusals.say("call refused", key, caller=who, method=method)
        raise PermissionDenied(
            f"{who} may not call {method}; grant it in [uses] of its plugin.toml"
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
            raise defect(function, error) from error
        self._own(asked, self._loop.create_task(self._finish(asked, result)), result)

    async def _finish(self, asked: _Asked, work: Any) -> None:
        try:
            self._reply(asked, await work)
        except PassedOn as error:
            if not self._draining:
                self._fail(asked, error)
            else:
                self._answer(asked.peer, asked.id, Kind.GOAWAY)
                asked.settle()
        except SagongError as error:
            self._fail(asked, error)
        except asyncio.CancelledError:
            if self._closing:
                # The caller will hear that this process is gone: that tells it whether to repeat it.
                asked.settle(Cancelled.code)
            elif self._draining:
                self._pass_on(asked)
            else:
                self._fail(asked, Cancelled("the call was cancelled"))
        except Exception as error:
            self._fail(asked, defect(asked.method.function, error))

    def _pass_on(self, asked: _Asked) -> None:
        """It was begun, and does not come to its end here."""
        spec = asked.method.spec
        if spec.mark.idempotent:
            self._answer(asked.peer, asked.id, Kind.GOAWAY)
            asked.settle()
            return
        text = f"{spec.wire_name}: its provider was replaced during the call; it may have been executed"
        self._fail(asked, Unavailable(f"{text}: look before you repeat it", maybe_executed=True))

    def _start(self, asked: _Asked, call: Call, items: Any) -> None:
        with outliving(call):
            self._own(asked, self._loop.create_task(self._stream(asked, items)))

    def _own(
        self,
        asked: _Asked,
        task: asyncio.Task[None],
        work: Coroutine[Any, Any, Any] | None = None,
    ) -> None:
        peer, id_, uid = asked.peer, asked.id, asked.uid
        calls = self._tasks.setdefault(peer, {})
        calls[id_] = task
        self.counters.in_flight += 1
        self._under_way[uid] = self._under_way.get(uid, 0) + 1
        self._engaged += not asked.method.passive
        task.add_done_callback(functools.partial(self._done, asked, work))

    def _done(
        self, asked: _Asked, work: Coroutine[Any, Any, Any] | None, _: asyncio.Task[None]
    ) -> None:
        if work is not None:
            # What is cancelled before its first step is never awaited, which Python would tell.
            work.close()
        peer, id_, uid = asked.peer, asked.id, asked.uid
        if not asked.method.passive:
            self._engaged -= 1
            self.used = time.monotonic()
        self.counters.in_flight -= 1
        self._under_way[uid] -= 1
        if not self._under_way[uid]:
            del self._under_way[uid]
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
            self._fail(asked, defect(items, error))

    def _add_credit(self, peer: bytes, envelope: Envelope) -> None:
        stream = self._streams.get((peer, envelope.id))
        if stream is not None:
            with contextlib.suppress(msgspec.MsgspecError):
                # Never more than a window: whoever gives more would have us fill our own memory.
                stream.credit = min(stream.credit + _CREDIT.decode(envelope.body), WINDOW)
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
            self._sweeper = self._loop.call_later(60.0, self._sweep)

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
        if isinstance(error, PermissionDenied):
            self.counters.refused += 1
            key, name = (asked.uid, asked.method.spec.name), asked.method.spec.wire_name
            self._refusals.say(
                "call refused", key, caller=self._who(asked.uid), method=name, why=error.message
            )
        self._answer(asked.peer, asked.id, Kind.ERROR, pack_error(error))

    def _answer(
        self, peer: bytes, id_: int, kind: Kind, body: msgspec.Raw = EMPTY, flags: int = 0
    ) -> None:
        self._socket.send(Envelope(VERSION, kind, id_, "", 0, flags, "", body), peer)
