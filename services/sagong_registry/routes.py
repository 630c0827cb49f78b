"""The table of routes, and the way of a request through it.

`action` is what a visitor must be allowed to do with the repository of the path; "" asks for nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sagong.http import Request, Response, Router
from sagong_registry import blobs, listing, login, manifests, uploads
from sagong_registry.ask import Ask
from sagong_registry.depot import Depot
from sagong_registry.grammar import known_digest
from sagong_registry.mirrors import Mirrors
from sagong_registry.refusal import refused

__all__ = ["ROUTER", "Route", "serve"]

Handler = Callable[[Depot, Ask], Awaitable[Response | None]]


@dataclass(frozen=True, slots=True)
class Route:
    """A handler and the action it stands for."""

    handler: Handler
    action: str = ""


_BLOB, _UPLOAD = "/v2/{name*}/blobs/{digest}", "/v2/{name*}/blobs/uploads/{id}"
_MANIFEST = "/v2/{name*}/manifests/{reference}"

ROUTER: Router[Route] = Router(
    (
        ("GET", "/v2", Route(login.version)),
        ("GET", "/token", Route(login.token)),
        ("POST", "/token", Route(login.oauth)),
        ("GET", "/v2/_catalog", Route(listing.catalog)),
        ("GET", "/v1/search", Route(listing.search)),
        ("GET", "/v1/_ping", Route(listing.ping)),
        ("GET", "/v2/{name*}/tags/list", Route(listing.tags, "pull")),
        ("GET", "/v2/{name*}/referrers/{digest}", Route(listing.referrers, "pull")),
        ("GET", _MANIFEST, Route(manifests.get, "pull")),
        ("PUT", _MANIFEST, Route(manifests.put, "push")),
        ("DELETE", _MANIFEST, Route(manifests.delete, "delete")),
        ("GET", _BLOB, Route(blobs.get, "pull")),
        ("DELETE", _BLOB, Route(blobs.delete, "delete")),
        ("POST", "/v2/{name*}/blobs/uploads", Route(uploads.begin, "push")),
        ("GET", _UPLOAD, Route(uploads.status, "push")),
        ("PATCH", _UPLOAD, Route(uploads.append, "push")),
        ("PUT", _UPLOAD, Route(uploads.finish, "push")),
        ("DELETE", _UPLOAD, Route(uploads.cancel, "push")),
    )
)


async def serve(depot: Depot, mirrors: Mirrors, request: Request) -> Response | None:
    """Find the handler, ask the gate, answer."""
    method = "GET" if request.method == "HEAD" else request.method
    match = ROUTER.find(method, request.segments)
    if match is None:
        raise _no_route(request)
    visitor = await depot.gate.visitor(request)
    ask = Ask(request, match.parts, visitor)
    if match.handler.action:
        depot.gate.admit(request, visitor, ask.name, match.handler.action)
        await _follow_upstream(mirrors, ask, match.handler)
    return await match.handler.handler(depot, ask)


async def _follow_upstream(mirrors: Mirrors, ask: Ask, route: Route) -> None:
    """See that a copy of another registry has what is asked for; nothing is pushed to one."""
    mirror = mirrors.of(ask.name)
    if mirror is None:
        return
    if route.action == "push":
        raise refused("UNSUPPORTED", f"{ask.name} is a copy of {mirror.settings.url}: push there")
    if route.handler is manifests.get:
        ask.warning = await mirrors.manifest(ask.name, ask.parts["reference"])
    elif route.handler is blobs.get:
        digest = known_digest(ask.parts["digest"])
        if ask.request.method == "HEAD":
            ask.size = await mirrors.size(ask.name, digest)
        else:
            whole = not ask.header("range")
            ask.coming = await mirrors.blob(ask.name, digest, whole=whole)


def _no_route(request: Request) -> Exception:
    allowed = ROUTER.methods(request.segments)
    if not allowed:
        return refused("UNSUPPORTED", f"there is nothing at {request.path[:200]}", status=404)
    if "GET" in allowed:
        allowed = (*allowed, "HEAD")
    return refused(
        "UNSUPPORTED",
        f"method {request.method[:20]} is not served here",
        headers=(("Allow", ", ".join(allowed)),),
    )
