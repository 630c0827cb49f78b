"""TLS with client certificates and renewal; WebSocket against an independent client."""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.unit.http.server_fixture import client_context, exchange, serving

from sagong.errors import InvalidArgument
from sagong.http import HttpLimits, Request, Response, ServerTls

Signed = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]
GET = b"GET / HTTP/1.1\r\nHost: d\r\n\r\n"


@dataclass
class Pair:
    """A certificate and its key, as PEM."""

    certificate: str
    key: str
    der: bytes = b""


def certificate(name: str, issuer: Signed | None) -> Signed:
    """Make one, self-signed without an issuer."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256()), key


def pem(cert: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    """As texts."""
    encoding = serialization.Encoding.PEM
    text = key.private_bytes(
        encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    der = cert.public_bytes(serialization.Encoding.DER)
    return Pair(cert.public_bytes(encoding).decode(), text.decode(), der)


async def who(request: Request) -> Response:
    """Answers with the client's certificate."""
    return Response(200, request.peer.certificate, {"X-Scheme": request.scheme})


async def tls_get(
    port: int, authority: Pair, own: Path | None = None, host: str = "127.0.0.1"
) -> tuple[bytes, bytes]:
    """One request over TLS, from an address: the client certificate seen, and the server's."""
    context = client_context(authority.certificate, own)
    client = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="localhost", local_addr=(host, 0)
    )
    _, body = await exchange(client, GET)
    shown = client[1].get_extra_info("ssl_object").getpeercert(True)
    client[1].close()
    return body, shown


def shake(port: int, authority: Pair, own: Path) -> None:
    """A handshake by OpenSSL on the socket itself, which tells the server why it fails."""
    context = client_context(authority.certificate, own)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        context.wrap_socket(client, server_hostname="localhost")


@pytest.mark.parametrize("half_closes", [False, True])
async def test_a_client_certificate_is_optional_and_seen(
    tmp_path: Path, *, half_closes: bool
) -> None:
    ca = certificate("ca", None)
    authority, server, user = pem(*ca), pem(*certificate("s", ca)), pem(*certificate("u", ca))
    own = tmp_path / "own.pem"
    own.write_text(user.certificate + user.key)
    tls = ServerTls(server.certificate, server.key, authority.certificate, half_closes=half_closes)
    async with serving(who, tls=tls) as (_, _path, port):
        assert (await tls_get(port, authority))[0] == b""
        assert (await tls_get(port, authority, own))[0] == user.der


@pytest.mark.parametrize("half_closes", [False, True])
async def test_a_strangers_certificate_is_refused(tmp_path: Path, *, half_closes: bool) -> None:
    ca = certificate("ca", None)
    authority, server = pem(*ca), pem(*certificate("s", ca))
    stranger = pem(*certificate("x", certificate("other", None)))
    own = tmp_path / "own.pem"
    own.write_text(stranger.certificate + stranger.key)
    tls = ServerTls(server.certificate, server.key, authority.certificate, half_closes=half_closes)
    async with serving(who, tls=tls) as (_, _path, port):
        with pytest.raises((OSError, EOFError)):
            await tls_get(port, authority, own)


@pytest.mark.parametrize("half_closes", [False, True])
async def test_failed_handshakes_are_told_once_with_their_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, half_closes: bool
) -> None:
    """Whoever runs the server could not see otherwise why a client does not get in."""
    ca = certificate("ca", None)
    authority, server, user = pem(*ca), pem(*certificate("s", ca)), pem(*certificate("u", ca))
    stranger = pem(*certificate("x", certificate("other", None)))
    own, strange = tmp_path / "own.pem", tmp_path / "strange.pem"
    own.write_text(user.certificate + user.key)
    strange.write_text(stranger.certificate + stranger.key)
    texts = (server.certificate, server.key, authority.certificate)
    tls = ServerTls(*texts, required=True, half_closes=half_closes)
    async with serving(who, tls=tls) as (_, _path, port):
        for shown in (strange, strange, None):
            with pytest.raises((OSError, EOFError)):
                await tls_get(port, authority, shown)
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.to_thread(shake, port, stranger, own)  # asyncio's clients say no why
        assert (await tls_get(port, authority, own))[0] == user.der
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()  # a look at the port is nothing to be told
        await asyncio.sleep(0.05)
    told = [r for r in caplog.records if r.levelname == "WARNING"]
    assert {(r.getMessage(), vars(r)["peer"]) for r in told} == {
        ("TLS handshake failed", "127.0.0.1")
    }
    assert [vars(r)["why"] for r in told] == [
        "the client's certificate is refused: unable to get local issuer certificate",
        "peer did not return a certificate",
        "the client refuses the server: unknown ca",
    ]


@pytest.mark.parametrize("half_closes", [False, True])
async def test_who_leaves_handshakes_unfinished_is_refused_and_others_are_not(
    *, half_closes: bool
) -> None:
    """Those that are finished do not count, however many there are."""
    ca = certificate("ca", None)
    authority, server = pem(*ca), pem(*certificate("s", ca))
    tls = ServerTls(server.certificate, server.key, half_closes=half_closes)
    limits = HttpLimits(unfinished=2, unfinished_a_second=0.01, handshakes_at_most=1000.0)
    begun: list[asyncio.StreamWriter] = []
    async with serving(who, limits=limits, tls=tls) as (_, _path, port):
        for _ in range(4):
            await tls_get(port, authority)
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            begun.append(writer)
        assert await reader.read() == b""  # a third one
        with pytest.raises(OSError):
            await tls_get(port, authority)
        assert await tls_get(port, authority, host="127.0.0.2")
        for writer in begun:
            writer.close()


async def test_certificates_are_renewed_without_a_restart(tmp_path: Path) -> None:
    ca = certificate("ca", None)
    authority, first, second = pem(*ca), pem(*certificate("1", ca)), pem(*certificate("2", ca))
    cert_file, key_file = tmp_path / "c", tmp_path / "k"
    cert_file.write_text(first.certificate)
    key_file.write_text(first.key)
    tls = ServerTls.from_files(cert_file, key_file)
    async with serving(who, tls=tls) as (_, _path, port):
        assert (await tls_get(port, authority))[1] == first.der
        cert_file.write_text(second.certificate)
        tls._checked = 0.0
        assert (await tls_get(port, authority))[1] == first.der  # its key is not there yet
        key_file.write_text(second.key)
        tls._checked = 0.0
        assert (await tls_get(port, authority))[1] == second.der
        with pytest.raises(InvalidArgument):
            tls.replace(first.certificate, second.key)
        assert (await tls_get(port, authority))[1] == second.der


async def test_a_connection_without_tls_to_a_tls_port_is_dropped() -> None:
    ca = certificate("ca", None)
    server = pem(*certificate("s", ca))
    async with serving(who, tls=ServerTls(server.certificate, server.key)) as (_, _path, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        try:
            assert b"HTTP" not in await reader.read()
        except ConnectionError:
            pass
        writer.close()


async def talk(request: Request) -> None:
    """Says every message again, with its type, until `bye`."""
    socket = request.websocket(("v5.channel.k8s.io", "v4.channel.k8s.io"), limit=2 << 20)
    while (message := await socket.receive()) is not None:
        if message == "bye":
            await socket.close(1000, "bye")
            break
        socket.send(message)
        await socket.drain()


async def test_a_websocket_carries_messages_of_all_sizes() -> None:
    async with serving(talk) as (_, _path, port), aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{port}/ws"
        async with session.ws_connect(url, protocols=["x", "v4.channel.k8s.io"]) as client:
            assert client.protocol == "v4.channel.k8s.io"
            for size in (0, 1, 125, 126, 65535, 65536, 1 << 20):
                data = os.urandom(size)
                await client.send_bytes(data)
                assert await client.receive_bytes(timeout=60) == data
            await client.send_str("사공")
            assert await client.receive_str(timeout=60) == "사공"
            await client.ping()
            await client.send_str("bye")
            closing = await client.receive(timeout=60)
            assert closing.type is aiohttp.WSMsgType.CLOSE and closing.data == 1000


async def test_a_websocket_message_over_the_limit_ends_with_1009() -> None:
    async with serving(talk) as (_, _path, port), aiohttp.ClientSession() as session:
        async with session.ws_connect(f"http://127.0.0.1:{port}/ws") as client:
            await client.send_bytes(b"x" * (3 << 20))
            closing = await client.receive(timeout=60)
            assert closing.type is aiohttp.WSMsgType.CLOSE and closing.data == 1009


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x82\x01x", 1002),  # not masked
        (b"\xc2\x81\0\0\0\0x", 1002),  # a reserved bit
        (b"\x80\x80\0\0\0\0", 1002),  # continuation of nothing
        (b"\x09\x80\0\0\0\0", 1002),  # a control frame in pieces
        (b"\x81\x81\0\0\0\0\xff", 1007),  # text that is not UTF-8
    ],
)
async def test_a_broken_frame_ends_the_websocket(frame: bytes, code: int) -> None:
    handshake = (
        b"GET / HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    async with serving(talk) as (_, path, _port):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(handshake)
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
        writer.write(frame)
        answer = await reader.readexactly(4)
        assert answer[0] == 0x88 and int.from_bytes(answer[2:4], "big") == code
        writer.close()


async def test_a_request_that_is_no_handshake_is_refused() -> None:
    async with serving(talk) as (_, path, _port):
        client = await asyncio.open_unix_connection(str(path))
        head, _ = await exchange(client, GET)
        client[1].close()
    assert head.startswith(b"HTTP/1.1 400 ")
