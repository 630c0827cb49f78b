"""What `docker run` says about rights and limits is what holds inside: by Docker's own command line."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.compat.docker.docker_engine import Engine, engine
from tests.system.platform.rig import IMAGE, needs_docker

from sagong.linux import mounts, syscalls
from sagong.linux.cgroup import CONTROLLERS, Cgroup, layout_of_machine

pytestmark = [pytest.mark.root, needs_docker]
V1 = layout_of_machine().mode != "v2"
needs_v1 = pytest.mark.skipif(not V1, reason="reads files of cgroup version 1")


@pytest.fixture(scope="module")
def docker() -> Iterator[Engine]:
    """An engine for all of these, which leave nothing."""
    with engine() as made:
        yield made
        made.clear()
        everywhere = (*CONTROLLERS, "unified", "named")
        Cgroup(layout_of_machine(), "sagong-options-parent", everywhere).remove()


STATUS = "grep -E '^({})' /proc/self/status | cut -f2"
DOCKERS = "00000000a80425fb"

# Options, a script, and the lines it writes.
HOLDS: dict[str, tuple[str, str, list[str]]] = {
    "default": ("", STATUS.format("CapEff|NoNewPrivs|Seccomp:"), [DOCKERS, "0", "2"]),
    "no-new-privileges": (
        "--security-opt no-new-privileges",
        STATUS.format("NoNewPrivs"),
        ["1"],
    ),
    "seccomp-unconfined": ("--security-opt seccomp=unconfined", STATUS.format("Seccomp:"), ["0"]),
    "apparmor-unconfined": ("--security-opt apparmor=unconfined", "echo ran", ["ran"]),
    "label-disable": ("--security-opt label=disable", "echo ran", ["ran"]),
    "systempaths": (
        "--security-opt systempaths=unconfined",
        "echo 5000 > /proc/sys/kernel/shmmni; test $(wc -c < /proc/interrupts) -gt 0 && echo seen",
        ["seen"],
    ),
    "masked": (
        "",
        "wc -c < /proc/interrupts; ls /sys/firmware | wc -l; "
        "echo 1 > /proc/sys/kernel/shmmni || echo ro",
        ["0", "0", "ro"],
    ),
    "cap-drop-all": ("--cap-drop ALL", STATUS.format("CapEff|CapBnd"), ["0" * 16] * 2),
    "cap-drop-add": (
        "--cap-drop ALL --cap-add CHOWN --cap-add cap_kill",
        STATUS.format("CapEff"),
        [f"{1 | 1 << 5:016x}"],
    ),
    "device": (
        "--device /dev/zero:/dev/other:r",
        "head -c 2 /dev/other | wc -c; stat -c %t:%T /dev/other",
        ["2", "1:5"],
    ),
    "device-rule": (
        "--device-cgroup-rule 'c 240:* r'",
        "mknod /n c 240 77; cat /n 2>&1 | grep -c 'No such device'",
        ["1"],
    ),
    "sysctl": (
        "--sysctl net.ipv4.ip_unprivileged_port_start=77 --sysctl kernel.shmmni=123",
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmni",
        ["77", "123"],
    ),
    "ulimit": (
        "--ulimit nofile=100:200 --ulimit core=0",
        "ulimit -Sn; ulimit -Hn; ulimit -c",
        ["100", "200", "0"],
    ),
    "pids-limit": (
        "--pids-limit 5",
        "for i in 1 2 3 4 5 6 7; do sleep 60 & done 2>/dev/null; echo all",
        [],
    ),
    "cpuset": (
        "--cpuset-cpus 0 --cpuset-mems 0",
        "grep -E '^(Cpus|Mems)_allowed_list' /proc/self/status | cut -f2",
        ["0", "0"],
    ),
    "oom-score": ("--oom-score-adj 500", "cat /proc/self/oom_score_adj", ["500"]),
    "init": ("--init", "cat /proc/1/comm; test $$ != 1 && echo other", ["sagong-init", "other"]),
    "tmpfs": (
        "--tmpfs /t:size=1m,mode=1770,uid=5,exec",
        "stat -c '%a %u' /t; grep ' /t ' /proc/mounts | grep -c noexec; "
        "df -k /t | tail -1 | awk '{print $2}'",
        ["1770 5", "0", "1024"],
    ),
    "read-only": (
        "--read-only --tmpfs /tmp",
        "touch /x 2>/dev/null || echo ro; touch /tmp/x && echo rw",
        ["ro", "rw"],
    ),
    "user": ("-u 5:6 --group-add 7", "id -u; id -g; id -G", ["5", "6", "6 7"]),
    "shm-size": ("--shm-size 1m", "df -k /dev/shm | tail -1 | awk '{print $2}'", ["1024"]),
    "ipc-none": ("--ipc none", "grep -c ' /dev/shm ' /proc/mounts", ["0"]),
    "ipc-host": (
        "--ipc host",
        "ls /dev/shm | grep sagong-options; rm /dev/shm/sagong-options",
        ["sagong-options"],
    ),
    "names": (
        "--hostname h --domainname d.org",
        "hostname; cat /proc/sys/kernel/domainname",
        ["h", "d.org"],
    ),
    "cgroupns": ("--cgroupns private", "cut -d: -f3 /proc/self/cgroup | sort -u", ["/"]),
    "privileged": (
        "--privileged",
        STATUS.format("Seccomp:") + "; test -c /dev/kmsg && echo dev; mkdir /m; "
        "mount -t tmpfs x /m && echo mounted; echo 1 > /proc/sys/kernel/shmmni && echo rw",
        ["0", "dev", "mounted", "rw"],
    ),
}

# Of version 1, since the files have other names in version 2.
HOLDS_V1: dict[str, tuple[str, str, list[str]]] = {
    "memory": (
        "-m 32m --memory-swap 64m --memory-swappiness 10 --memory-reservation 16m",
        "cd memory; cat memory.limit_in_bytes memory.memsw.limit_in_bytes memory.swappiness "
        "memory.soft_limit_in_bytes",
        [str(32 << 20), str(64 << 20), "10", str(16 << 20)],
    ),
    "oom-kill-disable": (
        "-m 32m --oom-kill-disable",
        "grep oom_kill_disable memory/memory.oom_control",
        ["oom_kill_disable 1"],
    ),
    "cpus": (
        "--cpus 0.5 --cpu-shares 77",
        "cat cpu/cpu.cfs_quota_us cpu/cpu.shares",
        ["50000", "77"],
    ),
    "blkio": (
        "--device-read-bps {disk}:1mb --device-write-iops {disk}:10",
        "cut -d' ' -f2 blkio/blkio.throttle.read_bps_device blkio/blkio.throttle.write_iops_device",
        [str(1 << 20), "10"],
    ),
    "cgroup-parent": (
        "--cgroup-parent /sagong-options-parent --cgroupns host",
        "cut -d: -f3 /proc/self/cgroup | grep -c ^/sagong-options-parent/ | grep -vc ^0",
        ["1"],
    ),
}


# Options and what is said to them; each container is refused.
REFUSED = {
    "--security-opt seccomp=/no/such": "opening seccomp profile (/no/such) failed",
    "--security-opt nonsense=1": 'invalid --security-opt 2: "nonsense=1"',
    "--cap-add NONSENSE": 'invalid CapAdd: unknown capability: "CAP_NONSENSE"',
    "--device /dev/nope": 'while adding custom device "/dev/nope": no such file or directory',
    "--sysctl net.ipv4.ip_forward=1 --network host": "sysctl net.ipv4.ip_forward: not allowed",
    "--cpuset-cpus 4000": "Requested CPUs are not available",
    "--oom-score-adj 5000": "range for oom score adj is [-1000, 1000]",
    "--tmpfs /t:nonsense=1": 'invalid tmpfs option "nonsense"',
    "--stop-signal NOPE": "invalid signal: NOPE",
    "--group-add nobody-has-it": "Unable to find group nobody-has-it",
    "--pid container:nosuch": "No such container: nosuch",
}


def disk() -> str:
    """A whole disk, as throttles need one."""
    for name in sorted(path.name for path in Path("/sys/block").iterdir()):
        if not name.startswith(("loop", "ram", "zram", "dm-", "md", "sr", "fd")):
            return f"/dev/{name}"
    pytest.skip("needs a disk to throttle")


def holds(docker: Engine, options: str, script: str, wanted: list[str]) -> None:
    """A script in a container with these options writes this."""
    done = docker.docker("run", "--rm", *shlex.split(options), IMAGE, "sh", "-c", script)
    assert done.stdout.splitlines() == wanted, done


@pytest.mark.parametrize("name", HOLDS)
def test_what_is_asked_for_holds(docker: Engine, name: str) -> None:
    shared = Path("/dev/shm/sagong-options")
    shared.touch()
    try:
        holds(docker, *HOLDS[name])
    finally:
        shared.unlink(missing_ok=True)


@needs_v1
@pytest.mark.parametrize("name", HOLDS_V1)
def test_limits_are_in_the_files(docker: Engine, name: str) -> None:
    options, script, wanted = HOLDS_V1[name]
    options = options.format(disk=disk()) if "{disk}" in options else options
    holds(docker, options, f"cd /sys/fs/cgroup; {script}", wanted)


@pytest.mark.parametrize("options", REFUSED)
def test_what_cannot_be_is_refused(docker: Engine, options: str) -> None:
    done = docker.docker("run", "--rm", *shlex.split(options), IMAGE, "true")
    # As with Docker: its command line takes "no such file" for the program.
    assert done.returncode == (127 if "custom device" in done.stderr else 125), done
    assert REFUSED[options] in done.stderr
    assert docker.ok("ps", "-aq") == ""


def test_a_profile_of_seccomp_holds_and_nonsense_is_refused(docker: Engine) -> None:
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
    profile = docker.directory / "profile.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    option = f"--security-opt seccomp={profile}"
    holds(docker, option, "mkdir /x 2>/dev/null || echo denied", ["denied"])
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_DANCE"}))
    done = docker.docker("run", "--rm", *option.split(), IMAGE, "true")
    assert (done.returncode, "SCMP_ACT_DANCE" in done.stderr) == (125, True), done


@pytest.mark.skipif(
    Path("/sys/module/apparmor/parameters/enabled").exists(), reason="the kernel has AppArmor"
)
def test_a_profile_of_apparmor_is_refused_without_it(docker: Engine) -> None:
    words = ("run", "--rm", "--security-opt", "apparmor=docker-default", IMAGE, "true")
    done = docker.docker(*words)
    assert (done.returncode, "kernel has no AppArmor" in done.stderr) == (125, True), done


def test_namespaces_of_another_container_are_joined(docker: Engine) -> None:
    docker.ok("run", "-d", "--name", "first", "--ipc", "shareable", IMAGE, "sleep", "1000")
    try:
        space = docker.ok("exec", "first", "readlink", "/proc/self/ns/ipc")
        holds(docker, "--ipc container:first", "readlink /proc/self/ns/ipc", [space])
        holds(docker, "--pid container:first", "cat /proc/1/comm", ["sleep"])
    finally:
        docker.ok("rm", "-f", "first")


def test_what_is_mounted_on_the_host_spreads_as_asked(docker: Engine) -> None:
    """rslave sees later mounts of the host, rprivate does not, rshared gives its own to the host."""
    place = docker.directory / "shared"
    place.mkdir()
    mounts.bind(str(place), str(place))
    try:
        mounts.set_propagation(str(place), "shared")
        for name in ("later", "back"):
            (place / name).mkdir()
        for spread in ("rslave", "rprivate"):
            wait = "while [ ! -e /p/go ]; do sleep 0.05; done; ls /p/later"
            docker.ok("run", "-d", "--name", spread, "-v", f"{place}:/p:{spread}", IMAGE,
                      "sh", "-c", wait)  # fmt: skip
        mounts.bind(str(docker.directory), str(place / "later"))
        (place / "go").touch()
        for spread, seen in (("rslave", True), ("rprivate", False)):
            docker.ok("wait", spread)
            assert ("shared" in docker.ok("logs", spread)) is seen
        script = "mount -t tmpfs given /p/back; grep -c given /proc/mounts"
        option = f"--cap-add SYS_ADMIN -v {place}:/p:rshared"
        holds(docker, option, script, ["1"])
        assert f"given {place}/back" in Path("/proc/mounts").read_text()
    finally:
        docker.docker("rm", "-f", "rslave", "rprivate")
        for name in ("back", "later", "."):
            with contextlib.suppress(OSError):
                syscalls.umount(str(place / name), mounts.MNT_DETACH)
