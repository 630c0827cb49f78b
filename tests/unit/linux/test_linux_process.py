"""System calls, capabilities, mounts, Landlock and processes, as far as they need no root."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sagong.linux import capabilities, landlock, mounts, overlay, process, syscalls
from sagong.linux.capabilities import CapabilitySets
from sagong.linux.listening import listening


def test_a_failed_call_names_itself_and_the_path() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        syscalls.open_tree("/no/such/place", clone=False)
    assert caught.value.filename == "/no/such/place"
    assert str(caught.value).startswith("[Errno 2] open_tree: ")


def test_an_unknown_call_is_missing() -> None:
    with pytest.raises(OSError, match="has no such system call") as caught:
        syscalls.call("time_travel")
    assert caught.value.errno == errno.ENOSYS


def test_too_long_mount_options_are_refused_before_the_kernel_cuts_them() -> None:
    with pytest.raises(OSError, match="one page"):
        syscalls.mount("x", "/nowhere", "overlay", data="x" * 5000)


def test_a_rule_for_a_link_that_leads_nowhere_is_left_out(tmp_path: Path) -> None:
    """Making the domain failed at it."""
    (tmp_path / "dangling").symlink_to("/no/such/place")
    rules = [landlock.PathRule(str(p), landlock.READ) for p in (tmp_path, tmp_path / "dangling")]
    assert landlock.existing(rules) == (rules[0],)


def test_a_missing_layer_leaves_no_descriptor_behind(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    layers = ":".join([str(tmp_path)] * 300 + ["/no/such/layer"])
    with pytest.raises(FileNotFoundError):
        overlay.mount_overlay("", "/nowhere", 0, f"lowerdir={layers}".ljust(5000, "x"))
    assert len(os.listdir("/proc/self/fd")) <= before


def test_the_bindings_are_cheap_to_import() -> None:
    code = "import sys, sagong.linux.seccomp_profile, sagong.linux.cgroup_statistics, " + (
        "sagong.linux.landlock, sagong.linux.process; "
        "print([m for m in ('asyncio', 'zmq', 'msgspec', 'json', 'logging') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    found = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert found.strip() == "[]"


def test_capability_names_and_masks() -> None:
    assert capabilities.number_of("CAP_SYS_ADMIN") == capabilities.number_of("sys_admin") == 21
    assert capabilities.NAMES[40] == "CAP_CHECKPOINT_RESTORE"
    assert len(capabilities.NAMES) == 41
    assert capabilities.names_of(1 << 41 | 1) == ("CAP_CHOWN", "CAP_41")
    mask = capabilities.mask_of(capabilities.DOCKER_DEFAULT)
    assert mask == 0xA80425FB
    assert set(capabilities.names_of(mask)) == set(capabilities.DOCKER_DEFAULT)
    with pytest.raises(ValueError, match="CAP_FLY"):
        capabilities.mask_of(["CAP_FLY"])


def test_capability_sets_are_read_from_status() -> None:
    text = "Name:\tx\nCapInh:\t0000000000000001\nCapPrm:\t0000000000000003\n" + (
        "CapEff:\t0000000000000002\nCapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000001\n"
    )
    assert capabilities.parse_status(text) == CapabilitySets(1, 3, 2, 0x1FFFFFFFFFF, 1)
    effective, permitted, inheritable = syscalls.capget()
    seen = capabilities.sets_of()
    assert (seen.effective, seen.permitted, seen.inheritable) == (effective, permitted, inheritable)
    assert seen.bounding == capabilities.bounding_set()


def test_a_path_in_mountinfo_may_hold_what_ends_lines_elsewhere() -> None:
    """Whoever could mount anything at such a place kept the kernel from starting."""
    strange = "\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
    line = f"36 35 98:0 / /mnt/{strange} rw - ext3 /dev/a rw\n"
    assert [entry.target for entry in mounts.parse_mountinfo(line * 2)] == [f"/mnt/{strange}"] * 2


def test_mountinfo_is_parsed_with_escapes_and_tags() -> None:
    line = (
        r"36 35 98:0 /mnt1 /mnt\0402\134x rw,noatime shared:1 master:2 - ext3 /dev/a\040b rw,err=x"
    )
    (entry,) = mounts.parse_mountinfo(line)
    assert entry.target == "/mnt 2\\x"
    assert entry.source == "/dev/a b"
    assert entry.propagation == ("shared:1", "master:2")
    assert (entry.kind, entry.root, entry.super_options) == ("ext3", "/mnt1", ("rw", "err=x"))
    assert not entry.read_only
    assert any(mount.target == "/" for mount in mounts.mount_table())


def test_mount_options_are_split_by_their_reader() -> None:
    found = mounts.flags_of(["ro", "nosuid", "rbind", "rslave", "size=1m", "", "rw", "mode=755"])
    assert found.flags == mounts.MS_NOSUID | mounts.MS_BIND | mounts.MS_REC
    assert found.propagations == (mounts.MS_SLAVE | mounts.MS_REC,)
    assert found.data == "size=1m,mode=755"


@pytest.mark.parametrize(("abi", "missing"), [(0, 1), (1, 1), (3, 2), (4, 1), (6, 0), (7, 0)])
def test_landlock_tells_what_an_old_kernel_lacks(abi: int, missing: int) -> None:
    rules = landlock.Ruleset(handle_ports=abi == 3)
    handled = landlock.handled_rights(rules, abi)
    assert len(handled.missing) == missing
    assert bool(handled.files) == (abi > 0)
    assert handled.files >> 13 == {0: 0, 1: 0, 3: 0b11, 4: 0b11}.get(abi, 0b111)


def test_a_process_is_identified_for_all_times() -> None:
    child = subprocess.Popen(["sleep", "60"])
    identity = process.identify(child.pid)
    pidfd = process.open_identified(identity)
    assert pidfd is not None
    try:
        stranger = process.ProcessId(child.pid, identity.started + 1)
        assert process.open_identified(stranger) is None
        assert not process.wait_ended(pidfd, 0)
        syscalls.pidfd_send_signal(pidfd, signal.SIGTERM)
        assert process.wait_ended(pidfd, 60)
        child.wait()
        assert process.open_identified(identity) is None
    finally:
        os.close(pidfd)


def test_exit_status_is_told_by_pidfd() -> None:
    child = subprocess.Popen(["sh", "-c", "exit 7"])
    pidfd = syscalls.pidfd_open(child.pid)
    try:
        try:
            info = syscalls.exit_info(pidfd)
        except OSError:
            pytest.skip("PIDFD_GET_INFO needs Linux 6.15")
        assert (info.parent, info.status) in ((os.getpid(), None), (0, 7 << 8))
        child.wait()
        status = syscalls.exit_info(pidfd).status
        assert status is not None
        assert os.waitstatus_to_exitcode(status) == 7
    finally:
        os.close(pidfd)


def test_a_title_replaces_the_command_line() -> None:
    code = (
        "from sagong.linux import process; process.set_title('sagong: kernel'); import os;"
        "print(open('/proc/self/cmdline').read() + '|' + open('/proc/self/comm').read())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    text = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert text.strip() == "sagong: kernel\0|sagong: kernel"


def test_descriptors_arrive_closed_on_exec_and_excess_ones_are_not_kept() -> None:
    left, right = socket.socketpair()
    read, write = os.pipe()
    with left, right:
        os.set_inheritable(read, True)
        process.send_descriptors(left, b"x", (read, write))
        received = process.receive_descriptors(right, 16)
        assert received.data == b"x"
        assert [os.get_inheritable(d) for d in received.descriptors] == [False, False]
        for descriptor in received.descriptors:
            os.close(descriptor)
        before = len(os.listdir("/proc/self/fd"))
        process.send_descriptors(left, b"x", (read,) * 8)
        with pytest.raises(OSError, match="more than 2"):
            process.receive_descriptors(right, 16, most=2)
        assert len(os.listdir("/proc/self/fd")) <= before
        assert process.peer_credentials(left) == (os.getpid(), os.getuid(), os.getgid())
    os.close(read)
    os.close(write)


def test_status_facts_are_those_of_this_process() -> None:
    facts = process.status_facts()
    assert facts.parent == os.getppid()
    assert facts.uids == (os.getuid(), os.geteuid(), *facts.uids[2:])
    assert facts.state == "R"
    assert process.start_time() == process.start_time(os.getpid())


def test_where_a_process_listens_is_told_by_the_kernel() -> None:
    path = f"/tmp/sagong-listening-{os.getpid()}"
    v6 = socket.create_server(("::1", 0), family=socket.AF_INET6)
    with socket.create_server(("127.0.0.1", 0)) as v4, v6, socket.socket(socket.AF_UNIX) as unix:
        with (
            socket.socket(type=socket.SOCK_DGRAM) as udp,
            socket.create_connection(v4.getsockname()) as client,
        ):
            udp.bind(("127.0.0.1", 0))
            unix.bind(path)
            unix.listen()
            os.unlink(path)
            found = listening(os.getpid())
            mine = client.getsockname()[1]
            ports = [one.getsockname()[1] for one in (v4, v6, udp)]
    assert f"tcp:127.0.0.1:{ports[0]}" in found
    assert f"tcp:[::1]:{ports[1]}" in found
    assert f"udp:127.0.0.1:{ports[2]}" in found
    assert f"unix:{path}" in found
    assert f"tcp:127.0.0.1:{mine}" not in found, "it is a client's"
