"""Probes and hooks: one look at a container by command, HTTP, TCP or gRPC.

Hooks (postStart, preStop) are the same requests, of which only the failure counts.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Sequence
from urllib.parse import urljoin, urlsplit

import msgspec

from sagong.errors import SagongError
from sagong.model.k8s.core_v1 import HTTPGetAction, LifecycleHandler, Probe
from sagong.model.numbers import natural
from sagong_node.pods.execution import Executor, execute
from sagong_node.pods.health_call import SERVING, check_health
from sagong_node.pods.naming import AnyContainer

__all__ = ["Target", "http_get", "port_number", "probe", "run_hook"]

_REDIRECTS = 10


class Target(msgspec.Struct, frozen=True):
    """What is looked at: the container, its id and the pod's address."""

    container: AnyContainer
    id: str
    address: str


async def probe(node: Executor, spec: Probe, target: Target) -> tuple[bool, str]:
    """(success, what was seen)."""
    seconds = float(spec.timeout_seconds or 1)
    try:
        async with asyncio.timeout(seconds + 0.5):
            return await _probe(node, spec, target, seconds)
    except TimeoutError:
        return False, _timeout(spec, target, seconds)
    except OSError as error:
        return False, _refusal(spec, target, error, seconds)
    except (ValueError, SagongError) as error:
        return False, str(error) or type(error).__name__


def _timeout(spec: Probe, target: Target, seconds: float) -> str:
    """In upstream's words."""
    if spec.exec:
        return f"command timed out: {spec.exec.command} timed out after {seconds:g}s"
    if spec.http_get:
        said = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        return f'Get "{_url(spec.http_get, target)}": {said}'
    if spec.tcp_socket:
        return f"dial tcp {_place(spec, target)}: i/o timeout"
    return _unreached(_place(spec, target), seconds)


def _refusal(spec: Probe, target: Target, error: OSError, seconds: float) -> str:
    """In upstream's words; what has no errno says itself what it is."""
    if spec.exec or not error.errno or isinstance(error, ssl.SSLError):
        return str(error) or type(error).__name__
    if spec.grpc:
        return _unreached(_place(spec, target), seconds)
    said = f"dial tcp {_place(spec, target)}: connect: {os.strerror(error.errno).lower()}"
    return f'Get "{_url(spec.http_get, target)}": {said}' if spec.http_get else said


def _unreached(place: str, seconds: float) -> str:
    said = f'timeout: failed to connect service "{place}" within {seconds:g}s'
    return f"{said}: context deadline exceeded"


def _place(spec: Probe, target: Target) -> str:
    """Host and port of a probe over the network."""
    action = spec.http_get or spec.tcp_socket
    host = (action.host if action else "") or target.address
    port = action.port if action else spec.grpc.port if spec.grpc else None
    return _socket(host, port_number(port, target.container))


def _socket(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _probe(node: Executor, spec: Probe, target: Target, seconds: float) -> tuple[bool, str]:
    if spec.exec:
        code, output = await execute(node, target.id, spec.exec.command, seconds=seconds)
        return code == 0, output
    async with asyncio.timeout(seconds):
        if spec.http_get:
            return await _http(spec.http_get, target)
        if spec.tcp_socket:
            port = port_number(spec.tcp_socket.port, target.container)
            host = spec.tcp_socket.host or target.address
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            return True, ""
        if spec.grpc:
            status = await check_health(target.address, spec.grpc.port, spec.grpc.service or "")
            if status == SERVING:
                return True, ""
            return False, f"service unhealthy (responded with status {status})"
    return True, ""


async def run_hook(node: Executor, hook: LifecycleHandler, target: Target, seconds: float) -> str:
    """Run a hook to its end; what went wrong, or ""."""
    try:
        async with asyncio.timeout(seconds):
            if hook.exec:
                command = hook.exec.command
                code, output = await execute(node, target.id, command, seconds=seconds)
                return "" if code == 0 else f"command {command} exited with {code}: {output}"
            if hook.http_get:
                success, seen = await _http(hook.http_get, target)
                return "" if success else seen
            if hook.sleep:
                await asyncio.sleep(hook.sleep.seconds)
            elif hook.tcp_socket:
                port = port_number(hook.tcp_socket.port, target.container)
                _, writer = await asyncio.open_connection(target.address, port)
                writer.close()
    except TimeoutError:
        return f"it took longer than {seconds:g}s"
    except (OSError, ssl.SSLError, ValueError, SagongError) as error:
        return str(error) or type(error).__name__
    return ""


def port_number(port: int | str | None, container: AnyContainer) -> int:
    """A port by number or by name of the container's ports."""
    if isinstance(port, int):
        return port
    text = port or ""
    number = natural(text)
    if number is not None:
        return number
    for known in container.ports:
        if known.name == text:
            return known.container_port
    raise ValueError(f"couldn't find port: {text!r} in container {container.name}")


async def _http(action: HTTPGetAction, target: Target) -> tuple[bool, str]:
    headers = [(header.name, header.value) for header in action.http_headers]
    code = await http_get(_url(action, target), headers)
    if 200 <= code < 400:
        return True, ""
    return False, f"HTTP probe failed with statuscode: {code}"


def _url(action: HTTPGetAction, target: Target) -> str:
    host = action.host or target.address
    port = port_number(action.port, target.container)
    scheme = (action.scheme or "HTTP").lower()
    path = action.path if action.path.startswith("/") else f"/{action.path}"
    return f"{scheme}://{_socket(host, port)}{path}"


async def http_get(url: str, headers: Sequence[tuple[str, str]]) -> int:
    """The status; redirects to the same host are followed, others count as success, as upstream has
    it. Certificates are not verified, bodies are not read."""
    first = urlsplit(url).hostname
    for _ in range(_REDIRECTS):
        code, location = await _get_once(url, headers)
        if not 300 <= code < 400 or not location:
            return code
        url = urljoin(url, location)
        if urlsplit(url).hostname != first:
            return code
    raise ValueError(f"stopped after {_REDIRECTS} redirects")


async def _get_once(url: str, headers: Sequence[tuple[str, str]]) -> tuple[int, str]:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    context = _unverified() if secure else None
    port = parts.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(
        parts.hostname or "", port, ssl=context, limit=1 << 16
    )
    try:
        writer.write(_request(parts.netloc, parts.path or "/", parts.query, headers))
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ", 2)
        if not words[0].startswith("HTTP/1") or len(words) < 2 or natural(words[1]) is None:
            raise ValueError(f"malformed HTTP response {lines[0]!r}")
        fields = {
            name.strip().lower(): text.strip()
            for name, colon, text in (line.partition(":") for line in lines[1:])
            if colon
        }
        return int(words[1]), fields.get("location", "")
    except asyncio.IncompleteReadError:
        raise ConnectionResetError("EOF: the server closed the connection") from None
    except asyncio.LimitOverrunError:
        raise ValueError("the server's headers are too long") from None
    finally:
        writer.close()


def _request(host: str, path: str, query: str, headers: Sequence[tuple[str, str]]) -> bytes:
    fields = {"Host": host, "User-Agent": "kube-probe/1.32", "Accept": "*/*"}
    lines = [f"GET {path}{'?' + query if query else ''} HTTP/1.1"]
    given = {name.lower() for name, _ in headers}
    lines += [f"{name}: {text}" for name, text in fields.items() if name.lower() not in given]
    lines += [f"{name}: {text}" for name, text in headers if text]
    text = "\r\n".join([*lines, "Connection: close", "", ""])
    if any("\n" in line or "\r" in line for line in lines):
        raise ValueError("a header of the probe contains a line break")
    return text.encode("latin-1", "replace")


def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
