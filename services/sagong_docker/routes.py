"""The table of routes: where each request of the Docker API goes.

Paths are without their version. `{name*}` takes slashes (image names have them).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sagong.http import Response, Router
from sagong_docker import (
    absent,
    archive,
    attach,
    birth,
    build,
    containers,
    dialogue,
    events,
    execs,
    images,
    info,
    life,
    logs,
    networks,
    registry,
    stats,
    system,
    transfers,
    volumes,
)
from sagong_docker.ask import Ask
from sagong_docker.engine import Engine

__all__ = ["ROUTER", "ROUTES"]

Handler = Callable[[Engine, Ask], Awaitable[Response | None]]

ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/_ping", system.ping),
    ("HEAD", "/_ping", system.ping),
    ("GET", "/version", system.version),
    ("GET", "/info", info.info),
    ("GET", "/system/df", system.disk_usage),
    ("GET", "/events", events.events),
    ("POST", "/auth", registry.login),
    ("GET", "/distribution/{name*}/json", registry.distribution),
    ("GET", "/containers/json", containers.list_all),
    ("GET", "/containers/ps", containers.list_all),
    ("POST", "/containers/create", birth.create),
    ("POST", "/containers/prune", containers.prune),
    ("GET", "/containers/{id*}/json", containers.inspect),
    ("GET", "/containers/{id}/top", containers.top),
    ("GET", "/containers/{id}/changes", containers.changes),
    ("POST", "/containers/{id}/rename", containers.rename),
    ("POST", "/containers/{id}/update", containers.update),
    ("DELETE", "/containers/{id*}", containers.remove),
    ("POST", "/containers/{id}/start", life.start),
    ("POST", "/containers/{id}/stop", life.stop),
    ("POST", "/containers/{id}/restart", life.restart),
    ("POST", "/containers/{id}/kill", life.kill),
    ("POST", "/containers/{id}/pause", life.pause),
    ("POST", "/containers/{id}/unpause", life.unpause),
    ("POST", "/containers/{id}/wait", life.wait),
    ("POST", "/containers/{id}/resize", life.resize),
    ("POST", "/containers/{id}/attach", attach.attach),
    ("GET", "/containers/{id}/attach/ws", attach.attach_socket),
    ("GET", "/containers/{id}/logs", logs.logs),
    ("GET", "/containers/{id}/stats", stats.stats),
    ("GET", "/containers/{id}/export", archive.export),
    ("HEAD", "/containers/{id}/archive", archive.stat),
    ("GET", "/containers/{id}/archive", archive.read),
    ("PUT", "/containers/{id}/archive", archive.extract),
    ("POST", "/containers/{id}/exec", execs.create),
    ("POST", "/exec/{id}/start", execs.start),
    ("POST", "/exec/{id}/resize", execs.resize),
    ("GET", "/exec/{id}/json", execs.inspect),
    ("POST", "/commit", images.commit),
    ("GET", "/images/json", images.list_all),
    ("GET", "/images/search", registry.search),
    ("GET", "/images/get", transfers.save),
    ("POST", "/images/create", transfers.create),
    ("POST", "/images/load", transfers.load),
    ("POST", "/images/prune", images.prune),
    ("GET", "/images/{name*}/json", images.inspect),
    ("GET", "/images/{name*}/history", images.history),
    ("GET", "/images/{name*}/get", transfers.save),
    ("POST", "/images/{name*}/push", transfers.push),
    ("POST", "/images/{name*}/tag", images.tag),
    ("DELETE", "/images/{name*}", images.remove),
    ("GET", "/networks", networks.list_all),
    ("GET", "/networks/{id*}", networks.inspect),
    ("POST", "/networks/create", networks.create),
    ("POST", "/networks/prune", networks.prune),
    ("POST", "/networks/{id}/connect", networks.connect),
    ("POST", "/networks/{id}/disconnect", networks.disconnect),
    ("DELETE", "/networks/{id}", networks.remove),
    ("GET", "/volumes", volumes.list_all),
    ("GET", "/volumes/{name*}", volumes.inspect),
    ("POST", "/volumes/create", volumes.create),
    ("POST", "/volumes/prune", volumes.prune),
    ("DELETE", "/volumes/{name*}", volumes.remove),
    ("POST", "/build", build.build),
    ("POST", "/build/prune", build.prune),
    ("POST", "/build/cancel", build.cancel),
    ("POST", "/session", dialogue.session),
    ("POST", "/grpc", dialogue.grpc),
    ("POST", "/swarm/init", absent.no_new_swarm),
    ("POST", "/swarm/join", absent.no_new_swarm),
    ("POST", "/swarm/leave", absent.not_in_swarm),
    ("PUT", "/volumes/{name}", absent.no_cluster_volumes),
    ("GET", "/containers/{id}/checkpoints", absent.no_checkpoints),
    ("POST", "/containers/{id}/checkpoints", absent.no_checkpoints),
    ("DELETE", "/containers/{id}/checkpoints/{name}", absent.no_checkpoints),
    ("GET", "/plugins", absent.no_plugins),
    ("GET", "/plugins/privileges", absent.no_new_plugins),
    ("POST", "/plugins/pull", absent.no_new_plugins),
    ("POST", "/plugins/create", absent.no_new_plugins),
    ("GET", "/plugins/{name*}", absent.no_plugin),
    ("POST", "/plugins/{name*}", absent.no_plugin),
    ("DELETE", "/plugins/{name*}", absent.no_plugin),
    *(
        (method, path, absent.no_swarm)
        for family in ("swarm", "nodes", "services", "tasks", "secrets", "configs")
        for path in (f"/{family}", f"/{family}/{{rest*}}")
        for method in ("GET", "POST", "DELETE")
    ),
)

ROUTER: Router[Handler] = Router(ROUTES)
