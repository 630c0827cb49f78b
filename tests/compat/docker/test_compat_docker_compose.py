"""Compose: its Python version as a client, and the requests that its later versions make."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.compat.docker.compare.dialogue import (
    Scenario,
    Step,
    delete,
    filters,
    get,
    head,
    joined,
    mark,
    post,
    put,
    tell,
)
from tests.compat.docker.compare.object_scenarios import archive
from tests.compat.docker.docker_engine import IMAGE, Engine
from tests.ports import free_port

pytestmark = pytest.mark.root

_PROJECT = """
version: "3.8"
services:
  db:
    image: {image}
    command: ["sh", "-c", "touch /data/ready; exec sleep 600"]
    init: true
    volumes: ["data:/data", "./conf:/conf:ro"]
    healthcheck: {{test: ["CMD", "test", "-f", "/data/ready"], interval: 1s}}
    networks: {{back: {{aliases: [database]}}}}
  web:
    image: {image}
    command: ["httpd", "-f", "-p", "80", "-h", "/var/www"]
    init: true
    ports: ["127.0.0.1:{port}:80"]
    depends_on: [db]
    networks: [front, back]
    labels: {{role: web}}
    ulimits: {{nofile: {{soft: 1000, hard: 2000}}}}
    logging: {{driver: json-file, options: {{max-size: 1m}}}}
    tmpfs: [/scratch]
    extra_hosts: ["h:192.0.2.1"]
    restart: unless-stopped
networks: {{front: {{}}, back: {{internal: true}}}}
volumes: {{data: {{}}}}
"""


@pytest.mark.skipif(
    shutil.which("docker-compose") is None, reason="needs docker-compose (Debian's package)"
)
def test_a_project_lives_and_dies(docker: Engine, tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "docker-compose.yml").write_text(_PROJECT.format(image=IMAGE, port=port))
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "file").write_text("configured\n")

    def compose(*words: str) -> str:
        done = subprocess.run(
            ["docker-compose", "-p", "story", *words],
            cwd=tmp_path,
            env=docker.environment(),
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    compose("up", "-d")
    assert compose("ps", "-q").count("\n") == 2
    asked = "until wget -qO- http://localhost/; do sleep 0.1; done"
    page = compose("exec", "-T", "web", "sh", "-c", asked)
    assert page == "hello from sagong\n"
    compose("exec", "-T", "web", "ping", "-c1", "-W60", "database")
    assert compose("port", "web", "80").strip() == f"127.0.0.1:{port}"
    assert "configured" in compose("run", "--rm", "-T", "db", "cat", "/conf/file")
    docker.wait_for("story_db_1", "{{.State.Health.Status}}", "healthy")
    made = docker.inspect("story_web_1")["Id"]
    compose("up", "-d")
    assert docker.inspect("story_web_1")["Id"] == made, "nothing has changed: nothing is made anew"
    compose("restart", "-t", "0", "web")
    compose("down", "-v", "-t", "0")
    assert docker.ok("ps", "-aq") == "" and "story" not in docker.ok("network", "ls")


_LABELS = {
    "com.docker.compose.project": "later",
    "com.docker.compose.service": "web",
    "com.docker.compose.config-hash": "0" * 64,
    "com.docker.compose.oneoff": "False",
}
_OF_PROJECT = ("com.docker.compose.project=later", "com.docker.compose.config-hash")


def v2(step: Step) -> Step:
    """As later versions ask: API 1.48."""
    return step.of("v1.48")


_UP = (
    get("/_ping").of(""),
    v2(get("/containers/json?all=1&" + filters(label=_OF_PROJECT))),
    v2(get("/networks?" + filters(name="later_default"))),
    v2(post("/networks/create", {"Name": "later_default", "Driver": "bridge", "Labels": _LABELS})),
    v2(post("/networks/create", {"Name": "later_other", "Driver": "bridge", "Labels": _LABELS})),
    v2(post("/networks/create", {"Name": "later_other", "Driver": "bridge"})),
    v2(post("/volumes/create", {"Name": "later_data", "Labels": _LABELS})),
    v2(post("/volumes/create", {"Name": "later_data", "Labels": _LABELS})),
    v2(get("/images/$image/json")),
    v2(
        post(
            "/containers/create?name=later-web-1",
            {
                "Image": "$image",
                "Cmd": [
                    "sh",
                    "-c",
                    "cat /home/secrets/s; until [ -e /tmp/go ]; do sleep 0.05; done; exit 4",
                ],
                "Labels": _LABELS,
                "AttachStdout": True,
                "AttachStderr": True,
                "HostConfig": {
                    "NetworkMode": "later_default",
                    "RestartPolicy": {"Name": "", "MaximumRetryCount": 0},
                    "Mounts": [{"Type": "volume", "Source": "later_data", "Target": "/data"}],
                    "LogConfig": {},
                    "ConsoleSize": [0, 0],
                },
                "NetworkingConfig": {
                    "EndpointsConfig": {
                        "later_default": {"Aliases": ["later-web-1", "web"], "GwPriority": 0},
                        "later_other": {"Aliases": ["web"], "MacAddress": "02:42:00:00:00:07"},
                    }
                },
            },
        )
    ).keep(c="Id"),
    v2(put("/containers/$c/archive?path=/home&noOverwriteDirNonDir=", archive(secrets_=""))),
    v2(put("/containers/$c/archive?path=/home/secrets", archive(s="told"))),
    v2(post("/containers/$c/wait?condition=next-exit")).beside("exit"),
    v2(post("/containers/$c/attach?logs=0&stream=1&stdout=1&stderr=1")).hijacked().beside("output"),
    mark("begin"),
    v2(post("/containers/$c/start")),
    v2(get("/containers/$c/json")),
    v2(put("/containers/$c/archive?path=/tmp", archive(go=""))),
    joined("output"),
    joined("exit"),
    mark("end"),
    v2(
        get(
            "/events?since=$begin&until=$end&"
            + filters(type="container", label="com.docker.compose.project=later")
        )
    ),
    v2(head("/containers/$c/archive?path=/home/secrets/s")),
    v2(post("/containers/$c/wait?condition=not-running")),
    v2(delete("/containers/$c?v=1")),
    v2(delete("/containers/$c?v=1")),
)
_DOWN = tuple(
    v2(delete(path))
    for path in (
        "/containers/later-web-1?force=1",
        "/networks/later_default",
        "/networks/later_other",
        "/volumes/later_data",
    )
)


def test_later_versions_find_what_they_ask_for(docker: Engine) -> None:
    told = tell(docker.socket, Scenario("later", _UP, _DOWN), {"image": IMAGE})
    statuses = [answer.status for _, answer in told]
    assert statuses == [
        200, 200, 200, 201, 201, 409, 201, 201, 200, 201, 200, 200, 204, 200, 200, 101, 200, 200,
        200, 200, 204, 404,
    ]  # fmt: skip
    by_label = {step.label: answer for step, answer in told}
    running = json.loads(by_label["GET /containers/$c/json"].body)
    networks = running["NetworkSettings"]["Networks"]
    assert networks["later_default"]["Aliases"] == ["later-web-1", "web"]
    assert {"web", "later-web-1", running["Id"][:12]} <= set(networks["later_default"]["DNSNames"])
    assert networks["later_other"]["MacAddress"] == "02:42:00:00:00:07"
    output = next(a for s, a in told if "attach" in s.path)
    assert output.headers["content-type"] == "application/vnd.docker.multiplexed-stream"
    assert output.body[8:] == b"told"
    ended = next(a for s, a in told if "next-exit" in s.path)
    assert json.loads(ended.body)["StatusCode"] == 4
    events = next(a for s, a in told if s.path.startswith("/events"))
    actions = [json.loads(line)["Action"] for line in events.body.splitlines()]
    assert [a for a in actions if a not in ("attach", "extract-to-dir")] == ["start", "die"]
