"""Whatever is asked of the Docker API, it is answered or refused: no 500, and no silence."""

from __future__ import annotations

import asyncio
import json
import string
from typing import Any
from urllib.parse import quote

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sagong_docker.routes import ROUTES
from tests import sample_image
from tests.unit.docker.docker_lab import Lab, docker_lab

_IMAGE = sample_image.NAME
# These wait for something to happen; what they are asked with is fuzzed with the others' readers.
_WAITING = ("/events", "/wait", "/stats", "/logs", "/attach", "/attach/ws", "/session", "/grpc")
# These would ask registries that do not exist.
_FAR = ("/auth", "/images/create", "/push", "/images/search", "/distribution/{name*}/json")
_ROUTES = [
    (method, path)
    for method, path, _ in ROUTES
    if not path.endswith((*_WAITING, *_FAR)) and "build" not in path and not path.endswith("/start")
]

_NAMES = st.sampled_from(
    ["box", "nobody", _IMAGE, "bridge", "host", "vol", "", "%00", "..", "%2e%2e", "a" * 300, "x/y"]
)
_WORDS = st.one_of(
    st.sampled_from(
        ["", "0", "1", "-1", "true", "x", "1e999", "9" * 30, "box", "1.5", "\x00", "é", "[]", "{}"]
    ),
    st.text(string.printable, max_size=12),
)
_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), _WORDS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(_WORDS, inner, max_size=3)
    ),
    max_leaves=6,
)
_QUERIES = (
    "filters", "all", "limit", "size", "name", "force", "v", "link", "signal", "t", "h", "w",
    "ps_args", "path", "repo", "tag", "fromImage", "fromSrc", "platform", "type", "term", "scope",
    "noOverwriteDirNonDir", "changes", "container", "digests", "names", "quiet", "noprune",
)  # fmt: skip
_FIELDS = (
    "Image", "Cmd", "Entrypoint", "Env", "Labels", "User", "WorkingDir", "Healthcheck", "Volumes",
    "ExposedPorts", "StopSignal", "StopTimeout", "Hostname", "HostConfig", "NetworkingConfig",
    "Name", "Driver", "IPAM", "Options", "DriverOpts", "Container", "EndpointConfig", "Detach",
    "Memory", "RestartPolicy", "CpusetCpus", "NanoCpus", "Force", "Tty", "ConsoleSize",
)  # fmt: skip
_OF_HOST = (
    "Binds", "Mounts", "Tmpfs", "PortBindings", "RestartPolicy", "LogConfig", "NetworkMode", "Dns",
    "ExtraHosts", "CapAdd", "SecurityOpt", "Sysctls", "Ulimits", "Devices", "DeviceRequests",
    "Memory", "CpusetCpus", "PidMode", "IpcMode", "Links", "VolumesFrom", "ShmSize", "StorageOpt",
    "BlkioDeviceReadBps", "ConsoleSize", "OomScoreAdj", "PidsLimit", "Runtime", "GroupAdd",
)  # fmt: skip
_BODIES = st.one_of(
    st.binary(max_size=40),
    st.builds(
        lambda fields, host: _encoded(
            {"Image": _IMAGE} | fields | ({"HostConfig": host} if host else {})
        ),
        st.dictionaries(st.sampled_from(_FIELDS), _VALUES, max_size=4),
        st.dictionaries(st.sampled_from(_OF_HOST), _VALUES, max_size=3),
    ),
)


def _encoded(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode("utf-8", "surrogatepass")


def _path(route: str, name: str, query: dict[str, str], version: str) -> str:
    parts = [name if part.startswith("{") else part for part in route.split("/")]
    asked = "&".join(f"{k}={quote(v, safe='')}" for k, v in query.items())
    return f"{version}{'/'.join(parts)}?{asked}"


async def _ask(lab: Lab, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    async with asyncio.timeout(60):
        return await lab.raw(method, path, body)


def test_no_request_breaks_the_engine() -> None:
    @settings(
        max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(
        st.sampled_from(_ROUTES),
        _NAMES,
        st.dictionaries(st.sampled_from(_QUERIES), _WORDS, max_size=3),
        _BODIES,
        st.sampled_from(["", "/v1.24", "/v1.41", "/v1.48"]),
    )
    def hold(
        route: tuple[str, str], name: str, query: dict[str, str], body: bytes, version: str
    ) -> None:
        path = _path(route[1], quote(name, safe="%/:"), query, version)
        status, answer = runner.run(_ask(lab, route[0], path, body))
        assert status < 600 and status != 500, (route, path, body, status, answer)

    with asyncio.Runner() as runner:
        opened = docker_lab()
        lab = runner.run(opened.__aenter__())
        try:
            runner.run(lab.raw("POST", "/containers/create?name=box", _encoded({"Image": _IMAGE})))
            hold()
        finally:
            runner.run(opened.__aexit__(None, None, None))
