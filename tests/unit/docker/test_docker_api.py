"""The API by hand: statuses, heads that come early, shapes by version, a restart of the service."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.unit.docker.docker_lab import IMAGE, Lab, docker_lab

from sagong.call import Call, current, serving
from sagong.contracts.network import JoinRequest
from sagong.contracts.node import (
    ContainerSpec,
    SandboxSpec,
    StartRequest,
)
from sagong.contracts.volume import Volume
from sagong.testing import LocalHost
from sagong_docker import Docker
from sagong_docker.engine import Engine
from sagong_docker.naming import new_id


async def create(lab: Lab, name: str, *command: str, **config: object) -> str:
    """Create a container."""
    body = json.dumps({"Image": IMAGE, "Cmd": list(command), **config}).encode()
    status, answer = await lab.raw("POST", f"/v1.48/containers/create?name={name}", body)
    assert status == 201, answer
    return str(json.loads(answer)["Id"])


async def test_ping_tells_the_version() -> None:
    async with docker_lab() as lab:
        reader, writer = await asyncio.open_unix_connection(str(lab.socket))
        writer.write(b"HEAD /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
        head = (await reader.read()).decode()
        writer.close()
    for line in (
        "Api-Version: 1.51",
        "Ostype: linux",
        "Builder-Version: 1",
        "Swarm: inactive",
        "Server: Docker/",
    ):
        assert line in head
    assert head.endswith("\r\n\r\n")


async def test_statuses_of_errors() -> None:
    async with docker_lab() as lab:
        await create(lab, "one", "true")
        for method, path, body, status in (
            ("GET", "/v1.48/containers/nosuch/json", b"", 404),
            (
                "POST",
                "/v1.48/containers/create?name=one",
                json.dumps({"Image": IMAGE}).encode(),
                409,
            ),
            ("POST", "/v1.48/containers/create", b'{"Image":"nosuch:x"}', 404),
            ("POST", "/v1.48/containers/create", b"{}", 400),
            ("POST", "/v1.48/containers/create", b"nonsense", 400),
            ("POST", "/v1.48/containers/create?name=!", json.dumps({"Image": IMAGE}).encode(), 400),
            ("POST", "/v1.48/containers/one/stop", b"", 304),
            ("POST", "/v1.48/containers/one/kill", b"", 409),
            ("POST", "/v1.48/containers/one/wait?condition=never", b"", 400),
            ("GET", "/v1.48/containers/one/logs", b"", 400),
            ("GET", "/v1.48/nosuch", b"", 404),
            ("DELETE", "/v1.48/info", b"", 404),
            ("GET", "/v1.99/info", b"", 400),
            ("GET", "/v1.48/images/Not%20An%20Image/json", b"", 400),
            ("GET", "/v1.48/networks/nosuch", b"", 404),
            ("GET", "/v1.48/volumes/nosuch", b"", 404),
            ("GET", "/v1.48/exec/nosuch/json", b"", 404),
            ("POST", "/v1.48/networks/create", b'{"Name":"host"}', 403),
            ("GET", "/v1.48/containers/json?limit=x", b"", 400),
            ("POST", "/v1.48/session", b"", 400),
            ("GET", "/v1.48/secrets/x", b"", 503),
        ):
            found, answer = await lab.raw(method, path, body)
            assert found == status, (method, path, found, answer)
            if status != 304:
                assert json.loads(answer)["message"]


async def test_a_missing_image_is_named_so_that_clients_pull() -> None:
    async with docker_lab() as lab:
        _, answer = await lab.raw("POST", "/v1.48/containers/create", b'{"Image":"nosuch:x"}')
        assert json.loads(answer)["message"].startswith("No such image: nosuch:x")
        assert (
            lab.service.engine.catalog.containers == {} and lab.service.engine.catalog.names == {}
        )
        assert lab.node.sandboxes == {}


async def test_of_starts_at_once_one_starts_it() -> None:
    async with docker_lab() as lab:
        id_ = await create(lab, "hurried", "sleep", "5")
        path = f"/v1.48/containers/{id_}/start"
        told = await asyncio.gather(*(lab.raw("POST", path) for _ in range(5)))
        assert sorted(status for status, _ in told) == [204, 304, 304, 304, 304]


async def test_an_exec_that_nobody_can_start_is_told_as_one_that_failed() -> None:
    async with docker_lab() as lab:
        id_ = await create(lab, "runs", "sleep", "5")
        await lab.raw("POST", f"/v1.48/containers/{id_}/start")
        body = json.dumps({"Cmd": ["true"], "AttachStdout": True}).encode()
        _, made = await lab.raw("POST", f"/v1.48/containers/{id_}/exec", body)
        path = f"/v1.48/exec/{json.loads(made)['Id']}"
        lab.node.unable = "runtime runc has ended"
        status, told = await lab.raw("POST", f"{path}/start", b"{}")
        assert status == 200 and b"runtime runc has ended" in told
        assert json.loads((await lab.raw("GET", f"{path}/json"))[1])["ExitCode"] == 126


async def test_the_head_of_a_wait_comes_before_the_start_and_the_code_at_the_end() -> None:
    async with docker_lab() as lab:
        id_ = await create(lab, "waited", "sh", "-c", "exit 9")
        reader, writer = await asyncio.open_unix_connection(str(lab.socket))
        writer.write(
            f"POST /v1.48/containers/{id_}/wait?condition=next-exit HTTP/1.1\r\n"
            "Host: d\r\n\r\n".encode()
        )
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        assert (await lab.raw("POST", f"/v1.48/containers/{id_}/start"))[0] == 204
        assert b'{"StatusCode":9}' in await reader.readuntil(b"}")
        writer.close()


async def test_a_wait_for_one_just_made_stands_before_the_node_says_so() -> None:
    """It hears of the wait before it hears of the start; nobody else is asked for the end."""
    async with docker_lab() as lab:
        lab.node.answers.clear()
        id_ = await create(lab, "waited", "sh", "-c", "exit 9")
        reader, writer = await asyncio.open_unix_connection(str(lab.socket))
        path = f"/v1.48/containers/{id_}/wait?condition=next-exit"
        writer.write(f"POST {path} HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        async with asyncio.timeout(60):
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            watching, attached = await attach(lab, id_)
            assert lab.node.waits == ["next-exit"]
            lab.node.answers.set()
            assert (await lab.raw("POST", f"/v1.48/containers/{id_}/start"))[0] == 204
            assert b'{"StatusCode":9}' in await reader.readuntil(b"}")
            await watching.read()
        assert lab.node.waits == ["next-exit"]
        writer.close()
        attached.close()


async def attach(lab: Lab, id_: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that was taken over, behind the answer's head."""
    reader, writer = await asyncio.open_unix_connection(str(lab.socket))
    path = f"/v1.48/containers/{id_}/attach?stream=1&stdout=1"
    writer.write(
        f"POST {path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode()
    )
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def test_attach_before_the_start_gets_everything() -> None:
    async with docker_lab() as lab:
        id_ = await create(lab, "early", "sh", "-c", "echo out; echo err >&2")
        reader, writer = await asyncio.open_unix_connection(str(lab.socket))
        path = f"/v1.48/containers/{id_}/attach?stream=1&stdout=1&stderr=1"
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 UPGRADED")
        assert b"application/vnd.docker.multiplexed-stream" in head
        await lab.raw("POST", f"/v1.48/containers/{id_}/start")
        output = await reader.read()
        writer.close()
    assert b"\x01\0\0\0\0\0\0\x04out\n" in output and b"\x02\0\0\0\0\0\0\x04err\n" in output


async def test_who_has_seen_the_end_of_the_output_gets_the_code() -> None:
    async with docker_lab() as lab:
        lab.node.late = 0.1
        id_ = await create(lab, "ends", "sh", "-c", "exit 3")
        reader, writer = await attach(lab, id_)
        await lab.raw("POST", f"/v1.48/containers/{id_}/start")
        await reader.read()
        writer.close()
        _, answer = await lab.raw("GET", f"/v1.48/containers/{id_}/json")
        state = json.loads(answer)["State"]
        assert (state["Status"], state["ExitCode"]) == ("exited", 3)


async def test_old_clients_get_a_bare_200_and_the_old_content_type() -> None:
    async with docker_lab() as lab:
        id_ = await create(lab, "old", "echo", "hi")
        await lab.raw("POST", f"/v1.41/containers/{id_}/start")
        await lab.raw("POST", f"/v1.41/containers/{id_}/wait")
        reader, writer = await asyncio.open_unix_connection(str(lab.socket))
        path = f"/v1.41/containers/{id_}/attach?logs=1&stdout=1"
        writer.write(f"POST {path} HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ") and b"vnd.docker.raw-stream" in head
        assert await reader.read() == b"\x01\0\0\0\0\0\0\x03hi\n"
        writer.close()


async def test_a_failed_start_ends_its_attachments() -> None:
    async with docker_lab() as lab:
        id_ = await create(lab, "broken", "no-such-program")
        reader, writer = await asyncio.open_unix_connection(str(lab.socket))
        path = f"/v1.48/containers/{id_}/attach?stream=1&stdout=1"
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode()
        )
        await reader.readuntil(b"\r\n\r\n")
        status, answer = await lab.raw("POST", f"/v1.48/containers/{id_}/start")
        assert status == 400 and "executable file not found" in json.loads(answer)["message"]
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()


async def test_shapes_follow_the_version() -> None:
    async with docker_lab() as lab:
        for version, has in (("1.43", True), ("1.44", False)):
            _, answer = await lab.raw("GET", f"/v{version}/images/json")
            assert ("VirtualSize" in json.loads(answer)[0]) is has
        _, answer = await lab.raw("GET", f"/v1.44/images/{IMAGE}/json")
        assert "ContainerConfig" in json.loads(answer)
        await create(lab, "shape", "true")
        _, answer = await lab.raw("GET", "/v1.43/containers/shape/json")
        place = json.loads(answer)["NetworkSettings"]["Networks"]["bridge"]
        assert "DNSNames" not in place and "GwPriority" not in place
        _, answer = await lab.raw(
            "GET",
            "/v1.48/containers/json?all=True&filters="
            + '{"status":["created"]}'.replace('"', "%22"),
        )
        assert json.loads(answer)[0]["Labels"] == {"org.opencontainers.image.title": "sample"}


async def test_what_was_given_at_creation_is_given_back() -> None:
    async with docker_lab() as lab:
        given: dict[str, Any] = {
            "Labels": {"a": "b"},
            "Env": ["X=1"],
            "HostConfig": {
                "Binds": ["/tmp:/t"],
                "CapAdd": ["NET_ADMIN"],
                "ExtraHosts": ["a:1.2.3.4"],
            },
        }
        await create(lab, "given", "true", **given)
        _, answer = await lab.raw("GET", "/containers/given/json")
        view = json.loads(answer)
        assert view["Config"]["Labels"]["a"] == "b" and view["Config"]["Env"][0] == "X=1"
        for key, value in given["HostConfig"].items():
            assert view["HostConfig"][key] == value
        assert view["Mounts"][0]["Destination"] == "/t" and view["Name"] == "/given"
        assert (
            view["State"]["FinishedAt"] == "0001-01-01T00:00:00Z" and "Health" not in view["State"]
        )


async def test_the_stat_of_a_path_is_in_a_header() -> None:
    async with docker_lab() as lab:
        await create(lab, "box", "true")
        reader, writer = await asyncio.open_unix_connection(str(lab.socket))
        writer.write(
            b"HEAD /containers/box/archive?path=/etc HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
        )
        head = (await reader.read()).decode()
        writer.close()
        line = next(v for v in head.split("\r\n") if v.startswith("X-Docker-Container-Path-Stat: "))
        found = json.loads(base64.b64decode(line.partition(": ")[2]))
        assert found["name"] == "etc" and found["mode"] & 1 << 31


@contextlib.asynccontextmanager
async def succeeding(lab: Lab, **config: object) -> AsyncIterator[Engine]:
    """Another generation of the service, beside or after the lab's."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(lab.directory / "second.sock"))
    listener.listen()
    host = LocalHost(
        "docker",
        data=lab.directory,
        run=lab.directory,
        config=config,
        uses=lab.host._uses,
        listeners={"api": listener},
    )
    successor = Docker(host)
    await successor.start()
    try:
        yield successor.engine
    finally:
        await successor.stop()
        await host.close()


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that is to come."""
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.01)


async def test_names_and_bodies_outlive_the_service() -> None:
    async with docker_lab() as lab:
        id_ = await create(lab, "kept", "true", Labels={"k": "v"})
        async with succeeding(lab) as successor:
            assert successor.catalog.find("kept").id == id_  # type: ignore[union-attr]
            later = await create(lab, "later", "true")
            await until(lambda: successor.catalog.find("later") is not None)
            assert successor.catalog.find(later[:6]).name == "later"  # type: ignore[union-attr]
            lab.service.engine.forget(later)
            await until(lambda: successor.catalog.find("later") is None)


async def made_on_node(lab: Lab, owner: str) -> str:
    """What a creation leaves that ends before the catalog is written."""
    id_ = new_id()
    network = JoinRequest(id=id_, mode="none")
    sandbox = SandboxSpec(id=id_, owner=owner, network=network)
    await lab.node.create(ContainerSpec(id=id_, sandbox=id_, image=IMAGE, own=sandbox))
    return id_


async def test_a_creation_that_a_crash_cut_is_taken_back_and_nothing_else() -> None:
    async with docker_lab() as lab:
        cut = await made_on_node(lab, "docker")
        others = {await made_on_node(lab, owner) for owner in ("docker/build", "builder", "kube")}
        started = await made_on_node(lab, "docker")
        await lab.node.start(StartRequest(id=started))
        kept = await create(lab, "kept", "true")
        async with succeeding(lab, unfinished_seconds=0.2):
            young = await made_on_node(lab, "docker")
            await until(lambda: cut not in lab.node.containers)
            await until(lambda: cut not in lab.node.sandboxes)
        assert set(lab.node.containers) == {*others, started, kept, young}


async def test_a_record_without_a_container_is_swept() -> None:
    async with docker_lab() as lab:
        id_ = await create(lab, "ghost", "true")
        lab.node.containers.pop(id_)
        await lab.service.engine._sweep()
        assert lab.service.engine.catalog.find("ghost") is None


async def test_a_removal_whose_answer_was_lost_with_the_node_is_done() -> None:
    """The bus asks the node's successor again, which has nothing to remove any more."""
    async with docker_lab() as lab:
        id_ = await create(lab, "ghost", "true")
        lab.node.containers.pop(id_)
        status, _ = await lab.raw("DELETE", "/v1.48/containers/ghost")
        assert status == 204
        assert lab.service.engine.catalog.find("ghost") is None


async def test_a_lost_race_for_a_name_leaves_nothing_behind() -> None:
    async with docker_lab() as lab:
        body = json.dumps({"Image": IMAGE, "Cmd": ["true"]}).encode()
        answers = await asyncio.gather(
            *(lab.raw("POST", "/v1.48/containers/create?name=race", body) for _ in range(8))
        )
        assert sorted(status for status, _ in answers) == [201] + [409] * 7
        assert len(lab.node.containers) == len(lab.node.sandboxes) == 1


async def test_who_will_attach_and_removes_at_the_end_is_expected_to_start_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Unless it would hold what another one may ask for by name, for which no start has come yet."""
    monkeypatch.setattr("sagong_docker.engine._EXPECTED_SECONDS", 600.0)
    rm: dict[str, object] = {"HostConfig": {"AutoRemove": True}, "AttachStdout": True}
    port = {"AutoRemove": True, "PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}
    async with docker_lab() as lab:
        await create(lab, "kept", "true", AttachStdout=True)
        await create(lab, "detached", "true", HostConfig={"AutoRemove": True})
        await create(lab, "published", "true", HostConfig=port, AttachStdout=True)
        await create(lab, "wanted", "true", **rm)
        async with asyncio.timeout(60):
            while not lab.node.expected:
                await asyncio.sleep(0.01)
        assert lab.node.expected == ["wanted"]
        engine = lab.service.engine
        for name in ("wanted", "kept", "kept"):  # as who attaches does
            engine.expect_start(await engine.container(name))
        async with asyncio.timeout(60):
            while "kept" not in lab.node.expected:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert lab.node.expected == ["wanted", "kept"]


async def test_what_goes_on_after_an_answer_belongs_to_its_request() -> None:
    """A trace shows it; the request's deadline is over then."""
    seen: asyncio.Queue[Call] = asyncio.Queue()

    async def work() -> None:
        seen.put_nowait(current())

    asked = Call(deadline=1, cause="story", caller="docker")
    async with docker_lab() as lab:
        with serving(asked):
            lab.service.engine.spawn(work(), "work")
        assert await seen.get() == Call(cause="story", caller="docker")


async def test_options_of_volumes_need_each_other() -> None:
    async with docker_lab() as lab:
        for options, said in (
            (("type=tmpfs",), 'missing required option: "device"'),
            (("device=/x",), 'missing required option: "type"'),
            (("o=size=1m", "device=tmpfs"), 'missing required option: "type"'),
            (("colour=blue",), 'invalid option: "colour"'),
        ):
            words = [word for option in options for word in ("-o", option)]
            refused = await lab.docker("volume", "create", *words, "some")
            assert said in refused.err, refused
        whole = ("-o", "type=none", "-o", "device=/x", "-o", "o=bind")
        assert await lab.ok("volume", "create", *whole, "some") == "some"


async def test_volumes_of_pods_are_hidden_and_kept() -> None:
    async with docker_lab() as lab:
        labels = (("io.kubernetes.pod.uid", "1"),)
        await lab.volumes.create(Volume(name="of-a-pod", owner="kube", labels=labels))
        await lab.ok("volume", "create", "own")
        assert await lab.ok("volume", "ls", "-q") == "own"
        found = await lab.ok("volume", "ls", "-q", "--filter", "label=io.kubernetes.pod.uid")
        assert found == "of-a-pod"
        assert "of-a-pod" not in await lab.ok("system", "df", "-v")
        await lab.ok("volume", "prune", "-af")
        assert list(lab.volumes.kept) == ["of-a-pod"]
        assert await lab.ok("volume", "inspect", "-f", "{{.Name}}", "of-a-pod") == "of-a-pod"


async def test_a_container_over_websocket() -> None:
    import aiohttp

    async with docker_lab() as lab:
        id_ = await create(lab, "web", "cat", OpenStdin=True, StdinOnce=True)
        await lab.raw("POST", f"/v1.48/containers/{id_}/start")
        connector = aiohttp.UnixConnector(path=str(lab.socket))
        async with aiohttp.ClientSession(connector=connector) as session:
            url = f"http://docker/v1.48/containers/{id_}/attach/ws?stream=1&stdin=1&stdout=1"
            async with session.ws_connect(url) as client:
                await client.send_bytes(b"hello\n")
                assert await client.receive_bytes(timeout=60) == b"hello\n"
            # The one subprotocol of a client (aiodocker's is "chat") is agreed to, as by Docker.
            async with session.ws_connect(url, protocols=("chat",)) as client:
                assert client.protocol == "chat"
            with pytest.raises(aiohttp.WSServerHandshakeError, match="400"):
                await session.ws_connect(url, protocols=("chat", "binary"))


async def test_addresses_are_asked_for_where_somebody_chose_the_subnet() -> None:
    chosen = {"IPAM": {"Config": [{"Subnet": "172.31.0.0/24"}]}}
    few = "supported only when connecting to networks with user configured subnets"
    none = "user specified IP address is supported on user defined networks only"
    async with docker_lab() as lab:
        for name, more in (("plain", {}), ("own", chosen)):
            body = json.dumps({"Name": name, **more}).encode()
            assert (await lab.raw("POST", "/v1.48/networks/create", body))[0] == 201
        late = await create(lab, "late", "top")
        for name, address, said in (
            ("own", "172.31.0.9", ""),
            ("own", "172.30.0.9", "no configured subnet or ip-range contain the IP address"),
            ("own", "fd00::9", "invalid IPv4 address: fd00::9"),
            ("own", "0.0.0.0", "invalid IPv4 address: 0.0.0.0"),
            ("plain", "172.31.0.9", few),
            ("bridge", "172.17.0.9", none),
        ):
            asked = {"IPAMConfig": {"IPv4Address": address}}
            wanted = {
                "Image": IMAGE,
                "HostConfig": {"NetworkMode": name},
                "NetworkingConfig": {"EndpointsConfig": {name: asked}},
            }
            made = await lab.raw("POST", "/v1.48/containers/create", json.dumps(wanted).encode())
            place = {"Container": late, "EndpointConfig": asked}
            path = f"/v1.48/networks/{name}/connect"
            joined = await lab.raw("POST", path, json.dumps(place).encode())
            for status, answer in (made, joined):
                assert (said in answer.decode(), status < 400) == (True, not said), answer


async def test_a_network_that_is_gone_is_taken_out_of_a_container_s_wishes() -> None:
    async with docker_lab() as lab:
        body = json.dumps({"Name": "gone"}).encode()
        assert (await lab.raw("POST", "/v1.48/networks/create", body))[0] == 201
        host = {"NetworkMode": "gone"}
        place: dict[str, Any] = {"EndpointsConfig": {"gone": {}}}
        wish = {"Image": IMAGE, "Cmd": ["top"], "HostConfig": host, "NetworkingConfig": place}
        made = await lab.raw(
            "POST", "/v1.48/containers/create?name=waits", json.dumps(wish).encode()
        )
        assert made[0] == 201
        assert (await lab.raw("DELETE", "/v1.48/networks/gone"))[0] == 204
        leave = json.dumps({"Container": "waits", "Force": True}).encode()
        left = await lab.raw("POST", "/v1.48/networks/gone/disconnect", leave)
        assert left[0] == 200, left
        shown = json.loads((await lab.raw("GET", "/v1.48/containers/waits/json"))[1])
        assert shown["NetworkSettings"]["Networks"] == {}
        assert (await lab.raw("POST", "/v1.48/networks/gone/disconnect", leave))[0] == 404


async def test_platforms_of_imports_and_archives() -> None:
    async with docker_lab() as lab:
        for platform, said in (
            ("%20%20", "is an invalid OS component"),
            ("/", "is an invalid OS component"),
            ("macos", "operating system is not supported"),
            ("macos/arm64", "operating system is not supported"),
            ("plan9/amd64", "operating system is not supported"),
            ("nintendo64", "unknown operating system or architecture"),
        ):
            path = f"/v1.48/images/create?fromSrc=-&repo=x&platform={platform}"
            status, answer = await lab.raw("POST", path, b"")
            assert (status, said in answer.decode()) == (400, True), answer
        two = "&".join(
            f"platform=%7B%22os%22:%22linux%22,%22architecture%22:%22{a}%22%7D" for a in "ab"
        )
        status, answer = await lab.raw("GET", f"/v1.48/images/{IMAGE}/get?{two}")
        assert (status, b"multiple platform parameters" in answer) == (400, True), answer


async def test_who_names_no_network_has_none_where_that_is_the_default() -> None:
    """As with `dockerd -b none`."""
    async with docker_lab(default_network="none") as lab:
        await lab.ok("network", "create", "net")
        for name, mode in (("no", ""), ("also", "bridge"), ("own", "net")):
            words = ("--network", mode) if mode else ()
            await lab.ok("create", "--name", name, *words, IMAGE, "true")
            shown = json.loads((await lab.raw("GET", f"/v1.48/containers/{name}/json"))[1])
            assert list(shown["NetworkSettings"]["Networks"]) == (["net"] if mode == "net" else [])
            assert shown["Config"].get("NetworkDisabled", False) is (mode != "net")
        joins = [(s.network.mode, *s.network.attachments) for s in lab.node.sandboxes.values()]
        assert sorted(len(join) for join in joins) == [1, 1, 2], joins
        assert sum(join == ("none",) for join in joins) == 2, joins


async def test_who_is_on_no_network_cannot_leave_it() -> None:
    async with docker_lab() as lab:
        body = json.dumps({"Image": IMAGE, "Cmd": ["true"]}).encode()
        assert (await lab.raw("POST", "/v1.48/containers/create?name=one", body))[0] == 201
        await lab.ok("network", "create", "net")
        for force in (False, True):
            leave = json.dumps({"Container": "one", "Force": force}).encode()
            status, answer = await lab.raw("POST", "/v1.48/networks/net/disconnect", leave)
            assert status == 404 and b"is not connected to the network net" in answer
        # The one that its mode names it leaves, once.
        await lab.ok("network", "disconnect", "bridge", "one")
        left = await lab.docker("network", "disconnect", "bridge", "one")
        assert left.code == 1 and "is not connected to the network bridge" in left.err
        await lab.ok("network", "connect", "net", "one")
        await lab.ok("network", "disconnect", "net", "one")


async def test_volumes_with_options_take_no_place_of_this_machine() -> None:
    async with docker_lab() as lab:
        await lab.ok("volume", "create", "plain")
        options = ("-o", "type=tmpfs", "-o", "device=tmpfs")
        await lab.ok("volume", "create", *options, "other")
        status, answer = await lab.raw("GET", "/v1.48/system/df")
        assert status == 200 and [v["Name"] for v in json.loads(answer)["Volumes"]] == ["plain"]
