"""Contract machinery: `Message`, `@slot` and `@method`, read by types, by pluggy and by the bus.

A slot is a `typing.Protocol` whose methods take one `Message` (or nothing) and return a `Message`,
`None`, or an `AsyncIterator` of messages (a stream). That one definition is read three ways:

- by type checkers, as the Protocol it is;
- by pluggy (`PluginCheck`), which holds an implementation against it when it is loaded;
- by the bus, which takes its method table, codecs and JSON Schema from `slot_of(protocol)`.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, dataclass_transform

import msgspec

from sagong.errors import InvalidArgument, SagongError

__all__ = [
    "Message",
    "MethodSpec",
    "SlotSpec",
    "conforms",
    "filling",
    "method",
    "schema",
    "slot",
    "slot_of",
]

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

DEFAULT_SECONDS = 30.0


class _MessageMeta(msgspec.StructMeta):
    """Makes every message frozen, keyword-only and silent about fields at their defaults."""

    def __new__(
        mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any
    ) -> Any:
        options = {"frozen": True, "kw_only": True, "omit_defaults": True, **options}
        return super().__new__(mcls, name, bases, namespace, **options)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(msgspec.field,))
class Message(msgspec.Struct, metaclass=_MessageMeta, frozen=True, gc=False):
    """Base of all values that cross the bus. A new field has a default; else it is a new version."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What `@method` says of a slot's method."""

    idempotent: bool
    raises: tuple[type[SagongError], ...]
    seconds: float
    resumes: bool = False


def method(
    *,
    idempotent: bool,
    raises: tuple[type[SagongError], ...] = (),
    seconds: float = DEFAULT_SECONDS,
    resumes: bool = False,
) -> Callable[[F], F]:
    """Mark a slot's method.

    `idempotent`: the bus may send it again after a crash. `raises`: the errors its callers must
    expect beside `Unavailable` and `DeadlineExceeded`. `seconds`: its default deadline; for a
    stream, that of its first answer only. `resumes`: the whole stream may be asked for again and does
    the rest of its work then; so the bus does that when its provider is replaced, and the reader
    sees some items twice.
    """

    def mark(function: F) -> F:
        function.__sagong_mark__ = Mark(idempotent, raises, seconds, resumes)  # type: ignore[attr-defined]
        return function

    return mark


@dataclass(frozen=True)
class MethodSpec:
    """One method of a slot as the bus sees it."""

    slot: str
    version: int
    name: str
    parameter: str | None
    request: Any
    result: Any
    stream: bool
    mark: Mark

    @functools.cached_property
    def wire_name(self) -> str:
        """The name on the wire: `slot/version/method`."""
        return f"{self.slot}/{self.version}/{self.name}"

    @functools.cached_property
    def request_decoder(self) -> msgspec.msgpack.Decoder[Any]:
        """Decodes and validates a request's body."""
        return msgspec.msgpack.Decoder(self.request)

    @functools.cached_property
    def result_decoder(self) -> msgspec.msgpack.Decoder[Any]:
        """Decodes and validates an answer's or a stream item's body."""
        return msgspec.msgpack.Decoder(self.result)


@dataclass(frozen=True)
class SlotSpec:
    """A slot: its name, contract version, protocol, methods and the events it may emit."""

    name: str
    version: int
    protocol: type
    methods: dict[str, MethodSpec]
    events: tuple[type[Message], ...]

    @property
    def wire_name(self) -> str:
        """`name/version`, the prefix of its methods' wire names."""
        return f"{self.name}/{self.version}"


def slot(
    name: str, *, version: int, events: tuple[type[Message], ...] = ()
) -> Callable[[type[T]], type[T]]:
    """Declare a Protocol to be the contract of slot `name`."""

    def declare(protocol: type[T]) -> type[T]:
        protocol.__sagong_slot__ = (name, version, events)  # type: ignore[attr-defined]
        return protocol

    return declare


@functools.cache
def slot_of(protocol: type) -> SlotSpec:
    """The bus's reading of a slot's Protocol; raises `TypeError` naming what breaks the form."""
    declared = protocol.__dict__.get("__sagong_slot__")
    if declared is None:
        raise TypeError(f"{protocol.__qualname__} is not a slot: decorate it with @slot(...)")
    name, version, events = declared
    # A version 2 may extend the class of version 1: what it inherits is its own, too.
    kinds = [base for base in reversed(protocol.__mro__) if "__sagong_slot__" in vars(base)]
    methods = {
        key: _read_method(name, version, protocol, key, function)
        for kind in kinds
        for key, function in vars(kind).items()
        if not key.startswith("_") and inspect.isfunction(function)
    }
    return SlotSpec(name, version, protocol, methods, events)


def _read_method(
    slot_name: str, version: int, protocol: type, name: str, function: Callable[..., Any]
) -> MethodSpec:
    where = f"{protocol.__qualname__}.{name}"
    mark = getattr(function, "__sagong_mark__", None)
    if mark is None:
        raise TypeError(f"{where} has no @method(idempotent=...)")
    hints = typing.get_type_hints(function, vars(sys.modules[protocol.__module__]))
    parameters = [p for p in inspect.signature(function).parameters if p != "self"]
    if len(parameters) > 1:
        raise TypeError(f"{where} takes {len(parameters)} parameters; put them into one Message")
    parameter = parameters[0] if parameters else None
    result = hints.get("return", type(None))
    stream = typing.get_origin(result) is collections.abc.AsyncIterator
    if stream:
        (result,) = typing.get_args(result)
    request = hints[parameter] if parameter else type(None)
    for kind in (request, result):
        if kind is not type(None) and not _is_message(kind):
            raise TypeError(f"{where}: {kind!r} is not a Message")
    return MethodSpec(slot_name, version, name, parameter, request, result, stream, mark)


def _is_message(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Message)


def filling(plugin: object, protocol: type) -> object:
    """What of a plugin fills a slot: itself, or its attribute `implementation`.

    That may be a mapping by protocol, where versions of a contract have methods of the same names.
    """
    implementation = getattr(plugin, "implementation", plugin)
    if not isinstance(implementation, collections.abc.Mapping):
        return implementation
    if protocol not in implementation:
        raise InvalidArgument(
            f"{type(plugin).__name__}.implementation has nothing for {slot_of(protocol).wire_name}"
        )
    filled: object = implementation[protocol]
    return filled


def conforms(protocol: type, candidate: object) -> None:
    """Hold an implementation's methods against the slot; `InvalidArgument` names each mismatch.

    pluggy does the checking: the slot's methods are its hook specifications, the candidate's
    methods of those names its implementations.
    """
    from sagong.hooks import check

    problems = check(slot_of(protocol), candidate)
    if problems:
        raise InvalidArgument(
            f"{type(candidate).__name__} does not implement slot {slot_of(protocol).name}: "
            + "; ".join(problems)
        )


def schema(protocol: type) -> dict[str, Any]:
    """The slot as JSON Schema for authors in other languages: methods, messages and events."""
    spec = slot_of(protocol)
    kinds = [k for m in spec.methods.values() for k in (m.request, m.result) if _is_message(k)]
    kinds += [event for event in spec.events if event not in kinds]
    references, components = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    by_kind = dict(zip(kinds, references))
    return {
        "slot": spec.name,
        "version": spec.version,
        "summary": (inspect.getdoc(protocol) or "").partition("\n")[0],
        "methods": {
            m.name: {
                "wire": m.wire_name,
                "request": by_kind.get(m.request),
                "result": by_kind.get(m.result),
                "stream": m.stream,
                "idempotent": m.mark.idempotent,
                "resumes": m.mark.resumes,
                "raises": sorted(error.code for error in m.mark.raises),
                "seconds": m.mark.seconds,
            }
            for m in spec.methods.values()
        },
        "events": [by_kind[event] for event in spec.events],
        "$defs": components,
    }
