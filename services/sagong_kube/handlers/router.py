"""From a request to its handler: one table for paths, one for subresources, and the generic verbs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from sagong_kube import refusal
from sagong_kube.handlers.exchange import Answer, Ask, Reply, json_answer
from sagong_kube.handlers.gate import Gate
from sagong_kube.handlers.objects import Objects
from sagong_kube.registry.resource import Catalogue, Resource

__all__ = ["ObjectHandler", "PathHandler", "Router", "Subresources"]

PathHandler = Callable[[Ask], Awaitable[Reply]]
ObjectHandler = Callable[[Ask, Resource], Awaitable[Reply]]
Subresources = Mapping[tuple[str, str], ObjectHandler]

_PARTS = ("status", "ephemeralcontainers", "resize", "finalize", "approval")


class Router:
    """Lets requests through the gate and to their handlers.

    `paths` are exact paths, or prefixes when they end with a slash. `virtual` are resources without
    objects, by `group/plural`; `subresources` by storage and name.
    """

    def __init__(
        self,
        gate: Gate,
        catalogue: Catalogue,
        objects: Objects,
        *,
        paths: Mapping[str, PathHandler],
        virtual: Mapping[str, ObjectHandler],
        subresources: Subresources,
        foreign: ObjectForeign | None = None,
    ) -> None:
        self._gate = gate
        self._catalogue = catalogue
        self._objects = objects
        self._paths = paths
        self._virtual = virtual
        self._subresources = subresources
        self._foreign = foreign
        self._verbs: Mapping[str, ObjectHandler] = {
            "get": objects.get,
            "list": objects.list,
            "watch": objects.watch,
            "create": objects.create,
            "update": objects.update,
            "patch": objects.patch,
            "delete": objects.delete,
            "deletecollection": objects.delete_collection,
        }

    async def serve(self, ask: Ask, certificate: bytes) -> Reply:
        """Serve a request of anybody."""
        ask.actor = await self._gate.actor(ask, certificate)
        await self._gate.check(ask.actor, ask.target)
        if self._foreign is not None:
            reply = await self._foreign(ask)
            if reply is not None:
                return reply
        if ask.target.is_object:
            return await self._object(ask)
        return await self._path(ask)

    async def _path(self, ask: Ask) -> Reply:
        path = ask.target.path
        handler = self._paths.get(path) or self._paths.get(path.rstrip("/"))
        if handler is None:
            for prefix, candidate in self._paths.items():
                if prefix.endswith("/") and len(prefix) > 1 and path.startswith(prefix):
                    handler = candidate
        if path == "/":
            return self.index()
        if handler is None:
            raise refusal.no_such_path()
        if ask.method not in ("GET", "HEAD"):
            raise refusal.method_not_allowed()
        return await handler(ask)

    def index(self) -> Answer:
        """GET /: the paths there are."""
        groups = self._catalogue.groups()
        paths = ["/api", "/api/v1", "/apis"]
        for group, served in groups.items():
            if group:
                paths += [f"/apis/{group}", *(f"/apis/{group}/{version}" for version in served)]
        return json_answer({"paths": sorted({*paths, *(p.rstrip("/") for p in self._paths)})})

    async def _object(self, ask: Ask) -> Reply:
        target = ask.target
        resource = self._catalogue.find(target.group, target.version, target.resource)
        if target.namespace and not resource.namespaced:
            raise refusal.no_such_path()
        if target.subresource:
            return await self._subresource(ask, resource)
        if target.verb not in resource.verbs:
            raise refusal.method_not_allowed()
        if resource.namespaced and not target.namespace and target.verb not in ("list", "watch"):
            raise refusal.method_not_allowed()
        virtual = self._virtual.get(f"{resource.group}/{resource.plural}")
        if virtual is not None:
            return await virtual(ask, resource)
        return await self._verbs[target.verb](ask, resource)

    async def _subresource(self, ask: Ask, resource: Resource) -> Reply:
        target = ask.target
        known = resource.subresources.get(target.subresource)
        if known is None:
            raise refusal.no_such_path()
        if target.verb not in known.verbs:
            raise refusal.method_not_allowed()
        handler = self._subresources.get((resource.storage, target.subresource))
        if handler is None and target.subresource == "scale":
            handler = self._subresources.get(("", "scale"))
        if handler is not None:
            return await handler(ask, resource)
        if target.subresource not in _PARTS:
            raise refusal.no_such_path()
        match target.verb:
            case "get":
                return await self._objects.get(ask, resource)
            case "update":
                return await self._objects.update(ask, resource, target.subresource)
            case "patch":
                return await self._objects.patch(ask, resource, target.subresource)
        raise refusal.method_not_allowed()


ObjectForeign = Callable[[Ask], Awaitable[Reply | None]]
