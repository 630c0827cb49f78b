"""What Docker's own suites hold an engine to, in our words (docs/reference/docker-suites.md)."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from pathlib import Path

from tests.compat.docker.docker_engine import IMAGE, Engine


def raw(docker: Engine, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
    """One request by curl."""
    words = [
        "curl",
        "-s",
        "--unix-socket",
        str(docker.socket),
        "-X",
        method,
        "-w",
        "\n%{http_code}",
    ]
    if body is not None:
        words += ["-H", "Content-Type: application/json", "--data-binary", body.decode()]
    done = subprocess.run(
        [*words, f"http://d{path}"], capture_output=True, text=True, timeout=90, check=True
    )
    text, _, status = done.stdout.rpartition("\n")
    return int(status), text


def build(docker: Engine, name: str, *lines: str) -> None:
    """An image of a few lines."""
    docker.ok("build", "-q", "-t", name, "-", stdin="\n".join((f"FROM {IMAGE}", *lines)).encode())


def test_an_image_s_health_check_is_done_and_may_be_changed(docker: Engine) -> None:
    build(docker, "checked", "HEALTHCHECK --interval=1s --retries=1 CMD cat /tmp/well")
    rarely = ("--health-interval", "1h")
    docker.ok("run", "-d", "--name", "early", *rarely, "checked", "sleep", "600")
    assert docker.inspect("early")["State"]["Health"]["Status"] == "starting"
    docker.ok("run", "-d", "--name", "ill", "--stop-signal", "KILL", "checked", "sleep", "600")
    docker.wait_for("ill", "{{.State.Health.Status}}", "unhealthy")
    docker.ok("exec", "ill", "touch", "/tmp/well")
    docker.wait_for("ill", "{{.State.Health.Status}}", "healthy")
    docker.ok("run", "-d", "--name", "own", "--health-cmd", "true", "checked", "sleep", "600")
    shown = docker.inspect("own")["Config"]["Healthcheck"]
    assert shown["Test"] == ["CMD-SHELL", "true"] and shown["Interval"] == 10**9
    docker.wait_for("own", "{{.State.Health.Status}}", "healthy")
    docker.ok("run", "-d", "--name", "none", "--no-healthcheck", "checked", "sleep", "600")
    assert "Health" not in docker.inspect("none")["State"]


def test_a_check_that_takes_too_long_shows_what_it_said(docker: Engine) -> None:
    check = ("--health-cmd", "echo one; sleep 600", "--health-interval", "100ms")
    docker.ok("run", "-d", "--name", "slow", *check, "--health-timeout", "300ms", IMAGE, "top")

    def told() -> set[str]:
        return {entry["Output"] for entry in docker.inspect("slow")["State"]["Health"]["Log"]}

    # One that is late says nothing before its time is over.
    docker.wait_until(lambda: "Health check exceeded timeout (300ms): one\n" in told())
    assert told() <= {f"Health check exceeded timeout (300ms){said}" for said in ("", ": one\n")}


def test_a_container_of_rm_outlives_its_restart(docker: Engine) -> None:
    docker.ok("run", "-d", "--rm", "--name", "once", IMAGE, "top")
    docker.ok("restart", "-t", "0", "once")
    assert docker.inspect("once")["State"]["Running"]
    docker.ok("kill", "once")
    docker.wait_until(lambda: docker.docker("inspect", "once").returncode != 0)


def test_the_stop_signal_ends_what_its_policy_would_start_again(docker: Engine) -> None:
    policy = ("--restart", "always", "--stop-signal", "TERM")
    docker.ok("run", "-d", "--init", "--name", "again", *policy, IMAGE, "sleep", "600")
    docker.ok("kill", "-s", "TERM", "again")
    docker.wait_for("again", "{{.State.Status}}", "exited")
    time.sleep(0.5)
    assert docker.inspect("again")["State"]["Status"] == "exited"
    # One that waits for its next start is not removed just so, and stopped by a kill, too.
    docker.ok("run", "-d", "--name", "loop", "--restart", "always", IMAGE, "false")
    docker.wait_for("loop", "{{gt .RestartCount 2}}", "true")
    assert "stop the container before removing" in docker.docker("rm", "loop").stderr
    docker.ok("kill", "loop")
    docker.wait_for("loop", "{{.State.Status}}", "exited")


def test_a_wait_ends_with_the_run_though_a_policy_starts_another(docker: Engine) -> None:
    docker.ok(
        "run", "-d", "--name", "ends", "--restart", "always", IMAGE, "sh", "-c", "sleep 1; exit 7"
    )
    assert docker.ok("wait", "ends") == "7"


def test_links_are_found_when_the_container_starts(docker: Engine) -> None:
    docker.ok("create", "--name", "data", "-e", "WORD=secret", IMAGE, "top")
    docker.ok("create", "--name", "app", "--link", "data:/db", IMAGE, "top")
    names = docker.ok("ps", "-a", "--no-trunc", "--format", "{{.Names}}").split()
    assert names == ["app", "data,app/db"]
    early = docker.docker("start", "app")
    assert "Cannot link to a non running container: /data AS /app/db" in early.stderr
    docker.ok("start", "data", "app")
    assert docker.inspect("app/db")["Id"] == docker.inspect("data")["Id"]
    place = docker.inspect("data")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    hosts = docker.ok("exec", "app", "cat", "/etc/hosts")
    assert f"{place}\tdb {docker.inspect('data')['Id'][:12]} data" in hosts
    assert docker.ok("exec", "app", "sh", "-c", "echo $DB_ENV_WORD") == "secret"
    docker.ok("stop", "-t", "0", "data")
    docker.ok("run", "-d", "--name", "taker", IMAGE, "top")
    docker.ok("start", "data")
    place = docker.inspect("data")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    docker.wait_until(lambda: f"{place}\tdb " in docker.ok("exec", "app", "cat", "/etc/hosts"))
    docker.ok("rename", "app", "web")
    assert docker.inspect("web")["HostConfig"]["Links"] == ["/data:/web/db"]
    docker.ok("rm", "--link", "web/db")
    assert docker.ok("ps", "--format", "{{.Names}}", "--filter", "name=data") == "data"


def test_lists_are_filtered_as_docker_does(docker: Engine) -> None:
    build(docker, "made:of", "RUN touch /made")
    docker.ok("run", "-d", "--name", "old", "-p", "127.0.0.1::80", IMAGE, "top")
    docker.ok("run", "-d", "--name", "young", "made:of", "top")
    names = ("ps", "--format", "{{.Names}}", "--filter")
    assert docker.ok(*names, f"ancestor={IMAGE}").split() == ["young", "old"]
    assert docker.ok(*names, "ancestor=made:of").split() == ["young"]
    bridge = docker.ok("network", "inspect", "-f", "{{.Id}}", "bridge")
    assert docker.ok(*names, f"network={bridge[:5]}").split() == ["young", "old"]
    # A container's own port is no port that is published.
    assert docker.ok(*names, "publish=80") == ""
    docker.ok("commit", "young", "made:of")
    shown = docker.ok("ps", "--no-trunc", "--format", "{{.Image}}", "--filter", "name=young")
    assert shown == docker.inspect("young")["Image"]


def test_events_since_the_beginning(docker: Engine) -> None:
    docker.ok("create", "--name", "told", IMAGE, "true")
    docker.ok("rename", "told", "retold")
    now = str(time.time())
    for since in (("--since", "0"), ()):
        told = docker.ok("events", *since, "--until", now, "--filter", "container=retold")
        assert "container rename" in told


def test_an_exec_without_a_terminal_has_no_term(docker: Engine) -> None:
    docker.ok("run", "-dt", "--name", "term", IMAGE, "top")
    assert docker.ok("exec", "term", "sh", "-c", "echo [$TERM]") == "[]"
    docker.ok("run", "-dt", "--name", "own", "-e", "TERM=dumb", IMAGE, "top")
    assert docker.ok("exec", "own", "sh", "-c", "echo [$TERM]") == "[dumb]"


def test_a_terminal_s_output_is_framed_as_the_start_asks(docker: Engine) -> None:
    id_ = docker.ok("run", "-d", IMAGE, "top")
    body = {"Cmd": ["stty", "size"], "Tty": True, "AttachStdout": True, "ConsoleSize": [57, 123]}
    status, made = raw(docker, "POST", f"/containers/{id_}/exec", json.dumps(body).encode())
    assert status == 201
    _, out = raw(docker, "POST", f"/exec/{json.loads(made)['Id']}/start", b"{}")
    assert out.startswith("\x01") and "57 123" in out


def test_what_is_read_only_and_what_is_not(docker: Engine) -> None:
    for path in ("/etc/hosts", "/etc/resolv.conf", "/etc/hostname"):
        tried = docker.docker("run", "--rm", "--read-only", IMAGE, "touch", path)
        assert "Read-only file system" in tried.stderr, path
    for security, code in (("writable-cgroups=false", 1), ("writable-cgroups=true", 0)):
        tried = docker.docker(
            "run", "--rm", "--cgroupns", "private", "--security-opt", security, IMAGE,
            "sh", "-c", "test -d /sys/fs/cgroup/pids && cd /sys/fs/cgroup/pids; mkdir x && rmdir x",
        )  # fmt: skip
        assert tried.returncode == code, (security, tried)
    refused = docker.docker("run", "--rm", "-v", "/proc/sys", IMAGE, "true")
    assert '"/proc/sys" cannot be mounted because it is inside /proc' in refused.stderr


def test_a_profile_holds_for_the_privileged_too(docker: Engine) -> None:
    profile = docker.directory / "seccomp.json"
    rule = {"names": ["chown", "fchownat", "lchown"], "action": "SCMP_ACT_ERRNO"}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    options = ("--rm", "--privileged", "--security-opt", f"seccomp={profile}")
    assert docker.docker("run", *options, IMAGE, "chown", "5", "/tmp").returncode == 1
    docker.ok("run", "--rm", "--privileged", IMAGE, "chown", "5", "/tmp")


def test_volumes_of_others_come_before_those_without_a_name(docker: Engine) -> None:
    docker.ok("run", "--name", "parent", "-v", "/shared", IMAGE, "touch", "/shared/file")
    docker.ok(
        "run", "--rm", "--volumes-from", "parent", "-v", "/shared", IMAGE, "cat", "/shared/file"
    )


def test_a_directory_of_mount_points_keeps_its_owner(docker: Engine) -> None:
    build(docker, "owned", "RUN chown 5:7 /etc")
    assert docker.ok("run", "--rm", "owned", "stat", "-c", "%u:%g", "/etc") == "5:7"


def test_what_others_lend_is_checked_at_the_start(docker: Engine) -> None:
    docker.ok("create", "--name", "lender", IMAGE, "top")
    docker.ok("create", "--name", "pid", "--pid", "container:lender", IMAGE, "true")
    docker.ok("create", "--name", "ipc", "--ipc", "container:lender", IMAGE, "true")
    id_ = docker.inspect("lender")["Id"]
    tried = docker.docker("start", "pid")
    assert f"failed to join PID namespace: container {id_} is not running" in tried.stderr
    docker.ok("start", "lender")
    assert "non-shareable IPC" in docker.docker("start", "ipc").stderr
    self_ = docker.docker("run", "--name", "me", "--network", "container:me", IMAGE, "true")
    assert "cannot join own network" in self_.stderr


def test_shared_memory_goes_with_the_ipc_namespace(docker: Engine) -> None:
    docker.ok("run", "-d", "--name", "open", "--ipc", "shareable", IMAGE, "top")
    docker.ok("exec", "open", "sh", "-c", "echo shared > /dev/shm/word")
    join = ("run", "--rm", "--ipc", "container:open", IMAGE)
    assert docker.ok(*join, "cat", "/dev/shm/word") == "shared"
    docker.ok(*join, "sh", "-c", "echo more >> /dev/shm/word")
    assert docker.ok("exec", "open", "cat", "/dev/shm/word").split() == ["shared", "more"]
    assert docker.docker("run", "--rm", IMAGE, "ls", "/dev/shm").stdout == ""


def test_small_things_of_creation(docker: Engine) -> None:
    docker.ok("create", "--name", "place", "-w", "/tmp/", IMAGE, "true")
    assert docker.inspect("place")["Config"]["WorkingDir"] == "/tmp"
    hosts = docker.ok("run", "--rm", "-h", "host.example.com", IMAGE, "cat", "/etc/hosts")
    assert "\thost.example.com host" in hosts
    bad = docker.docker("run", "--rm", "-w", "/bin/sh", IMAGE, "true")
    assert bad.returncode == 125 and "not a directory" in bad.stderr
    bad = docker.docker("run", "--rm", "--device", "/etc", IMAGE, "true")
    assert '"/etc": not a device node' in bad.stderr
    docker.ok("import", "-", "nothing", stdin=b"\0" * 10240)
    empty = docker.docker("create", "nothing")
    assert "no command specified" in empty.stderr


def test_bodies_are_told_wrong_in_go_s_words(docker: Engine) -> None:
    for body, said in (
        (b"{x", "invalid JSON: invalid character 'x' looking for beginning of object key string"),
        (b"{} x", "unexpected content after JSON"),
    ):
        for path in ("/commit", "/containers/create", "/exec/nosuch/start"):
            status, text = raw(docker, "POST", path, body)
            assert status == 400 and said in json.loads(text)["message"], path


def test_a_new_name_is_found_on_its_networks_after_the_next_start(docker: Engine) -> None:
    docker.ok("network", "create", "named")
    docker.ok("run", "-d", "--name", "before", "--network", "named", IMAGE, "top")
    docker.ok("rename", "before", "after")
    docker.ok("restart", "-t", "0", "after")
    docker.ok("run", "--rm", "--network", "named", IMAGE, "nslookup", "after")


def test_on_the_machine_s_network_the_machine_s_names_hold(docker: Engine) -> None:
    machine = Path("/etc/hosts").read_text()
    shown = ("run", "--rm", "--network", "host")
    assert docker.ok(*shown, IMAGE, "cat", "/etc/hosts") == machine.strip()
    added = docker.ok(*shown, "--add-host", "further:192.0.2.7", IMAGE, "cat", "/etc/hosts")
    assert added == f"{machine.strip()}\n192.0.2.7\tfurther"


def test_sessions_of_buildkit_begin_as_docker_s(docker: Engine) -> None:
    for header, said in (
        ((), "no upgrade proto"),
        (("Upgrade: foo",), "protocol foo not supported"),
    ):
        words = [
            "curl",
            "-s",
            "--unix-socket",
            str(docker.socket),
            "-X",
            "POST",
            "http://d/session",
        ]
        for line in header:
            words += ["-H", line]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
        assert said in json.loads(done.stdout)["message"]


def test_an_exec_that_was_not_started_goes_with_its_run(docker: Engine) -> None:
    docker.ok("run", "-d", "--name", "again", IMAGE, "top")
    _, made = raw(docker, "POST", "/containers/again/exec", b'{"Cmd":["true"]}')
    docker.ok("restart", "-t", "0", "again")
    status, _ = raw(docker, "POST", f"/exec/{json.loads(made)['Id']}/start", b'{"Detach":true}')
    assert status == 404


def test_a_stream_of_stats_ends_with_its_container(docker: Engine) -> None:
    docker.ok("run", "-d", "--name", "measured", IMAGE, "top")
    words = [
        "curl",
        "-s",
        "--unix-socket",
        str(docker.socket),
        "http://d/containers/measured/stats",
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert json.loads(following.stdout.readline())["name"] == "/measured"
        docker.ok("rm", "-f", "measured")
        following.communicate(timeout=60)
    assert following.returncode == 0


def test_what_programs_by_hand_send(docker: Engine) -> None:
    assert raw(docker, "OPTIONS", "/")[0] == 200
    assert raw(docker, "POST", "/exec/nosuch/resize?h=x&w=y")[0] == 400
    id_ = docker.ok("run", "-di", IMAGE, "cat")
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(60)
        link.connect(str(docker.socket))
        path = f"/containers/{id_}/attach?stream=1&stdin=1&stdout=1"
        link.sendall(f"POST {path} HTTP/1.1\r\nHost: d\r\nUpgrade: tcp\r\n\r\n".encode())
        assert link.recv(100).startswith(b"HTTP/1.1 101 UPGRADED")
        link.sendall(b"hello\n")
        seen = b""
        while b"hello\n" not in seen:
            seen += link.recv(100)


def test_links_of_the_default_network_lead_to_who_is_on_it(docker: Engine) -> None:
    docker.ok("network", "create", "elsewhere")
    docker.ok("run", "-d", "--name", "far", "--network", "elsewhere", IMAGE, "sleep", "600")
    link = ("run", "--rm", "--link", "far:near", IMAGE, "cat", "/etc/hosts")
    refused = docker.docker(*link)
    assert refused.returncode and "does not belong to the default network" in refused.stderr
    docker.ok("network", "connect", "bridge", "far")
    address = docker.inspect("far")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert f"{address}\tnear" in docker.ok(*link)
    docker.ok("rm", "-f", "far")
    docker.ok("network", "rm", "elsewhere")


def test_a_network_that_is_gone_is_taken_from_who_wished_for_it(docker: Engine) -> None:
    docker.ok("network", "create", "brief")
    docker.ok("run", "-d", "--network=brief", "--name", "left", IMAGE, "sleep", "600")
    docker.ok("stop", "-t", "0", "left")
    docker.ok("network", "rm", "brief")
    docker.ok("network", "disconnect", "-f", "brief", "left")
    assert "brief" not in docker.inspect("left")["NetworkSettings"]["Networks"]
    docker.ok("rm", "left")


def test_aliases_are_of_networks_of_one_s_own(docker: Engine) -> None:
    docker.ok("run", "-d", "--network=none", "--name", "alone", IMAGE, "sleep", "600")
    for network in ("bridge", "host", "none"):
        refused = docker.docker("network", "connect", "--alias", "x", network, "alone")
        assert "aliases are only supported for user-defined networks" in refused.stderr, network
    docker.ok("rm", "-f", "alone")
