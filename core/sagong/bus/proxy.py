"""Proxies: an object with a slot's methods that calls them on the bus."""

from __future__ import annotations

import functools
from typing import Any, TypeVar, cast

from sagong.bus.route import Route
from sagong.contract import MethodSpec, slot_of

__all__ = ["proxy"]

S = TypeVar("S")


class _Proxy:
    """Holds the route; its methods come from the slot."""

    def __init__(self, route: Route) -> None:
        self._route = route


@functools.cache
def _proxy_class(protocol: type) -> type[_Proxy]:
    methods = {spec.name: _method(spec) for spec in slot_of(protocol).methods.values()}
    return type(f"{protocol.__name__}Proxy", (_Proxy,), methods)


def _method(spec: MethodSpec) -> Any:
    if spec.stream:

        def stream(self: _Proxy, request: Any = None) -> Any:
            return self._route.stream(spec, request)

        return stream

    def call(self: _Proxy, request: Any = None) -> Any:
        return self._route.call(spec, request)

    return call


def proxy(protocol: type[S], route: Route) -> S:
    """The slot as an object; its calls go along `route`."""
    return cast(S, _proxy_class(cast(type, protocol))(route))
