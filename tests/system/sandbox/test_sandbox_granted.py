"""What a plugin is granted does work, and what it has is exactly what its rights say."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sagong.errors import FailedPrecondition
from sagong.linux import mounts, syscalls
from sagong.linux.mounts import MountEntry, mount_table
from sagong.linux.syscalls import Namespace
from sagong.sandbox import DeviceGrant, PathGrant, differences, plan

pytestmark = pytest.mark.root

Attempt = Callable[[Callable[[], Any]], str]


def test_own_directories_and_tmp_are_writable(cage: Any) -> None:
    own = (cage.top / "lib/caged", cage.top / "run/caged", Path("/tmp"))

    def write() -> list[int]:
        for place in own:
            (place / "file").write_text("kept")
        return [(place / "file").stat().st_uid for place in own]

    assert cage.run(write).answer == [58901] * 3
    assert (own[0] / "file").read_text() == "kept"
    assert not Path("/tmp/file").exists()
    assert own[0].stat().st_mode & 0o777 == 0o700


def turn() -> int:
    """How long this thread runs before others are looked at, in ns; 0 on Linux before 6.12."""
    raw = ctypes.create_string_buffer(48)
    syscalls.call("sched_getattr", 0, raw, len(raw), 0)
    return int(struct.unpack_from("=Q", raw, 24)[0])


def test_turns_are_short_for_threads_too_and_long_outside(cage: Any) -> None:
    def turns() -> list[int]:
        with ThreadPoolExecutor(1) as pool:
            return [turn(), pool.submit(turn).result()]

    if cage.machine.kernel >= (6, 12):
        assert cage.run(turns).answer == [100_000, 100_000]
        assert turn() > 100_000


def test_granted_paths_can_be_read_and_written_as_said(cage: Any, attempt: Attempt) -> None:
    for name in ("readable", "writable"):
        (cage.top / name).mkdir()
        (cage.top / name).chmod(0o777)
        (cage.top / name / "file").write_text(name)
    grants = (
        PathGrant(str(cage.top / "readable")),
        PathGrant(str(cage.top / "writable"), access="write"),
        PathGrant(str(cage.top / "absent"), optional=True),
    )

    def use() -> list[str]:
        places = [Path(grant.path) for grant in grants[:2]]
        read = [(place / "file").read_text() for place in places]
        return read + [attempt(partial((p / "new").write_text, "x")) for p in places]

    outcome = cage.run(use, paths=grants)
    assert outcome.answer[:2] == ["readable", "writable"]
    assert outcome.answer[2] in ("EROFS", "EACCES")
    assert outcome.answer[3] == "done"
    assert any("absent is missing" in note for note in outcome.notes)


def test_a_missing_path_stops_the_process_and_is_named(cage: Any) -> None:
    outcome = cage.run(lambda: "ran", paths=(PathGrant(str(cage.top / "absent")),))
    assert outcome.answer.startswith("FailedPrecondition: sandbox of caged: read ")
    assert "absent" in outcome.answer
    assert outcome.status == 1


def test_only_granted_sockets_can_be_connected_to(cage: Any, attempt: Attempt) -> None:
    paths = []
    servers = []
    for name in ("state", "image"):
        (cage.top / name).mkdir()
        path = str(cage.top / name / "bus")
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        os.chmod(path, 0o666)
        server.listen()
        paths.append(path)
        servers.append(server)

    def connect() -> list[str]:
        def to(path: str) -> None:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)

        return [attempt(partial(to, p)) for p in paths]

    try:
        found = cage.run(connect, sockets=(str(cage.top / "state"),)).answer
    finally:
        for server in servers:
            server.close()
    assert found == ["done", "ENOENT"]


def test_host_network_reaches_a_listener(cage: Any, attempt: Attempt) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        found = cage.run(
            lambda: attempt(lambda: socket.create_connection(address, timeout=20)), network="host"
        )
    assert found.answer == "done"


def test_capabilities_work_and_pass_to_programs(cage: Any, attempt: Attempt) -> None:
    def use() -> list[Any]:
        target = Path("/tmp/file")
        target.write_text("x")
        status = subprocess.check_output(["cat", "/proc/self/status"], text=True)
        effective = next(line for line in status.splitlines() if line.startswith("CapEff"))
        changed = attempt(lambda: os.chown(target, 12, 34))
        return [changed, int(effective.split()[1], 16), target.stat().st_uid]

    assert cage.run(use, capabilities=("CAP_CHOWN",)).answer == ["done", 1, 12]


def test_granted_groups_of_calls_work(cage: Any, attempt: Attempt) -> None:
    def use() -> list[str]:
        os.mkdir("/tmp/m")
        return [
            attempt(lambda: syscalls.mount("x", "/tmp/m", "tmpfs")),
            attempt(lambda: syscalls.umount("/tmp/m")),
            attempt(lambda: syscalls.unshare(syscalls.Namespace.UTS)),
            attempt(lambda: syscalls.sethostname("x")),
        ]

    outcome = cage.run(use, capabilities=("CAP_SYS_ADMIN",), seccomp=("mount", "namespace"))
    assert outcome.answer == ["done", "done", "done", "EPERM"]


def test_devices_belong_to_whom_they_are_granted(cage: Any, attempt: Attempt) -> None:
    device = next((p for p in ("/dev/fuse", "/dev/net/tun", "/dev/kmsg") if Path(p).exists()), "")
    if not device:
        pytest.skip("the machine has none of the devices tried")

    def use() -> str:
        return attempt(lambda: os.close(os.open(device, os.O_RDWR)))

    assert cage.run(use).answer == "ENOENT"
    assert cage.run(use, devices=(DeviceGrant(device),)).answer == "done"
    notes = cage.run(use, devices=(DeviceGrant("/dev/absent", optional=True),)).notes
    assert any("/dev/absent is missing" in note for note in notes)


def test_mounts_in_a_shared_directory_are_seen_by_the_machine(cage: Any) -> None:
    shared = cage.top / "netns"
    shared.mkdir()
    mounts.bind(str(shared), str(shared))
    mounts.set_propagation(str(shared), "shared")

    def pin() -> str:
        os.mkdir(shared / "one")
        syscalls.mount("sagong-cage", str(shared / "one"), "tmpfs")
        return "pinned"

    try:
        shared.chmod(0o777)
        outcome = cage.run(
            pin,
            look=True,
            capabilities=("CAP_SYS_ADMIN",),
            seccomp=("mount",),
            paths=(PathGrant(str(shared), access="write", shared=True),),
        )
        assert outcome.answer == "pinned"
        seen = [m.source for m in mounts.mount_table() if m.target == str(shared / "one")]
        assert seen == ["sagong-cage"], "it must outlive the plugin, too"
        inside = {m.path: m.propagation for m in outcome.effective.mounts}
        assert inside[str(shared)] == "shared"
        assert {p for m, p in inside.items() if m != str(shared)} <= {"private", "slave"}
    finally:
        syscalls.umount(str(shared), mounts.MNT_DETACH)


def test_the_sandbox_leaves_no_mount_on_the_machine(cage: Any) -> None:
    """In a thread with mounts of its own: nobody else's come there, though some may go."""

    def told() -> tuple[tuple[MountEntry, ...], ...]:
        syscalls.unshare(Namespace.MNT)
        mounts.set_propagation("/", "rprivate")
        mounts.set_propagation("/", "rshared")
        before = mount_table("thread-self")
        assert cage.run(lambda: "ran").answer == "ran"
        return before, mount_table("thread-self")

    with ThreadPoolExecutor(1) as apart:
        before, after = apart.submit(told).result()
    assert {entry.id for entry in after} <= {entry.id for entry in before}


@pytest.mark.parametrize(
    "granted",
    [
        {},
        {"capabilities": ("CAP_NET_ADMIN", "CAP_NET_RAW"), "network": "host"},
        {"capabilities": ("CAP_SYS_ADMIN",), "seccomp": ("mount",), "groups": (5, 7)},
        {"uid": 0, "gid": 0},
    ],
)
def test_what_a_process_has_is_what_its_rights_say(cage: Any, granted: dict[str, Any]) -> None:
    outcome = cage.run(lambda: "ran", look=True, **granted)
    assert outcome.answer == "ran"
    assert differences(outcome.effective, cage.rights(**granted), cage.machine) == ()
    wrong = replace(cage.rights(**granted), uid=4711)
    assert differences(outcome.effective, wrong, cage.machine) != ()
    assert "seccomp            1 filters" in outcome.effective.describe()


def test_without_root_the_rest_is_enforced_and_the_gap_is_told(cage: Any, attempt: Attempt) -> None:
    machine = replace(cage.machine, root=False)
    rights = cage.rights(data="/tmp")
    todo = plan(rights, machine, descriptors=None)
    assert any("not root" in note for note in todo.notes)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            todo.apply()
            answers = [
                attempt(lambda: os.listdir("/var")),
                attempt(lambda: os.listdir("/usr")),
                attempt(lambda: syscalls.unshare(syscalls.Namespace.USER)),
            ]
            os.write(write, " ".join(answers).encode())
        except BaseException as error:
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    answer = os.read(read, 4096).decode()
    os.close(read)
    os.waitpid(pid, 0)
    assert answer == ("EACCES" if machine.landlock else "done") + " done EPERM"


def test_a_refused_step_names_itself(cage: Any) -> None:
    todo = plan(cage.rights(), replace(cage.machine, stage="/proc/absent"), descriptors=None)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            todo.apply()
        except FailedPrecondition as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    text = os.read(read, 4096).decode()
    os.close(read)
    os.waitpid(pid, 0)
    assert "new root on /proc/absent" in text
