"""Bundles in both directions: from a spec to a configuration, from a configuration to a plan; pure."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sagong.contracts.runtime import (
    Device,
    DeviceRule,
    ExecRequest,
    Limits,
    Mount,
    Namespaces,
    Process,
    Rlimit,
    RunSpec,
)
from sagong.errors import InvalidArgument
from sagong.linux.seccomp_profile import default_policy
from sagong.shim.facts import HostFacts
from sagong.shim.failure import StartError
from sagong_runtime_linux.oci.options import UsageError, parse
from sagong_runtime_linux.oci.planning import namespaces_of, run_plan
from sagong_runtime_linux.oci.resources import limits_from
from sagong_runtime_oci.binary import error_of
from sagong_runtime_oci.planning import exec_request, run_request
from sagong_runtime_oci.resources import resources_of
from sagong_runtime_oci.seccomp_rules import seccomp_of

FACTS = HostFacts(
    protocol=1, pid=1, hierarchies=(), bounding=(1 << 41) - 1, apparmor=False, selinux=False
)
ROOT = Mount(target="/", kind="overlay", options=("lowerdir=/a", "upperdir=/u", "workdir=/w"))


def spec_of(**changes: Any) -> RunSpec:
    """A small container."""
    process = Process(args=("true",), capabilities=("CAP_CHOWN",))
    return RunSpec(**{"id": "abc", "mounts": (ROOT,), "process": process, **changes})


def plan_of(**changes: Any) -> dict[str, Any]:
    """What the engine gets for a spec."""
    request = run_request(spec_of(**changes), FACTS, parent="/sagong")
    return json.loads(request["plan"])  # type: ignore[no-any-return]


def test_a_spec_becomes_a_configuration() -> None:
    process = Process(
        args=("a", "b"),
        tty=True,
        rows=20,
        columns=70,
        rlimits=(Rlimit(name="core", soft=0, hard=-1),),
        capabilities=("CAP_KILL",),
        ambient=True,
        no_new_privileges=True,
    )
    config = plan_of(process=process, hostname="h", domainname="d.org", readonly_root=True)[
        "config"
    ]
    found = config["process"]
    assert found["args"] == ["a", "b"]
    assert found["consoleSize"] == {"height": 20, "width": 70}
    assert found["rlimits"] == [{"type": "RLIMIT_CORE", "soft": 0, "hard": 2**64 - 1}]
    assert set(map(tuple, found["capabilities"].values())) == {("CAP_KILL",)}
    assert found["noNewPrivileges"] is True
    assert (config["hostname"], config["root"]["readonly"]) == ("h", True)
    # Older runtimes have no field for it.
    assert config["linux"]["sysctl"] == {"kernel.domainname": "d.org"}
    assert config["linux"]["cgroupsPath"] == "/sagong/abc"


def test_namespaces_are_new_given_or_the_hosts() -> None:
    spaces = Namespaces(network="path:/run/netns/x", pid="host", ipc="group", uts="new")
    config = plan_of(namespaces=spaces, group="pod")["config"]
    assert namespaces_of(config) == {
        "mount": "",
        "network": "/run/netns/x",
        "ipc": "",
        "uts": "",
        "cgroup": "",
    }
    table = ((0, 1000, 10),)
    mapped = plan_of(namespaces=Namespaces(user="new", uid_map=table, gid_map=table))["config"]
    assert mapped["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 1000, "size": 10}]


def test_what_the_machine_knows_is_left_open() -> None:
    bind = Mount(target="/d", kind="bind", source="/srv", options=("source", "ro", "rslave"))
    plan = plan_of(
        mounts=(ROOT, bind),
        devices=(Device(source="/dev/x", target="/dev/y", permissions="r"),),
        device_rules=(DeviceRule(rule="c 1:* rw"),),
    )
    assert plan["make_sources"] == plan["sources"] == ["/srv"]
    assert plan["devices"] == [["/dev/x", "/dev/y", "r"]]
    (mount,) = plan["config"]["mounts"]
    assert mount["options"] == ["rbind", "ro", "rslave"]
    linux = plan["config"]["linux"]
    assert linux["rootfsPropagation"] == "slave"
    rule = {"allow": True, "type": "c", "major": 1, "access": "rw"}
    assert linux["resources"]["devices"] == [{"allow": False, "access": "rwm"}, rule]


@pytest.mark.parametrize(
    "changes",
    [
        {"mounts": (Mount(target="/", kind="proc"),)},
        {"mounts": (ROOT, Mount(target="/x", kind="strange"))},
        {"mounts": (ROOT, Mount(target="x", kind="tmpfs"))},
        {"device_rules": (DeviceRule(rule="nonsense"),)},
        {"seccomp": "{}"},
        {"namespaces": Namespaces(user="path:/x")},
        {"namespaces": Namespaces(user="new", uid_map=((0, 1, 1),), pid="host")},
    ],
    ids=str,
)
def test_what_no_bundle_can_say_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        plan_of(**changes)


def test_an_exec_is_a_process() -> None:
    request = ExecRequest(id="abc", exec_id="x", process=Process(args=("id",), cwd="/tmp"))
    message = exec_request(spec_of(), request, FACTS, cgroup="sagong/abc")
    found = json.loads(message["plan"])
    assert (found["args"], found["cwd"], found["terminal"]) == (["id"], "/tmp", False)


def test_limits_go_there_and_back() -> None:
    limits = {
        "memory": 64,
        "memory_swap": -1,
        "cpu_shares": 5,
        "cpuset_cpus": "0",
        "pids": 9,
        "oom_kill_disable": True,
        "io_weight": 20,
        "io_read_bps": [("8:0", 100)],
    }
    resources = resources_of(limits, lambda device: (8, 0))
    assert resources["memory"] == {"limit": 64, "swap": -1, "disableOOMKiller": True}
    assert limits_from(resources, None) == limits
    assert resources_of({"memory": None}, lambda device: (0, 0)) == {}
    everything = {"devices": [{"allow": False, "access": "rwm"}, {"allow": True, "access": "rwm"}]}
    assert limits_from(everything, ("c 1:3 rwm",))["devices"] == ["a"]
    assert Limits(pids=0).pids == 0


ALL = (True, "")
NONE = (False, "")
NULL = "c 1:3 "


def devices_of(*rules: tuple[bool, str]) -> list[str]:
    """Rules as (allowed, "TYPE MAJOR:MINOR ACCESS"; "" is everything)."""
    found = []
    for allow, text in rules:
        rule: dict[str, Any] = {"allow": allow, "access": "rwm"}
        if text:
            kind, numbers, access = text.split(" ")
            major, minor = (None if n == "*" else int(n) for n in numbers.split(":"))
            rule = {"allow": allow, "type": kind, "major": major, "minor": minor, "access": access}
        found.append(rule)
    return limits_from({"devices": found}, ("c 5:0 rwm",))["devices"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("rules", "allowed"),
    [
        ([NONE, (True, f"{NULL}rwm"), (False, "c 10:229 rwm")], [f"{NULL}rwm"]),
        ([(True, f"{NULL}rwm"), (False, f"{NULL}w")], [f"{NULL}rm"]),
        ([(True, f"{NULL}r"), (True, f"{NULL}w")], [f"{NULL}rw"]),
        ([(True, f"{NULL}rwm"), NONE], []),
        ([(True, "a 1:3 r")], ["b 1:3 r", "c 1:3 r"]),
        ([(True, "a 1:3 r"), (False, "b 1:3 r")], [f"{NULL}r"]),
        ([(True, "c *:* m"), (False, f"{NULL}rw")], ["c *:* m"]),
    ],
)
def test_device_rules_are_applied_in_their_order(
    rules: list[tuple[bool, str]], allowed: list[str]
) -> None:
    assert devices_of(*rules) == ["c 5:0 rwm", *allowed]


@pytest.mark.parametrize(
    "rules",
    [
        [ALL, (False, f"{NULL}rwm")],
        [(True, "c 1:* rwm"), (False, f"{NULL}w")],
        [(True, f"{NULL}rwm"), (False, "c *:* w")],
    ],
)
def test_no_exception_of_a_device_rule_is_silently_lost(rules: list[tuple[bool, str]]) -> None:
    with pytest.raises(StartError, match="can't be denied"):
        devices_of(*rules)


def test_dockers_seccomp_policy_keeps_its_conditions() -> None:
    found = seccomp_of(default_policy(("CAP_CHOWN",), "x86_64"))
    assert (found["defaultAction"], found["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 1)
    rules = {name: rule for rule in found["syscalls"] for name in rule["names"]}
    assert rules["clone3"] == {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
    (test,) = rules["clone"]["args"]
    assert (test["op"], test["value"], test["valueTwo"]) == ("SCMP_CMP_MASKED_EQ", 0x7E020000, 0)


@pytest.mark.parametrize(
    ("log", "code", "text"),
    [
        (
            '{"level":"error","msg":"exec: \\"x\\": executable file not found in $PATH"}',
            "not_found",
            "x",
        ),
        ('{"level":"error","msg":"exec: permission denied"}', "failed_precondition", "denied"),
        ('{"level":"warning","msg":"w"}\nplain words', "failed_precondition", "plain words"),
        ("", "failed_precondition", "ended with 1"),
    ],
)
def test_a_runtimes_log_becomes_an_error(log: str, code: str, text: str) -> None:
    error = error_of(log, "runc", 1 << 8)
    assert error.code == code
    assert text in error.message


def test_a_configuration_becomes_a_plan_in_the_specifications_order() -> None:
    config = plan_of()["config"]
    config["linux"]["namespaces"] = [{"type": kind} for kind in ("mount", "pid", "uts", "network")]
    plan = run_plan(
        {**config, "hostname": "h"},
        cgroup="c",
        unit="",
        rootfs="/rootfs",
        hierarchies=(),
        code="",
        state={"id": "x"},
        bounding=(1 << 41) - 1,
    )
    names = [type(operation).__name__ for operation in plan]
    wanted = [
        "Unshare",
        "BindRoot",
        "MakeCgroup",
        "SetHostname",
        "EnterRoot",
        "LeaveRoot",
        "RunHooks",
    ]
    wanted += ["BecomeRoot", "DetachOldRoot", "TakeIdentity"]
    assert [name for name in names if name in wanted if name != "Unshare"] == wanted[1:]


def test_options_are_read_as_other_runtimes_do() -> None:
    known, short = {"bundle": True, "force": False}, {"b": "bundle", "f": "force"}
    found = parse(["-b", "x", "--force", "id", "--bundle=y"], known, short)
    assert (found.text("bundle"), found.flag("force"), found.words) == ("y", True, ("id",))
    rest = parse(["--force", "verb", "--unknown"], known, short, stop=True)
    assert rest.words == ("verb", "--unknown")
    for wrong in (["--nonsense"], ["--bundle"]):
        with pytest.raises(UsageError):
            parse(wrong, known, short)
