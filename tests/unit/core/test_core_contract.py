"""The contract machinery: what a slot must look like, and how implementations are held against it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import pytest

from sagong.contract import Message, conforms, method, schema, slot, slot_of
from sagong.contracts import protocols
from sagong.errors import InvalidArgument


class Note(Message):
    text: str
    loud: bool = False


@slot("notes", version=2, events=(Note,))
class Notes(Protocol):
    """Keeps notes."""

    @method(idempotent=True, seconds=3.0)
    async def keep(self, note: Note) -> None: ...

    @method(idempotent=True)
    def follow(self) -> AsyncIterator[Note]: ...


class Good:
    def keep(self, note: Note) -> None: ...

    async def follow(self) -> AsyncIterator[Note]:
        yield Note(text="x")


def test_the_bus_reads_names_types_and_marks() -> None:
    spec = slot_of(Notes)
    assert spec.methods["keep"].wire_name == "notes/2/keep"
    assert spec.methods["keep"].mark.seconds == 3.0
    assert spec.methods["follow"].stream
    assert spec.methods["follow"].result is Note


def test_messages_are_frozen_keyword_only_values() -> None:
    note = Note(text="a")
    with pytest.raises(AttributeError):
        note.text = "b"  # type: ignore[misc]
    with pytest.raises(TypeError):
        Note("a")  # type: ignore[call-arg]


def test_a_plain_function_and_a_generator_fill_the_slot() -> None:
    conforms(Notes, Good())


def test_each_mismatch_of_an_implementation_is_named() -> None:
    class Bad:
        def keep(self, note: Note, more: int) -> None: ...

        async def follow(self) -> None: ...

    with pytest.raises(InvalidArgument) as caught:
        conforms(Notes, Bad())
    assert "follow must be an async generator" in caught.value.message
    assert "more" in caught.value.message
    with pytest.raises(InvalidArgument, match="method follow is missing"):
        conforms(Notes, object())


def test_a_slot_out_of_form_is_refused() -> None:
    class Plain(Protocol): ...

    with pytest.raises(TypeError, match="decorate it with @slot"):
        slot_of(Plain)

    @slot("unmarked", version=1)
    class Unmarked(Protocol):
        async def go(self) -> None: ...

    with pytest.raises(TypeError, match="no @method"):
        slot_of(Unmarked)


@pytest.mark.parametrize("protocol", list(protocols()), ids=lambda p: p.__name__)
def test_every_contract_has_a_schema_and_says_what_it_does(protocol: type) -> None:
    described = schema(protocol)
    assert described["summary"]
    assert described["methods"]
    for name in slot_of(protocol).methods:
        assert getattr(protocol, name).__doc__, f"{protocol.__name__}.{name} says nothing"
