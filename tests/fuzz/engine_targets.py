"""What clients of the Docker API send besides images and builds: bodies, filters, credentials, TLS."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import functools
from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sagong.errors import SagongError
from sagong.linux.seccomp_profile import parse_profile

__all__ = ["ENGINE"]

_DEEP = b"[" * 2000


def seccomp_profile(data: bytes) -> None:
    """A profile of `--security-opt seccomp=FILE`."""
    parse_profile(data.decode("utf-8", "replace"), ("CAP_CHOWN",), "x86_64", "6.1", notify=True)


def credentials(data: bytes) -> None:
    """X-Registry-Auth, whose JSON is the input."""
    from sagong_docker.credentials import credentials as read

    read(base64.urlsafe_b64encode(data).decode())
    read(data.decode("latin-1"))


def filters(data: bytes) -> None:
    """`filters=` of lists and prunes."""
    from sagong_docker.filters import Filters

    found = Filters.parse(data.decode("utf-8", "replace"))
    with contextlib.suppress(SagongError):
        found.numbers("label")
    found.check(("label", "name"))


def create_body(data: bytes) -> None:
    """The body of `POST /containers/create`, as far as nobody else is asked."""
    from sagong_docker import body
    from sagong_docker.ask import decoded, fitted
    from sagong_docker.document import read

    fitted(read(decoded(data), body.CreateBody), body.CreateBody)


def dockers_tls(data: bytes) -> None:
    """Bytes to a listener with TLS, before and within a handshake."""
    asyncio.run(_shake(data))


async def _shake(data: bytes) -> None:
    from sagong.http.secured import Layer

    layer = Layer(_context(), asyncio.Protocol)
    layer.connection_made(_Lower())
    for at in range(0, len(data), 13):
        layer.data_received(data[at : at + 13])
    layer.connection_lost(None)
    assert layer.shaken.exception() is not None


class _Lower(asyncio.Transport):
    """A socket that nobody reads."""

    def write(self, data: Any) -> None:
        """Into the void."""

    def close(self) -> None:
        """Nothing to close."""


@functools.cache
def _context() -> Any:
    from sagong.http import ServerTls

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fuzz")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    certificate = made.sign(key, hashes.SHA256()).public_bytes(pem)
    return ServerTls(certificate.decode(), secret.decode(), half_closes=True).context()


ENGINE: tuple[
    tuple[str, Callable[[bytes], object], tuple[type[Exception], ...], tuple[bytes, ...]], ...
] = (
    (
        "seccomp-profile",
        seccomp_profile,
        (ValueError,),
        (
            b'{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_X86_64"}],'
            b'"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,'
            b'"op":"SCMP_CMP_EQ"}],"includes":{"caps":["CAP_CHOWN"],"minKernel":"4.8"}}]}',
            b'{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":-1,"syscalls":{}}',
            _DEEP,
        ),
    ),
    (
        "credentials",
        credentials,
        (SagongError,),
        (
            b'{"username":"a","password":"b"}',
            b'{"auth":"YTpi"}',
            b'{"auth":"YT\xc3\x96"}',
            _DEEP,
            b"e30=",
        ),
    ),
    (
        "filters",
        filters,
        (SagongError,),
        (b'{"label":{"a=b":true}}', b'{"label":["a=b"],"name":"x"}', _DEEP, b'{"a":' * 1500),
    ),
    (
        "create-body",
        create_body,
        (SagongError,),
        (
            b'{"Image":"a","Cmd":"b","HostConfig":{"Binds":["/a:/b"],"PortBindings":{"80/tcp":'
            b'[{"HostPort":"1"}]},"Ulimits":[{"Name":"a","Soft":1,"Hard":2}]}}',
            b'{"HostConfig":null,"NetworkingConfig":{"EndpointsConfig":{"a":null}}}',
            _DEEP,
            b'{"Labels":' * 1500,
        ),
    ),
    (
        "dockers-tls",
        dockers_tls,
        (),
        (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\0\x05\x01\0\0\x01\x03", b"\x15\x03\x03\0\2\1\0"),
    ),
)
