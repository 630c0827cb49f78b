"""Streams without kubectl: SPDY frames, WebSockets of watches and logs, old subprotocols."""

from __future__ import annotations

import contextlib
import json
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.fake_state import FakeState
from tests.unit.kube.kube_fake_node import CONTAINER, FakeNode, fake_node
from tests.unit.kube.kube_lab import Lab, lab

from sagong.contract import slot_of
from sagong.contracts.metrics import Machine, Metrics, Sample, SampleQuery, SampleSet
from sagong.errors import InvalidArgument
from sagong_kube.streams.session import choose, exit_status, terminal_size
from sagong_kube.streams.spdy import DataCame, GoneAway, Spdy, StreamOpened
from sagong_kube.streams.spdy_dictionary import DICTIONARY

PODS = "/api/v1/namespaces/default/pods"


def syn(stream: int, headers: dict[str, str], compressor: Any) -> bytes:
    plain = struct.pack(">I", len(headers))
    for name, value in headers.items():
        plain += struct.pack(">I", len(name)) + name.encode()
        plain += struct.pack(">I", len(value)) + value.encode()
    block: bytes = compressor.compress(plain) + compressor.flush(zlib.Z_SYNC_FLUSH)
    payload = struct.pack(">IIH", stream, 0, 0) + block
    return struct.pack(">II", 0x80030001, len(payload)) + payload


def test_spdy_reads_streams_data_and_ends() -> None:
    compressor = zlib.compressobj(zdict=DICTIONARY)
    wire = syn(1, {"streamtype": "stdin"}, compressor) + syn(3, {"Port": "80"}, compressor)
    wire += struct.pack(">II", 1, 1 << 24 | 2) + b"hi"
    wire += struct.pack(">III", 0x80030007, 8, 3) + struct.pack(">I", 0)
    found = []
    spdy = Spdy()
    for at in range(len(wire)):
        found += list(spdy.feed(wire[at : at + 1]))
    assert found == [
        StreamOpened(1, {"streamtype": "stdin"}, False),
        StreamOpened(3, {"port": "80"}, False),
        DataCame(1, b"hi", True),
        GoneAway(),
    ]


def test_spdy_answers_pings_and_its_replies_inflate() -> None:
    spdy = Spdy()
    assert list(spdy.feed(struct.pack(">III", 0x80030006, 4, 7))) == []
    assert spdy.answers() == struct.pack(">III", 0x80030006, 4, 7)
    reply = spdy.reply(5, {"a": "b"})
    assert struct.unpack(">I", reply[8:12]) == (5,)
    assert zlib.decompressobj(zdict=DICTIONARY).decompress(reply[12:]).endswith(b"\0\0\0\1b")


def test_spdy_refuses_what_it_can_not_bear() -> None:
    with pytest.raises(InvalidArgument, match="exceeds"):
        list(Spdy().feed(struct.pack(">II", 1, 0xFFFFFF)))
    with pytest.raises(InvalidArgument, match="inflated"):
        list(Spdy().feed(struct.pack(">II", 0x80030001, 14) + b"\0" * 10 + b"junk"))
    with pytest.raises(InvalidArgument, match="only 3"):
        list(Spdy().feed(struct.pack(">II", 0x80020001, 0)))
    bomb = zlib.compressobj(zdict=DICTIONARY)
    with pytest.raises(InvalidArgument, match="exceeds"):
        list(Spdy().feed(syn(1, {"x": "y" * 100_000}, bomb)))


@given(st.binary(max_size=200))
def test_spdy_never_fails_otherwise(data: bytes) -> None:
    with contextlib.suppress(InvalidArgument):
        list(Spdy().feed(data))


def test_protocols_sizes_and_codes() -> None:
    assert (
        choose(["x", "v4.channel.k8s.io"], ["v5.channel.k8s.io", "v4.channel.k8s.io"])
        == "v4.channel.k8s.io"
    )
    assert choose([], ["a"]) == ""
    assert choose(["x"], ["a"]) is None
    assert terminal_size(b'{"Width":80,"Height":24}') == (24, 80)
    assert terminal_size(b"nonsense") is None
    status = json.loads(exit_status(3))
    assert (status["reason"], status["details"]["causes"][0]["message"]) == ("NonZeroExitCode", "3")


@contextlib.asynccontextmanager
async def running(tmp_path: Path, **parts: Any) -> AsyncIterator[tuple[Lab, FakeNode]]:
    async with fake_node(tmp_path) as node, lab(FakeState(), node=node, **parts) as at:
        container = {"name": "c", "image": "busybox"}
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p"},
            "spec": {"nodeName": "n", "containers": [container]},
        }
        await at.ask("POST", PODS, body, status=201)
        status = {
            "name": "c",
            "ready": True,
            "restartCount": 0,
            "image": "busybox",
            "imageID": "busybox",
            "containerID": f"sagong://{CONTAINER}",
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
        }
        patch = {"status": {"phase": "Running", "containerStatuses": [status]}}
        media = "application/merge-patch+json"
        await at.ask("PATCH", f"{PODS}/p/status", patch, status=200, Content_Type=media)
        yield at, node


@contextlib.asynccontextmanager
async def socket(
    at: Lab, path: str, *protocols: str, **options: Any
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    assert at._session is not None
    url = f"https://127.0.0.1:{at.port}{path}"
    headers = {"Authorization": "Bearer admin-token"}
    named = {"protocols": protocols, "headers": headers, **options}
    async with at._session.ws_connect(url, **named) as made:
        yield made


async def test_watch_over_a_websocket(tmp_path: Path) -> None:
    async with running(tmp_path) as (at, _), socket(at, f"{PODS}?watch=1") as made:
        event = json.loads((await made.receive(5)).data)
        assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "p")


async def test_log_over_a_websocket(tmp_path: Path) -> None:
    async with running(tmp_path) as (at, _):
        async with socket(at, f"{PODS}/p/log", "binary.k8s.io") as made:
            assert (await made.receive(5)).data in (b"", b"one\n")
        async with socket(at, f"{PODS}/p/log", "base64.binary.k8s.io") as made:
            assert (await made.receive(5)).data in ("", "b25lCg==")


async def test_exec_over_old_subprotocols(tmp_path: Path) -> None:
    path = f"{PODS}/p/exec?command=echo&command=hi&stdout=1"
    async with running(tmp_path) as (at, _):
        async with socket(at, path, "channel.k8s.io") as made:
            assert await _until_text(made, b"\1hi\n")
        async with socket(at, path, "base64.channel.k8s.io") as made:
            assert await _until_text(made, "1aGkK")


async def test_output_waits_for_a_client_that_reads(tmp_path: Path) -> None:
    """kubectl 1.32 lost what came before it had made its channels."""
    path = f"{PODS}/p/exec?command=echo&command=hi&stdout=1"
    async with running(tmp_path) as (at, _):
        async with socket(at, path, "v5.channel.k8s.io", autoping=False) as made:
            assert (await made.receive(5)).type is aiohttp.WSMsgType.PING
            await made.pong()
            assert (await made.receive(5)).data == b"\1hi\n"
        async with socket(at, path, "v5.channel.k8s.io", autoping=False) as silent:
            assert (await silent.receive(5)).type is aiohttp.WSMsgType.PING
            assert (await silent.receive(5)).data == b"\1hi\n"


async def _until_text(made: aiohttp.ClientWebSocketResponse, wanted: bytes | str) -> bool:
    while (message := await made.receive(5)).type in (
        aiohttp.WSMsgType.TEXT,
        aiohttp.WSMsgType.BINARY,
    ):
        if message.data == wanted:
            return True
    return False


async def test_streams_say_what_is_missing(tmp_path: Path) -> None:
    async with running(tmp_path) as (at, _):
        bare = await at.ask("POST", f"{PODS}/p/exec?stdout=1", status=400)
        assert "at least one command" in bare.json["message"]
        nowhere = await at.ask("POST", f"{PODS}/p/exec?command=x", status=400)
        assert "at least 1 of stdin, stdout, stderr" in nowhere.json["message"]
        plain = await at.ask("POST", f"{PODS}/p/exec?command=true&stdout=1", status=400)
        assert "Upgrade request required" in plain.json["message"]


class FakeMetrics:
    """One sample of one container, and a machine."""

    async def sample(self, query: SampleQuery) -> SampleSet:
        one = Sample(id=CONTAINER, time=1.8e9, window=10.0, cpu_rate=0.25, working_set=64 << 20)
        return SampleSet(samples=(one,))

    async def machine(self) -> Machine:
        return Machine(
            time=1.8e9,
            cores=2,
            cpu_total=0,
            cpu_rate=0.5,
            memory_total=1 << 30,
            memory_available=1 << 29,
            working_set=256 << 20,
        )


def fake_metrics() -> Any:
    made = FakeMetrics()
    methods = {name: getattr(made, name, made.machine) for name in slot_of(Metrics).methods}
    return SimpleNamespace(**methods)


async def test_usage_of_nodes_and_pods(tmp_path: Path) -> None:
    async with running(tmp_path, metrics=fake_metrics()) as (at, _):
        base = "/apis/metrics.k8s.io/v1beta1"
        found = (await at.ask("GET", f"{base}/namespaces/default/pods/p", status=200)).json
        assert found["containers"] == [
            {"name": "c", "usage": {"cpu": "250000000n", "memory": "65536Ki"}}
        ]
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}
        await at.ask("POST", "/api/v1/nodes", node, status=201)
        (item,) = (await at.ask("GET", f"{base}/nodes", status=200)).json["items"]
        assert item["usage"] == {"cpu": "500000000n", "memory": "262144Ki"}
        await at.ask("GET", f"{base}/namespaces/default/pods/none", status=404)
