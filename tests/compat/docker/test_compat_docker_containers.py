"""What a container and its execs need of users, files, volumes and others, and when it is missed."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.compat.docker.docker_engine import IMAGE, Engine
from tests.compat.docker.test_compat_docker_upstream import build, raw


def test_an_exec_of_nobody_is_refused_when_it_is_made(docker: Engine) -> None:
    docker.ok("run", "-d", "--name", "box", IMAGE, "top")
    wanted = json.dumps({"Cmd": ["id"], "User": "nosuch"}).encode()
    status, said = raw(docker, "POST", "/containers/box/exec", wanted)
    assert status == 400
    assert "unable to find user nosuch: no matching entries in passwd file" in said
    docker.ok("exec", "box", "sh", "-c", "echo nosuch:x:77:78::/:/bin/sh >> /etc/passwd")
    assert docker.ok("exec", "-u", "nosuch", "box", "id", "-u") == "77"
    # Who is asked for no user has those of the container, also after a swap of the node.
    docker.ok("run", "-d", "--name", "own", "--user", "app", IMAGE, "top")
    docker.instance.run("swap", "node")
    assert docker.ok("exec", "own", "id", "-un") == "app"


def test_copies_belong_to_the_container_s_user_if_it_has_one(docker: Engine) -> None:
    file = docker.directory / "copied"
    file.write_text("x")
    os.chown(file, 1234, 1235)
    for name, user, owner in (("root", "", "1234:1235"), ("some", "7777:", "7777:0")):
        docker.ok("create", "--name", name, *(["-u", user] if user else []), IMAGE, "top")
        docker.ok("cp", "-a", str(file), f"{name}:/copied")
        docker.ok("start", name)
        assert docker.ok("exec", name, "stat", "-c", "%u:%g", "/copied") == owner


def test_a_link_out_of_a_volume_is_judged_by_where_it_leads(docker: Engine) -> None:
    docker.ok("volume", "create", "links")
    command = ("sh", "-c", "mkdir /v/sub; ln -s /srv /v/out; ln -s sub /v/in")
    docker.ok("run", "--rm", "-v", "links:/v", IMAGE, *command)
    docker.ok("create", "--name", "sealed", "--read-only", "-v", "links:/v", IMAGE, "true")
    status, said = raw(docker, "PUT", "/containers/sealed/archive?path=/v/out")
    assert status == 403 and "container rootfs is marked read-only" in said
    docker.ok("cp", __file__, "sealed:/v/in/copied")


def test_a_working_directory_is_there_from_the_creation_on(docker: Engine) -> None:
    docker.ok("create", "--name", "made", "-w", "/home/foo/bar", IMAGE, "true")
    docker.ok("cp", "made:/home/foo/bar", str(docker.directory / "bar"))
    assert "A /home/foo/bar" in docker.ok("diff", "made")


@pytest.fixture
def nested(tmp_path: Path) -> Iterator[Path]:
    """A directory with another filesystem mounted in it."""
    (tmp_path / "below").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path / "below"], check=True)
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path / "below"], check=True)


@pytest.mark.parametrize(
    ("recursion", "seen"),
    [
        ("", "ro ro"),
        ("enabled", "ro ro"),
        ("writable", "ro rw"),
        ("disabled", "ro none"),
        ("readonly", "ro ro"),
    ],
)
def test_what_is_mounted_below_a_read_only_bind(
    docker: Engine, nested: Path, recursion: str, seen: str
) -> None:
    (nested / "below" / "inner").touch()
    options = f"type=bind,source={nested},target=/d,readonly,bind-propagation=rprivate"
    options += f",bind-recursive={recursion}" if recursion else ""
    script = "touch /d/x 2>/dev/null && printf 'rw ' || printf 'ro '; "
    script += "[ -e /d/below/inner ] || { echo none; exit; }; "
    script += "touch /d/below/x 2>/dev/null && echo rw || echo ro"
    assert docker.ok("run", "--rm", "--mount", options, IMAGE, "sh", "-c", script) == seen


def test_a_bind_whose_source_is_missing_leaves_no_container(docker: Engine) -> None:
    missing = docker.directory / "missing"
    options = f"type=bind,source={missing},target=/d"
    done = docker.docker("run", "--name", "later", "--mount", options, IMAGE, "true")
    assert f"bind source path does not exist: {missing}" in done.stderr
    missing.mkdir()
    docker.ok("run", "--name", "later", "--mount", options, IMAGE, "true")


def test_an_anonymous_volume_goes_with_the_last_that_has_it(docker: Engine) -> None:
    def volumes() -> list[str]:
        return docker.ok("volume", "ls", "-q").split()

    docker.ok("volume", "create", "test")
    docker.ok("run", "--name", "parent", "-v", "test:/foo", "-v", "/bar", IMAGE, "true")
    docker.ok("run", "--name", "child", "--volumes-from", "parent", IMAGE, "true")
    (lent,) = set(volumes()) - {"test"}
    # Another one of the same volumes takes nothing along.
    docker.ok("run", "--rm", "--volumes-from", "parent", IMAGE, "true")
    docker.ok("rm", "-fv", "parent")
    assert set(volumes()) == {"test", lent}
    docker.ok("rm", "-fv", "child")
    assert volumes() == ["test"]


def test_a_log_driver_that_is_not_here_is_missed_when_docker_misses_it(docker: Engine) -> None:
    unknown = docker.docker("create", "--log-driver", "nosuch", IMAGE, "true")
    assert 'error looking up logging plugin nosuch: plugin "nosuch" not found' in unknown.stderr
    done = docker.docker("run", "--name", "fail", "--log-driver", "splunk", IMAGE, "true")
    assert done.returncode == 125 and "failed to initialize logging driver" in done.stderr
    assert docker.inspect("fail")["State"]["Status"] == "created"
    docker.docker("run", "--rm", "--name", "gone", "--log-driver", "syslog", IMAGE, "true")
    assert docker.docker("inspect", "gone").returncode


def test_whose_network_is_joined_may_come_later(docker: Engine) -> None:
    docker.ok("create", "--name", "guest", "--network", "container:host-box", IMAGE, "top")
    assert docker.inspect("guest")["HostConfig"]["NetworkMode"] == "container:host-box"
    early = docker.docker("start", "guest")
    assert "No such container: host-box" in early.stderr
    docker.ok("run", "-d", "--name", "host-box", IMAGE, "top")
    docker.ok("start", "guest")
    addresses = [docker.ok("exec", name, "ip", "addr") for name in ("guest", "host-box")]
    assert addresses[0] == addresses[1]


def test_networks_that_are_shared_in_a_circle_are_nobodys(docker: Engine) -> None:
    for name, other in (("one", "two"), ("two", "one")):
        docker.ok("create", "--name", name, "--network", f"container:{other}", IMAGE, "true")
    assert "non running container" in docker.docker("start", "one").stderr
    docker.ok("rm", "one", "two")


def test_bodies_say_that_they_are_json_and_attachments_answer_in_text(docker: Engine) -> None:
    def post(path: str, *words: str) -> tuple[int, str]:
        socket = ("curl", "-s", "--unix-socket", str(docker.socket), "-X", "POST")
        command = [*socket, "-w", "\n%{http_code}", *words, f"http://d{path}"]
        done = subprocess.run(command, capture_output=True, timeout=90, check=True)
        text, _, status = done.stdout.decode().rpartition("\n")
        return int(status), text

    body = ("--data-binary", json.dumps({"Image": IMAGE}))
    for kind, status in (("", 400), (" application/xml", 400), (" application/json", 201)):
        assert post("/containers/create", "-H", f"Content-Type:{kind}", *body)[0] == status
    assert post("/containers/nosuch/attach") == (404, "No such container: nosuch\r\n")


def test_who_runs_out_of_memory_is_told_while_it_goes_on(docker: Engine) -> None:
    # The kernel may end more than one: it begins with this one.
    script = "(echo 1000 >/proc/self/oom_score_adj; exec tail /dev/zero); sleep 600"
    since = str(time.time() - 1)
    docker.ok("run", "-d", "--name", "short", "-m", "16m", IMAGE, "sh", "-c", script)

    def told() -> str:
        words = ("--since", since, "--until", str(time.time()), "--filter", "event=oom")
        return docker.ok("events", *words)

    docker.wait_until(lambda: "name=short" in told())
    shown = docker.inspect("short")["State"]
    assert shown["Running"] and shown["OOMKilled"]
    docker.ok("kill", "short")
    assert told().count("name=short") == 1


@pytest.mark.skipif(
    not os.path.exists("/sys/fs/cgroup/cpuacct"), reason="version 1 of control groups tells it"
)
def test_processor_time_is_told_of_each_processor(docker: Engine) -> None:
    docker.ok("run", "-d", "--name", "busy", IMAGE, "sh", "-c", "while :; do :; done")
    _, text = raw(docker, "GET", "/containers/busy/stats?stream=false")
    usage = json.loads(text)["cpu_stats"]["cpu_usage"]
    assert len(usage["percpu_usage"]) == os.cpu_count()
    assert sum(usage["percpu_usage"]) > 0


def test_volumes_options_are_refused_in_docker_s_words(docker: Engine) -> None:
    for options, said in (
        (("-o", "foobar=x"), 'invalid option: "foobar"'),
        (("-o", "type=tmpfs"), 'missing required option: "device"'),
        (("-o", "device=tmpfs"), 'missing required option: "type"'),
    ):
        assert said in docker.docker("volume", "create", *options, "odd").stderr


def test_an_image_s_own_user_owns_what_is_copied(docker: Engine) -> None:
    build(docker, "owned", "RUN echo me:x:2375:2376::/:/bin/sh >> /etc/passwd", "USER me")
    (docker.directory / "file").write_text("x")
    docker.ok("run", "-d", "--name", "owner", "owned", "top")
    docker.ok("cp", "-a", str(docker.directory / "file"), "owner:/tmp/file")
    assert docker.ok("exec", "owner", "stat", "-c", "%u:%g", "/tmp/file") == "2375:2376"


def test_files_of_the_network_are_the_container_s_root_s(docker: Engine) -> None:
    files = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
    script = "echo '192.0.2.1 added' >>/etc/hosts && stat -c %u:%g:%a " + " ".join(files)
    for users in ("host", "private"):
        option = ("--security-opt", f"userns={users}", "--cap-drop", "ALL")
        told = docker.ok("run", "--rm", *option, IMAGE, "sh", "-c", script)
        assert told.split() == ["0:0:644"] * 3
    # What the container makes of it keeps nobody from writing it anew.
    docker.ok("network", "create", "later")
    docker.ok("run", "-d", "--name", "closed", IMAGE, "top")
    docker.ok("exec", "closed", "sh", "-c", "chown 7:7 /etc/hosts; chmod 0 /etc/hosts")
    docker.ok("network", "connect", "later", "closed")
    address = docker.ok(
        "inspect", "-f", "{{.NetworkSettings.Networks.later.IPAddress}}", "closed"
    ).strip()
    assert address in docker.ok("exec", "closed", "cat", "/etc/hosts")
    assert docker.ok("exec", "closed", "stat", "-c", "%u:%g:%a", "/etc/hosts") == "0:0:644"


def test_who_comes_to_a_network_with_names_later_asks_for_them(docker: Engine) -> None:
    docker.ok("network", "create", "named")
    docker.ok("run", "-d", "--name", "asked", "--network", "named", IMAGE, "top")
    for name in ("asker", "own"):
        docker.ok("run", "-d", "--name", name, "--dns-search", "x.test", IMAGE, "top")
    docker.ok("exec", "own", "sh", "-c", "echo nameserver 192.0.2.1 >/etc/resolv.conf")
    for name in ("asker", "own"):
        docker.ok("network", "connect", "named", name)
    told = docker.ok("exec", "asker", "cat", "/etc/resolv.conf").split("\n")
    assert told == ["nameserver 127.0.0.11", "search x.test", "options ndots:0"]
    docker.ok("exec", "asker", "ping", "-c", "1", "-W", "60", "asked")
    assert docker.ok("exec", "own", "cat", "/etc/resolv.conf") == "nameserver 192.0.2.1"
    docker.ok("network", "disconnect", "named", "asker")
    assert "127.0.0.11" in docker.ok("exec", "asker", "cat", "/etc/resolv.conf")
