"""What users and pods of a cluster send: patches, times, files of static pods, answers to probes."""

from __future__ import annotations

import asyncio
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec

from sagong.errors import InvalidArgument, NotFound, Unauthenticated
from sagong.model import cron, times
from sagong.model.objects import GroupVersionKind

__all__ = ["CLUSTER"]

_POD = GroupVersionKind("", "v1", "Pod")
_NOW = "2026-01-01T00:00:00Z"
_LIVE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "a", "labels": {"x": "y"}},
    "spec": {
        "containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 1}]}],
        "tolerations": [{"key": "k"}],
    },
}


def patches(data: bytes) -> None:
    """The first byte chooses the kind of patch of a pod; what is applied once is so again."""
    from sagong_kube.patch import apply, jsonpatch, mergepatch, strategic
    from sagong_kube.schema import decoding

    change = decoding.parsed_yaml(data[1:])[0]
    match data[0] % 4 if data else 0:
        case 0:
            jsonpatch.apply(_LIVE, change)
        case 1:
            merged = mergepatch.apply(_LIVE, change)
            assert mergepatch.apply(merged, change) == merged
        case 2:
            strategic.apply(_LIVE, change, _POD)
        case 3:
            _apply(apply.apply, decoding.conform, change)


def _apply(apply: Callable[..., Any], conform: Callable[..., Any], change: Any) -> None:
    if not isinstance(change, dict):
        return
    conform(msgspec.json.decode(msgspec.json.encode(change)), _POD)
    once = apply(_LIVE, change, _POD, manager="m", now=_NOW, force=True)
    assert not apply(once.document, change, _POD, manager="m", now=_NOW).changed


def moments(data: bytes) -> None:
    """Times, durations and schedules; what is normal stays so."""
    text = data.decode("utf-8", "surrogateescape")
    for read in (times.normalized, times.normalized_micro, times.duration, cron.parse):
        try:
            found = read(text)
        except InvalidArgument:
            continue
        if read in (times.normalized, times.normalized_micro):
            assert read(cast(str, found)) == found


def static_pods(data: bytes) -> None:
    """Files of pods and of containers, in each of their forms."""
    from sagong_node.pods.container_file import read_container
    from sagong_node.pods.manifests import Broken, read_pods

    for form in ("toml", "yaml", "json"):
        try:
            if form != "toml":
                read_pods(data, json_form=form == "json", node="n")
            read_container(data, "x", form=form, node="n")
        except Broken as error:
            assert error.reason


def users(data: bytes) -> None:
    """An image's passwd and group, after the name that is looked for."""
    from sagong_node.users import resolve

    name, _, rest = data.partition(b"\n")
    passwd, _, group = rest.partition(b"\n\n")
    resolve(name.decode(errors="replace"), ("g", "5"), passwd, group)


def health(data: bytes) -> None:
    """What a server answers to a gRPC health check."""
    from sagong_node.pods.health_call import check_health

    async def run() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(data)
            writer.write_eof()
            await reader.read()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server, asyncio.timeout(60):
            await check_health("127.0.0.1", server.sockets[0].getsockname()[1], "s")

    asyncio.run(run())


class _Raw:
    """A taken-over connection that says these bytes."""

    def __init__(self, data: bytes) -> None:
        self._pieces = [data[at : at + 13] for at in range(0, len(data), 13)]

    async def read(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    def write(self, data: bytes) -> None: ...


def websocket(data: bytes) -> None:
    """Frames of a client."""
    from sagong.http.websocket import WebSocket

    async def run() -> None:
        socket = WebSocket(cast(Any, _Raw(data)), "", 1000)
        while (message := await socket.receive()) is not None:
            assert len(message) <= 1000

    asyncio.run(run())


@functools.cache
def _authority() -> Any:
    from sagong_auth_rbac.authority import CertificateAuthority

    with tempfile.TemporaryDirectory() as base:
        return CertificateAuthority(Path(base))


def certificate(data: bytes) -> None:
    """A client's certificate as TLS has it; none of these bytes is of our authority."""
    _authority().identify(data)
    raise AssertionError("a certificate that nobody signed")


def request_of_certificate(data: bytes) -> None:
    """A request to sign a certificate."""
    from sagong.contracts.auth import CertificateRequest

    text = data.decode("latin-1")
    _authority().issue(CertificateRequest(request=text, subject="x"))


def logs(data: bytes) -> None:
    """A container's log, damaged by a power cut."""
    from sagong.shim.replay import Replay

    with tempfile.TemporaryDirectory() as base:
        path = Path(base, "log")
        path.write_bytes(data)
        for driver in ("cri", "json-file", "local"):
            replay = Replay(driver, str(path), "")
            for _ in replay:
                pass
            replay.close()


def configuration(data: bytes) -> None:
    """A `sagong.toml`."""
    from sagong.config import Paths, load

    with tempfile.TemporaryDirectory() as base:
        paths = Paths.below(base)
        paths.etc.mkdir()
        (paths.etc / "sagong.toml").write_bytes(data)
        load(paths)


_REFUSAL = (InvalidArgument, RecursionError)  # the latter is told as the client's mistake, too
_CERTIFICATE = b"-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n"
_YAML = (
    b"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: b}]}\n"
)
CLUSTER: tuple[
    tuple[str, Callable[[bytes], object], tuple[type[Exception], ...], tuple[bytes, ...]], ...
] = (
    (
        "patches",
        patches,
        _REFUSAL,
        (
            b'\0[{"op": "move", "from": "/spec/containers/0", "path": "/spec/containers/-"}]',
            b'\1{"metadata": {"labels": {"x": null, "z": "w"}}}',
            b'\2{"spec": {"containers": [{"name": "a", "image": "c"}, {"$patch": "delete", "name": "b"}'
            b"]}}",
            b'\2{"spec": {"$setElementOrder/containers": [{"name": "a"}], "$retainKeys": ["x"]}}',
            b'\3{"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "b"}]}}',
        ),
    ),
    (
        "moments",
        moments,
        (),
        (b"2026-01-01T00:00:00.5+01:00", b"1h30m0.5s", b"*/5 1-3,7 * jan sun", b"@every 1h"),
    ),
    (
        "static-pods",
        static_pods,
        (),
        (
            _YAML,
            b'image = "a"\nports = ["1.2.3.4:80:81/udp"]\nvolumes = ["/a:/b:ro"]\nuser = "1:2"\n',
        ),
    ),
    ("users", users, (InvalidArgument,), (b"a:g\na:x:1:2::/h:/s\n\ng:x:5:a,b\n",)),
    (
        "grpc-health",
        health,
        (OSError, EOFError),
        (b"\0\0\0\4\0\0\0\0\0" + b"\0\0\7\0\1\0\0\0\1\0\0\0\0\2\x08\1",),
    ),
    ("websocket", websocket, (), (b"\x81\x83\1\2\3\4abc\x89\x80\0\0\0\0\x88\x82\0\0\0\0\3\xe8",)),
    ("certificate", certificate, (Unauthenticated,), (b"0\x82\1\0",)),
    ("certificate-request", request_of_certificate, (InvalidArgument,), (_CERTIFICATE,)),
    (
        "logs",
        logs,
        (),
        (
            b"2026-01-01T00:00:00.1Z stdout F hello\n",
            b'{"log":"a\\n","stream":"stderr","time":"2026-01-01T00:00:00.1Z"}\n',
            b"\0\0\0\x0a\x0a\6stdout\x10\1\0\0\0\x0a",
        ),
    ),
    (
        "configuration",
        configuration,
        (InvalidArgument, NotFound),
        (b'profile = "docker"\n[units.node]\nplugin = "x"\nsettings = { a = 1 }\nlistens = {}\n',),
    ),
)
