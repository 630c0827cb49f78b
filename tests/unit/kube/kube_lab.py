"""A whole API server in the test's process, with an authority of the test's own."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import ipaddress
import json
import os
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import yarl
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sagong.contracts.auth import (
    Auth,
    Authority,
    Certificate,
    CertificateRequest,
    Credential,
    Decision,
    Identity,
    KeySet,
    Question,
    RuleSet,
    Token,
    TokenRequest,
)
from sagong.contracts.metrics import Metrics
from sagong.contracts.node import Node
from sagong.contracts.state import State
from sagong.errors import Unauthenticated
from sagong.testing import LocalHost
from sagong_kube.service import Kube

ADMIN = Identity(username="admin", groups=("system:masters", "system:authenticated"))


class FakeAuth:
    """Knows users by token, lets masters do all, and others what `allowed` says.

    `held` are the rules that everybody is told to have.
    """

    def __init__(self) -> None:
        self.users = {"admin-token": ADMIN}
        self.allowed: set[tuple[str, str, str]] = set()
        self.held: list[dict[str, list[str]]] = [
            {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
        ]
        self.questions: list[Question] = []
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._authority = self._sign("test-authority", self._key, (), authority=True)

    async def authenticate(self, credential: Credential) -> Identity:
        if credential.certificate:
            found = x509.load_der_x509_certificate(credential.certificate)
            name = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
            groups = found.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
            return Identity(username=str(name), groups=tuple(str(g.value) for g in groups))
        if credential.bearer in self.users:
            return self.users[credential.bearer]
        try:
            claims = jwt.decode(
                credential.bearer, self._key.public_key(), ["ES256"], options={"verify_aud": False}
            )
        except jwt.PyJWTError as error:
            raise Unauthenticated(str(error)) from None
        return Identity(username=claims["sub"], groups=("system:authenticated",))

    async def authorize(self, question: Question) -> Decision:
        self.questions.append(question)
        wanted = (question.username, question.verb, question.resource or question.path)
        if "system:masters" in question.groups or wanted in self.allowed:
            return Decision(allowed=True)
        return Decision(allowed=False)

    async def rules(self, question: Question) -> RuleSet:
        return RuleSet(rules=tuple(json.dumps(rule).encode() for rule in self.held))

    async def issue_token(self, request: TokenRequest) -> Token:
        expires = time.time() + request.seconds
        claims = {
            "sub": f"system:serviceaccount:{request.namespace}:{request.service_account}",
            "exp": int(expires),
            "aud": list(request.audiences) or ["api"],
        }
        return Token(token=jwt.encode(claims, self._key, "ES256"), expires=expires)

    async def issue_certificate(self, request: CertificateRequest) -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(
            request.subject, key, request.names, organizations=request.organizations
        )
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        return Certificate(
            certificate=pem.decode(), key=private.decode(), expires=time.time() + 86400
        )

    async def authority(self) -> Authority:
        pem = self._authority.public_bytes(serialization.Encoding.PEM)
        return Authority(certificate=pem.decode())

    async def keys(self) -> KeySet:
        numbers = self._key.public_key().public_numbers()

        def packed(number: int) -> str:
            return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()

        key = {"kty": "EC", "crv": "P-256", "x": packed(numbers.x), "y": packed(numbers.y)}
        return KeySet(jwks=json.dumps({"keys": [key]}).encode(), issuer="https://kubernetes.test")

    def _sign(
        self,
        subject: str,
        key: ec.EllipticCurvePrivateKey,
        names: tuple[str, ...],
        *,
        organizations: tuple[str, ...] = (),
        authority: bool = False,
    ) -> x509.Certificate:
        parts = [x509.NameAttribute(NameOID.COMMON_NAME, subject)]
        parts += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in organizations]
        issuer = [x509.NameAttribute(NameOID.COMMON_NAME, "test-authority")]
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(parts))
            .issuer_name(x509.Name(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if names:
            alternative = x509.SubjectAlternativeName([_general(name) for name in names])
            builder = builder.add_extension(alternative, critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class Reply:
    """An answer: `status`, `headers`, the raw `body` and the decoded `json`."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Lab:
    """A running server: `kube` itself, its `auth`, `state` and `host`, and where it listens."""

    def __init__(self, kube: Kube, auth: FakeAuth, state: Any, host: LocalHost, port: int) -> None:
        self.kube = kube
        self.auth = auth
        self.state = state
        self.host = host
        self.port = port
        self.kubeconfig = host.run / "kubeconfig"
        self._session: aiohttp.ClientSession | None = None

    async def write_kubeconfig(self) -> None:
        authority = (await self.auth.authority()).certificate
        cluster = {
            "server": f"https://127.0.0.1:{self.port}",
            "certificate-authority-data": base64.b64encode(authority.encode()).decode(),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": "admin-token"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        self.kubeconfig.write_text(json.dumps(config))

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = "admin-token",
        status: int | None = None,
        **headers: str,
    ) -> Reply:
        """One request; with `status` its answer must have that."""
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=False)
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=True)
        sent = {key.replace("_", "-"): value for key, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        url = yarl.URL(f"https://127.0.0.1:{self.port}{path}", encoded=True)
        async with self._session.request(method, url, data=data, headers=sent) as answer:
            reply = Reply(answer.status, answer.headers, await answer.read())
        if status is not None and reply.status != status:
            raise AssertionError(f"{method} {path}: {reply.status}: {reply.body[:2000]!r}")
        return reply

    def stream(self, path: str, **headers: str) -> Any:
        """A GET whose answer is read line by line."""
        url = yarl.URL(f"https://127.0.0.1:{self.port}{path}", encoded=True)
        sent = {"Authorization": "Bearer admin-token", **headers}
        assert self._session is not None
        return self._session.get(url, headers=sent)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def kubectl(self, *arguments: str, stdin: str | None = None, code: int | None = 0) -> str:
        """Run kubectl; its output, and on failure also what it complained of."""
        environment = {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "HOME": str(self.host.run),
            "PATH": os.environ["PATH"],
        }
        program = kubectl_path()
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            env=environment,
            stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        sent = stdin.encode() if stdin is not None else None
        out, err = await asyncio.wait_for(process.communicate(sent), 60)
        said = out.decode() + (err.decode() if process.returncode or code is None else "")
        if code is not None and process.returncode != code:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {process.returncode}: {said}")
        return said


def kubectl_path() -> str:
    """kubectl 1.32, by SAGONG_KUBECTL or from the path."""
    import shutil

    named = os.environ.get("SAGONG_KUBECTL", "")
    candidates = [named] if named else ["kubectl.1.32", "kubectl"]
    beside = shutil.which("kubectl")
    if beside and not named:
        candidates.insert(0, str(Path(os.path.realpath(beside)).with_name("kubectl.1.32")))
    for candidate in candidates:
        found = shutil.which(candidate)
        if found:
            return found
    return ""


@contextlib.asynccontextmanager
async def lab(
    state: Any,
    *,
    node: Any = None,
    metrics: Any = None,
    auth: FakeAuth | None = None,
    hooks: Sequence[object] = (),
    **settings: Any,
) -> AsyncIterator[Lab]:
    """Start a server on a free port of the loopback device, and stop it."""
    auth = auth or FakeAuth()
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    port = listener.getsockname()[1]
    uses: dict[type, Any] = {State: {"cluster": state}, Auth: auth}
    if node is not None:
        uses[Node] = node
    if metrics is not None:
        uses[Metrics] = metrics
    with tempfile.TemporaryDirectory(prefix="sagong-kube-", dir="/tmp") as base:
        data, run = Path(base, "data"), Path(base, "run")
        data.mkdir()
        run.mkdir()
        host = LocalHost(
            "kube",
            data=data,
            run=run,
            config=settings,
            uses=uses,
            listeners={"api": listener},
            hooks=hooks,
        )
        kube = Kube(host)
        try:
            await kube.start()
            while not kube._assembly.listening:
                await asyncio.sleep(0.005)
                for task in host._tasks:
                    if task.done():
                        task.result()
            made = Lab(kube, auth, state, host, port)
            await made.write_kubeconfig()
            try:
                yield made
            finally:
                await made.close()
        finally:
            await kube.stop()
            await host.close()
