"""Checks of the runtime suite: what a process inside sees and may do."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import msgspec

from sagong.conformance.runtime_lab import (
    DOCKER_CAPABILITIES,
    PATH,
    RuntimeLab,
    raises,
    standard_mounts,
    wait_until,
)
from sagong.contracts.runtime import (
    ContainerRef,
    Device,
    DeviceRule,
    Mount,
    Namespaces,
    Rlimit,
    SignalRequest,
    User,
)
from sagong.errors import FailedPrecondition, NotFound

# Bits of DOCKER_CAPABILITIES, as /proc/PID/status shows them in a Docker container.
_DOCKER_MASK = "00000000a80425fb"
_NONE = "0" * 16


async def check_process_is_the_first(lab: RuntimeLab) -> None:
    """A pid namespace of its own, with its own /proc."""
    found = await lab.shell("echo $$; ls -d /proc/[0-9]* | wc -l")
    assert found.lines[0] == "1"
    assert int(found.lines[1]) <= 4


async def check_root_is_the_images(lab: RuntimeLab) -> None:
    """Only the root filesystem is seen; what is written does not reach the image."""
    found = await lab.shell("ls /; touch /new; ls /proc/1/root/")
    assert "bin" in found.lines
    assert "new" in found.lines
    assert not (lab.rootfs / "new").exists()


async def check_no_descriptor_leaks(lab: RuntimeLab) -> None:
    """Of the host's descriptors a program gets three."""
    found = await lab.output(lab.spec(lab.process("ls", "/proc/self/fd")))
    assert found.text.split() == ["0", "1", "2", "3"], found.text  # 3 is ls's own
    container = await lab.running()
    inside = await lab.exec_output(container.id, lab.process("ls", "/proc/self/fd"))
    assert inside.text.split() == ["0", "1", "2", "3"], inside.text


async def check_environment_is_as_given(lab: RuntimeLab) -> None:
    """Nothing of the host's, HOME from passwd, the rest as asked for."""
    process = lab.process("env", "-u", "NOTHING", env=(PATH, "A=1", "B=x=y z"))
    found = await lab.output(lab.spec(process))
    names = {line.partition("=")[0] for line in found.lines}
    assert {"A=1", "B=x=y z", PATH} <= set(found.lines)
    assert names <= {"A", "B", "PATH", "HOME"}, names


async def check_working_directory_is_made(lab: RuntimeLab) -> None:
    """As Docker does for WORKDIR; an impossible one is told."""
    found = await lab.output(lab.spec(lab.process("pwd", cwd="/made/for/this")))
    assert found.text == "/made/for/this"
    with raises(FailedPrecondition, "/etc/passwd"):
        await lab.runtime.run(lab.spec(lab.process("pwd", "x", cwd="/etc/passwd")))
    container = await lab.running()
    with raises(NotFound, "/no/such", "no such file or directory"):
        await lab.exec_output(container.id, lab.process("pwd", "x", cwd="/no/such"))


async def check_user_and_groups(lab: RuntimeLab) -> None:
    """Ids and supplementary groups; output can still be written through /dev/stdout."""
    user = User(uid=1234, gid=2345, groups=(3, 4567))
    process = lab.process("id -u; id -g; id -G; echo via > /dev/stdout", user=user)
    found = await lab.output(lab.spec(process))
    assert found.lines[0:2] == ["1234", "2345"]
    assert set(found.lines[2].split()) == {"2345", "3", "4567"}
    assert found.lines[3:] == ["via"], found.stderr


async def _status(lab: RuntimeLab, **changes: object) -> dict[str, str]:
    process = lab.process("cat", "/proc/self/status", **changes)
    found = await lab.output(lab.spec(process))
    pairs = (line.split(":", 1) for line in found.lines)
    return {key: value.strip() for key, value in pairs}


async def check_capabilities_of_root(lab: RuntimeLab) -> None:
    """Exactly those asked for; inheritable and ambient are empty."""
    found = await _status(lab)
    assert [found[k] for k in ("CapEff", "CapPrm", "CapBnd")] == [_DOCKER_MASK] * 3
    assert [found[k] for k in ("CapInh", "CapAmb")] == [_NONE] * 2
    none = await _status(lab, capabilities=())
    assert [none[k] for k in ("CapEff", "CapPrm", "CapBnd")] == [_NONE] * 3


async def check_capabilities_of_others(lab: RuntimeLab) -> None:
    """Another user has none in effect, unless they are ambient."""
    user = User(uid=1000, gid=1000)
    found = await _status(lab, user=user)
    assert (found["CapEff"], found["CapBnd"]) == (_NONE, _DOCKER_MASK)
    one = ("CAP_NET_BIND_SERVICE",)
    ambient = await _status(lab, user=user, capabilities=one, ambient=True)
    assert ambient["CapEff"] == ambient["CapAmb"] == f"{1 << 10:016x}"


async def check_new_privileges_only_forbidden_when_asked(lab: RuntimeLab) -> None:
    """sudo must work as in Docker."""
    assert (await _status(lab))["NoNewPrivs"] == "0"
    assert (await _status(lab, no_new_privileges=True))["NoNewPrivs"] == "1"


async def check_seccomp_is_on(lab: RuntimeLab) -> None:
    """By default and with no_new_privs; not when unconfined; a profile in Docker's form works."""
    assert (await _status(lab))["Seccomp"] == "2"
    user = User(uid=1000, gid=1000)
    assert (await _status(lab, user=user, no_new_privileges=True))["Seccomp"] == "2"
    free = await lab.shell("grep Seccomp: /proc/self/status", seccomp="unconfined")
    assert free.text.split() == ["Seccomp:", "0"]
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
    }
    denied = await lab.shell("mkdir /x || echo denied", seccomp=json.dumps(profile))
    assert denied.text == "denied"


async def check_seccomp_covers_exec(lab: RuntimeLab) -> None:
    """An exec'd process is confined like the first."""
    container = await lab.running()
    process = lab.process("cat", "/proc/self/status")
    found = await lab.exec_output(container.id, process)
    lines = dict(line.split(":\t", 1) for line in found.lines if ":\t" in line)
    assert (lines["Seccomp"], lines["CapEff"]) == ("2", _DOCKER_MASK)


async def check_masked_and_readonly_paths(lab: RuntimeLab) -> None:
    """Files and directories vanish or refuse writes; missing ones are no error."""
    found = await lab.shell(
        "cat /proc/timer_list | wc -c; ls /proc/acpi /sys/firmware 2>/dev/null | wc -l; "
        "echo 1 > /proc/sys/kernel/shmmni || echo readonly",
        masked_paths=("/proc/timer_list", "/sys/firmware", "/proc/acpi", "/proc/not-there"),
        readonly_paths=("/proc/sys", "/proc/not-there"),
    )
    assert found.lines[0] == "0"
    assert found.lines[-1] == "readonly"


async def check_readonly_root(lab: RuntimeLab) -> None:
    """The root refuses writes; /dev/shm still takes them."""
    found = await lab.shell("touch /x || echo no; touch /dev/shm/x && echo yes", readonly_root=True)
    assert found.lines == ["no", "yes"]


async def check_rlimits_and_umask(lab: RuntimeLab) -> None:
    """Soft and hard limits, and the mask of new files."""
    limits = (Rlimit(name="nofile", soft=100, hard=200), Rlimit(name="core", soft=0, hard=0))
    process = lab.process("ulimit -Sn; ulimit -Hn; ulimit -c; umask", rlimits=limits, umask=0o77)
    found = await lab.output(lab.spec(process))
    assert found.lines == ["100", "200", "0", "0077"]
    assert (await lab.shell("umask")).text == "0022"


async def check_oom_score(lab: RuntimeLab) -> None:
    """As asked for, else 0."""
    script = "cat /proc/self/oom_score_adj"
    assert (await lab.output(lab.spec(lab.process(script, oom_score_adjust=321)))).text == "321"
    assert (await lab.shell(script)).text == "0"


async def check_oom_score_is_bounded_when_asked(lab: RuntimeLab) -> None:
    """A score that the kernel does not allow is refused, or raised for who says that this will do."""
    words = {"oom_score_adjust": -900}
    process = lab.process("cat /proc/self/oom_score_adj", **words, oom_score_bounded=True)
    bounded = int((await lab.output(lab.spec(process))).text)
    strict = lab.spec(lab.process("cat /proc/self/oom_score_adj", **words))
    if bounded == -900:
        assert (await lab.output(strict)).text == "-900"
    else:
        assert bounded > -900
        with raises(FailedPrecondition):
            await lab.runtime.run(strict)


async def check_default_devices(lab: RuntimeLab) -> None:
    """The nodes and links of the OCI specification, and they work."""
    found = await lab.shell(
        "for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done; "
        "for l in fd stdin stdout stderr ptmx; do test -L /dev/$l || echo no $l; done; "
        "echo x > /dev/null; head -c 4 /dev/zero | wc -c; echo ok > /dev/stdout"
    )
    assert found.lines == ["4", "ok"], (found.lines, found.stderr)
    process = lab.process(
        "echo x > /dev/null && cd /dev && stat -c %a null full tty", user=User(uid=1000)
    )
    found = await lab.output(lab.spec(process))
    assert found.lines == ["666", "666", "666"], (found.lines, found.stderr)


async def check_devices_need_permission(lab: RuntimeLab) -> None:
    """A node can be made but not used, unless the device or a rule is given."""
    # A number without a driver: with permission the answer is ENXIO, without it EPERM.
    node = lab.scratch / "node"
    os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(240, 77))
    script = "test -c /dev/x || mknod /dev/x c 240 77; cat /dev/x 2>&1"
    assert "not permitted" in (await lab.shell(script)).text
    device = Device(source=str(node), target="/dev/x", permissions="r")
    assert "No such device" in (await lab.shell(script, devices=(device,))).text
    nodes = lab.scratch / "nodes"
    nodes.mkdir()
    node.rename(nodes / "x")
    several = Device(source=str(nodes), target="/dev/several", permissions="r")
    script_of_one = script.replace("/dev/x", "/dev/several/x")
    assert "No such device" in (await lab.shell(script_of_one, devices=(several,))).text
    rules = (DeviceRule(rule="c 240:* r"),)
    assert "No such device" in (await lab.shell(script, device_rules=rules)).text


async def check_sysctls_are_the_containers(lab: RuntimeLab) -> None:
    """Set inside, not outside."""
    sysctls = (("net.ipv4.ip_unprivileged_port_start", "77"), ("kernel.shmmni", "5000"))
    script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmni"
    found = await lab.shell(script, sysctls=sysctls, readonly_paths=("/proc/sys",))
    assert found.lines == ["77", "5000"]


async def check_bind_mounts(lab: RuntimeLab) -> None:
    """Directories and files, writable and not; missing targets are made."""
    source = lab.scratch / "bound"
    source.mkdir()
    (source / "file").write_text("content\n")
    binds = (
        Mount(target="/a/b", kind="bind", source=str(source), options=("rbind",)),
        Mount(target="/ro", kind="bind", source=str(source), options=("rbind", "ro")),
        Mount(
            target="/etc/one",
            kind="bind",
            source=str(source / "file"),
            options=("rbind", "ro"),
            create="file",
        ),
        Mount(
            target="/etc/two",
            kind="bind",
            source=str(source / "file"),
            options=("rbind", "rprivate", "source"),
        ),
    )
    script = "cmp /etc/one /etc/two; cat /etc/one; echo new > /a/b/made; "
    script += "echo x > /ro/x || echo ro; echo x > /etc/one || echo ro"
    found = await lab.shell(script, mounts=(*standard_mounts(lab.root()), *binds))
    assert found.lines == ["content", "ro", "ro"]
    assert (source / "made").read_text() == "new\n"
    assert not (source / "x").exists()


async def check_overlays_are_mounted_inside(lab: RuntimeLab) -> None:
    """Directories of the host as one, beside the root: as images are that are mounted."""
    parts = [lab.scratch / f"part-{name}" for name in ("above", "below")]
    for part in parts:
        part.mkdir()
        (part / part.name).write_text(f"{part.name}\n")
        (part / "both").write_text(f"{part.name}\n")
    options = (f"lowerdir={':'.join(map(str, parts))}", "ro", "userxattr")
    beside = Mount(target="/in/side", kind="overlay", source="overlay", options=options)
    script = "cd /in/side; ls; cat both; touch new || echo ro"
    found = await lab.shell(script, mounts=(*standard_mounts(lab.root()), beside))
    assert found.lines == ["both", "part-above", "part-below", "part-above", "ro"]
    mounts = Path("/proc/self/mountinfo").read_text()
    assert str(parts[0]) not in mounts, "the overlay is mounted outside, too"


async def check_a_root_that_need_not_last_is_mounted_again(lab: RuntimeLab) -> None:
    """The kernel itself would refuse what a `volatile` overlay has written to."""
    root = lab.root()
    root = msgspec.structs.replace(root, options=(*root.options, "volatile"))
    for told in ("first", "again"):
        script = "test -e /mark && echo again || echo first; touch /mark"
        assert (await lab.shell(script, mounts=standard_mounts(root))).text == told


async def check_changes_below_a_root_are_seen(lab: RuntimeLab) -> None:
    """What slot image wrote beneath a running container, whose names the kernel remembers."""
    root = lab.root()
    upper = next(o for o in root.options if o.startswith("upperdir=")).partition("=")[2]
    spec = lab.spec("ls /etc/new; sleep 60", mounts=standard_mounts(root))
    await lab.runtime.run(spec)
    look = lab.process("cat /etc/new")
    assert (await lab.exec_output(spec.id, look)).code != 0
    os.makedirs(f"{upper}/etc", exist_ok=True)
    with open(f"{upper}/etc/new", "w", encoding="utf-8") as file:
        file.write("new\n")
    await lab.runtime.refresh(ContainerRef(id=spec.id))
    assert (await lab.exec_output(spec.id, look)).text == "new"
    await lab.runtime.remove(ContainerRef(id=spec.id))
    with raises(NotFound):
        await lab.runtime.refresh(ContainerRef(id=spec.id))


async def check_links_of_the_image_stay_inside(lab: RuntimeLab) -> None:
    """A symbolic link in the image can't lead a mount out of the container."""
    outside = lab.scratch / "outside"
    outside.mkdir()
    root = lab.root()
    upper = next(o for o in root.options if o.startswith("upperdir=")).partition("=")[2]
    os.symlink(str(outside), f"{upper}/trap")
    source = lab.scratch / "inside"
    source.mkdir()
    (source / "mark").touch()
    bind = Mount(target="/trap/here", kind="bind", source=str(source), options=("rbind",))
    found = await lab.shell("ls /trap/here", mounts=(*standard_mounts(root), bind))
    assert found.text == "mark"
    assert not list(outside.iterdir()), "a directory was made on the host"


async def check_tmpfs_has_its_options(lab: RuntimeLab) -> None:
    """Size and mode; without one the target's, or anybody's where the image has none."""
    tmpfs = Mount(target="/t", kind="tmpfs", options=("nosuid", "size=1m", "mode=1770"))
    fresh = Mount(target=f"/{lab.new_id()}", kind="tmpfs", options=("size=1m",))
    over = Mount(target="/etc", kind="tmpfs")
    plain = standard_mounts(lab.root())
    before = await lab.shell("stat -c %a /etc", mounts=plain)
    script = f"stat -c %a /t {fresh.target} /etc; df -k /t | tail -1"
    found = await lab.shell(script, mounts=(*plain, tmpfs, fresh, over))
    assert found.lines[:3] == ["1770", "1777", before.text]
    assert found.lines[3].split()[1] == "1024"


async def check_namespaces_are_new(lab: RuntimeLab) -> None:
    """Each differs from the host's; asked for, the host's is used."""
    kinds = ("net", "ipc", "uts", "pid", "mnt", "cgroup")
    script = "for k in net ipc uts pid mnt cgroup; do readlink /proc/self/ns/$k; done"
    host = [os.readlink(f"/proc/self/ns/{k}") for k in kinds]
    new = (await lab.shell(script)).lines
    assert not set(new) & set(host)
    spaces = Namespaces(network="host", ipc="host", uts="host", pid="host", cgroup="host")
    same = (await lab.shell(script, namespaces=spaces)).lines
    assert [a == b for a, b in zip(same, host)] == [True, True, True, True, False, True]


async def check_cgroups_are_its_own(lab: RuntimeLab) -> None:
    """In each hierarchy its group is the root, nothing is above, and nobody writes to it."""
    script = "grep ' - cgroup' /proc/self/mountinfo; cat /sys/fs/cgroup/memory/cgroup.procs"
    script += " /sys/fs/cgroup/cgroup.procs 2>/dev/null | head -1"
    *lines, first = (await lab.shell(script)).lines
    fields = [line.partition(" - ")[0].split() for line in lines]
    assert fields
    assert {root for _, _, _, root, *_ in fields} == {"/"}
    assert {options.split(",")[0] for _, _, _, _, _, options, *_ in fields} == {"ro"}
    assert not any(tag.startswith("shared:") for _, _, _, _, _, _, *tags in fields for tag in tags)
    assert first == "1"


async def check_host_pids_all_end(lab: RuntimeLab) -> None:
    """In the host's pid namespace, too, nothing outlives the first process."""
    spec = lab.spec(
        "sleep 1000 & sleep 1000 & echo ready; wait",
        namespaces=Namespaces(pid="host"),
    )
    stream = await lab.attached(spec)
    await stream.until(b"ready")
    pids = (await lab.runtime.processes(ContainerRef(id=spec.id))).pids
    await lab.runtime.signal(SignalRequest(id=spec.id, signal=9))
    await lab.ended(spec.id)
    await stream.close()
    await wait_until(lambda: not any(os.path.exists(f"/proc/{p}") for p in pids), "all to end")


async def check_network_has_a_loopback(lab: RuntimeLab) -> None:
    """A new network namespace has lo, up, and nothing that leads out."""
    script = (
        "ls /sys/class/net; cat /sys/class/net/lo/operstate; ping -c1 -w2 127.0.0.1 | grep -c seq"
    )
    lines = (await lab.shell(script)).lines
    assert "lo" in lines
    assert not any(line.startswith(("eth", "ens", "veth")) for line in lines)
    assert lines[-1] == "1"


async def check_hostname_and_domain(lab: RuntimeLab) -> None:
    """In the uts namespace, not on the host."""
    found = await lab.shell(
        "hostname; cat /proc/sys/kernel/domainname", hostname="inside", domainname="example.org"
    )
    assert found.lines == ["inside", "example.org"]
    assert os.uname().nodename != "inside"


async def check_another_containers_namespaces(lab: RuntimeLab) -> None:
    """`container:ID` joins; a stranger's is NotFound."""
    first = await lab.running(hostname="first")
    name = f"container:{first.id}"
    spaces = Namespaces(network=name, ipc=name, uts=name, pid=name)
    found = await lab.shell("hostname; cat /proc/1/comm", namespaces=spaces)
    assert found.lines == ["first", "sleep"]
    with raises(NotFound):
        await lab.shell("true", namespaces=Namespaces(network="container:nobody"))


async def check_group_shares(lab: RuntimeLab) -> None:
    """uts and ipc are one in a group, pids when asked; it outlives its first container."""
    spaces = Namespaces(ipc="group", uts="group", pid="group")
    group = f"pod-{lab.new_id()[:12]}"
    shared = {"group": group, "namespaces": spaces, "hostname": "pod"}
    script = (
        "for k in ipc uts pid; do readlink /proc/self/ns/$k; done; echo $$; echo end; sleep 1000"
    )
    streams = []
    for _ in range(2):
        streams.append(await lab.attached(lab.spec(script, **shared)))
    for stream in streams:
        await stream.until(b"end\n")
    firsts, seconds = (stream.stdout.decode().split() for stream in streams)
    assert firsts[:3] == seconds[:3]
    assert firsts[3] != "1"
    running = [c for c in (await lab.runtime.list()).containers if c.group == group]
    assert len(running) == 2
    await lab.runtime.signal(SignalRequest(id=running[0].id, signal=9))
    assert (await lab.ended(running[0].id)).group == group
    again = await lab.shell("readlink /proc/self/ns/ipc", **shared)
    assert again.text == firsts[0]
    for stream in streams:
        await stream.close()


async def check_init_reaps_and_forwards(lab: RuntimeLab) -> None:
    """With `init` orphans are collected, signals arrive, the code is the program's."""
    script = "trap 'echo got; exit 7' TERM; (sleep 0.1 &) ; sleep 0.4; "
    script += "ps -o stat | grep -c Z; echo pid $$; while :; do sleep 0.05; done"
    spec = lab.spec(script, init=True)
    stream = await lab.attached(spec)
    await stream.until(b"pid ")
    await stream.until(b"\n")
    assert stream.stdout.startswith(b"0\n"), stream.stdout
    assert b"pid 1\n" not in stream.stdout
    await lab.runtime.signal(SignalRequest(id=spec.id, signal=15))
    found = await stream.rest()
    assert b"got" in found.stdout
    assert found.code == 7


async def check_privileged_has_everything(lab: RuntimeLab) -> None:
    """The machine's capabilities and devices, no filter, no masks."""
    spec = lab.spec(
        "grep CapEff /proc/self/status; grep Seccomp: /proc/self/status; test -c /dev/kmsg && echo dev",
        privileged=True,
        masked_paths=("/proc/timer_list",),
    )
    found = (await lab.output(spec)).lines
    with open("/proc/self/status", encoding="ascii") as file:
        bounding = next(line.split()[1] for line in file if line.startswith("CapBnd"))
    assert found[0].split()[1] == bounding
    assert found[1].split()[1] == "0"
    assert found[2] == "dev"


async def check_capabilities_of_exec_are_its_own(lab: RuntimeLab) -> None:
    """What the exec asks for, or all with privileged."""
    container = await lab.running()
    few = lab.process("grep CapEff /proc/self/status", capabilities=DOCKER_CAPABILITIES[:1])
    assert (await lab.exec_output(container.id, few)).text.split()[1] == f"{1:016x}"
    found = await lab.exec_output(container.id, few, privileged=True)
    assert int(found.text.split()[1], 16) & 1 << 21


async def check_user_namespace_maps_ids(lab: RuntimeLab) -> None:
    """Root inside is somebody outside; files of the image still belong to root inside."""
    table = ((0, 100_000, 65_536),)
    spaces = Namespaces(user="new", uid_map=table, gid_map=table)
    script = (
        "id -u; stat -c %u /bin/busybox; touch /made; stat -c %u /made; cat /proc/self/uid_map; "
    )
    script += "echo ok > /dev/stdout; test -c /dev/null && echo x > /dev/null; echo $$; "
    script += "hostname inner; sleep 1000"
    spec = lab.spec(lab.process(script, stdin=True), namespaces=spaces)
    stream = await lab.attached(spec)
    await stream.until(b"ok\n1\n")
    found = stream.stdout.decode().split()
    assert found == ["0", "0", "0", "0", "100000", "65536", "ok", "1"], (found, stream.stderr)
    container = await lab.runtime.inspect(ContainerRef(id=spec.id))
    with open(f"/proc/{container.pid}/status", encoding="ascii") as file:
        uids = next(line.split()[1:] for line in file if line.startswith("Uid"))
    assert set(uids) == {"100000"}
    inside = await lab.exec_output(spec.id, lab.process("id -u; cat /proc/self/uid_map"))
    assert inside.text.split() == ["0", "0", "100000", "65536"]
    await lab.runtime.signal(SignalRequest(id=spec.id, signal=9))
    assert (await lab.ended(spec.id)).code == 137
    await stream.close()


_MAP = ((0, 100_000, 65_536),)


async def check_user_namespace_is_shared(lab: RuntimeLab) -> None:
    """A second container enters the first one's, with its network, ipc and pids; a group is in one."""
    spaces = Namespaces(user="new", uid_map=_MAP, gid_map=_MAP)
    first = await lab.running(namespaces=spaces, hostname="first")
    name = f"container:{first.id}"
    joined = Namespaces(
        user=name,
        network=name,
        ipc=name,
        uts=name,
        pid=name,
        uid_map=_MAP,
        gid_map=_MAP,
    )
    script = "readlink /proc/self/ns/user; hostname; cat /proc/1/comm; ls -d /sys/class/net/lo"
    found = await lab.shell(script, namespaces=joined)
    space = os.readlink(f"/proc/{first.pid}/ns/user")
    assert found.lines == [space, "first", "sleep", "/sys/class/net/lo"], found.stderr
    group = Namespaces(
        user=f"path:/proc/{first.pid}/ns/user",
        uid_map=_MAP,
        gid_map=_MAP,
        ipc="group",
        uts="group",
        pid="group",
    )
    found = await lab.shell(
        "hostname; readlink /proc/self/ns/user; test $$ != 1 && echo shared",
        group=f"pod-{lab.new_id()[:12]}",
        namespaces=group,
        hostname="pod",
    )
    assert found.lines == ["pod", space, "shared"], found.stderr


async def check_user_namespace_has_terminals(lab: RuntimeLab) -> None:
    """The container's own and an exec'd one."""
    spaces = Namespaces(user="new", uid_map=_MAP, gid_map=_MAP)
    process = lab.process("tty; sleep 1000", tty=True)
    stream = await lab.attached(lab.spec(process, namespaces=spaces))
    await stream.until(b"/dev/pts/0")
    inside = await lab.exec_output(lab.made[-1], lab.process("tty", "-s", tty=True))
    assert inside.code == 0, inside
    await stream.close()


async def check_mounts_map_ids_when_asked(lab: RuntimeLab) -> None:
    """With `idmap` root's files are root's inside, and what is made inside is root's; else nobody's."""
    source = lab.scratch / "mapped"
    source.mkdir()
    (source / "old").touch()
    binds = tuple(
        Mount(target=f"/{name}", kind="bind", source=str(source), options=options)
        for name, options in (("mapped", ("rbind", "idmap")), ("plain", ("rbind",)))
    )
    found = await lab.shell(
        "stat -c %u /mapped/old; touch /mapped/new; chown 7:8 /mapped/new; stat -c %u /plain/old; "
        "touch /plain/made || echo refused; echo x > /plain/old || echo refused",
        mounts=(*standard_mounts(lab.root()), *binds),
        namespaces=Namespaces(user="new", uid_map=_MAP, gid_map=_MAP),
    )
    assert found.lines == ["0", "65534", "refused", "refused"], found.stderr
    made = (source / "new").stat()
    assert (made.st_uid, made.st_gid) == (7, 8)
