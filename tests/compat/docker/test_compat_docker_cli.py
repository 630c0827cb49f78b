"""The docker command line against the whole engine: real containers, images, networks, volumes."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import tarfile
import termios
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from tests.compat.docker.docker_engine import IMAGE, Engine

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker command line"),
]


def test_run_gives_output_errors_and_the_exit_code(docker: Engine) -> None:
    done = docker.docker("run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert docker.ok("ps", "-aq") == ""


def test_input_and_output_are_whole(docker: Engine) -> None:
    data = os.urandom(1 << 20)
    done = subprocess.run(
        ["docker", "run", "--rm", "-i", IMAGE, "cat"],
        input=data, capture_output=True, env=docker.environment(), timeout=90,
    )  # fmt: skip
    assert done.stdout == data
    assert docker.ok("run", "--rm", IMAGE, "seq", "1", "100000").split()[-1] == "100000"


def test_quick_containers_lose_nothing(docker: Engine) -> None:
    for number in range(20):
        assert docker.ok("run", "--rm", IMAGE, "echo", str(number)) == str(number)


def test_many_at_once(docker: Engine) -> None:
    found: list[str] = []

    def echoed(number: int) -> str:
        return docker.ok("run", "--rm", IMAGE, "echo", str(number))

    runs = [threading.Thread(target=lambda n=n: found.append(echoed(n))) for n in range(10)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert sorted(found) == [str(n) for n in range(10)]


@pytest.mark.parametrize(
    ("program", "code", "text"),
    [
        ("no-such-program", 127, "executable file not found in $PATH"),
        ("/etc/passwd", 126, "permission denied"),
        ("/etc", 126, "is a directory"),
    ],
)
def test_programs_that_cannot_run(docker: Engine, program: str, code: int, text: str) -> None:
    done = docker.docker("run", "--rm", IMAGE, program)
    assert done.returncode == code and text in done.stderr


def test_a_container_is_what_was_asked_for(docker: Engine) -> None:
    script = "id -u; pwd; hostname; echo $A; cat /data/f; mount | grep -c 'on /ro '; cat /etc/hosts"
    docker.directory.chmod(0o755)
    (docker.directory / "f").write_text("bound\n")
    done = docker.ok(
        "run", "--rm", "-u", "app", "-w", "/tmp", "-h", "name", "-e", "A=b", "--tmpfs", "/ro",
        "--add-host", "other:10.1.1.1", "-v", f"{docker.directory}:/data:ro", IMAGE, "sh", "-c", script,
    )  # fmt: skip
    lines = done.splitlines()
    assert lines[:6] == ["1000", "/tmp", "name", "b", "bound", "1"]
    assert "10.1.1.1\tother" in done or "10.1.1.1 other" in done
    refused = docker.docker(
        "run", "--rm", "-v", f"{docker.directory}:/d:ro", IMAGE, "touch", "/d/x"
    )
    assert "Read-only file system" in refused.stderr


def test_stats_count_what_a_container_receives_and_sends(docker: Engine) -> None:
    docker.ok("run", "-d", "--name", "server", IMAGE, "sleep", "600")
    docker.ok(
        "run", "-d", "--name", "guest", "--network", "container:server", IMAGE, "sleep", "600"
    )
    docker.ok("run", "-d", "--name", "host", "--network", "host", IMAGE, "sleep", "600")
    address = docker.inspect("server")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    docker.ok("run", "--rm", IMAGE, "ping", "-c", "3", "-i", "0.1", "-s", "1000", address)

    def shown() -> dict[str, list[str]]:
        form = ("--format", "{{.Name}} {{.NetIO}}")
        lines = docker.ok("stats", "--no-stream", *form, "server", "guest", "host")
        return {line.split()[0]: line.split()[1:] for line in lines.splitlines()}

    # Who shares a network shows it; the kernel looks for neighbours on it between two answers.
    docker.wait_until(lambda: (found := shown())["server"] == found["guest"])
    found = shown()
    received, _, sent = found["server"]
    assert received.endswith("kB") and sent.endswith("kB"), found
    assert found["host"] == ["0B", "/", "0B"], "the machine's own traffic is nobody's"


def test_limits_hold(docker: Engine) -> None:
    docker.ok(
        "run", "-d", "--name", "box", "-m", "32m", "--pids-limit", "20", IMAGE, "sleep", "600"
    )
    assert docker.inspect("box")["HostConfig"]["Memory"] == 32 << 20
    line = docker.ok("stats", "--no-stream", "--format", "{{.MemUsage}}", "box")
    assert line.endswith("/ 32MiB")
    killed = docker.docker("run", "--name", "oom", "-m", "16m", IMAGE, "sh", "-c", "tail /dev/zero")
    assert killed.returncode == 137
    assert docker.inspect("oom")["State"]["OOMKilled"] is True


def test_a_shared_network_comes_with_its_names(docker: Engine) -> None:
    names = ("--hostname", "own", "--domainname", "example.org")
    docker.ok("run", "-d", "--name", "first", *names, IMAGE, "sleep", "600")
    for name, other in (("second", "first"), ("third", "second")):
        shared = ("--network", f"container:{other}")
        docker.ok("run", "-d", "--name", name, *shared, IMAGE, "sleep", "600")
    docker.ok("exec", "first", "sh", "-c", "echo 192.0.2.1 added >>/etc/hosts")
    script = "hostname; hostname -d; cat /etc/hostname; tail -n 1 /etc/hosts"
    said = docker.ok("exec", "third", "sh", "-c", script).splitlines()
    assert said == ["own", "example.org", "own", "192.0.2.1 added"]
    assert docker.inspect("third")["Config"]["Hostname"] == "own"


def test_the_environment_is_in_dockers_order_and_what_is_named_wins(docker: Engine) -> None:
    def names(*words: str) -> list[str]:
        return [line.partition("=")[0] for line in docker.ok(*words, "env").splitlines()]

    docker.ok("run", "-d", "--name", "box", "-e", "A=1", IMAGE, "sleep", "600")
    assert names("run", "--rm", "-e", "A=1", IMAGE) == ["PATH", "HOSTNAME", "A", "HOME"]
    assert names("exec", "-e", "B=1", "box") == ["PATH", "HOSTNAME", "A", "B", "HOME"]
    assert docker.ok("exec", "-u", "app", "box", "env").endswith("HOME=/home")
    own = ("-e", "HOME=/own", "-e", "TERM=dumb")
    docker.ok("run", "-d", "--name", "homely", *own, IMAGE, "sleep", "600")
    said = docker.ok("exec", "-t", "-u", "app", "homely", "env").split()
    assert {"HOME=/own", "TERM=dumb"} <= set(said)


def test_rights_and_shares_are_taken_away(docker: Engine) -> None:
    script = "chown app /tmp; touch /x; touch /tmp/y && grep CapEff /proc/self/status; sleep 600"
    words = ("--cap-drop", "CHOWN", "--cap-drop", "NET_RAW", "--read-only", "--cpus", "0.25")
    docker.ok("run", "-d", "--name", "box", *words, "--tmpfs", "/tmp", IMAGE, "sh", "-c", script)
    docker.wait_said("box", "CapEff")
    said = docker.docker("logs", "box")
    assert "chown: /tmp: Operation not permitted" in said.stderr
    assert "touch: /x: Read-only file system" in said.stderr
    held = int(said.stdout.split()[-1], 16)
    assert not held & (1 << 0 | 1 << 13) and held & 1 << 1  # CHOWN, NET_RAW; DAC_OVERRIDE stays
    assert _quota(docker.inspect("box")["State"]["Pid"]) == 0.25


def _quota(pid: int) -> float:
    """Of how many processors a process may use the time, by its control group."""
    groups = dict(
        line.split(":", 2)[1:] for line in Path(f"/proc/{pid}/cgroup").read_text().split()
    )
    for controllers, path in groups.items():
        if "cpu" in controllers.split(","):
            directory = Path(f"/sys/fs/cgroup/cpu{path}")
            used = (directory / "cpu.cfs_quota_us", directory / "cpu.cfs_period_us")
            quota, period = (int(file.read_text()) for file in used)
            return quota / period
    quota, period = map(int, Path(f"/sys/fs/cgroup{groups['']}/cpu.max").read_text().split())
    return quota / period


def test_exec_logs_and_diff(docker: Engine) -> None:
    docker.ok("run", "-d", "--name", "box", IMAGE, "sh", "-c", "echo begun; exec sleep 600")
    assert docker.ok("exec", "box", "echo", "in") == "in"
    assert docker.ok("exec", "-i", "box", "sh", "-c", "cat; touch /new", stdin=b"typed") == "typed"
    assert docker.docker("exec", "box", "sh", "-c", "exit 7").returncode == 7
    assert docker.docker("exec", "box", "no-such-program").returncode == 127
    docker.wait_until(lambda: docker.ok("logs", "box") == "begun")
    assert "A /new" in docker.ok("diff", "box")
    docker.ok("exec", "-d", "box", "touch", "/later")
    docker.wait_until(lambda: "A /later" in docker.ok("diff", "box"))


def test_a_log_goes_with_its_container(docker: Engine) -> None:
    rotated = ("--log-opt", "max-size=1k", "--log-opt", "max-file=3")
    docker.ok("run", "--name", "chatty", *rotated, IMAGE, "seq", "1", "300")
    log = Path(docker.ok("inspect", "-f", "{{.LogPath}}", "chatty"))
    names = {path.name for path in log.parent.glob(f"{log.name}*")}
    assert names == {log.name, f"{log.name}.1", f"{log.name}.2"}
    docker.ok("rm", "chatty")
    assert not list(log.parent.glob(f"{log.name}*"))


def test_top_shows_processes(docker: Engine) -> None:
    docker.ok("run", "-d", "--name", "box", IMAGE, "sleep", "600")
    title, row = docker.ok("top", "box").splitlines()
    assert title.split()[:2] == ["UID", "PID"]
    assert row.split()[0] == "root"
    assert row.endswith("sleep 600")
    assert docker.ok("top", "box", "-o", "pid,comm").split()[-1] == "sleep"


def test_stop_kill_pause_and_restart(docker: Engine) -> None:
    trap = "trap 'echo bye; exit 4' TERM; echo up; while :; do sleep 0.1; done"
    docker.ok("run", "-d", "--name", "box", IMAGE, "sh", "-c", trap)
    docker.wait_said("box", "up")
    docker.ok("pause", "box")
    assert docker.inspect("box")["State"]["Status"] == "paused"
    docker.ok("unpause", "box")
    docker.ok("pause", "box")
    docker.ok("stop", "-t", "60", "box")
    assert docker.inspect("box")["State"]["ExitCode"] == 4
    docker.ok("start", "box")
    docker.wait_until(lambda: docker.ok("logs", "box").count("up") == 2)
    docker.ok("restart", "-t", "1", "box")
    docker.wait_until(lambda: docker.ok("logs", "box").count("up") == 3)
    docker.ok("kill", "box")
    assert docker.ok("wait", "box") == "137"


def test_restart_policies(docker: Engine) -> None:
    docker.ok("run", "-d", "--name", "again", "--restart", "on-failure:2", IMAGE, "false")
    docker.wait_for("again", "{{.RestartCount}} {{.State.Status}}", "2 exited")


def test_a_container_between_two_tries_is_shown_as_restarting(docker: Engine) -> None:
    docker.ok("run", "-d", "--name", "box", "--restart", "always", IMAGE, "false")
    shown = "{{.State.Status}} {{.State.Running}} {{.State.Restarting}} {{.State.ExitCode}}"
    docker.wait_for("box", shown, "restarting true true 1")
    assert docker.ok("ps", "-a", "--format", "{{.Status}}").startswith(("Restarting (1)", "Up"))


def test_a_health_check_is_followed(docker: Engine) -> None:
    docker.ok(
        "run", "-d", "--name", "well", "--health-cmd", "test -e /ok", "--health-interval", "200ms",
        "--health-retries", "1", IMAGE, "sh", "-c", "touch /ok; sleep 600",
    )  # fmt: skip
    docker.wait_for("well", "{{.State.Health.Status}}", "healthy")
    docker.ok("exec", "well", "rm", "/ok")
    docker.wait_for("well", "{{.State.Health.Status}}", "unhealthy")


def test_a_health_probe_that_is_under_way_is_among_the_execs(docker: Engine) -> None:
    probe = "until [ -e /go ]; do sleep 0.05; done"
    docker.ok(
        "run", "-d", "--name", "probed", "--health-cmd", probe, "--health-interval", "200ms",
        IMAGE, "sleep", "600",
    )  # fmt: skip
    docker.wait_for("probed", "{{len .ExecIDs}} {{.State.Health.Status}}", "1 starting")
    docker.ok("exec", "probed", "touch", "/go")
    docker.wait_for("probed", "{{len .ExecIDs}} {{.State.Health.Status}}", "0 healthy")


def test_ports_are_published_and_networks_reach_each_other(docker: Engine) -> None:
    docker.ok("network", "create", "net")
    serve = "echo served > /tmp/index.html; exec httpd -f -p 80 -h /tmp"
    docker.ok(
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "net",
        "-p",
        "127.0.0.1::80",
        IMAGE,
        "sh",
        "-c",
        serve,
    )
    port = docker.ok("port", "web", "80/tcp").rpartition(":")[2]
    limit = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
                assert answer.read() == b"served\n"
            break
        except OSError:
            assert time.monotonic() < limit
            time.sleep(0.1)
    address = docker.inspect("web")["NetworkSettings"]["Networks"]["net"]["IPAddress"]
    page = docker.ok("run", "--rm", "--network", "net", IMAGE, "wget", "-qO-", f"http://{address}/")
    assert page == "served"
    docker.ok(
        "run", "--rm", "--network", "container:web", IMAGE, "wget", "-qO-", "http://127.0.0.1/"
    )
    assert "has active endpoints" in docker.docker("network", "rm", "net").stderr


def test_a_running_container_joins_and_leaves_a_network(docker: Engine) -> None:
    docker.ok("network", "create", "--subnet", "10.123.0.0/24", "late")
    docker.ok("run", "-d", "--name", "box", IMAGE, "sleep", "600")
    docker.ok("network", "connect", "--ip", "10.123.0.9", "late", "box")
    assert "10.123.0.9" in docker.ok("exec", "box", "ip", "addr")
    docker.ok("network", "disconnect", "late", "box")
    assert "10.123.0.9" not in docker.ok("exec", "box", "ip", "addr")


def test_volumes_keep_what_is_written(docker: Engine) -> None:
    docker.ok("run", "--rm", "-v", "data:/data", IMAGE, "sh", "-c", "echo kept > /data/f")
    assert docker.ok("run", "--rm", "-v", "data:/d:ro", IMAGE, "cat", "/d/f") == "kept"
    copied = docker.ok("run", "--rm", "-v", "www:/var/www", IMAGE, "cat", "/var/www/index.html")
    assert copied == "hello from sagong"
    docker.ok("create", "--name", "holder", "-v", "data:/data", IMAGE, "true")
    assert "volume is in use" in docker.docker("volume", "rm", "data").stderr


def test_files_are_copied_in_and_out(docker: Engine) -> None:
    docker.ok("run", "-d", "--name", "box", IMAGE, "sleep", "600")
    source = docker.directory / "tree"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "file").write_bytes(b"x" * 100_000)
    docker.ok("cp", str(source), "box:/tmp/there")
    assert docker.ok("exec", "box", "wc", "-c", "/tmp/there/sub/file").split()[0] == "100000"
    docker.ok("cp", "box:/tmp/there/.", str(docker.directory / "back"))
    assert (docker.directory / "back" / "sub" / "file").read_bytes() == b"x" * 100_000
    assert "Could not find the file" in docker.docker("cp", "box:/nosuch", "/tmp/x").stderr


def test_images_are_committed_saved_imported_and_removed(docker: Engine) -> None:
    docker.ok("run", "--name", "box", IMAGE, "sh", "-c", "echo made > /made")
    docker.ok("commit", "-c", 'CMD ["cat", "/made"]', "box", "made:1")
    assert docker.ok("run", "--rm", "made:1") == "made"
    docker.ok("save", "-o", str(docker.directory / "made.tar"), "made:1")
    docker.ok("rmi", "made:1")
    docker.ok("load", "-i", str(docker.directory / "made.tar"))
    assert docker.ok("run", "--rm", "made:1") == "made"
    docker.ok("export", "-o", str(docker.directory / "flat.tar"), "box")
    docker.ok("import", str(docker.directory / "flat.tar"), "flat:1")
    assert docker.ok("run", "--rm", "flat:1", "cat", "/made") == "made"
    assert "CMD" in docker.ok("history", "--no-trunc", IMAGE)
    docker.ok("rmi", "made:1", "flat:1")


def test_an_archive_needs_no_layers_that_are_here(docker: Engine) -> None:
    whole, part = (str(docker.directory / name) for name in ("whole.tar", "part.tar"))
    docker.ok("run", "--name", "box", IMAGE, "sh", "-c", "echo made > /made")
    docker.ok("commit", "box", "made:1")
    docker.ok("rm", "box")
    docker.ok("save", "-o", whole, "made:1")
    docker.ok("rmi", "made:1")
    with tarfile.open(whole) as tar, tarfile.open(part, "w") as made:
        (saved,) = json.load(tar.extractfile("manifest.json") or io.BytesIO())
        for name in ("manifest.json", saved["Config"], saved["Layers"][-1]):
            made.addfile(tar.getmember(name), tar.extractfile(name))
    assert docker.ok("load", "-i", part) == "Loaded image: made:1"
    assert docker.ok("run", "--rm", "made:1", "cat", "/made") == "made"
    docker.ok("rmi", "made:1")


def test_history_names_the_images_that_others_are_made_of(docker: Engine) -> None:
    made = []
    for number, base in enumerate((IMAGE, "made:0")):
        docker.ok("run", "--name", f"box{number}", base, "sh", "-c", f"echo > /{number}")
        made.append(docker.ok("commit", f"box{number}", f"made:{number}"))
    base = docker.ok("image", "inspect", "-f", "{{.Id}}", IMAGE)
    assert docker.ok("history", "-q", "--no-trunc", "made:1").split()[:3] == [*made[::-1], base]
    docker.ok("rm", "box0", "box1")
    docker.ok("rmi", "made:1", "made:0")


class Terminal:
    """A command on a terminal."""

    def __init__(self, engine: Engine, *words: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
        self.process = subprocess.Popen(
            ["docker", *words], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            env={**engine.environment(), "TERM": "xterm"},
        )  # fmt: skip
        os.close(slave)
        self.seen = b""

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    def wait_seen(self, pattern: bytes, seconds: float = 60) -> None:
        limit = time.monotonic() + seconds
        while not re.search(pattern, self.seen):
            assert time.monotonic() < limit, self.seen
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 65536)

    def code(self) -> int:
        code = self.process.wait(60)
        os.close(self.master)
        return code


def test_a_terminal_is_used_resized_left_and_taken_up_again(docker: Engine) -> None:
    terminal = Terminal(docker, "run", "-it", "--name", "tty", IMAGE, "sh")
    terminal.wait_seen(rb"[#$] ")
    terminal.type(b"stty size; echo a$((1+1))b\n")
    terminal.wait_seen(rb"33 99\r\n(.*\n)*a2b")
    terminal.type(b"\x10\x11")
    assert terminal.code() == 0
    assert docker.inspect("tty")["State"]["Running"] is True
    again = Terminal(docker, "attach", "tty")
    again.type(b"exit 5\n")
    assert again.code() == 5
    docker.ok("start", "tty")
    inside = Terminal(docker, "exec", "-it", "tty", "sh")
    inside.wait_seen(rb"[#$] ")
    inside.type(b"exit 6\n")
    assert inside.code() == 6


def test_events_come_in_dockers_order(docker: Engine) -> None:
    since = str(time.time() - 0.001)
    docker.ok("run", "--name", "seen", "--label", "k=v", IMAGE, "true")
    docker.ok("rm", "seen")
    docker.ok(
        "run",
        "-d",
        "--name",
        "stopped",
        IMAGE,
        "sh",
        "-c",
        "trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done",
    )
    docker.wait_said("stopped", "up")
    docker.ok("stop", "-t", "60", "stopped")
    lines = docker.ok(
        "events", "--since", since, "--until", str(time.time() + 0.2), "--filter", "type=container",
        "--format", "{{.Actor.Attributes.name}} {{.Action}}",
    ).splitlines()  # fmt: skip
    first = [line.split()[1] for line in lines if line.startswith("seen ")]
    assert first == ["create", "attach", "start", "die", "destroy"]
    second = [line.split()[1] for line in lines if line.startswith("stopped ")]
    assert second[:3] == ["create", "start", "kill"] and set(second[3:]) == {"die", "stop"}


def test_what_the_engine_says_of_itself(docker: Engine) -> None:
    docker.ok("run", "-d", "--name", "box", IMAGE, "sleep", "600")
    info = json.loads(docker.ok("info", "--format", "{{json .}}"))
    assert info["ContainersRunning"] == 1 and info["OSType"] == "linux"
    assert docker.ok("version", "--format", "{{.Server.Platform.Name}}") == "sagong"
    assert "Containers      1         1" in docker.ok("system", "df")


def test_what_the_engine_has_not_is_said(docker: Engine) -> None:
    for words in (("swarm", "init"), ("swarm", "join", "--token", "x", "192.0.2.1:2377")):
        assert "swarm mode is not part of this engine" in docker.docker(*words).stderr
    assert "docker swarm init" in docker.docker("node", "ls").stderr
    said = docker.docker("plugin", "install", "--grant-all-permissions", "x").stderr
    assert "managed plugins are not part of this engine" in said


def test_a_restart_of_the_service_stops_nothing(docker: Engine) -> None:
    docker.ok("run", "-d", "--name", "lives", "--label", "k=v", IMAGE, "sleep", "600")
    os.kill(docker.instance.pid("docker"), 9)
    assert docker.inspect("lives")["Config"]["Labels"]["k"] == "v"
    assert docker.ok("exec", "lives", "echo", "still") == "still"
    os.kill(docker.instance.pid("node"), 9)
    assert docker.ok("exec", "lives", "echo", "again") == "again"
    assert docker.ok("ps", "--format", "{{.Names}}") == "lives"


def test_names_and_addresses_that_one_container_asks_for(docker: Engine) -> None:
    docker.ok("network", "create", "--subnet", "10.124.0.0/24", "--ipv6", "names")
    docker.ok("run", "-d", "--name", "db", "--network", "names", IMAGE, "sleep", "600")
    options: tuple[str, ...] = ("--network", "names", "--link", "db:store", "--dns", "198.51.100.7")
    options += ("--ip", "10.124.0.9", "--mac-address", "02:42:0a:7c:00:99")
    options += ("--add-host", "gateway:host-gateway")
    docker.ok("run", "-d", "--name", "asker", *options, IMAGE, "sleep", "600")
    place = docker.inspect("asker")["NetworkSettings"]["Networks"]["names"]
    assert (place["IPAddress"], place["MacAddress"]) == ("10.124.0.9", "02:42:0a:7c:00:99")
    assert place["GlobalIPv6Address"].startswith("fd")
    db = docker.inspect("db")["NetworkSettings"]["Networks"]["names"]["IPAddress"]
    assert f"PING store ({db})" in docker.ok("exec", "asker", "ping", "-4", "-c", "1", "store")
    assert "store" not in docker.ok("exec", "asker", "cat", "/etc/hosts")
    assert "\tgateway" in docker.ok("exec", "asker", "cat", "/etc/hosts")
    assert "nameserver 127.0.0.11" in docker.ok("exec", "asker", "cat", "/etc/resolv.conf")


def test_interfaces_by_name_and_networks_of_ipv6_alone(docker: Engine) -> None:
    docker.ok("network", "create", "--ipv4=false", "--ipv6", "six")
    docker.ok("network", "create", "four")
    shown = docker.ok("network", "inspect", "-f", "{{.EnableIPv4}} {{.EnableIPv6}}", "six", "four")
    assert shown.split() == ["false", "true", "true", "false"]
    neither = docker.docker("network", "create", "--ipv4=false", "none-at-all")
    assert "IPv4 or IPv6 must be enabled" in neither.stderr
    own = "driver-opt=com.docker.network.endpoint.ifname=lan7"
    set_ = "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1"
    place = f'name=four,{own},"driver-opt={set_},net.ipv4.conf.IFNAME.forwarding=0"'
    docker.ok("run", "-d", "--name", "named", "--network", place, IMAGE, "sleep", "600")
    settings = (
        "cat /proc/sys/net/ipv4/conf/lan7/log_martians /proc/sys/net/ipv4/conf/lan7/forwarding"
    )
    assert docker.ok("exec", "named", "sh", "-c", settings).split() == ["1", "0"]
    later = "com.docker.network.endpoint.ifname=six6"
    docker.ok("network", "connect", "--driver-opt", later, "--gw-priority", "5", "six", "named")
    found = docker.inspect("named")["NetworkSettings"]["Networks"]
    assert (found["six"]["DriverOpts"], found["six"]["GwPriority"]) == (
        {later.split("=")[0]: "six6"},
        5,
    )
    assert (found["six"]["IPAddress"], found["four"]["IPAddress"][:3]) == ("", "172")
    docker.ok("restart", "-t", "0", "named")
    assert {"lan7", "six6"} <= set(docker.ok("exec", "named", "ls", "/sys/class/net").split())
    docker.ok("run", "-d", "--name", "only", "--network", "six", IMAGE, "sleep", "600")
    address = docker.inspect("only")["NetworkSettings"]["Networks"]["six"]["GlobalIPv6Address"]
    assert f"PING only ({address})" in docker.ok("exec", "named", "ping", "-6", "-c", "1", "only")
    wrong = ("--driver-opt", "com.docker.network.endpoint.ifname=a/b")
    assert "a/b" in docker.docker("network", "connect", *wrong, "four", "only").stderr


def test_containers_on_a_macvlan(docker: Engine) -> None:
    docker.ok("network", "create", "-d", "macvlan", "--subnet", "10.125.0.0/24", "lan")
    docker.ok(
        "run", "-d", "--name", "one", "--network", "lan", "-p", "8099:80", IMAGE, "sleep", "600"
    )
    address = docker.inspect("one")["NetworkSettings"]["Networks"]["lan"]["IPAddress"]
    assert f"PING one ({address})" in docker.ok(
        "run", "--rm", "--network", "lan", IMAGE, "ping", "-c", "1", "one"
    )
    assert docker.ok("port", "one") == ""
    failed = docker.docker("network", "create", "-d", "macvlan", "-o", "parent=nosuch0", "other")
    assert "there is no such interface" in failed.stderr


def test_pruning_gives_the_disk_back(docker: Engine) -> None:
    def held() -> int:
        """Bytes below the instance's data that are of images, containers and volumes."""
        done = subprocess.run(
            ["du", "-sb", str(docker.instance.paths.data / "plugins")],
            capture_output=True, text=True,
        )  # fmt: skip
        # What goes while it is counted is an error to `du`; it counts on.
        assert done.stdout, done.stderr
        return int(done.stdout.split()[0])

    before = held()
    docker.ok("run", "--name", "big", "-v", "bigvol:/v", IMAGE, "sh", "-c",
              "head -c 5m /dev/urandom > /big; head -c 5m /dev/urandom > /v/big")  # fmt: skip
    docker.ok("commit", "big", "big:1")
    docker.ok("network", "create", "big")
    assert held() > before + (15 << 20) - (1 << 20)
    assert "5.2" in docker.ok("system", "df", "-v")
    docker.ok("system", "prune", "-f", "--volumes")
    assert docker.ok("ps", "-aq") == "" and "big" not in docker.ok("network", "ls")
    assert docker.ok("images", "-q", "big"), "it has a name: only -a takes it"
    docker.ok("create", "--name", "holder", IMAGE)
    docker.ok("image", "prune", "-af")
    assert docker.ok("images", "-q", "big") == "" and docker.ok("images", "-q", IMAGE)
    docker.ok("volume", "prune", "-af")
    docker.wait_until(lambda: held() < before + (1 << 20))
    # Of a stopped container's image nothing is left either, once the container is pruned with it.
    docker.ok("system", "prune", "-af")
    assert docker.ok("images", "-q") == ""
    docker.ok("load", "-i", str(docker.directory / "sample.tar"))


def test_an_end_for_want_of_memory_is_told(docker: Engine) -> None:
    docker.docker("run", "--name", "hungry", "--memory", "16m", "--memory-swap", "16m", IMAGE,
                  "sh", "-c", "a=x; while true; do a=$a$a; done")  # fmt: skip
    state = docker.inspect("hungry")["State"]
    assert (state["OOMKilled"], state["ExitCode"]) == (True, 137), state
