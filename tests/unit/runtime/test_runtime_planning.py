"""From specs to plans: pure, so no root and no machine is needed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sagong.contracts.runtime import (
    ExecRequest,
    Limits,
    LogSpec,
    Mount,
    Namespaces,
    Process,
    Rlimit,
    RunSpec,
    User,
)
from sagong.errors import InvalidArgument
from sagong.shim.facts import HostFacts
from sagong.shim.requests import cgroup_path, layer_limit, mapped
from sagong_runtime_linux.operations import encode_operations
from sagong_runtime_linux.plan_registry import REGISTRY
from sagong_runtime_linux.planning import exec_request, run_request

FACTS = HostFacts(
    protocol=1,
    pid=1,
    hierarchies=(("1", "/sys/fs/cgroup/memory", "memory"),),
    bounding=(1 << 41) - 1,
    apparmor=False,
    selinux=False,
)
ROOT = Mount(target="/", kind="overlay", options=("lowerdir=/a:/b", "upperdir=/u", "workdir=/w"))
DEV = Mount(target="/dev", kind="tmpfs", options=("nosuid", "mode=755"))
BIND = Mount(target="/data", kind="bind", source="/srv", options=("rbind", "ro", "rslave"))


def spec_of(**changes: Any) -> RunSpec:
    """A small container."""
    settings: dict[str, Any] = {
        "id": "abc",
        "mounts": (ROOT, DEV, BIND),
        "process": Process(args=("true",), capabilities=("CAP_CHOWN",)),
        **changes,
    }
    return RunSpec(**settings)


def operations_of(spec: RunSpec, facts: HostFacts = FACTS) -> list[Any]:
    """The plan as a child decodes it."""
    request = run_request(spec, facts, parent="/sagong")
    return REGISTRY.decode(json.loads(request["plan"])["operations"])


def names(operations: list[Any]) -> list[str]:
    """What is done, in order."""
    return [type(operation).__name__ for operation in operations]


def test_sources_are_cloned_before_the_root_changes() -> None:
    """And attached after: links of the image can't lead out."""
    order = names(operations_of(spec_of()))
    assert order.index("OpenTree") < order.index("SetPropagation") < order.index("MountRoot")
    assert order.index("MountRoot") < order.index("PivotRoot") < order.index("AttachTree")
    assert order.index("AttachTree") < order.index("DetachOldRoot")


def test_the_bound_of_a_layer_is_set_apart() -> None:
    """What mounts the root knows nothing of it."""
    bound = ("project=7", "size=4096")
    sized = Mount(target="/", kind="overlay", options=(*ROOT.options, *bound))
    plain, limit = layer_limit(spec_of(mounts=(sized, DEV)))
    assert plain == spec_of(mounts=(ROOT, DEV))
    assert limit == {"directory": "/u", "project": 7, "size": 4096}
    assert layer_limit(plain) == (plain, None)


@pytest.mark.parametrize(
    ("parent", "path"),
    [("", "own/abc"), ("/a/b/", "a/b/abc"), ("/../../etc", "etc/abc"), ("a/../..", "abc")],
)
def test_a_cgroup_parent_leads_nowhere_else(parent: str, path: str) -> None:
    """Whose rights make it could make any directory."""
    assert cgroup_path(spec_of(cgroup_parent=parent), "/own").strip("/") == path


def test_cgroup_comes_before_its_namespace() -> None:
    """A cgroup namespace begins where its maker is."""
    operations = operations_of(spec_of())
    order = names(operations)
    unshared = [
        place
        for place, one in enumerate(operations)
        if order[place] == "Unshare" and "cgroup" in one.kinds
    ]
    assert order.index("MakeCgroup") < unshared[0]


def test_bind_keeps_its_options() -> None:
    """Attributes and propagation are on the clone before it is attached."""
    tree = next(one for one in operations_of(spec_of()) if type(one).__name__ == "OpenTree")
    assert (tree.source, tree.recursive, tree.own, tree.propagation) == ("/srv", True, 1, "rslave")
    assert tree.attributes == 0
    below = Mount(target="/d", kind="bind", source="/srv", options=("rbind", "rro"))
    found = operations_of(spec_of(mounts=(*spec_of().mounts, below)))
    tree = [one for one in found if type(one).__name__ == "OpenTree"][-1]
    assert (tree.own, tree.attributes) == (0, 1)


def test_parameters_are_written_before_paths_are_locked() -> None:
    """/proc/sys may be among the read-only paths."""
    spec = spec_of(sysctls=(("net.core.somaxconn", "5"),), readonly_paths=("/proc/sys",))
    order = names(operations_of(spec))
    assert order.index("WriteSysctl") < order.index("ReadOnlyPath")


def test_filter_goes_last_where_it_may() -> None:
    """With no_new_privs after the credentials, else before, while there is CAP_SYS_ADMIN."""
    order = names(operations_of(spec_of()))
    assert order.index("Filter") < order.index("TakeCredentials")
    process = Process(args=("true",), no_new_privileges=True)
    order = names(operations_of(spec_of(process=process)))
    assert (
        order.index("ForbidNewPrivileges") < order.index("TakeCredentials") < order.index("Filter")
    )


def test_privileged_has_no_masks_and_no_filter() -> None:
    """All devices, all that the machine's bounding set holds."""
    spec = spec_of(privileged=True, masked_paths=("/proc/kcore",), readonly_paths=("/proc/sys",))
    operations = operations_of(spec)
    order = names(operations)
    assert not {"MaskPath", "ReadOnlyPath", "Filter"} & set(order)
    assert "HostDevices" in order
    credentials = operations[order.index("TakeCredentials")]
    assert credentials.mask == FACTS.bounding
    assert operations[order.index("MakeCgroup")].limits["devices"] == ["a"]


def test_capabilities_the_machine_lacks_are_left_out() -> None:
    """As runc does."""
    facts = HostFacts(protocol=1, pid=1, hierarchies=(), bounding=1, apparmor=False, selinux=False)
    process = Process(args=("true",), capabilities=("CAP_CHOWN", "CAP_SYS_RESOURCE"))
    operations = operations_of(spec_of(process=process), facts)
    assert operations[names(operations).index("TakeCredentials")].mask == 1


def test_user_namespace_comes_between_the_hosts_and_its_own() -> None:
    """Cgroup and clones with the host's rights; all that is new belongs to the user namespace."""
    table = ((0, 100_000, 65_536),)
    spec = spec_of(namespaces=Namespaces(user="new", uid_map=table, gid_map=table))
    order = names(operations_of(spec))
    assert order.index("MakeCgroup") < order.index("EnterNamespace") < order.index("ForkIntoPids")
    assert order.index("ForkIntoPids") < order.index("PlaceRoot") < order.index("PivotRoot")
    request = run_request(spec, FACTS, parent="/sagong")
    assert request["owner"] == (100_000, 100_000)
    assert mapped(7, table) == 100_007


def test_limits_and_cgroup_are_named() -> None:
    """The parent of the spec, else the configured one."""
    spec = spec_of(limits=Limits(memory=5), cgroup_parent="/pods/x")
    operations = operations_of(spec)
    made = operations[names(operations).index("MakeCgroup")]
    assert (made.path, made.limits["memory"]) == ("pods/x/abc", 5)
    assert run_request(spec_of(), FACTS, parent="/sagong")["cgroup"] == "sagong/abc"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"mounts": ()}, "root"),
        ({"mounts": (Mount(target="/", kind="proc"),)}, "overlay, bind, tmpfs"),
        ({"mounts": (ROOT, Mount(target="x", kind="proc"))}, "absolute"),
        ({"mounts": (ROOT, Mount(target="/x", kind="magic"))}, "magic"),
        ({"mounts": (ROOT, Mount(target="/x", kind="bind", source="rel"))}, "absolute"),
        ({"mounts": (ROOT, Mount(target="/x", kind="bind", source="/y", options=("zz",)))}, "zz"),
        ({"process": Process(args=())}, "No command"),
        ({"process": Process(args=("a\0b",))}, "NUL"),
        ({"process": Process(args=("a",), cwd="rel")}, "absolute"),
        ({"process": Process(args=("a",), capabilities=("CAP_MAGIC",))}, "CAP_MAGIC"),
        ({"process": Process(args=("a",), rlimits=(Rlimit(name="x", soft=1, hard=1),))}, "rlimit"),
        (
            {"process": Process(args=("a",), rlimits=(Rlimit(name="core", soft=2, hard=1),))},
            "soft 2",
        ),
        ({"id": "../etc"}, "id"),
        ({"log": LogSpec(driver="syslog")}, "syslog"),
        ({"sysctls": (("vm.swappiness", "1"),)}, "vm.swappiness"),
        (
            {"sysctls": (("net.core.somaxconn", "1"),), "namespaces": Namespaces(network="host")},
            "host",
        ),
        ({"seccomp": "[]"}, "seccomp"),
        ({"namespaces": Namespaces(user="new")}, "map"),
    ],
)
def test_bad_specs_are_refused(changes: dict[str, Any], text: str) -> None:
    """Before anything is done, saying what is wrong."""
    with pytest.raises(InvalidArgument, match=text):
        run_request(spec_of(**changes), FACTS, parent="/sagong")


def test_exec_enters_and_is_confined() -> None:
    """The container's cgroup and namespaces, the caller's credentials, the container's filter."""
    process = Process(args=("id",), user=User(uid=5, gid=6), tty=True)
    request = ExecRequest(id="abc", exec_id="x", process=process)
    message = exec_request(spec_of(), request, FACTS, cgroup="sagong/abc")
    operations = REGISTRY.decode(json.loads(message["plan"])["operations"])
    order = names(operations)
    assert order[:3] == ["EnterCgroup", "SetOomScore", "EnterProcess"]
    assert {"OpenTerminal", "Filter", "TakeCredentials"} <= set(order)
    assert message["owner"] == (5, 6)
    assert message["enter_pid"]


def test_every_operation_travels_and_describes_itself() -> None:
    """Over JSON and back it is the same, and it can say what it does."""
    operations = operations_of(spec_of(hostname="h", readonly_root=True, masked_paths=("/x",)))
    again = REGISTRY.decode(json.loads(json.dumps(encode_operations(operations))))
    assert names(again) == names(operations)
    assert all(one.describe() for one in operations)


def test_unknown_operations_are_refused() -> None:
    """A younger plugin's plan reaches an older launcher."""
    with pytest.raises(ValueError, match="restart"):
        REGISTRY.decode([["Teleport", 1]])
