"""A client that does what buildx does with its `docker` driver, request for request, by grpcio.

Its protocol definitions are in `protos/`; the code for them is generated when the tests begin. Both
connections are HTTP requests to the Docker API that are upgraded; relays join them to gRPC's own
sockets: `/grpc`, where the client calls, and `/session`, where it serves.
"""

from __future__ import annotations

import contextlib
import fnmatch
import importlib
import os
import secrets
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
from grpc_tools import protoc

PROTOS = Path(__file__).parent / "protos"
_FOLLOW, _EXCLUDE, _NAME = "followpaths", "exclude-patterns", "dir-name"


def generated(directory: Path) -> dict[str, ModuleType]:
    """Modules of the protocol: NAME for messages, NAME_grpc for services."""
    files = sorted(str(path) for path in PROTOS.glob("*.proto"))
    include = Path(protoc.__file__).parent / "_proto"
    code = protoc.main(
        ["", f"-I{PROTOS}", f"-I{include}", f"--python_out={directory}",
         f"--grpc_python_out={directory}", *files]
    )  # fmt: skip
    assert code == 0
    sys.path.insert(0, str(directory))
    try:
        names = [path.stem for path in PROTOS.glob("*.proto")]
        found = {name: importlib.import_module(f"{name}_pb2") for name in names}
        found |= {f"{n}_grpc": importlib.import_module(f"{n}_pb2_grpc") for n in names}
        return found
    finally:
        sys.path.remove(str(directory))


def _leads(pattern: str, path: str) -> bool:
    """Whether a path is one that is followed, above one or below."""
    names = zip(pattern.split("/"), path.split("/"), strict=False)
    return all(fnmatch.fnmatchcase(name, wanted) for wanted, name in names)


# Relays.


def upgraded(api: Path, path: str, headers: list[tuple[str, str]]) -> socket.socket:
    """A connection that was an HTTP request."""
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(str(api))
    lines = [f"POST {path} HTTP/1.1", "Host: docker", "Connection: Upgrade", "Upgrade: h2c"]
    lines += [f"{name}: {value}" for name, value in headers]
    peer.sendall("\r\n".join([*lines, "", ""]).encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = peer.recv(1)
        assert byte, head
        head += byte
    assert head.startswith(b"HTTP/1.1 101 "), head
    assert b"Upgrade: h2c" in head
    return peer


def join(one: socket.socket, two: socket.socket) -> None:
    """Bytes both ways until both have ended."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    for pair in ((one, two), (two, one)):
        threading.Thread(target=pump, args=pair, daemon=True).start()


@contextlib.contextmanager
def relay(api: Path, directory: Path) -> Iterator[str]:
    """A socket for gRPC's channel; each connection to it is one of `/grpc`."""
    path = directory / f"grpc-{secrets.token_hex(4)}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = listening.accept()
                    join(peer, upgraded(api, "/grpc", []))

        threading.Thread(target=accept, daemon=True).start()
        yield f"unix:{path}"


# What the client lends.


@dataclass
class Lent:
    """Directories by name, secrets by id, uploads by path, and who asked for what."""

    directories: dict[str, Path] = field(default_factory=dict)
    secrets: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    credentials: dict[str, tuple[str, str]] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


class Lender:
    """The services of a session."""

    def __init__(self, protocol: dict[str, ModuleType], lent: Lent) -> None:
        self._protocol = protocol
        self._lent = lent

    def register(self, server: grpc.Server) -> list[str]:
        """Add all services; their methods."""
        code = self._protocol
        servicers = (
            ("filesync_grpc", "FileSync", {"DiffCopy": self.diff_copy}),
            ("filesync_grpc", "Auth", {"Credentials": self.credentials}),
            ("secrets_grpc", "Secrets", {"GetSecret": self.secret}),
            ("upload_grpc", "Upload", {"Pull": self.pull}),
            ("ssh_grpc", "SSH", {"CheckAgent": self.check, "ForwardAgent": self.forward}),
        )
        for module, service, methods in servicers:
            kind = getattr(code[module], f"{service}Servicer")
            made = type(service, (kind,), {n: staticmethod(m) for n, m in methods.items()})
            getattr(code[module], f"add_{service}Servicer_to_server")(made(), server)
        packages = {"filesync_grpc": "moby.filesync.v1", "secrets_grpc": "moby.buildkit.secrets.v1",
                    "upload_grpc": "moby.upload.v1", "ssh_grpc": "moby.sshforward.v1"}  # fmt: skip
        return [f"/{packages[m]}.{s}/{n}" for m, s, methods in servicers for n in methods]

    def diff_copy(self, packets: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        """fsutil's sender: names, then what is asked for, then the end."""
        kind = self._protocol["fsutil"].Packet
        metadata = list(context.invocation_metadata())
        name = next(value for key, value in metadata if key == _NAME)
        root = self._lent.directories.get(name)
        if root is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f'no access allowed to dir "{name}"')
            return
        entries = list(self._entries(root, metadata))
        for path, facts in entries:
            self._lent.sent.append(f"{name}:{path}")
            yield kind(type=0, stat=self._stat(root, path, facts))
        yield kind(type=0)
        for packet in packets:
            if packet.type == kind.PACKET_REQ:
                raw = (root / entries[packet.ID][0]).read_bytes()
                for at in range(0, len(raw), 1 << 15):
                    yield kind(type=2, ID=packet.ID, data=raw[at : at + (1 << 15)])
                yield kind(type=2, ID=packet.ID)
            elif packet.type == kind.PACKET_FIN:
                yield kind(type=3)
                return

    def _entries(self, root: Path, metadata: list[Any]) -> Iterator[tuple[str, os.stat_result]]:
        from sagong_builder.context.ignore import Ignore

        follow = [value for key, value in metadata if key == _FOLLOW]
        rules = Ignore.read("\n".join(v for k, v in metadata if k == _EXCLUDE).encode())
        for path in sorted(root.rglob("*"), key=lambda p: p.relative_to(root).parts):
            relative = str(path.relative_to(root))
            if follow and not any(_leads(pattern, relative) for pattern in follow):
                continue
            if not rules.excludes(relative):
                yield relative, path.lstat()

    def _stat(self, root: Path, path: str, facts: os.stat_result) -> Any:
        mode = facts.st_mode & 0o777
        link = ""
        if stat.S_ISDIR(facts.st_mode):
            mode |= 1 << 31
        elif stat.S_ISLNK(facts.st_mode):
            mode |= 1 << 27
            link = os.readlink(root / path)
        size = facts.st_size if stat.S_ISREG(facts.st_mode) else 0
        return self._protocol["fsutil"].Stat(
            path=path, mode=mode, uid=1000, gid=1000, size=size, modTime=facts.st_mtime_ns,
            linkname=link,
        )  # fmt: skip

    def credentials(self, request: Any, context: grpc.ServicerContext) -> Any:
        """For a registry."""
        self._lent.asked.append(request.Host)
        user, secret = self._lent.credentials.get(request.Host, ("", ""))
        return self._protocol["filesync"].CredentialsResponse(Username=user, Secret=secret)

    def secret(self, request: Any, context: grpc.ServicerContext) -> Any:
        """A secret, or NOT_FOUND."""
        if request.ID not in self._lent.secrets:
            context.abort(grpc.StatusCode.NOT_FOUND, f"secret {request.ID} not found")
        return self._protocol["secrets"].GetSecretResponse(data=self._lent.secrets[request.ID])

    def pull(self, messages: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        """An upload in small pieces."""
        metadata = dict(context.invocation_metadata())
        raw = self._lent.uploads[metadata["urlpath"]]
        for at in range(0, len(raw), 1000):
            yield self._protocol["upload"].BytesMessage(data=raw[at : at + 1000])

    def check(self, request: Any, context: grpc.ServicerContext) -> Any:
        """There is an agent."""
        return self._protocol["ssh"].CheckAgentResponse()

    def forward(self, messages: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        """An agent that shouts back."""
        for message in messages:
            yield self._protocol["ssh"].BytesMessage(data=message.data.upper())


# Building.


@dataclass
class Outcome:
    """What a build told."""

    response: dict[str, str] = field(default_factory=dict)
    error: grpc.RpcError | None = None
    updates: list[Any] = field(default_factory=list)

    @property
    def image(self) -> str:
        """The image's id."""
        return self.response["containerimage.config.digest"]

    @property
    def output(self) -> str:
        """Of all commands."""
        return b"".join(log.msg for u in self.updates for log in u.logs).decode()

    @property
    def vertexes(self) -> dict[str, Any]:
        """The last word on each step, by its name."""
        return {vertex.name: vertex for u in self.updates for vertex in u.vertexes}


class Buildx:
    """One client."""

    def __init__(self, api: Path, directory: Path, protocol: dict[str, ModuleType]) -> None:
        self._api = api
        self._directory = directory
        self._protocol = protocol
        self.lent = Lent()
        # Whether sessions travel in a call, not on a connection of their own.
        self.in_call = False

    @contextlib.contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        """gRPC over `/grpc`."""
        with relay(self._api, self._directory) as target, grpc.insecure_channel(target) as made:
            yield made

    @contextlib.contextmanager
    def session(self) -> Iterator[str]:
        """A session, and its name."""
        path = self._directory / f"session-{secrets.token_hex(4)}"
        server = grpc.server(ThreadPoolExecutor(8))
        methods = Lender(self._protocol, self.lent).register(server)
        server.add_insecure_port(f"unix:{path}")
        server.start()
        name = secrets.token_hex(12)
        headers = [("X-Docker-Expose-Session-Uuid", name), ("X-Docker-Expose-Session-Name", "x")]
        headers += [("X-Docker-Expose-Session-Grpc-Method", method) for method in methods]
        own = socket.socket(socket.AF_UNIX)
        own.connect(str(path))
        with contextlib.ExitStack() as stack:
            stack.callback(server.stop, 0)
            if self.in_call:
                stack.enter_context(self._called(own, headers))
            else:
                peer = upgraded(self._api, "/session", headers)
                stack.callback(peer.close)
                join(peer, own)
            yield name

    @contextlib.contextmanager
    def _called(self, own: socket.socket, headers: list[tuple[str, str]]) -> Iterator[None]:
        """The session's bytes as messages of a call."""
        kind = self._protocol["upload"].BytesMessage

        def up() -> Iterator[Any]:
            while data := own.recv(1 << 15):
                yield kind(data=data)

        with self.channel() as channel:
            method = channel.stream_stream(
                "/moby.buildkit.v1.Control/Session", kind.SerializeToString, kind.FromString
            )
            call = method(up(), metadata=[(key.lower(), value) for key, value in headers])

            def down() -> None:
                with contextlib.suppress(grpc.RpcError, OSError):
                    for message in call:
                        own.sendall(message.data)

            threading.Thread(target=down, daemon=True).start()
            try:
                yield
            finally:
                call.cancel()
                own.close()

    def build(
        self,
        directory: Path,
        *,
        tags: tuple[str, ...] = (),
        lends: tuple[str, ...] = ("context", "dockerfile"),
        **options: str,
    ) -> Outcome:
        """`docker buildx build`: options are the frontend's, `_` for `-`, and `__` for `:`."""
        parts = ((name.partition("__"), value) for name, value in options.items())
        options = {
            option.replace("_", "-") + (":" if mark else "") + rest: value
            for (option, mark, rest), value in parts
        }
        self.lent.directories = dict.fromkeys(lends, directory)
        outcome = Outcome()
        with self.channel() as channel, self.session() as session:
            self._solve(channel, session, tags, {"filename": "Dockerfile", **options}, outcome)
        return outcome

    def _solve(
        self,
        channel: grpc.Channel,
        session: str,
        tags: tuple[str, ...],
        options: dict[str, str],
        outcome: Outcome,
    ) -> None:
        code = self._protocol
        control = code["control_grpc"].ControlStub(channel)
        gateway = code["gateway_grpc"].LLBBridgeStub(channel)
        assert control.ListWorkers(code["control"].ListWorkersRequest()).record[0].platforms
        ref = secrets.token_hex(12)
        attrs = {"name": ",".join(tags)} if tags else {}
        request = code["control"].SolveRequest(
            Ref=ref, Session=session, FrontendAttrs=options, ExporterDeprecated="moby",
            ExporterAttrsDeprecated=attrs,
            Exporters=[code["control"].Exporter(Type="moby", Attrs=attrs)],
        )  # fmt: skip
        solving = control.Solve.future(request)
        follow = threading.Thread(
            target=lambda: outcome.updates.extend(
                control.Status(code["control"].StatusRequest(Ref=ref))
            )
        )
        follow.start()
        metadata = (("buildkit-controlapi-buildid", ref),)
        caps = gateway.Ping(code["gateway"].PingRequest(), metadata=metadata).FrontendAPICaps
        assert "return" in {cap.ID for cap in caps if cap.Enabled}
        asked = code["gateway"].SolveRequest(
            Frontend="dockerfile.v0", FrontendOpt=options, allowResultReturn=True, Evaluate=True
        )
        try:
            result = gateway.Solve(asked, metadata=metadata).result
            returned = code["gateway"].ReturnRequest(result=result)
        except grpc.RpcError as error:
            outcome.error = error
            status = code["gateway"].Status(code=error.code().value[0], message=error.details())
            returned = code["gateway"].ReturnRequest(error=status)
        gateway.Return(returned, metadata=metadata)
        try:
            outcome.response = dict(solving.result(60).ExporterResponse)
        except grpc.RpcError as error:
            outcome.error = outcome.error or error
        follow.join(60)
        assert not follow.is_alive()
