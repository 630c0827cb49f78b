"""Answers as typed clients read them: every field there, of its type, and null only where it may be."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any

import pytest
from tests.compat.docker.answers import ANSWERS, EVENT, faults
from tests.compat.docker.docker_engine import IMAGE, Engine

pytestmark = pytest.mark.root

_RICH = """run -d --init --name rich --network net --network-alias also --ip 10.124.7.9 -v vol:/v
 -v /anonymous --mount type=tmpfs,target=/t --mount type=bind,source=/usr/share,target=/m,readonly
 --tmpfs /tmpfs:size=1m -p 127.0.0.1::80 -p 81/udp --expose 99 --health-cmd true
 --health-interval 100ms --restart on-failure:3 -m 64m --cpus 0.5 --ulimit nofile=100:200
 --device /dev/null:/dev/nil --cap-add NET_ADMIN --cap-drop MKNOD
 --dns 1.1.1.1 --add-host a:1.2.3.4 --sysctl net.ipv4.ip_forward=1 --group-add 5 --label l=m
 --security-opt no-new-privileges --stop-timeout 3 --stop-signal INT --log-opt max-size=1m
 -u app -w /tmp -e A=b"""
_CHANGES = ("EXPOSE 80", "VOLUME /x", "HEALTHCHECK CMD true", 'ENTRYPOINT ["x"]', "ONBUILD RUN x")


class _Socket(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("docker", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def _asked(engine: Engine, request: str) -> bytes:
    method, path, *body = request.split(" ")
    connection = _Socket(engine.socket)
    headers = {"Content-Type": "application/json"} if body else {}
    connection.request(method, f"/v1.51{path}", body[0] if body else None, headers)
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    assert answer.status == 200, (request, answer.status, said)
    return said


@pytest.fixture
def given(docker: Engine) -> Iterator[dict[str, str]]:
    """Objects with much and with little, and what the table calls them."""
    docker.ok("network", "create", "--subnet", "10.124.7.0/24", "--label", "a=b", "net")
    docker.ok("volume", "create", "--label", "a=b", "vol")
    docker.ok(*_RICH.split(), IMAGE, "sh", "-c", "touch /tmp/new; exec sleep 600")
    docker.ok("create", "--name", "least", IMAGE)
    docker.ok("run", "--name", "gone", "--network", "none", IMAGE, "true")
    docker.ok("commit", *(w for c in _CHANGES for w in ("-c", c)), "least", "committed:1")
    docker.wait_for("rich", "{{.State.Health.Status}}", "healthy")
    made = json.loads(_asked_exec(docker))
    yield {"image": IMAGE, "exec": made["Id"]}
    docker.docker("rmi", "committed:1")


def _asked_exec(engine: Engine) -> str:
    connection = _Socket(engine.socket)
    body, kind = json.dumps({"Cmd": ["true"]}), {"Content-Type": "application/json"}
    connection.request("POST", "/v1.51/containers/rich/exec", body, kind)
    said = connection.getresponse().read().decode()
    connection.close()
    return said


def test_every_answer_is_of_its_types(docker: Engine, given: dict[str, str]) -> None:
    found: list[str] = []
    for request, wanted in ANSWERS.items():
        answer: Any = json.loads(_asked(docker, Template(request).substitute(given)))
        found.extend(f"{request} {fault}" for fault in faults(wanted, answer))
    now = int(time.time()) + 1
    for line in _asked(docker, f"GET /events?since=1&until={now}").splitlines():
        found.extend(f"event {fault}: {line!r}" for fault in faults(EVENT, json.loads(line)))
    assert not found, "\n".join(found)


def test_a_fault_is_found() -> None:
    wanted = {"A": [str], "B?": int}
    assert list(faults(wanted, {"A": ["x"]})) == []
    assert list(faults(wanted, {"A": [None], "B": True})) == [
        ".A[0]: None is no str",
        ".B: True is no int",
    ]
    assert list(faults(wanted, {})) == [".A is missing"]
