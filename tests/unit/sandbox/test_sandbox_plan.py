"""Rights become a plan: a pure function, with nothing left out silently."""

from __future__ import annotations

from typing import Any

import pytest

from sagong.errors import InvalidArgument
from sagong.linux import seccomp
from sagong.linux.capabilities import NAMES
from sagong.linux.cgroup import CgroupLayout, Hierarchy
from sagong.linux.syscall_table import machine as architecture
from sagong.sandbox import DeviceGrant, Machine, PathGrant, Plan, Rights, plan, plugin_policy
from sagong.sandbox import filesystem as fs
from sagong.sandbox import operations as op

LAYOUT = CgroupLayout(
    tuple(Hierarchy(1, frozenset({n}), f"/cg/{n}", "/") for n in ("memory", "pids", "cpu"))
)


EVERY = (1 << len(NAMES)) - 1


def a_machine(**changes: Any) -> Machine:
    return Machine(
        **{
            "stage": "/run/sagong/sandbox",
            "root": True,
            "kernel": (6, 18),
            "architecture": architecture(),
            "landlock": 7,
            "capabilities": EVERY,
            "directories": ("/usr",),
            "links": (("/bin", "usr/bin"),),
            "python": ("/opt/python",),
            "sources": ("/opt/sagong/core",),
            "etc": (("/etc/hosts", "/etc/hosts"),),
            "cgroups": LAYOUT,
            **changes,
        }
    )


def some_rights(**changes: Any) -> Rights:
    base = {"name": "state", "uid": 58001, "gid": 58001, "data": "/d/state", "run": "/r/state"}
    return Rights(**{**base, "cgroup": "sagong/state", **changes})


def steps_of(made: Plan, kind: type) -> list[Any]:
    return [step for step in made.operations if isinstance(step, kind)]


def test_the_same_rights_give_the_same_plan() -> None:
    assert plan(some_rights(), a_machine()) == plan(some_rights(), a_machine())


def test_steps_come_in_the_only_order_that_works() -> None:
    made = plan(some_rights(), a_machine())
    names = [type(step).__name__ for step in made.operations]
    order = ["CloseDescriptors", "EnterCgroup", "Unshare", "NewRoot", "HiddenProc", "SealRoot"]
    order += ["NoNewPrivileges", "Restrict", "Identity", "Filter"]
    places = [names.index(name) for name in order]
    assert places == sorted(places)
    assert names[-1] == "Filter"
    assert made.notes == ()


def test_turns_are_short_where_the_kernel_knows_of_them() -> None:
    assert steps_of(plan(some_rights(), a_machine()), op.ShortTurns)
    assert not steps_of(plan(some_rights(), a_machine(kernel=(6, 11))), op.ShortTurns)


def test_outer_paths_are_mounted_before_inner_ones() -> None:
    grants = (PathGrant("/r/state/deep/er"), PathGrant("/r", access="write"), PathGrant("/opt"))
    targets = [s.target for s in steps_of(plan(some_rights(paths=grants), a_machine()), fs.Bind)]
    assert targets.index("/r") < targets.index("/r/state") < targets.index("/r/state/deep/er")
    assert targets.index("/opt") < targets.index("/opt/python")


def test_nothing_is_writable_but_its_own() -> None:
    made = plan(some_rights(sockets=("/r/bus",)), a_machine())
    writable = {s.target for s in steps_of(made, fs.Bind) if s.access != "read"}
    assert writable == {"/d/state", "/r/state"}


def test_the_network_is_its_own_unless_granted() -> None:
    (own,) = steps_of(plan(some_rights(), a_machine()), op.Unshare)
    (host,) = steps_of(plan(some_rights(network="host"), a_machine()), op.Unshare)
    assert "net" in own.names
    assert "net" not in host.names


def test_shared_directories_are_held_before_the_mounts_are_cut_off() -> None:
    grants = (PathGrant("/run/sagong/netns", access="write", shared=True),)
    made = plan(some_rights(paths=grants, seccomp=("mount",)), a_machine())
    kinds = [type(step) for step in made.operations]
    assert kinds.index(op.Unshare) < kinds.index(fs.HoldShared) < kinds.index(fs.NewRoot)
    assert kinds.index(fs.Attach) < kinds.index(fs.SealRoot)


def test_who_mounts_has_no_landlock_for_files_and_it_is_noted() -> None:
    made = plan(some_rights(seccomp=("mount",)), a_machine())
    (restrict,) = steps_of(made, op.Restrict)
    assert not restrict.ruleset.handle_files
    assert any("Landlock's rules for files" in note for note in made.notes)


def test_only_who_may_kill_signals_others() -> None:
    (without,) = steps_of(plan(some_rights(), a_machine()), op.Restrict)
    (killer,) = steps_of(plan(some_rights(capabilities=("CAP_KILL",)), a_machine()), op.Restrict)
    assert without.ruleset.scope_signals
    assert not killer.ruleset.scope_signals


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"root": False}, "not root"),
        ({"kernel": (5, 4)}, "needs Linux 5.12, this is 5.4"),
        ({"landlock": 0}, "Landlock: the kernel has none"),
        ({"landlock": 3}, "Landlock scopes: need ABI 6"),
        ({"capabilities": EVERY & ~1}, "CAP_CHOWN: this machine's root lacks it"),
        ({"capabilities": EVERY & ~(1 << 21)}, "own root, /tmp, /dev, /proc and namespaces: this"),
        ({"capabilities": 1 << 21}, "own uid and capabilities: this root lacks CAP_SETUID"),
        ({"open_files": 100}, "4096 open files: the machine's hard limit is 100"),
        ({"cgroups": CgroupLayout(())}, "cgroup limit memory: not mounted"),
        ({"kernel": (5, 6)}, "own root"),
    ],
)
def test_what_the_machine_cannot_do_is_told(changes: dict[str, Any], note: str) -> None:
    made = plan(some_rights(capabilities=("CAP_CHOWN",)), a_machine(**changes))
    assert any(note in said for said in made.notes), made.notes
    assert f"left out: {made.notes[0]}" in made.describe()


def test_without_root_only_harmless_steps_remain() -> None:
    made = plan(some_rights(), a_machine(root=False))
    kinds = {type(step) for step in made.operations}
    assert kinds == {
        op.CloseDescriptors,
        op.ShortTurns,
        op.ResourceLimit,
        op.NoNewPrivileges,
        op.OwnKeyring,
        op.Restrict,
        op.Filter,
    }


def test_every_step_describes_itself_in_a_line() -> None:
    rights = some_rights(
        paths=(PathGrant("/a", "write", shared=True), PathGrant("/b", optional=True)),
        devices=(DeviceGrant("/dev/fuse"),),
        capabilities=("CAP_CHOWN",),
    )
    made = plan(rights, a_machine())
    lines = [step.describe() for step in made.operations]
    assert all(line and "\n" not in line for line in lines)
    assert "uid 58001, gid 58001, capabilities: CAP_CHOWN" in lines
    assert "device /dev/fuse" in lines


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"paths": (PathGrant("relative"),)}, "'relative'"),
        ({"paths": (PathGrant("/a/../etc"),)}, "'/a/../etc'"),
        ({"paths": (PathGrant("/"),)}, "'/'"),
        ({"paths": (PathGrant("/."),)}, "'/.'"),
        ({"paths": (PathGrant("//"),)}, "'//'"),
        ({"paths": (PathGrant("/etc/./shadow"),)}, "'/etc/./shadow'"),
        ({"paths": (PathGrant("/a", access="execute"),)}, "'execute'"),
        ({"paths": (PathGrant("/a", shared=True),)}, "reading alone"),
        ({"sockets": ("bus",)}, "'bus'"),
        ({"devices": (DeviceGrant("/etc/passwd"),)}, "/etc/passwd"),
        ({"seccomp": ("everything",)}, "'everything'"),
        ({"capabilities": ("CAP_FLY",)}, "CAP_FLY"),
        ({"network": "bridge"}, "'bridge'"),
        ({"uid": -1}, "negative"),
    ],
)
def test_bad_rights_are_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidArgument, match="rights of state") as caught:
        some_rights(**changes)
    assert named in str(caught.value)


def test_groups_add_their_calls_and_nothing_else() -> None:
    base, mounting = plugin_policy(), plugin_policy(("mount",))
    assert not seccomp.allowed(base, "mount")
    assert seccomp.allowed(mounting, "mount")
    for name in ("bpf", "ptrace", "keyctl", "init_module", "unshare"):
        assert not seccomp.allowed(mounting, name), name
    assert seccomp.allowed(plugin_policy((), ("bpf",)), "bpf")
    with pytest.raises(InvalidArgument, match="known: mount"):
        plugin_policy(("everything",))
    with pytest.raises(InvalidArgument, match="fly"):
        plugin_policy((), ("fly",))
