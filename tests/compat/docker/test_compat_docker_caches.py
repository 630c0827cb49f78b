"""Caches that one engine's builds leave in a registry and another, empty engine's builds take."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.compat.docker.clients import plugin
from tests.compat.docker.docker_engine import IMAGE, Engine, engine
from tests.conformance.image_registry_server import running_registry

pytestmark = pytest.mark.root
_PLAIN = ("--progress", "plain")
_TEXT = f"""\
FROM {IMAGE} AS lower
RUN echo lower > /lower
FROM {IMAGE}
ENV A=b
RUN cat /proc/sys/kernel/random/uuid > /made
COPY --from=lower /lower /copied
CMD ["cat", "/made", "/copied"]
"""
_OWN = ("RUN cat /proc/sys/kernel/random/uuid > /made", "COPY --from=lower /lower /copied")
# An image has no other stage's steps: what is copied from one is compared by its content.
_SENT = {"inline": _OWN, "registry": ("RUN echo lower > /lower", *_OWN)}


def _cached(out: str, step: str) -> bool:
    """Whether a step's vertex was taken from the cache."""
    number = next(line.split()[0] for line in out.splitlines() if line.endswith(step))
    return f"{number} CACHED" in out


@pytest.mark.parametrize("kind", ["inline", "registry"])
def test_another_engine_takes_what_was_sent(docker: Engine, tmp_path: Path, kind: str) -> None:
    first = plugin(docker, "docker-buildx")
    with running_registry(tmp_path) as host, engine() as empty:
        name, ref = f"{host}/app:1", f"{host}/app:{'1' if kind == 'inline' else 'cache'}"
        to = "type=inline" if kind == "inline" else f"type=registry,ref={ref},mode=max"
        words = ("build", *_PLAIN, "-t", name, "-")
        first.ok(*words, "--push", "--cache-to", to, stdin=_TEXT.encode())
        made = docker.ok("run", "--rm", name)
        second = plugin(empty, "docker-buildx")
        given = ("--cache-from", f"type=registry,ref={ref}")
        out = second.ok(*words, *given, stdin=_TEXT.encode())
        assert all(_cached(out, step) for step in _SENT[kind]), out
        assert empty.ok("run", "--rm", name) == made
        # What comes after a step that is another is made, the ones before it are not.
        changed = _TEXT.replace("CMD", "RUN echo more\nCMD")
        out = second.ok(*words, *given, stdin=changed.encode())
        assert all(_cached(out, step) for step in _SENT[kind]), out
        assert not _cached(out, "RUN echo more"), out
