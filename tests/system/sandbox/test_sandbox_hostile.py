"""A hostile plugin with no rights: every attempt is refused, by name."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sagong.linux import capabilities, syscalls
from sagong.linux.capabilities import NAMES
from sagong.linux.syscalls import Namespace
from sagong.sandbox import PathGrant, ProcessLimits, plan

pytestmark = pytest.mark.root

Attempt = Callable[[Callable[[], Any]], str]


def test_secrets_of_the_machine_are_out_of_sight(cage: Any, attempt: Attempt) -> None:
    paths = ["/etc/shadow", "/root/.bashrc", "/sys/kernel", "/var/log", "/run", "/boot", "/home"]
    found = cage.run(lambda: {p: attempt(partial(os.stat, p)) for p in paths}).answer
    assert set(found.values()) <= {"ENOENT"}, found


def test_files_of_another_plugin_are_out_of_sight(cage: Any, attempt: Attempt) -> None:
    secret = cage.top / "lib/other/secret"
    secret.parent.mkdir(parents=True)
    secret.write_text("x")
    secret.chmod(0o666)
    assert cage.run(lambda: attempt(secret.read_text)).answer == "ENOENT"


def test_memory_of_others_cannot_be_read(cage: Any, attempt: Attempt) -> None:
    victim = os.getpid()

    def steal() -> list[str]:
        return [
            attempt(lambda: os.open(f"/proc/{victim}/mem", os.O_RDONLY)),
            attempt(lambda: os.listdir(f"/proc/{victim}")),
            attempt(lambda: syscalls.call("ptrace", 16, victim, 0, 0)),
            attempt(lambda: syscalls.call("process_vm_readv", victim, 0, 0, 0, 0, 0)),
            attempt(lambda: syscalls.pidfd_getfd(0, 0)),
        ]

    assert cage.run(steal).answer == ["ENOENT", "ENOENT", "EPERM", "EPERM", "EPERM"]


def test_only_its_own_processes_are_listed(cage: Any) -> None:
    pids = cage.run(lambda: [[p for p in os.listdir("/proc") if p.isdigit()], os.getpid()]).answer
    assert pids[0] == [str(pids[1])]


def test_others_cannot_be_signalled(cage: Any, attempt: Attempt) -> None:
    victim = os.getppid()
    assert cage.run(lambda: attempt(lambda: os.kill(victim, 0))).answer == "EPERM"
    same_uid = cage.run(
        lambda: attempt(lambda: os.kill(victim, 0)), uid=0, gid=0, capabilities=("CAP_SYS_ADMIN",)
    )
    assert same_uid.answer == "EPERM", "Landlock's scope must hold where the uid is the same"


DANGEROUS: dict[str, Callable[[], Any]] = {
    "mount": lambda: syscalls.mount("x", "/tmp", "tmpfs"),
    "umount": lambda: syscalls.umount("/usr"),
    "pivot_root": lambda: syscalls.pivot_root("/tmp", "/tmp"),
    "open_tree": lambda: syscalls.open_tree("/tmp", clone=True),
    "fsopen": lambda: syscalls.fsopen("tmpfs"),
    "mount_setattr": lambda: syscalls.mount_setattr("/usr", clear=1),
    "unshare user": lambda: syscalls.unshare(Namespace.USER),
    "unshare mount": lambda: syscalls.unshare(Namespace.MNT),
    "setns": lambda: syscalls.setns(0),
    "clone user": lambda: syscalls.call("clone", Namespace.USER | 17, 0, 0, 0, 0),
    "chroot": lambda: os.chroot("/tmp"),
    "module": lambda: syscalls.call("init_module", b"", 0, b""),
    "finit_module": lambda: syscalls.call("finit_module", 0, b"", 0),
    "bpf": lambda: syscalls.call("bpf", 0, None, 0),
    "perf": lambda: syscalls.call("perf_event_open", None, 0, 0, 0, 0),
    "keyctl": syscalls.join_session_keyring,
    "reboot": lambda: syscalls.call("reboot", 0, 0, 0, None),
    "kexec": lambda: syscalls.call("kexec_load", 0, 0, None, 0),
    "clock": lambda: syscalls.call("clock_settime", 0, None),
    "swapon": lambda: syscalls.call("swapon", b"/tmp/x", 0),
    "sethostname": lambda: syscalls.sethostname("x"),
    "userfaultfd": lambda: syscalls.call("userfaultfd", 0),
    "open_by_handle_at": lambda: syscalls.call("open_by_handle_at", 0, None, 0),
    "vsock": lambda: socket.socket(40, socket.SOCK_STREAM),
    "packet": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "vsock with high bits": lambda: syscalls.call("socket", 1 << 32 | 40, 1, 0),
    "type into a terminal": lambda: syscalls.call("ioctl", 0, 1 << 32 | 0x5412, b"x"),
}


@pytest.mark.parametrize("granted", [(), ("CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_CHROOT")])
def test_dangerous_calls_fail_even_with_capabilities(
    cage: Any, attempt: Attempt, granted: tuple[str, ...]
) -> None:
    def all_of_them() -> dict[str, str]:
        return {name: attempt(call) for name, call in DANGEROUS.items()}

    found = cage.run(all_of_them, capabilities=granted).answer
    assert {name: reason for name, reason in found.items() if reason != "EPERM"} == {}


def test_calls_that_libraries_probe_for_look_missing(cage: Any, attempt: Attempt) -> None:
    def probe() -> list[str]:
        calls = (("clone3", 0, 0), ("io_uring_setup", 1, 0))
        return [attempt(partial(syscalls.call, *c)) for c in calls]

    assert cage.run(probe).answer == ["ENOSYS", "ENOSYS"]


def test_foreign_architecture_kills_the_process(cage: Any) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("int 0x80 is x86's")
    # mov eax, 20 (getpid of i386); int 0x80; ret
    code = b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"

    def call_i386() -> int:
        import mmap

        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        return int(ctypes.CFUNCTYPE(ctypes.c_int)(address)())

    assert cage.run(call_i386).killed_by == signal.SIGSYS


def test_capabilities_cannot_be_raised(cage: Any, attempt: Attempt) -> None:
    every = (1 << len(NAMES)) - 1

    def raise_them() -> list[Any]:
        done = [
            attempt(lambda: syscalls.capset(every, every, every)),
            attempt(lambda: capabilities.raise_ambient(1 << 21)),
            attempt(lambda: os.setuid(0)),
            attempt(lambda: os.setgroups([0])),
        ]
        return [*done, list(capabilities.sets_of("self"))]

    found = cage.run(raise_them).answer
    assert found == ["EPERM", "EPERM", "EPERM", "EPERM", [0, 0, 0, 0, 0]]


def test_programs_with_setuid_gain_nothing(cage: Any) -> None:
    tool = cage.top / "tool"
    tool.mkdir()
    copy = tool / "cat"
    copy.write_bytes(Path("/bin/cat").read_bytes())
    copy.chmod(0o4755)

    def execute() -> str:
        return subprocess.check_output([copy, "/proc/self/status"], text=True)

    text = cage.run(execute, paths=(PathGrant(str(tool)),)).answer
    facts = dict(line.split(":", 1) for line in text.splitlines())
    assert facts["Uid"].split() == ["58901"] * 4
    assert {int(facts[f"Cap{kind}"], 16) for kind in ("Prm", "Eff", "Bnd", "Inh", "Amb")} == {0}


def test_nobody_outside_is_reached(cage: Any, attempt: Attempt) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as hidden:
        address = server.getsockname()
        name = f"\0sagong-cage-{os.getpid()}"
        hidden.bind(name)
        hidden.listen()

        def connect() -> list[str]:
            def unix() -> None:
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(name)

            tcp = attempt(lambda: socket.create_connection(address, timeout=2))
            out = attempt(lambda: socket.create_connection(("192.0.2.1", 80), timeout=2))
            return [tcp, out, attempt(unix)]

        assert cage.run(connect).answer == ["ENETUNREACH", "ENETUNREACH", "ECONNREFUSED"]
        shared = cage.run(connect, network="host").answer
        assert shared[2] == "EPERM", "Landlock keeps abstract sockets of the machine away"


def test_nothing_outside_its_own_directories_is_writable(cage: Any, attempt: Attempt) -> None:
    places = ["/", "/usr", "/etc", "/dev", "/proc", "/bin", *cage.machine.python]
    places += cage.machine.sources

    def write() -> dict[str, str]:
        def at(place: str) -> str:
            return attempt(lambda: os.close(os.open(f"{place}/x", os.O_CREAT | os.O_WRONLY)))

        return {place: at(place) for place in places}

    found = cage.run(write, uid=0, gid=0, capabilities=("CAP_DAC_OVERRIDE",)).answer
    assert set(found.values()) <= {"EACCES", "EROFS", "ENOENT"}, found


def test_kernel_settings_are_read_only(cage: Any, attempt: Attempt) -> None:
    path = Path("/proc/sys/kernel/hostname")
    found = cage.run(
        lambda: attempt(lambda: path.write_text("x")), uid=0, gid=0, capabilities=("CAP_SYS_ADMIN",)
    )
    assert found.answer in ("EROFS", "EACCES")


def test_descriptors_of_the_parent_are_gone(cage: Any, attempt: Attempt) -> None:
    escape = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(escape, True)
    try:
        found = cage.run(lambda: attempt(lambda: os.stat("etc/shadow", dir_fd=escape)))
    finally:
        os.close(escape)
    assert found.answer == "EBADF"


def test_directories_are_closed_when_other_descriptors_stay(cage: Any) -> None:
    escape = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    todo = plan(cage.rights(), cage.machine, descriptors=None)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            todo.apply()
            os.stat("etc/shadow", dir_fd=escape)
        except OSError as error:
            os.write(write, str(error.errno).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    with open(read) as answer:
        assert answer.read() == "9"
    os.close(escape)


def test_fork_bomb_ends_at_the_limit(cage: Any) -> None:
    def bomb() -> list[Any]:
        children: list[int] = []
        reason = ""
        for _ in range(100):
            try:
                pid = os.fork()
            except OSError as error:
                reason = str(error.errno)
                break
            if pid == 0:
                signal.pause()
            children.append(pid)
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        return [len(children), reason]

    assert cage.run(bomb, limits=ProcessLimits(pids=16)).answer == [15, "11"]


def test_eating_memory_is_killed(cage: Any) -> None:
    def eat() -> int:
        return sum(len(bytearray(1 << 20)) and 1 for _ in [bytearray(b"x") * (256 << 20)])

    outcome = cage.run(eat, limits=ProcessLimits(memory=48 << 20))
    assert outcome.killed_by == signal.SIGKILL


def test_tmp_is_bounded(cage: Any, attempt: Attempt) -> None:
    def fill() -> str:
        def write() -> None:
            with open("/tmp/x", "wb") as file:
                for _ in range(16):
                    file.write(bytes(1 << 20))

        return attempt(write)

    assert cage.run(fill, limits=ProcessLimits(tmp=4 << 20)).answer == "ENOSPC"


def test_programs_cannot_be_brought_in(cage: Any, attempt: Attempt) -> None:
    data = cage.top / "lib/caged"

    def execute() -> list[str]:
        found = []
        for place in (Path("/tmp"), data):
            program = place / "true"
            program.write_bytes(Path("/bin/true").read_bytes())
            program.chmod(0o755)
            found.append(attempt(partial(subprocess.run, [program], check=True)))
        return found

    assert cage.run(execute).answer == ["EACCES", "EACCES"]


def test_no_core_is_dumped_and_open_files_are_bounded(cage: Any) -> None:
    import resource

    def limits() -> list[Any]:
        return [resource.getrlimit(n) for n in (resource.RLIMIT_CORE, resource.RLIMIT_NOFILE)]

    found = cage.run(limits, limits=ProcessLimits(files=100)).answer
    assert found == [[0, 0], [100, 100]]


def test_landlock_holds_what_the_mounts_would_allow(cage: Any, attempt: Attempt) -> None:
    if cage.machine.landlock == 0:
        pytest.skip("the kernel has no Landlock")
    assert cage.run(lambda: attempt(lambda: os.listdir("/"))).answer == "EACCES"
