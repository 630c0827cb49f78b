"""Slots of the tests' own: `greeting` in two versions, and `desk`, which asks greeters by name."""

from __future__ import annotations

from typing import Protocol

from sagong.contract import Message, method, slot
from sagong.errors import NotFound


class Guest(Message):
    """Who is greeted; the answer takes `seconds`."""

    name: str
    seconds: float = 0.0


class Guests(Message):
    """Several at once, which version 1 could not."""

    names: tuple[str, ...]


class Words(Message):
    """What is said."""

    text: str


class Greeted(Message):
    """Somebody was greeted."""

    name: str


@slot("greeting", version=1, events=(Greeted,))
class Greeting(Protocol):
    """Greets one."""

    @method(idempotent=True)
    async def greet(self, guest: Guest) -> Words:
        """Say something."""
        ...


@slot("greeting", version=2, events=(Greeted,))
class Greeting2(Protocol):
    """Greets several: a method of the same name with another request."""

    @method(idempotent=True)
    async def greet(self, guests: Guests) -> Words:
        """Say something to all."""
        ...


class Inquiry(Message):
    """Let the greeter `instance` greet `guest`."""

    instance: str = ""
    guest: Guest


class Names(Message):
    """Names, in order."""

    names: tuple[str, ...]


@slot("desk", version=1)
class Desk(Protocol):
    """Sends guests to greeters whose names are known only then."""

    @method(idempotent=True, raises=(NotFound,))
    async def ask(self, inquiry: Inquiry) -> Words:
        """What the greeter says; NotFound lists those that there are."""
        ...

    @method(idempotent=True)
    async def greeters(self) -> Names:
        """Names of the greeters that there are."""
        ...

    @method(idempotent=True)
    async def heard(self) -> Names:
        """`GREETER:GUEST` for each event heard."""
        ...
