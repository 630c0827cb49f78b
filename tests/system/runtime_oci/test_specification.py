"""What a configuration says holds in the container: the specification's keys, one row each."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from contextlib import suppress
from fcntl import ioctl
from typing import Any, NamedTuple

import pytest
from tests.conformance.runtime_rig import BUSYBOX
from tests.system.runtime_oci.bundles import NAMESPACES, Bundle

from sagong.linux import process as descriptors

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
    ("new mount namespace", {"linux": {"namespaces": [{"type": "pid"}]}}),
    ("named twice", {"linux": {"namespaces": [{"type": "mount"}, {"type": "mount"}]}}),
    ("mounts", {"mounts": [{"type": "proc"}]}),
]  # fmt: skip


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
