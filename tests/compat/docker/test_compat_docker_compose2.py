"""Compose 2, Docker's plugin, as a client: a project built, begun in order, changed and ended."""

from __future__ import annotations

import json
import select
import subprocess
import time
from pathlib import Path

import pytest
from tests.compat.docker.clients import Plugin, plugin
from tests.compat.docker.docker_engine import IMAGE, Engine
from tests.conformance.image_registry_server import running_registry
from tests.ports import free_port

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

_PROJECT = """\
name: tale
services:
  db:
    image: {image}
    command: ["sh", "-c", "trap 'exit 9' TERM; sleep 0.5; touch /data/ready; sleep 600 & wait"]
    volumes: ["data:/data", "./conf:/conf:ro"]
    healthcheck:
      test: ["CMD", "test", "-f", "/data/ready"]
      interval: 1s
      start_period: 9s
      start_interval: 200ms
    networks: {{back: {{aliases: [database]}}}}
  first:
    image: {image}
    command: ["sh", "-c", "echo begun first"]
    networks: [back]
  web:
    build: {{context: ./app, args: {{WHO: me}}}}
    image: {registry}/tale/web:${{TAG}}
    init: true
    ports: ["127.0.0.1:{port}:80"]
    depends_on:
      db: {{condition: service_healthy}}
      first: {{condition: service_completed_successfully}}
    networks: {{front: {{}}, back: {{ipv4_address: 10.198.9.10}}}}
    environment: {{OWN: own}}
    env_file: [of.env]
    configs: [{{source: setting, target: /etc/setting}}]
    secrets: [word]
    deploy: {{resources: {{limits: {{memory: 64m, cpus: "0.5"}}}}}}
  extra:
    image: {image}
    profiles: [more]
    command: ["sleep", "600"]
    init: true
    networks: [front]
networks:
  front: {{}}
  back: {{internal: true, ipam: {{config: [{{subnet: 10.198.9.0/24}}]}}}}
volumes: {{data: {{}}}}
configs: {{setting: {{file: ./conf/setting}}}}
secrets: {{word: {{file: ./word}}}}
"""
_APP = f"""\
FROM {IMAGE}
ARG WHO=nobody
COPY index.html /www/
RUN echo $WHO > /www/who
CMD ["httpd", "-f", "-p", "80", "-h", "/www"]
"""


def project(place: Path, port: int, registry: str) -> None:
    """The project's files."""
    files = {
        "compose.yaml": _PROJECT.format(image=IMAGE, port=port, registry=registry),
        "app/Dockerfile": _APP,
        "app/index.html": "page\n",
        "conf/setting": "set\n",
        "word": "hush\n",
        "of.env": "OF_FILE=filed\n",
        ".env": "TAG=one\n",
    }
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)


@pytest.fixture
def compose(docker: Engine) -> Plugin:
    """The command line with compose; compose builds by what it has of buildx itself."""
    return plugin(docker, "docker-compose")


def begun(compose: Plugin, place: Path, *words: str) -> subprocess.Popen[str]:
    """A command that goes on; its output is read when it ends."""
    return subprocess.Popen(
        ["docker", "compose", *words], cwd=place, env=compose.environment(), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_a_project_from_its_build_to_its_end(
    docker: Engine, compose: Plugin, tmp_path: Path
) -> None:
    port = free_port()

    def told(*words: str) -> str:
        return compose.ok("compose", "--progress", "plain", *words, cwd=tmp_path)

    def inside(service: str, script: str) -> str:
        return told("exec", "-T", service, "sh", "-c", script)

    with running_registry(tmp_path) as registry:
        project(tmp_path, port, registry)
        assert set(told("config", "--services").split()) == {"db", "first", "web"}
        out = told("up", "-d", "--build")
        assert "[web 3/3] RUN echo me > /www/who" in out
        order = [out.index(text) for text in ("tale-db-1  Healthy", "tale-web-1  Starting")]
        assert order == sorted(order) and "tale-first-1  Exited" in out
        assert inside("web", "cat /etc/setting /run/secrets/word /www/who; echo $OWN $OF_FILE") == (
            "set\nhush\nme\nown filed\n"
        )
        assert "10.198.9.10" in inside("web", "ip -o addr; ping -c1 -W60 database")
        assert told("port", "web", "80") == f"127.0.0.1:{port}\n"
        listed = [json.loads(line) for line in told("ps", "-a", "--format", "json").splitlines()]
        assert {(c["Service"], c["State"], c["Health"], c["ExitCode"]) for c in listed} == {
            ("db", "running", "healthy", 0), ("first", "exited", "", 0), ("web", "running", "", 0),
        }  # fmt: skip
        assert "running(2)" in told("ls")
        assert "httpd -f -p 80 -h /www" in told("top")
        assert "tale/web" in told("images")
        told("cp", "web:/www/who", str(tmp_path / "copied"))
        assert (tmp_path / "copied").read_text() == "me\n"
        told("cp", "conf/setting", "web:/tmp/new")
        assert inside("web", "cat /tmp/new") == "set\n"
        assert told("run", "--rm", "-T", "db", "cat", "/conf/setting").endswith("set\n")
        made = docker.inspect("tale-web-1")["Id"]
        told("up", "-d", "--scale", "db=2", "--no-recreate")
        assert docker.inspect("tale-web-1")["Id"] == made, "nothing has changed"
        assert told("ps", "-q", "db").count("\n") == 2
        told("push", "-q", "web")
        (tmp_path / ".env").write_text("TAG=two\n")
        docker.ok("tag", f"{registry}/tale/web:one", f"{registry}/tale/web:two")
        told("up", "-d", "--no-deps", "web")
        assert docker.inspect("tale-web-1")["Id"] != made, "another image: another container"
        _is_seen(compose, tmp_path)
        told("--profile", "more", "down", "-v", "-t", "0")
        assert docker.ok("ps", "-aq") == ""
        assert "tale" not in docker.ok("network", "ls") + docker.ok("volume", "ls")
        docker.ok("rmi", f"{registry}/tale/web:one", f"{registry}/tale/web:two")
        (tmp_path / ".env").write_text("TAG=one\n")
        told("pull", "web")
        assert docker.inspect(f"{registry}/tale/web:one")["Config"]["Cmd"][0] == "httpd"


def _is_seen(compose: Plugin, place: Path) -> None:
    """What others see while services are stopped, begun, paused and killed."""

    def told(*words: str) -> str:
        return compose.ok("compose", *words, cwd=place)

    events = begun(compose, place, "events", "--json")
    logs = begun(compose, place, "logs", "-f", "--no-log-prefix", "first", "extra")
    told("--profile", "more", "up", "-d", "--scale", "db=1")
    # Of two it could find one gone before it has asked for its end.
    waiting = begun(compose, place, "wait", "db")
    assert events.stdout is not None and logs.stdout is not None
    # Who follows does so from when he has told of something.
    while not select.select([events.stdout], [], [], 0)[0]:
        told("pause", "web")
        told("unpause", "web")
    told("pause", "web")
    assert "(Paused)" in told("ps", "web")
    told("unpause", "web")
    told("restart", "-t", "0", "web")
    told("stop", "-t", "0", "extra")
    told("start", "extra")
    told("stop", "-t", "60", "db")
    assert waiting.wait(60) == 9
    told("kill", "extra")
    wanted = {("web", "pause"), ("web", "unpause"), ("web", "restart"), ("extra", "kill")}
    for event in (json.loads(line) for line in events.stdout if line[0] == "{"):
        wanted.discard((event["service"], event["action"]))
        if not wanted:
            break
    assert not wanted, "it ended without telling of this"
    assert any("begun first" in line for line in logs.stdout)
    for follower in (events, logs):
        follower.terminate()
        follower.communicate(timeout=60)


def test_watched_files_reach_a_running_service(
    compose: Plugin, docker: Engine, tmp_path: Path
) -> None:
    (tmp_path / "app").mkdir()
    page = tmp_path / "app/index.html"
    page.write_text("first\n")
    (tmp_path / "compose.yaml").write_text(
        f"services:\n  web:\n    image: {IMAGE}\n    command: [sleep, '600']\n"
        "    build: ./app\n    develop: {watch: [{action: sync, path: ./app, target: /www}]}\n"
    )
    (tmp_path / "app/Dockerfile").write_text(f"FROM {IMAGE}\nCOPY index.html /www/\n")
    (tmp_path / "compose.yaml").write_text(
        (tmp_path / "compose.yaml").read_text().replace(IMAGE, "watched:1")
    )
    compose.ok("compose", "up", "-d", "--build", cwd=tmp_path)
    read = ("compose", "exec", "-T", "web", "cat", "/www/index.html")
    assert compose.ok(*read, cwd=tmp_path).strip() == "first"
    watching = begun(compose, tmp_path, "watch", "--no-up")
    try:
        limit = time.monotonic() + 60
        while compose.ok(*read, cwd=tmp_path).strip() != "second":
            assert time.monotonic() < limit, watching.poll()
            page.write_text("second\n")
            time.sleep(0.5)
    finally:
        watching.terminate()
        watching.communicate(timeout=60)
        compose.ok("compose", "down", "-t", "0", "--rmi", "all", cwd=tmp_path)


_INLINE = """\
services:
  app:
    image: {image}
    command: [sh, -c, "cat /etc/setting; ls -d /made; sleep 600"]
    init: true
    volumes: [./not/yet:/made]
    configs: [{{source: setting, target: /etc/setting}}]
configs: {{setting: {{content: "said inline\\n"}}}}
"""


def test_a_config_is_put_beside_a_directory_that_is_not_there_yet(
    compose: Plugin, docker: Engine, tmp_path: Path
) -> None:
    (tmp_path / "compose.yaml").write_text(_INLINE.format(image=IMAGE))
    compose.ok("compose", "-p", "inline", "up", "-d", cwd=tmp_path)
    docker.wait_said("inline-app-1", "said inline\n/made")
    assert (tmp_path / "not/yet").is_dir()
    compose.ok("compose", "-p", "inline", "down", "-t", "0", cwd=tmp_path)
