"""A route: calls to whoever fills a slot now, over its crashes and swaps.

The kernel says which generation serves (`switch`) and which are dead (`bury`). New calls go to the
newest link; calls in flight end on theirs. A call that a draining provider did not execute goes to
the next generation, whatever it is; one lost with its provider is sent again only if its contract
calls it idempotent, else it fails with `Unavailable` and `maybe_executed`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import msgspec
import zmq

from sagong.bus.link import Link, Lost, Moved
from sagong.call import current
from sagong.contract import MethodSpec
from sagong.errors import DeadlineExceeded, Unavailable
from sagong.wire import pack_value

__all__ = ["Route"]

# How often a stream is opened in all: one that kills its provider each time has an end.
_RESUMPTIONS = 6


class Route:
    """The way to one slot's provider; `name` is for messages (`scheduler`, `state local`)."""

    def __init__(self, context: zmq.Context[Any], name: str) -> None:
        self.name = name
        self.generation = 0
        self._context = context
        self._down = ""
        self._link: Link | None = None
        self._old: list[Link] = []
        self._retiring: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._renewed = False
        self.withdrawn = False

    def switch(self, generation: int, path: str) -> None:
        """Send new calls to this generation from now on; the one that is known changes nothing.

        It may be an older one: of another unit, which takes the place of one that was taken away.
        Generation 0 is nobody, for now.
        """
        self.withdrawn = False
        if generation and generation != self.generation:
            self._take(generation, path)

    @property
    def down(self) -> str:
        """Why nobody is expected to serve for now; "" if somebody is. Then calls fail at once."""
        return self._down

    @down.setter
    def down(self, reason: str) -> None:
        self._down = reason
        if reason:
            self._announce()

    def withdraw(self) -> None:
        """Nobody will serve here any more: new calls fail at once, those in flight end."""
        self.withdrawn = True
        self.generation = 0
        if self._link is not None:
            self._old.append(self._link)
            self._link = None
        self._announce()
        self._retire()

    def renew(self, path: str) -> Link:
        """Connect to `path` anew, as to a next generation: its old process is given up.

        Whoever does that reads a stream of it, and hears by its end that it is time.
        """
        self._renewed = True
        self.bury(path)
        return self._take(self.generation + 1, path)

    def _take(self, generation: int, path: str) -> Link:
        self.generation = generation
        if self._link is not None:
            self._old.append(self._link)
        link = self._link = Link(self._context, path)
        self._announce()
        self._retire()
        return link

    def bury(self, path: str, *, executed: bool = True) -> None:
        """The provider at `path` is dead: fail or resend what was in flight there."""
        for link in [*self._old, self._link]:
            if link is not None and link.path == path:
                link.fail(executed=executed)
        if self._link is not None and self._link.path == path:
            self._old.append(self._link)
            self._link = None
        self._retire()

    async def call(self, spec: MethodSpec, request: Any) -> Any:
        """Call the slot's method; waits for a provider until the deadline."""
        deadline = self._deadline(spec)
        body = pack_value(request)
        tried: Link | None = None
        while True:
            link = self._link
            if link is None or link is tried:
                await self._wait_other(tried, deadline, spec)
                continue
            tried = link
            try:
                return await link.call(spec, body, deadline)
            except Moved:
                continue
            except Lost:
                if not spec.mark.idempotent:
                    raise Unavailable(
                        f"{spec.wire_name}: {self.name} died during the call; it may have been "
                        "executed: look before you repeat it",
                        maybe_executed=True,
                    ) from None
            finally:
                if link is not self._link:
                    self._retire()

    async def stream(self, spec: MethodSpec, request: Any) -> AsyncIterator[Any]:
        """Open a stream. When its provider moves or dies it ends with `Unavailable`: open it anew.

        One that resumes by its contract is opened anew here, a few times; and one that is idempotent,
        as long as nothing has come of it: then it is as good as a call. Not where a way is renewed:
        nobody would do that while this waits for it.
        """
        body = pack_value(request)
        tried: Link | None = None
        again = spec.mark.resumes or (spec.mark.idempotent and not self._renewed)
        left = _RESUMPTIONS
        deadline = self._deadline(spec)
        while True:
            while self._link is None or self._link is tried:
                await self._wait_other(tried, deadline, spec)
            tried = self._link
            try:
                async with contextlib.aclosing(self._items(tried, spec, body)) as items:
                    async for item in items:
                        again = spec.mark.resumes
                        yield item
                return
            except (Lost, Moved) as end:
                if isinstance(end, Moved) and not end.begun:
                    continue
                left -= 1
                if not left or not again:
                    raise Unavailable(
                        f"{spec.wire_name}: {self.name} was replaced; open it again"
                    ) from None
                deadline = self._deadline(spec)

    async def _items(
        self, link: Link, spec: MethodSpec, body: msgspec.Raw
    ) -> AsyncGenerator[Any, None]:
        """Those of a stream on one link; Lost or Moved if that ends before it."""
        id_, stream = link.open(spec, body)
        try:
            while True:
                await stream.wait_change()
                while stream.items:
                    found = stream.items.popleft()
                    link.credit(id_, stream)
                    yield spec.result_decoder.decode(found)
                if stream.ended:
                    break
            if stream.failure is not None:
                raise stream.failure
        finally:
            link.cancel(id_)
            self._retire()

    async def wait_served(self) -> None:
        """Until somebody serves here, or nobody ever will."""
        while self._link is None and not self.withdrawn:
            await self._changed.wait()

    def close(self) -> None:
        """Close all links; calls in flight fail."""
        for link in [*self._old, self._link]:
            if link is not None:
                link.close()
        self._old, self._link = [], None
        self._announce()

    def _deadline(self, spec: MethodSpec) -> int:
        own = time.monotonic_ns() + int(spec.mark.seconds * 1e9)
        inherited = current().deadline
        return min(own, inherited) if inherited else own

    async def _wait_other(self, tried: Link | None, deadline: int, spec: MethodSpec) -> None:
        changed = self._changed
        if self._link is not None and self._link is not tried:
            return
        if self._down:
            raise Unavailable(f"{spec.wire_name}: {self._down}; see `sagong status`")
        if self.withdrawn:
            raise Unavailable(
                f"{spec.wire_name}: nothing provides {self.name}; see `sagong status`"
            )
        try:
            async with asyncio.timeout((deadline - time.monotonic_ns()) / 1e9):
                await changed.wait()
        except TimeoutError:
            if tried is None or spec.stream:
                raise Unavailable(
                    f"{spec.wire_name}: nothing serves {self.name} now; see `sagong status`"
                ) from None
            raise DeadlineExceeded(
                f"{spec.wire_name}: no successor of {self.name} before the deadline"
            ) from None

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _retire(self) -> None:
        """Leave old links that nothing is in flight on: their providers wait for that to end."""
        for link in [link for link in self._old if not link.busy]:
            self._old.remove(link)
            link.close()
        if self._old and self._retiring is None:
            with contextlib.suppress(RuntimeError):
                loop = asyncio.get_running_loop()
                self._retiring = loop.call_later(1.0, self._retire_again)

    def _retire_again(self) -> None:
        self._retiring = None
        self._retire()
