"""Streams of pods: log, exec, attach and port-forward, carried between clients and the node."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec

from sagong.contracts.node import (
    AttachSpec,
    DialRequest,
    ExecSpec,
    LogsRequest,
    Node,
    Ref,
)
from sagong.contracts.streams import Address
from sagong.errors import InvalidArgument, NotFound
from sagong.log_frames import log_frames
from sagong.model.numbers import natural
from sagong.model.times import parse_nanos
from sagong_kube import refusal
from sagong_kube.handlers.exchange import Ask, Raw, Reply, Socket, Streamed
from sagong_kube.handlers.objects import Objects
from sagong_kube.registry.document import Document
from sagong_kube.registry.resource import Resource
from sagong_kube.streams import portforward
from sagong_kube.streams.pipe import Pipe
from sagong_kube.streams.portforward import Dial
from sagong_kube.streams.process import bridge
from sagong_kube.streams.session import (
    SPDY_PROTOCOLS,
    WEBSOCKET_PROTOCOLS,
    Channel,
    MessageSocket,
    SocketSession,
    SpdySession,
    choose,
)

__all__ = ["PodStreams"]

_SCHEME = "sagong://"
_LISTS = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
_SPECS = ("containers", "initContainers", "ephemeralContainers")


class PodStreams:
    """Handlers of pods/log, exec, attach and portforward."""

    def __init__(self, objects: Objects, node: Node | None) -> None:
        self._objects = objects
        self._node = node

    def _local(self) -> Node:
        if self._node is None:
            raise refusal.unavailable(
                "no node service on this machine: containers can't be reached from here"
            )
        return self._node

    async def _pod(self, ask: Ask, resource: Resource) -> Document:
        record = await self._objects.record(ask, resource)
        pod: Document = msgspec.json.decode(record.body)
        return pod

    # Logs

    async def log(self, ask: Ask, resource: Resource) -> Reply:
        """GET pods/NAME/log."""
        pod = await self._pod(ask, resource)
        name = _container(pod, ask.first("container"), "log")
        previous = ask.flag("previous")
        node = self._local()
        request = _logs_request(ask, _log_id(pod, name, previous=previous))
        address = await _asked(node.logs(request), pod)
        return Streamed(_log_bytes(node, request, address), media="text/plain")

    # Exec and attach

    async def exec(self, ask: Ask, resource: Resource) -> Reply:
        """GET or POST pods/NAME/exec."""
        command = tuple(ask.query.get("command") or ())
        if not command:
            raise refusal.bad_request("you must specify at least one command for the container")
        channels = _channels(ask)
        pod = await self._pod(ask, resource)
        name = _container(pod, ask.first("container"), "exec")
        node = self._local()
        spec = ExecSpec(
            id=_running_id(pod, name),
            exec_id=uuid.uuid4().hex + uuid.uuid4().hex,
            args=command,
            tty=ask.flag("tty"),
            stdin=ask.flag("stdin"),
        )
        state = await _asked(node.exec(spec), pod)
        if state.stream is None:
            raise refusal.internal("the node started the process but gave no stream for it")
        return _session(ask, channels, state.stream)

    async def attach(self, ask: Ask, resource: Resource) -> Reply:
        """GET or POST pods/NAME/attach."""
        channels = _channels(ask)
        pod = await self._pod(ask, resource)
        name = _container(pod, ask.first("container"), "attach")
        node = self._local()
        spec = AttachSpec(id=_running_id(pod, name), stdin=ask.flag("stdin"))
        address = await _asked(node.attach(spec), pod)
        return _session(ask, channels, address)

    # Port forwarding

    async def portforward(self, ask: Ask, resource: Resource) -> Reply:
        """GET or POST pods/NAME/portforward."""
        pod = await self._pod(ask, resource)
        phase = (pod.get("status") or {}).get("phase")
        if phase != "Running":
            raise refusal.bad_request(
                f"unable to forward port because pod is not running. Current status={phase}"
            )
        dial = self._dialer(pod)
        offered = _offered(ask, "sec-websocket-protocol")
        if ask.upgrade == "websocket":
            return _forward_socket(ask, offered, dial)
        if ask.upgrade != "spdy/3.1":
            raise refusal.bad_request("Upgrade request required")
        headers = _spdy_headers(ask, (portforward.PROTOCOL,))

        async def serve(pipe: Pipe) -> None:
            await portforward.Forwarding(pipe, dial).run()

        return Raw(headers, serve)

    def _dialer(self, pod: Document) -> Dial:
        node = self._local()

        async def dial(port: int) -> Address:
            container = await node.inspect(Ref(id=_any_running_id(pod)))
            return await node.dial(DialRequest(id=container.spec.sandbox, port=port))

        return dial


def _offered(ask: Ask, header: str) -> list[str]:
    return [name.strip() for name in ask.headers.get(header, "").split(",") if name.strip()]


def _forward_socket(ask: Ask, offered: Sequence[str], dial: Dial) -> Socket:
    if portforward.TUNNEL in offered:

        async def tunnel(socket: MessageSocket) -> None:
            await portforward.Forwarding(portforward.TunnelPipe(socket), dial).run()

        return Socket(portforward.TUNNEL, tunnel)
    protocol = choose(offered, ("v4.channel.k8s.io", "v4.base64.channel.k8s.io"))
    asked = (part for text in ask.query.get("ports") or () for part in text.split(","))
    ports = [port for part in asked if (port := natural(part)) is not None]
    if protocol is None or not ports:
        raise refusal.bad_request('query parameter "ports" is required')

    async def direct(socket: MessageSocket) -> None:
        await portforward.SocketForwarding(socket, ports, dial).run()

    return Socket(protocol, direct)


def _channels(ask: Ask) -> list[Channel]:
    tty = ask.flag("tty")
    channels = [Channel.ERROR]
    for name, channel in (
        ("stdin", Channel.STDIN),
        ("stdout", Channel.STDOUT),
        ("stderr", Channel.STDERR),
    ):
        if ask.flag(name) and not (tty and channel is Channel.STDERR):
            channels.append(channel)
    if len(channels) == 1:
        raise refusal.bad_request("you must specify at least 1 of stdin, stdout, stderr")
    return [*channels, Channel.RESIZE] if tty else channels


def _session(ask: Ask, channels: list[Channel], address: Address) -> Reply:
    if ask.upgrade == "websocket":
        protocol = choose(_offered(ask, "sec-websocket-protocol"), WEBSOCKET_PROTOCOLS)
        if protocol is None:
            raise refusal.bad_request(
                "unable to upgrade: unable to negotiate a WebSocket subprotocol; this server knows "
                + ", ".join(WEBSOCKET_PROTOCOLS)
            )
        chosen = protocol

        async def over_socket(socket: MessageSocket) -> None:
            await bridge(SocketSession(socket, chosen), address)

        return Socket(chosen, over_socket)
    if ask.upgrade != "spdy/3.1":
        raise refusal.bad_request("Upgrade request required")
    headers = _spdy_headers(ask, SPDY_PROTOCOLS)

    async def over_spdy(pipe: Pipe) -> None:
        session = SpdySession(pipe, headers.get("X-Stream-Protocol-Version", ""))
        await session.wait_streams(channels)
        await bridge(session, address)

    return Raw(headers, over_spdy)


def _spdy_headers(ask: Ask, known: Sequence[str]) -> dict[str, str]:
    headers = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}
    chosen = choose(_offered(ask, "x-stream-protocol-version"), known)
    if chosen is None:
        raise refusal.forbidden(
            "", "", "", f"unable to upgrade: this server knows {', '.join(known)}"
        )
    return {**headers, "X-Stream-Protocol-Version": chosen} if chosen else headers


async def _asked(answer: Any, pod: Document) -> Any:
    """The node's answer; a container that it does not know runs elsewhere or is gone."""
    try:
        return await answer
    except NotFound as error:
        node = pod["spec"].get("nodeName") or "no node"
        raise refusal.bad_request(
            f"the container is not on the machine of this API server (pod is on {node}): "
            f"{error.message}"
        ) from None


def _container(pod: Document, asked: str, action: str) -> str:
    """The container that is meant, as upstream chooses and complains."""
    spec, name = pod["spec"], pod["metadata"]["name"]
    named = {part: [c["name"] for c in spec.get(part) or ()] for part in _SPECS}
    if asked:
        if not any(asked in names for names in named.values()):
            raise refusal.bad_request(f"container {asked} is not valid for pod {name}")
        return asked
    regular = named["containers"]
    if len(regular) == 1:
        return str(regular[0])
    said = (
        f"a container name must be specified for pod {name}, choose one of: [{' '.join(regular)}]"
    )
    if named["initContainers"]:
        said += f" or one of the init containers: [{' '.join(named['initContainers'])}]"
    if named["ephemeralContainers"]:
        said += f" or one of the ephemeral containers: [{' '.join(named['ephemeralContainers'])}]"
    raise refusal.bad_request(said)


def _status(pod: Document, name: str) -> Document:
    for part in _LISTS:
        for status in (pod.get("status") or {}).get(part) or ():
            if status.get("name") == name:
                found: Document = status
                return found
    if not pod["spec"].get("nodeName"):
        raise refusal.bad_request(f"pod {pod['metadata']['name']} does not have a host assigned")
    raise refusal.bad_request(
        f'container "{name}" in pod "{pod["metadata"]["name"]}" is waiting to start: '
        "ContainerCreating"
    )


def _id(text: str | None) -> str:
    return (text or "").removeprefix(_SCHEME)


def _running_id(pod: Document, name: str) -> str:
    status = _status(pod, name)
    if "running" not in (status.get("state") or {}) or not status.get("containerID"):
        raise refusal.bad_request(f'container not found ("{name}")')
    return _id(status["containerID"])


def _any_running_id(pod: Document) -> str:
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        if "running" in (status.get("state") or {}) and status.get("containerID"):
            return _id(str(status["containerID"]))
    raise refusal.bad_request(f"pod {pod['metadata']['name']} has no running container")


def _log_id(pod: Document, name: str, *, previous: bool) -> str:
    status, pod_name = _status(pod, name), pod["metadata"]["name"]
    last = ((status.get("lastState") or {}).get("terminated") or {}).get("containerID")
    if previous:
        if not last:
            raise refusal.bad_request(
                f'previous terminated container "{name}" in pod "{pod_name}" not found'
            )
        return _id(last)
    waiting = (status.get("state") or {}).get("waiting")
    found = status.get("containerID") or last
    if not found:
        reason = (waiting or {}).get("reason") or "ContainerCreating"
        raise refusal.bad_request(
            f'container "{name}" in pod "{pod_name}" is waiting to start: {reason}'
        )
    return _id(found)


def _logs_request(ask: Ask, container: str) -> LogsRequest:
    return LogsRequest(
        id=container,
        stdout=ask.first("stream", "All") in ("All", "Stdout"),
        stderr=ask.first("stream", "All") in ("All", "Stderr"),
        since_nanos=_since(ask),
        tail=_count(ask, "tailLines", -1),
        follow=ask.flag("follow"),
        timestamps=ask.flag("timestamps"),
        previous=ask.flag("previous"),
        limit=_count(ask, "limitBytes", 0),
    )


def _count(ask: Ask, name: str, absent: int) -> int:
    text = ask.first(name)
    if not text:
        return absent
    number = natural(text)
    if number is None:
        raise refusal.bad_request(
            f"{name}: Invalid value: {text}: must be greater than or equal to 0"
        )
    return number


def _since(ask: Ask) -> int:
    """In nanoseconds since the epoch; 0 for none."""
    if ask.first("sinceSeconds") and ask.first("sinceTime"):
        raise refusal.bad_request("at most one of `sinceTime` or `sinceSeconds` may be specified")
    if ask.first("sinceSeconds"):
        return time.time_ns() - _count(ask, "sinceSeconds", 0) * 10**9
    if ask.first("sinceTime"):
        try:
            return parse_nanos(ask.first("sinceTime"))
        except InvalidArgument:
            raise refusal.bad_request(
                f"sinceTime: Invalid value: {ask.first('sinceTime')}"
            ) from None
    return 0


async def _log_bytes(
    node: Node, request: LogsRequest, address: Address
) -> AsyncGenerator[bytes, None]:
    # The empty first part sends the headers before the container writes its first line.
    yield b""
    async for batch in log_frames(node, request, address):
        yield b"".join(payload for _, payload in batch)
