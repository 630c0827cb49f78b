"""A candidate as its callers see it: behind a socket."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from typing import Any, TypeVar, cast

import zmq

from sagong.bus import Provider, Route, proxy
from sagong.contract import slot_of

__all__ = ["over_the_bus"]

S = TypeVar("S")


@contextlib.asynccontextmanager
async def over_the_bus(slot: type[S], candidate: object) -> AsyncIterator[S]:
    """Its proxy."""
    context: zmq.Context[Any] = zmq.Context()
    with tempfile.TemporaryDirectory(prefix="sagong-bus-", dir="/tmp") as directory:
        provider, route = (
            Provider(context, f"{directory}/1"),
            Route(context, slot_of(cast(type, slot)).name),
        )
        try:
            provider.serve(slot, candidate)
            provider.bind()
            route.switch(1, provider.path)
            yield proxy(slot, route)
        finally:
            route.close()
            await provider.close()
            context.destroy(linger=0)
