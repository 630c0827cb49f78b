"""What a configuration says holds in the container: the specification's keys, one row each."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from fcntl import ioctl
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.conformance.runtime_rig import BUSYBOX
from tests.system.runtime_oci.bundles import MOUNTS, NAMESPACES, Bundle

from sagong.linux import process as descriptors
from sagong_runtime_linux.oci.filters import flags_of

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox (package busybox-static)"),
]


class Row(NamedTuple):
    """What is configured, and what a script inside then says."""

    key: str
    changes: dict[str, Any]
    script: str
    said: str


def _with_time(*offsets: tuple[str, int]) -> dict[str, Any]:
    kinds = [{"type": kind} for kind in (*NAMESPACES, "time")]
    return {"namespaces": kinds, "timeOffsets": {c: {"secs": s} for c, s in offsets}}


def _seccomp(*calls: dict[str, Any]) -> dict[str, Any]:
    return {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": list(calls)}}


DAYS = 100 * 86_400
RLIMITS = [
    {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
    {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
]
FEW = [{"type": "RLIMIT_NOFILE", "soft": 4, "hard": 4}]
FOUR = "ulimit -Hn"
# kill(pid, 10) is refused, kill(pid, 0) is not.
NO_USR1 = {
    "names": ["kill"],
    "action": "SCMP_ACT_ERRNO",
    "errnoRet": 1,
    "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}],
}
# chmod to a mode that has the write bit of others.
NO_WIDE = {
    "names": ["chmod"],
    "action": "SCMP_ACT_ERRNO",
    "errnoRet": 30,
    "args": [{"index": 1, "value": 2, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}],
}
AFFINE = {"class": "IOPRIO_CLASS_IDLE", "priority": 0}
NAMES = ["CAP_CHOWN", "CAP_NO_SUCH"]
CAPABILITIES = {"bounding": NAMES, "permitted": NAMES, "effective": NAMES}
WHERE = "/proc/sys/kernel/domainname"
READ_ONLY = "touch /x 2> /dev/null || echo ro"
SIGNALS = "kill -0 $$ && echo may; kill -10 $$ 2> /dev/null || echo not"
MODES = "chmod 755 /tmp && echo may; chmod 757 /tmp 2> /dev/null || echo not"
LIMITS = "ulimit -n; ulimit -Hn; ulimit -c"
HUGE = [{"pageSize": "3MB", "limit": 0}]
MESSAGES = {"kernel.msgmax": "9000"}
ALLOWED = {"defaultAction": "SCMP_ACT_ALLOW"}
HALF = {"destination": "/x", "uidMappings": [{"containerID": 0, "hostID": 5, "size": 1}]}
LOG_FLAG, KILLABLE = (f"SECCOMP_FILTER_FLAG_{name}" for name in ("LOG", "WAIT_KILLABLE_RECV"))
SCORE = "/proc/self/oom_score_adj"

ROWS = [
    Row(
        "linux.timeOffsets",
        {"linux": _with_time(("boottime", DAYS), ("monotonic", 5))},
        f"test $(cut -d. -f1 /proc/uptime) -gt {DAYS} && echo ahead",
        "ahead",
    ),
    Row(
        "linux.namespaces time without offsets",
        {"linux": _with_time()},
        "readlink /proc/self/ns/time",
        "time:[",
    ),
    Row("linux.personality", {"linux": {"personality": {"domain": "LINUX32"}}}, "uname -m", "i686"),
    Row(
        "process.scheduler",
        {"process": {"scheduler": {"policy": "SCHED_BATCH", "nice": 7}}},
        "cut -d' ' -f19,41 /proc/self/stat",
        "7 3",
    ),
    Row("process.ioPriority", {"process": {"ioPriority": AFFINE}}, "ionice -p $$", "idle"),
    Row("process.oomScoreAdj", {"process": {"oomScoreAdj": 77}}, f"cat {SCORE}", "77"),
    Row("process.rlimits", {"process": {"rlimits": RLIMITS}}, LIMITS, "100\n200\n0"),
    Row("process.rlimits that leave a start no descriptor", {"process": {"rlimits": FEW}}, FOUR, "4"),
    Row(
        "process.noNewPrivileges",
        {"process": {"noNewPrivileges": True}},
        "grep NoNewPrivs /proc/self/status",
        "NoNewPrivs:\t1",
    ),
    Row(
        "process.capabilities that nobody knows",
        {"process": {"capabilities": CAPABILITIES}},
        "grep CapEff /proc/self/status",
        "CapEff:\t0000000000000001",
    ),
    Row(
        "process.user",
        {"process": {"user": {"uid": 5, "gid": 6, "umask": 0o27, "additionalGids": [7, 8]}}},
        "id -u; id -g; id -G; umask",
        "5\n6\n6 7 8\n0027",
    ),
    Row(
        "linux.sysctl",
        {"linux": {"sysctl": {"kernel.msgmax": "9000"}}},
        "cat /proc/sys/kernel/msgmax",
        "9000",
    ),
    Row(
        "linux.maskedPaths and readonlyPaths",
        {"linux": {"maskedPaths": ["/proc/kcore", "/sys/firmware"], "readonlyPaths": ["/etc"]}},
        "ls /sys/firmware | wc -l; touch /etc/x 2> /dev/null || echo ro",
        "0\nro",
    ),
    Row(
        "linux.maskedPaths and readonlyPaths from the root on",
        {"linux": {"maskedPaths": ["proc/timer_list"], "readonlyPaths": ["etc"]}},
        "wc -c < /proc/timer_list; touch /etc/x 2> /dev/null || echo ro",
        "0\nro",
    ),
    Row(
        "linux.rootfsPropagation",
        {"linux": {"rootfsPropagation": "shared"}},
        "awk '$5 == \"/\" {print $7}' /proc/self/mountinfo | cut -d: -f1",
        "shared",
    ),
    Row(
        "linux.rootfsPropagation unbindable",
        {"linux": {"rootfsPropagation": "unbindable"}},
        "grep -c unbindable /proc/self/mountinfo",
        "1",
    ),
    Row("hostname, domainname", {"hostname": "h", "domainname": "d"}, f"hostname; cat {WHERE}", "h\nd"),
    Row("root.readonly", {"root": {"path": "rootfs", "readonly": True}}, READ_ONLY, "ro"),
    Row("linux.seccomp with args", {"linux": _seccomp(NO_USR1)}, SIGNALS, "may\nnot"),
    Row(
        "linux.seccomp with a mask",
        {"linux": _seccomp(NO_WIDE)},
        MODES,
        "may\nnot",
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key.replace(" ", "-"))
def test_it_holds(bundle: Bundle, row: Row) -> None:
    changes = json.loads(json.dumps(row.changes))
    if "root" in changes:
        changes["root"]["path"] = str(bundle.rootfs)
    (bundle.rootfs / "tmp").mkdir(exist_ok=True)
    found = "\n".join(bundle.output(row.script, **changes))
    assert found.startswith(row.said), found


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("linux.intelRdt", {"linux": {"intelRdt": {"closID": "c"}}}),
    ("linux.netDevices", {"linux": {"netDevices": {"eth0": {}}}}),
    ("linux.resources.network", {"linux": {"resources": {"network": {"classID": 1}}}}),
    ("invalid configuration", {"mounts": [{"destination": 7}]}),
    ("realtimeRuntime", {"linux": {"resources": {"cpu": {"realtimeRuntime": 1000}}}}),
    ("execCPUAffinity", {"process": {"execCPUAffinity": {"initial": "0"}}}),
    ("linux.timeOffsets", {"linux": {"timeOffsets": {"boottime": {"secs": 1}}}}),
    ("personality.domain", {"linux": {"personality": {"domain": "BSD"}}}),
    ("personality.flags", {"linux": {"personality": {"domain": "LINUX", "flags": ["X"]}}}),
    ("scheduler.policy", {"process": {"scheduler": {"policy": "SCHED_FAST"}}}),
    ("ioPriority.class", {"process": {"ioPriority": {"class": "FIRST"}}}),
    ("rootfsPropagation", {"linux": {"rootfsPropagation": "loud"}}),
    ("unified", {"linux": {"resources": {"unified": {"cgroup.procs": "1"}}}}),
    ("hugetlb.3MB.max", {"linux": {"resources": {"hugepageLimits": HUGE}}}),
    ("SCMP_ACT_NOTIFY", {"linux": _seccomp({"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"})}),
    ("seccomp.flags", {"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["X"]}}}),
    ("SCMP_ACT_DANCE", {"linux": _seccomp({"names": ["mkdir"], "action": "SCMP_ACT_DANCE"})}),
    ("new mount namespace", {"linux": {"namespaces": [{"type": "user"}]}}),
    ("hostname needs a uts", {"hostname": "h", "linux": {"namespaces": [{"type": "mount"}]}}),
    ("msgmax needs ipc", {"linux": {"namespaces": [{"type": "mount"}], "sysctl": MESSAGES}}),
    ("in no namespace", {"linux": {"sysctl": {"vm.swappiness": "1"}}}),
    ("uidMappings need", {"linux": {"uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}}),
    ("there twice", {"process": {"rlimits": [RLIMITS[0], RLIMITS[0]]}}),
    ("timeout must be", {"hooks": {"prestart": [{"path": "/bin/true", "timeout": 0}]}}),
    ("annotations", {"annotations": {"": "x"}}),
    ("1.x.y", {"ociVersion": "1.1"}),
    ("takes no errno", {"linux": _seccomp({**NO_USR1, "action": "SCMP_ACT_ALLOW"})}),
    ("names is empty", {"linux": _seccomp({"names": [], "action": "SCMP_ACT_ERRNO"})}),
    ("listenerPath", {"linux": {"seccomp": {**ALLOWED, "listenerMetadata": "m"}}}),
    ("has no source", {"mounts": [{"destination": "/x", "type": "bind"}]}),
    ("idmap needs", {"mounts": [{"destination": "/x", "source": "/", "options": ["bind", "idmap"]}]}),
    ("mapped together", {"mounts": [{**HALF, "source": "/", "options": ["bind"]}]}),
    ("named twice", {"linux": {"namespaces": [{"type": "mount"}, {"type": "mount"}]}}),
    ("mounts", {"mounts": [{"type": "proc"}]}),
]  # fmt: skip


def test_flags_of_a_filter_are_those_that_are_named(bundle: Bundle) -> None:
    assert [flags_of({"flags": f}) for f in (None, [], [LOG_FLAG, KILLABLE])] == [4, 0, 34]
    what = {**ALLOWED, "syscalls": [NO_USR1]}
    logged = {"seccomp": {**what, "flags": [LOG_FLAG]}}
    assert bundle.output(SIGNALS, linux=logged) == ["may", "not"]
    # Only who is asked can wait in another way: the kernel's own refusal.
    bundle.configure("true", linux={"seccomp": {**what, "flags": [KILLABLE]}})
    assert "loading the seccomp filter" in bundle.refused("create", "box")


def test_tests_of_one_argument_are_alternatives(bundle: Bundle) -> None:
    tests = [{"index": 1, "value": number, "op": "SCMP_CMP_EQ"} for number in (10, 12)]
    linux = _seccomp({**NO_USR1, "args": tests})
    script = "for n in 0 10 12; do kill -$n $$ 2> /dev/null && echo may || echo not; done"
    assert bundle.output(script, linux=linux) == ["may", "not", "not"]


# What the bindings of a runtime in Python want to call once the filter is there.
OF_A_RUNTIME = {
    "names": ["close_range", "pidfd_open", "mount", "open_tree", "setns", "sendmsg", "recvmsg"],
    "action": "SCMP_ACT_ERRNO",
}


@pytest.mark.parametrize("forbid", [True, False], ids=["no_new_privs", "privileged"])
def test_a_filter_forbids_the_program_and_not_its_start(bundle: Bundle, *, forbid: bool) -> None:
    linux = _seccomp(OF_A_RUNTIME)
    changes = {"linux": linux, "process": {"noNewPrivileges": forbid}}
    assert bundle.output("echo done", **changes) == ["done"]
    bundle.configure("sleep 1000", **changes)
    bundle.create()
    bundle("start", "box")
    assert bundle("exec", "box", "echo", "done") == "done\n"


def test_capabilities_that_cannot_be_granted_are_a_warning(bundle: Bundle) -> None:
    bundle.configure("true", process={"capabilities": CAPABILITIES})
    log = bundle.directory / "log"
    bundle("--log", str(log), "--log-format", "json", "run", "box")
    entry = json.loads(log.read_text())
    assert (entry["level"], "CAP_NO_SUCH" in entry["msg"]) == ("warning", True)


@pytest.mark.parametrize("how", ["inherited", "joined"])
def test_a_mount_namespace_of_others_is_left_as_it_was(bundle: Bundle, how: str) -> None:
    with subprocess.Popen(["unshare", "--mount", "sleep", "1000"]) as other:
        try:
            path = f"/proc/{other.pid}/ns/mnt"
            own = os.readlink("/proc/self/ns/mnt")
            wait_until(lambda: os.readlink(path) != own)
            entry = [{"type": "mount", "path": path}] if how == "joined" else []
            spaces = [{"type": kind} for kind in NAMESPACES if kind != "mount"]
            linux = {"namespaces": [*spaces, *entry], "maskedPaths": ["/proc/timer_list"]}
            bundle.configure("readlink /proc/self/ns/mnt; sleep 1000", linux=linux)
            bundle.create()
            bundle("start", "box")
            script = "readlink /proc/self/ns/mnt; ls /; wc -c < /proc/timer_list; mount | wc -l"
            said = bundle("exec", "box", "sh", "-c", script).split()
            assert said[0] == (os.readlink(path) if how == "joined" else own)
            assert set(os.listdir(bundle.rootfs)) == set(said[1:-2])
            assert said[-2] == "0"
            bundle("delete", "--force", "box")
            for pid in ("self", other.pid):
                assert str(bundle.rootfs) not in Path(f"/proc/{pid}/mountinfo").read_text()
        finally:
            other.kill()


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for a condition."""
    for _ in range(1500):
        if holds():
            return
        time.sleep(0.02)
    raise AssertionError(holds)


def test_a_moved_root_hides_the_hosts_proc(bundle: Bundle) -> None:
    what = {"args": ["unshare", "-mrpf", "mount", "-t", "proc", "none", "/proc"]}
    masked = {"maskedPaths": ["/proc/timer_list"]}
    names = ["CAP_SETFCAP", "CAP_SETUID", "CAP_SETGID"]
    sets = {"capabilities": {"bounding": names, "permitted": names, "effective": names}}
    bundle.configure(process={**what, **sets}, linux=masked)
    done = bundle.call("run", "--no-pivot", "box")
    assert (done.returncode, "ermission denied" in done.stderr) == (1, True), done


def test_the_root_is_moved_where_it_can_not_be_pivoted(bundle: Bundle) -> None:
    bundle.configure("ls /; test -e /work && echo host; mount | grep -c ' / '; ls /proc/1/root")
    done = bundle.call("run", "--no-pivot", "box")
    names = sorted(os.listdir(bundle.rootfs))
    assert done.stdout.split() == [*names, "1", *names], done.stderr


def test_a_session_keyring_is_made_unless_told_otherwise(bundle: Bundle) -> None:
    name = f"keys{os.getpid()}"
    script = f"grep -c _ses.{name} /proc/keys; true"
    if not Path("/proc/keys").exists():
        pytest.skip("needs a kernel with keyrings")
    bundle.configure(script)
    assert bundle("run", "--no-new-keyring", name) == "0\n"
    assert bundle("run", name) == "1\n"


SPREADS = "awk '$5 == \"/spot\" {print $6, $7}' /proc/self/mountinfo"
ATTRIBUTES = [
    (["bind", "shared"], "rw,relatime shared:"),
    (["bind", "noatime", "nodev"], "rw,nodev,noatime -"),
    (["bind", "ro", "rw"], "rw,relatime -"),
    (["bind", "rro", "rnosuid"], "ro,nosuid,relatime -"),
    (["rbind", "rstrictatime", "rnoexec", "rexec"], "rw -"),
]


@pytest.mark.parametrize(("options", "said"), ATTRIBUTES, ids=[str(row[0]) for row in ATTRIBUTES])
def test_options_of_binds_hold(bundle: Bundle, options: list[str], said: str) -> None:
    (bundle.directory / "given").mkdir()
    mount = {"destination": "/spot", "source": "given", "options": options}
    (found,) = bundle.output(SPREADS, mounts=[*MOUNTS, mount])
    assert found.startswith(said), found


def test_a_mount_is_changed_by_remount_and_recursively(bundle: Bundle) -> None:
    source = bundle.directory / "given"
    source.mkdir()
    mounts = [
        *MOUNTS,
        {"destination": "spot", "source": "given", "options": ["bind"]},
        {"destination": "/spot", "type": "bind", "options": ["bind", "remount", "ro"]},
        {"destination": "/other", "type": "tmpfs", "options": ["rro", "rnosuid"]},
    ]
    script = "grep -E ' /(spot|other) ' /proc/mounts | cut -d' ' -f2,4"
    found = bundle.output(script, mounts=mounts)
    assert [line.split(",")[0] for line in found] == ["/spot ro", "/other ro"]


def test_devices_are_supplied_without_a_mount_and_never_put_over_others(bundle: Bundle) -> None:
    root = bundle.directory / "own"
    shutil.copytree(bundle.rootfs, root, symlinks=True)
    mounts = [entry for entry in MOUNTS if not entry["destination"].startswith("/dev")]
    null = {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600}
    changes: dict[str, Any] = {"root": {"path": "own"}, "mounts": mounts}
    script = "echo x > /dev/full; echo y > /dev/null && readlink /dev/fd; stat -c %a /dev/null"
    linux = {"devices": [null]}
    assert bundle.output(script, **changes, linux=linux) == ["/proc/self/fd", "600"]
    bundle.configure("true", **changes, linux={"devices": [{**null, "minor": 5}]})
    assert "/dev/null of the image is another file" in bundle.refused("create", "box")


@pytest.mark.parametrize(("text", "changes"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_does_not_hold_is_refused_by_its_key(
    bundle: Bundle, text: str, changes: dict[str, Any]
) -> None:
    bundle.configure("true", **json.loads(json.dumps(changes)))
    said = bundle.refused("create", "box")
    if text == "hugetlb.3MB.max":
        assert "hugepageLimits" in said
    else:
        assert text in said


# struct seccomp_notif: id, pid, flags, data; struct seccomp_notif_resp: id, val, error, flags.
_RECEIVE, _SEND = 0xC0502100, 0xC0182101


def answer(listener: socket.socket, told: list[dict[str, Any]]) -> None:
    """An agent: every call that it is asked about fails with EXDEV."""
    channel, _ = listener.accept()
    with channel:
        data, (notify,) = descriptors.receive_descriptors(channel, 1 << 16)
    told.append(json.loads(data))
    with suppress(OSError):
        while True:
            asked = bytearray(80)
            ioctl(notify, _RECEIVE, asked)
            (identity,) = struct.unpack_from("=Q", asked)
            ioctl(notify, _SEND, struct.pack("=QqiI", identity, 0, -18, 0))
    os.close(notify)


@pytest.mark.parametrize("forbid", [True, False], ids=["no_new_privs", "privileged"])
def test_a_program_outside_answers_for_a_filter(bundle: Bundle, *, forbid: bool) -> None:
    path = bundle.directory / "agent"
    linux = _seccomp({"names": ["mkdir", "sendmsg"], "action": "SCMP_ACT_NOTIFY"})
    linux["seccomp"] |= {"listenerPath": str(path), "listenerMetadata": "meta"}
    told: list[dict[str, Any]] = []
    script = "mkdir /x 2>&1; sleep 1000"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        agent = threading.Thread(target=answer, args=(listener, told), daemon=True)
        agent.start()
        bundle.configure(script, linux=linux, process={"noNewPrivileges": forbid})
        bundle.create("box")
        bundle("start", "box")
        again = threading.Thread(target=answer, args=(listener, told), daemon=True)
        again.start()
        found = bundle.call("exec", "box", "sh", "-c", "mkdir /y 2>&1")
        assert "Invalid cross-device link" in found.stdout, found
        pid = bundle.state()["pid"]
        bundle("delete", "--force", "box")
        agent.join(10)
        again.join(10)
    first, second = told
    assert (first["fds"], first["metadata"], first["pid"]) == (["seccompFd"], "meta", pid)
    assert (first["state"]["id"], first["state"]["status"]) == ("box", "creating")
    assert (second["state"]["status"], second["state"]["pid"]) == ("running", pid)
    assert second["pid"] != pid
    assert not (bundle.rootfs / "x").exists() and not (bundle.rootfs / "y").exists()


def test_an_agent_that_is_not_there_prevents_the_start(bundle: Bundle) -> None:
    linux = _seccomp({"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"})
    linux["seccomp"] |= {"listenerPath": str(bundle.directory / "nobody")}
    bundle.configure("true", linux=linux)
    assert "linux.seccomp.listenerPath" in bundle.refused("create", "box")


def test_features_name_what_the_rows_use(bundle: Bundle) -> None:
    found = json.loads(bundle("features"))
    assert set(found["hooks"]) >= {"createRuntime", "createContainer", "startContainer", "poststop"}
    linux = found["linux"]
    assert "time" in linux["namespaces"]
    assert "SCMP_ACT_NOTIFY" in linux["seccomp"]["actions"]
    assert "SCMP_CMP_MASKED_EQ" in linux["seccomp"]["operators"]
    assert linux["intelRdt"] == {"enabled": False}
    assert {"rbind", "ro", "rro", "nosuid", "rslave", "tmpcopyup"} <= set(found["mountOptions"])
