"""`sagong-runtime` does what the OCI runtime specification says, sentence by sentence."""

from __future__ import annotations

import array
import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.runtime_rig import BUSYBOX, SOURCES
from tests.system.runtime_oci.bundles import CAPABILITIES, MOUNTS, Bundle, program

from sagong.linux.cgroup import layout_of_machine

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox (package busybox-static)"),
]


def wait_for_status(bundle: Bundle, status: str) -> None:
    """Wait until a container has ended."""
    for _ in range(1000):
        if bundle.state()["status"] == status:
            return
        time.sleep(0.02)
    raise AssertionError(bundle.state())


# -- runtime.md: the life of a container ---------------------------------------------------------


def test_a_container_goes_through_its_states(bundle: Bundle) -> None:
    bundle.configure("sleep 1000", annotations={"a": "b"})
    bundle.create("box", "--pid-file", str(bundle.directory / "pid"))
    state = bundle.state()
    assert state["ociVersion"].startswith("1.")
    assert (state["id"], state["status"]) == ("box", "created")
    assert (state["bundle"], state["annotations"]) == (str(bundle.directory), {"a": "b"})
    assert (bundle.directory / "pid").read_text() == str(state["pid"])
    assert Path(f"/proc/{state['pid']}/comm").read_text().strip() != "sleep"
    bundle("start", "box")
    assert bundle.state()["status"] == "running"
    assert "not created" in bundle.refused("start", "box")
    assert "it is running" in bundle.refused("delete", "box")
    bundle("pause", "box")
    assert bundle.state()["status"] == "paused"
    bundle("resume", "box")
    bundle("kill", "box", "KILL")
    wait_for_status(bundle, "stopped")
    assert "not running" in bundle.refused("kill", "box", "9")
    assert "not created" in bundle.refused("start", "box")
    bundle("delete", "box")
    assert "does not exist" in bundle.refused("state", "box")
    assert "does not exist" in bundle.refused("delete", "box")
    bundle("delete", "--force", "box")


def test_its_code_may_be_replaced_while_containers_live(bundle: Bundle, tmp_path: Path) -> None:
    """Who waits to be started has all that it needs; every call is of the code that is there."""
    code = tmp_path / "code"

    def install() -> None:
        shutil.rmtree(code, ignore_errors=True)
        code.mkdir()
        for source in map(Path, SOURCES.split(":")):
            for name in ("sagong", "sagong_runtime_linux"):
                if (source / name).is_dir():
                    shutil.copytree(source / name, code / name)

    install()
    bundle.runtime = program(tmp_path, str(code))
    for name in ("started", "waiting"):
        bundle.configure("sleep 1000", linux={"cgroupsPath": f"{bundle.cgroup}/{name}"})
        bundle.create(name)
    bundle("start", "started")
    install()
    bundle("start", "waiting")
    for name in ("started", "waiting"):
        assert bundle("exec", name, "echo", "here") == "here\n"
        bundle("pause", name)
        bundle("resume", name)
    install()
    for name in ("started", "waiting"):
        bundle("kill", name, "KILL")
        bundle("delete", "--force", name)


def test_who_is_killed_while_paused_ends(bundle: Bundle) -> None:
    bundle.configure("sleep 1000")
    bundle.create("box")
    bundle("start", "box")
    bundle("pause", "box")
    bundle("kill", "box", "KILL")
    wait_for_status(bundle, "stopped")
    bundle("delete", "box")


@pytest.mark.parametrize("verb", ["create", "start", "state", "kill", "delete", "ps", "events"])
def test_each_operation_needs_an_id(bundle: Bundle, verb: str) -> None:
    bundle.configure("true")
    assert "id is missing" in bundle.refused(verb)


def test_an_id_is_used_once_and_changes_of_the_bundle_come_too_late(bundle: Bundle) -> None:
    bundle.configure("sleep 1000")
    bundle.create()
    assert "exists already" in bundle.refused("create", "box")
    bundle.configure("exit 1", process={"env": ["PATH=/bin", "LATE=1"]})
    bundle("start", "box")
    pid = bundle.state()["pid"]
    assert "sleep" in Path(f"/proc/{pid}/cmdline").read_text()
    assert bundle("exec", "box", "sh", "-c", "echo $LATE.$0") == ".sh\n"
    bundle("delete", "--force", "box")
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"ociVersion": "2.0.0"}, "ociVersion"),
        ({"process": {"args": []}}, "process.args"),
        ({"process": {"cwd": "relative"}}, "process.cwd"),
        ({"root": {"path": "nowhere"}}, "root.path"),
        ({"process": {"args": ["nonsense"]}}, 'exec: "nonsense": executable file not found'),
        ({"process": {"rlimits": [{"type": "RLIMIT_X", "soft": 1, "hard": 1}]}}, "RLIMIT_X"),
        ({"linux": {"namespaces": [{"type": "strange"}]}}, "strange"),
        ({"linux": {"cgroupsPath": "system.slice:a:b"}}, "--systemd-cgroup"),
        ({"process": {"terminal": True}}, "--console-socket"),
        ({"hooks": {"prestart": [{"path": "relative"}]}}, "absolute"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_is_refused_in_the_log_too(
    bundle: Bundle, changes: dict[str, Any], text: str
) -> None:
    bundle.configure("true", **changes)
    log = bundle.directory / "log"
    said = bundle.refused("--log", str(log), "--log-format", "json", "create", "box")
    assert text in said
    entry = json.loads(log.read_text())
    assert (entry["level"], text in entry["msg"]) == ("error", True)


def test_systemds_manager_is_refused_where_it_is_not(bundle: Bundle) -> None:
    bundle.configure("true", linux={"cgroupsPath": "system.slice:a:b"})
    environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={bundle.directory}/bus"}
    said = bundle.refused("--systemd-cgroup", "create", "box", env=environment)
    alone = layout_of_machine().mode == "v2"
    assert (f"{bundle.directory}/bus: " if alone else "needs cgroup version 2 alone") in said
    assert "use the cgroupfs manager" in said
    assert bundle("list", "--quiet") == ""


@pytest.mark.parametrize(
    ("process", "said"),
    [
        ({"user": {"uid": -1}}, "process.user.uid -1 must be a number from 0"),
        ({"user": {"uid": 1, "gid": 4294967295}}, "process.user.gid 4294967295 must be"),
        ({"user": {"uid": 1, "gid": 1, "additionalGids": [-1]}}, "additionalGids -1 must be"),
        ({"args": "sh"}, "process.args must be a list of strings"),
        ({"env": ["A=b", 1]}, "process.env must be a list of strings"),
    ],
)
def test_a_process_that_can_not_be_is_refused(
    bundle: Bundle, process: dict[str, Any], said: str
) -> None:
    """To the kernel the user -1 is the one it was: root."""
    bundle.configure("id", process=process)
    assert said in bundle.refused("create", "box")
    assert "does not exist" in bundle.refused("state", "box")


def test_a_cgroups_path_leads_nowhere_outside(bundle: Bundle) -> None:
    path = f"../..{bundle.cgroup}/box/a/.."
    bundle.configure("cat /proc/self/cgroup", linux={"cgroupsPath": path})
    groups = bundle("run", "box")
    assert f"{bundle.cgroup}/box\n" in groups and ".." not in groups
    bundle("delete", "--force", "box")


def test_a_refused_create_leaves_its_name_free(bundle: Bundle) -> None:
    bundle.configure("true", linux={"cgroupsPath": "a.slice:b:c"})
    assert "--systemd-cgroup" in bundle.refused("create", "box")
    bundle.configure("true")
    bundle("run", "box")


@pytest.mark.parametrize("how", ["delete", "create"])
def test_a_killed_create_leaves_nothing(bundle: Bundle, how: str) -> None:
    """Its directory and its groups stayed; the name could not be used again."""
    stopped = bundle.directory / "stopped"
    hooks = {
        "createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "60"]}],
        "poststop": [{"path": "/bin/sh", "args": ["sh", "-c", f"cat >{stopped}"]}],
    }
    group = Path(f"/sys/fs/cgroup/pids{bundle.cgroup}/box")
    if not Path("/sys/fs/cgroup/pids").exists():
        group = Path(f"/sys/fs/cgroup{bundle.cgroup}/box")
    bundle.configure("sleep 1000", hooks=hooks)
    command = [str(bundle.runtime), "--root", str(bundle.root), "create", "box"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=bundle.directory) as creator:
        while not (group.exists() and "sleep" in _children(creator.pid)):
            assert creator.poll() is None
            time.sleep(0.02)
        creator.kill()
    assert "does not exist" in bundle.refused("state", "box")
    if how == "delete":
        bundle("delete", "--force", "box")
    else:
        bundle.configure("true")
        bundle("run", "box")
    assert json.loads(stopped.read_text())["status"] == "stopped"
    assert not group.exists()
    assert not (bundle.root / "box").exists()


def _children(pid: int) -> set[str]:
    """Names of a process's children."""
    found = set()
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            found.add(Path(f"/proc/{child}/comm").read_text().strip())
        except OSError:
            continue
    return found


def test_the_exit_status_of_run_and_exec_is_the_programs(bundle: Bundle) -> None:
    bundle.configure("exit 7")
    assert bundle.call("run", "box").returncode == 7
    bundle.configure("kill -9 $$; sh -c 'kill -15 $$'; exit $?")
    assert bundle.call("run", "box").returncode == 143
    bundle.configure("sleep 1000")
    bundle.create()
    bundle("start", "box")
    assert bundle.call("exec", "box", "sh", "-c", "exit 3").returncode == 3


def test_signals_to_run_reach_the_program(bundle: Bundle) -> None:
    bundle.configure("trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    words = [str(bundle.runtime), "--root", str(bundle.root), "run", "box"]
    running = subprocess.Popen(words, cwd=bundle.directory, stdout=subprocess.PIPE)
    assert running.stdout is not None
    assert running.stdout.readline() == b"ready\n"
    running.terminate()
    assert running.wait(60) == 5


def test_signals_have_names_as_systemds_too(bundle: Bundle) -> None:
    script = "trap 'exit 7' 37; :> /ready; while :; do sleep 0.05; done"
    bundle.configure(script)
    for name in ("37", "RTMIN+3", "SIGRTMIN+3"):
        bundle.create()
        bundle("start", "box")
        while bundle.call("exec", "box", "rm", "/ready").returncode:
            time.sleep(0.05)
        bundle("kill", "box", name)
        while bundle.state()["status"] == "running":
            time.sleep(0.05)
        bundle("delete", "box")
    bundle.create()
    for name in ("SIGRTMIN+99", "TERM+1", "RTMIN+x", "+3"):
        assert "does not exist" in bundle.refused("kill", "box", name)


# -- hooks ---------------------------------------------------------------------------------------


def hook(bundle: Bundle, name: str, script: str) -> dict[str, Any]:
    """A hook of a script of ours, which has the state on its standard input."""
    path = bundle.directory / f"hook-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"path": str(path), "args": [name, "x"], "env": ["PATH=/usr/bin:/bin", f"NAME={name}"]}


KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def test_hooks_run_in_order_with_the_state(bundle: Bundle) -> None:
    log = bundle.directory / "hooks.log"
    inside = bundle.directory / "inside.log"
    inside.touch()
    mark = f'echo "$NAME $(cat) $(readlink /proc/self/ns/mnt)" >> {log}'
    hooks = {kind: [hook(bundle, kind, mark)] for kind in KINDS}
    started = {"path": "/bin/sh", "args": ["sh", "-c", "cat > /hook.log"], "env": ["PATH=/bin"]}
    hooks["startContainer"] = [started]
    mount = {"destination": "/hook.log", "type": "bind", "source": str(inside), "options": ["bind"]}
    bundle.configure("sleep 1000", hooks=hooks, mounts=[*MOUNTS, mount])
    bundle.create()
    assert [line.split()[0] for line in log.read_text().splitlines()] == list(KINDS[:3])
    pid = bundle.state()["pid"]
    assert inside.read_text() == ""
    bundle("start", "box")
    assert json.loads(inside.read_text())["id"] == "box"
    bundle("delete", "--force", "box")
    lines = [line.split(" ", 1) for line in log.read_text().splitlines()]
    assert [name for name, _ in lines] == [k for k in KINDS if k != "startContainer"]
    states, spaces = {}, {}
    for name, rest in lines:
        text, _, space = rest.rpartition(" ")
        states[name], spaces[name] = json.loads(text), space
    assert [states[k]["status"] for k in ("createRuntime", "createContainer")] == ["creating"] * 2
    assert states["poststart"]["status"] == "running"
    assert states["poststop"]["status"] == "stopped"
    assert states["createRuntime"]["pid"] == states["createContainer"]["pid"] == pid
    own = os.readlink("/proc/self/ns/mnt")
    assert spaces["createRuntime"] == spaces["poststop"] == own
    assert spaces["createContainer"] != own


def test_a_failing_hook_prevents_the_start_and_a_slow_one_is_killed(bundle: Bundle) -> None:
    bad = hook(bundle, "bad", "echo broken >&2; exit 3")
    for kind in ("prestart", "createRuntime", "createContainer"):
        bundle.configure("sleep 1000", hooks={kind: [bad]})
        said = bundle.refused("create", "box")
        assert f"{kind} hook" in said
        assert "exit 3: broken" in said
        assert bundle("list", "-q") == ""
    slow = {**hook(bundle, "slow", "exec sleep 1000"), "timeout": 1}
    bundle.configure("sleep 1000", hooks={"createRuntime": [slow]})
    assert "too long" in bundle.refused("create", "box")


def test_hooks_of_the_end_run_after_a_failed_create_too(bundle: Bundle) -> None:
    log = bundle.directory / "log"
    bad = hook(bundle, "bad", "exit 3")
    told = hook(bundle, "told", f"cat >> {log}")
    bundle.configure("sleep 1000", hooks={"createRuntime": [bad], "poststop": [bad, told]})
    assert "createRuntime hook" in bundle.refused("create", "box")
    assert json.loads(log.read_text())["status"] == "stopped"
    assert bundle("list", "-q") == ""


@pytest.mark.parametrize("kind", ["startContainer", "poststart"])
def test_a_hook_of_the_start_that_fails_stops_the_container(bundle: Bundle, kind: str) -> None:
    bad = hook(bundle, "bad", "echo broken >&2; exit 3")
    if kind == "startContainer":
        bad = {"path": "/bin/sh", "args": ["sh", "-c", "echo broken >&2; exit 3"]}
    stop = hook(bundle, "stop", "echo late >&2; exit 4")
    bundle.configure("sleep 1000", hooks={kind: [bad], "poststop": [stop]})
    bundle.create()
    said = bundle.refused("start", "box")
    assert f"{kind} hook" in said and "exit 3: broken" in said
    wait_for_status(bundle, "stopped")
    done = bundle.call("delete", "box")
    assert (done.returncode, "exit 4: late" in done.stderr) == (0, True)
    assert bundle("list", "-q") == ""


def test_a_container_without_a_process_is_created_and_never_started(bundle: Bundle) -> None:
    config = bundle.configure()
    del config["process"]
    (bundle.directory / "config.json").write_text(json.dumps(config))
    bundle.create()
    assert bundle.state()["status"] == "created"
    assert "process is not set" in bundle.refused("start", "box")
    bundle("delete", "box")


# -- config.md: process, root, mounts ------------------------------------------------------------


def test_the_process_is_as_configured(bundle: Bundle) -> None:
    masks = {"bounding": CAPABILITIES, "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]}
    process = {
        "env": ["PATH=/bin", "A=b c"],
        "cwd": "/made/here",
        "user": {"uid": 7, "gid": 8, "additionalGids": [9, 10], "umask": 0o27},
        "capabilities": {**masks, "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 33, "hard": 44}],
        "noNewPrivileges": True,
        "oomScoreAdj": 123,
    }
    found = bundle.output(
        "id -u; id -g; id -G; umask; pwd; echo $A; ulimit -Sn; ulimit -Hn; "
        "cat /proc/self/oom_score_adj; grep -E '^(Cap|NoNew)' /proc/self/status; echo $$",
        process=process,
    )
    assert found[:9] == [
        *("7", "8", "8 9 10", "0027", "/made/here", "b c", "33", "44", "123"),
    ]
    kill = f"{1 << 5:016x}"
    sets = dict(line.split(":\t") for line in found[9:-1])
    assert [sets[k] for k in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [kill] * 4
    assert sets["NoNewPrivs"] == "1"
    assert found[-1] == "1"


def test_root_hostname_and_mounts(bundle: Bundle) -> None:
    source = bundle.directory / "source"
    (source / "below").mkdir(parents=True)
    (source / "file").write_text("text\n")
    kept = bundle.rootfs / "kept"
    kept.mkdir(exist_ok=True)
    (kept / "old").write_text("old\n")
    mounts = [
        *MOUNTS,
        {
            "destination": "/new/ro",
            "type": "bind",
            "source": str(source),
            "options": ["rbind", "ro"],
        },
        {"destination": "/one", "source": str(source / "file"), "options": ["bind", "noexec"]},
        {"destination": "/kept", "type": "tmpfs", "options": ["tmpcopyup", "size=1m"]},
    ]
    script = (
        "hostname; cat /proc/sys/kernel/domainname; touch /x || echo ro; cat /new/ro/file; "
        "touch /new/ro/y || echo ro2; cat /one /kept/old; touch /kept/z && echo rw; "
        "grep ' /one ' /proc/mounts | grep -c noexec"
    )
    # Mount points of a read-only root must be there.
    for name in ("new/ro",):
        (bundle.rootfs / name).mkdir(parents=True, exist_ok=True)
    (bundle.rootfs / "one").touch()
    found = bundle.output(
        script,
        root={"path": str(bundle.rootfs), "readonly": True},
        hostname="inside",
        domainname="example.org",
        mounts=mounts,
    )
    assert found == ["inside", "example.org", "ro", "text", "ro2", "text", "old", "rw", "1"]
    assert not (kept / "z").exists()


def test_links_of_the_root_lead_nowhere_outside(bundle: Bundle) -> None:
    outside = bundle.directory / "outside"
    outside.mkdir()
    trap = bundle.rootfs / "trap"
    trap.symlink_to(outside)
    mount = {"destination": "/trap/in", "type": "tmpfs", "options": ["size=1m"]}
    try:
        assert bundle.output("ls -d /trap/in", mounts=[*MOUNTS, mount]) == ["/trap/in"]
        assert list(outside.iterdir()) == []
    finally:
        trap.unlink()
        shutil.rmtree(bundle.rootfs / str(bundle.directory).lstrip("/"), ignore_errors=True)


def test_a_mount_shows_mapped_ids(bundle: Bundle) -> None:
    source = bundle.directory / "source"
    source.mkdir()
    maps = [{"containerID": 0, "hostID": 5000, "size": 10}]
    mount = {
        "destination": "/tmp",
        "type": "bind",
        "source": str(source),
        "options": ["bind"],
        "uidMappings": maps,
        "gidMappings": maps,
    }
    assert bundle.output("stat -c %u /tmp", mounts=[*MOUNTS, mount]) == ["5000"]


# -- config-linux.md -----------------------------------------------------------------------------


def test_devices_masks_sysctls_and_seccomp(bundle: Bundle) -> None:
    linux = {
        "devices": [
            {"path": "/dev/own", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "gid": 3}
        ],
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "sysctl": {"net.ipv4.ip_unprivileged_port_start": "77"},
        "maskedPaths": ["/proc/timer_list", "/sys/firmware", "/proc/none"],
        "readonlyPaths": ["/proc/sys", "/proc/none"],
        "seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
        },
    }
    found = bundle.output(
        "stat -c '%a %g %t:%T' /dev/own; echo x > /dev/own && echo open; "
        "for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done; "
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start; wc -c < /proc/timer_list; "
        "ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/shmmni || echo ro; "
        "mkdir /d || echo denied; mknod /n c 240 77; cat /n 2>&1; true",
        linux=linux,
    )
    assert found[:7] == ["640 3 1:3", "open", "77", "0", "0", "ro", "denied"]
    assert "not permitted" in found[7]
    (bundle.rootfs / "n").unlink()


def test_limits_hold_and_are_updated(bundle: Bundle) -> None:
    resources = {"memory": {"limit": 64 << 20}, "pids": {"limit": 30}, "cpu": {"shares": 512}}
    bundle.configure("sleep 1000", linux={"resources": resources})
    bundle.create()
    bundle("start", "box")

    def seen(version1: str, version2: str) -> str:
        places = (f"{version1.split('.')[0]}{bundle.cgroup}/box/{version1}",)
        for place in (*places, f"{bundle.cgroup.lstrip('/')}/box/{version2}"):
            path = Path("/sys/fs/cgroup") / place
            if path.exists():
                return path.read_text().strip()
        raise AssertionError(f"no {version1}")

    assert seen("memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert seen("pids.max", "pids.max") == "30"
    bundle("update", "--resources", "-", "box", input=json.dumps({"memory": {"limit": 96 << 20}}))
    bundle("update", "--pids-limit", "40", "box")
    assert seen("memory.limit_in_bytes", "memory.max") == str(96 << 20)
    assert seen("pids.max", "pids.max") == "40"
    bundle("update", "--memory", "50M", "box")
    assert seen("memory.limit_in_bytes", "memory.max") == str(50 << 20)
    bundle("update", "--memory", "-1", "box")
    assert seen("memory.limit_in_bytes", "memory.max") in ("max", str(2**63 - 4096))
    assert "realtimePeriod" in bundle.refused(
        "update", "--resources", "-", "box", input=json.dumps({"cpu": {"realtimePeriod": 1}})
    )
    assert len(json.loads(bundle("ps", "--format", "json", "box"))) == 1


def test_a_cgroup_of_others_is_refused(bundle: Bundle) -> None:
    bundle.configure("sleep 1000")
    bundle.create()
    assert "is not empty: 1 process" in bundle.refused("create", "second")
    bundle("start", "box")
    bundle("pause", "box")
    assert "unexpectedly frozen" in bundle.refused("create", "second")
    bundle("resume", "box")
    assert bundle("list", "-q") == "box\n"


def test_events_and_ps_tell_what_a_container_does(bundle: Bundle) -> None:
    memory = {"resources": {"memory": {"limit": 16 << 20, "swap": 16 << 20}}}
    bundle.configure("sleep 1000", linux=memory)
    bundle.create()
    bundle("start", "box")
    (told,) = bundle("events", "--stats", "box").splitlines()
    entry = json.loads(told)
    assert (entry["type"], entry["id"]) == ("stats", "box")
    assert entry["data"]["memory"]["usage"]["limit"] == 16 << 20
    assert entry["data"]["pids"]["current"] == 1
    words = [
        str(bundle.runtime),
        "--root",
        str(bundle.root),
        "events",
        "--interval",
        "100ms",
        "box",
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        assert "stats" in watching.stdout.readline()
        hungry = "a=x; while :; do a=$a$a; done"
        assert bundle.call("exec", "box", "sh", "-c", hungry).returncode == 137
        assert any('"oom"' in line for line in watching.stdout)
        bundle("kill", "box", "KILL")
        # It writes on until it sees the end: to who reads.
        watching.communicate(timeout=60)
        assert watching.returncode == 0
    assert "not running" in bundle.refused("events", "box")
    assert "of the form" in bundle.refused("events", "--interval", "soon", "box")


def test_ps_shows_columns_by_its_own_options(bundle: Bundle) -> None:
    bundle.configure("sleep 1000")
    bundle.create()
    bundle("start", "box")
    header, line = bundle("ps", "box").splitlines()
    assert "PID" in header.split() and "sleep 1000" in line
    assert bundle("ps", "box", "-eo", "comm,pid").split()[:3] == ["COMMAND", "PID", "sleep"]
    assert "no column PID" in bundle.refused("ps", "box", "-eo", "comm")


def test_a_specification_to_begin_with_is_one_that_runs(bundle: Bundle) -> None:
    bundle("spec", "--bundle", str(bundle.directory))
    assert "exists already" in bundle.refused("spec")
    config = json.loads((bundle.directory / "config.json").read_text())
    config["root"]["path"] = str(bundle.rootfs)
    config["process"] |= {"terminal": False, "args": ["echo", "runs"], "env": ["PATH=/bin"]}
    (bundle.directory / "config.json").write_text(json.dumps(config))
    for name in ("proc", "dev", "sys"):
        (bundle.rootfs / name).mkdir(exist_ok=True)
    assert bundle("run", "box") == "runs\n"


def test_errors_of_exec_are_told_apart_from_the_programs(bundle: Bundle) -> None:
    bundle.configure("sleep 1000")
    bundle.create()
    bundle("start", "box")
    assert bundle.call("exec", "box", "false").returncode == 1
    assert bundle.call("exec", "box", "nonsense").returncode == 255
    assert bundle.call("exec", "nobody", "true").returncode == 255
    for options in (("--user", "abc"), ("--user", "0:x"), ("-g", "x"), ("--preserve-fds", "-1")):
        done = bundle.call("exec", *options, "box", "true")
        said = (done.returncode, done.stderr.startswith("option --"), options[1] in done.stderr)
        assert said == (255, True, True), done


def test_namespaces_are_joined_by_their_paths(bundle: Bundle) -> None:
    bundle.configure("sleep 1000", hostname="first")
    bundle.create()
    bundle("start", "box")
    pid = bundle.state()["pid"]
    joined = [
        {"type": kind, "path": f"/proc/{pid}/ns/{file}"}
        for kind, file in (("uts", "uts"), ("ipc", "ipc"), ("network", "net"), ("pid", "pid"))
    ]
    linux = {
        "namespaces": [*joined, {"type": "mount"}],
        "cgroupsPath": f"{bundle.cgroup}/second",
    }
    bundle.configure("hostname; cat /proc/1/comm; test $$ != 1 && echo other", linux=linux)
    done = bundle.call("run", "second")
    assert done.stdout.splitlines() == ["first", "sleep", "other"], done.stderr


def test_a_user_namespace_maps_ids(bundle: Bundle) -> None:
    maps = [{"containerID": 0, "hostID": 100_000, "size": 65_536}]
    linux = {
        "namespaces": [
            *({"type": k} for k in ("user", "pid", "network", "ipc", "uts", "mount")),
        ],
        "uidMappings": maps,
        "gidMappings": maps,
    }
    bundle.configure("id -u; echo x > /dev/null; sleep 1000", linux=linux, hostname="mapped")
    bundle.create()
    bundle("start", "box")
    pid = bundle.state()["pid"]
    status = Path(f"/proc/{pid}/status").read_text()
    assert "Uid:\t100000" in status
    found = bundle("exec", "box", "sh", "-c", "id -u; hostname; echo $$; cat /proc/self/uid_map")
    assert found.split()[:2] == ["0", "mapped"]
    assert found.split()[3:] == ["0", "100000", "65536"]


# -- what callers rely on ------------------------------------------------------------------------


def test_a_terminal_goes_to_the_console_socket(bundle: Bundle) -> None:
    path = bundle.directory / "console"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(2)
        process = {"terminal": True, "consoleSize": {"height": 20, "width": 70}}
        bundle.configure("tty; stty size; sleep 1000", process=process)
        bundle.create("box", "--console-socket", str(path))
        master = received(listener)
        bundle("start", "box")
        assert read_until(master, b"20 70").replace(b"\r", b"").startswith(b"/dev/pts/0\n")
        os.close(master)
        inner = {
            **process,
            "args": ["sh", "-c", "tty; sleep 1000"],
            "env": ["PATH=/bin"],
            "cwd": "/",
        }
        (bundle.directory / "process.json").write_text(json.dumps(inner))
        words = ("--process", "process.json", "--console-socket", str(path), "--pid-file", "inner")
        bundle("exec", "--detach", *words, "box")
        master = received(listener)
        assert b"/dev/pts/1" in read_until(master, b"\n")
        assert Path("/proc", (bundle.directory / "inner").read_text()).exists()
        os.close(master)


def received(listener: socket.socket) -> int:
    """The descriptor that a console socket got."""
    channel, _ = listener.accept()
    with channel:
        _, control, _, _ = channel.recvmsg(100, 100)
    numbers = array.array("i")
    numbers.frombytes(control[0][2][:4])
    return numbers[0]


def read_until(descriptor: int, text: bytes) -> bytes:
    """What a terminal shows up to a text."""
    data = b""
    while text not in data:
        data += os.read(descriptor, 4096)
    return data


def test_preserved_descriptors_and_no_others_reach_the_program(bundle: Bundle) -> None:
    file = bundle.directory / "given"
    file.write_text("given\n")
    bundle.configure("ls /proc/self/fd; cat <&3")
    words = [str(bundle.runtime), "--root", str(bundle.root), "run", "--preserve-fds", "1", "box"]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 3< given', "sh", *words],
        cwd=bundle.directory,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["0", "1", "2", "3", "4", "given"], done.stderr


def test_it_says_what_it_is(bundle: Bundle) -> None:
    assert bundle("--version").startswith("sagong-runtime version ")
    features = json.loads(bundle("features"))
    assert {"user", "cgroup"} <= set(features["linux"]["namespaces"])
    assert "rbind" in features["mountOptions"]
    assert "create" in bundle("--help")
    assert "no command" in bundle.refused("dance")
    assert "--nonsense" in bundle.refused("create", "--nonsense", "box")
