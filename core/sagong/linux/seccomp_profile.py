"""Seccomp for containers: Docker's default policy as a table, and its JSON profiles as policies."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import Any

from sagong.linux import seccomp
from sagong.linux.seccomp import ALLOW, Condition, Policy, Rule, errno_action
from sagong.linux.syscall_table import AARCH64, I386, X86_64, machine

__all__ = [
    "ACTIONS",
    "BASE_CALLS",
    "CLONE_NAMESPACES",
    "GO_ARCHITECTURES",
    "OPERATORS",
    "compiled_default",
    "default_policy",
    "parse_profile",
]

# Calls that need no capability and are open to every container.
BASE_CALLS = """
accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32
clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2
dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64
fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat
fcntl fcntl64 fdatasync fgetxattr file_getattr file_setattr flistxattr flock fork fremovexattr
fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue
futex_time64 futex_wait futex_waitv futex_wake futimesat getcpu getcwd getdents getdents64 getegid
getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid
getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit
get_robust_list getrusage getsid getsockname getsockopt get_thread_area gettid gettimeofday getuid
getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
io_cancel ioctl io_destroy io_getevents io_pgetevents io_pgetevents_time64 ioprio_get ioprio_set
io_setup io_submit ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown
lchown32 lgetxattr link linkat listen listxattr listxattrat llistxattr _llseek lremovexattr lseek
lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir
mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open
mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal
msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat
_newselect open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free
pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease
pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv
recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename
renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min
sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity
sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop
semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto setfsgid setfsgid32
setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid
setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit
set_robust_list setsid setsockopt set_thread_area set_tid_address setuid setuid32 setxattr
setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn
socketcall socketpair splice stat stat64 statfs statfs64 statx symlink symlinkat sync
sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun
timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime
timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit
umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4
waitid waitpid write writev
"""

# Calls of one architecture.
_NATIVE_CALLS = {
    X86_64: "arch_prctl modify_ldt",
    I386: "arch_prctl modify_ldt",
    AARCH64: "sync_file_range2",
}

# Since Linux 4.8 ptrace cannot be used to slip past seccomp.
_TRACE_CALLS = "ptrace process_vm_readv process_vm_writev"

_CAPABILITY_CALLS = {
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_ADMIN": "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick listmount "
    "lookup_dcookie mount mount_setattr move_mount open_tree open_tree_attr perf_event_open "
    "pivot_root quotactl quotactl_fd setdomainname sethostname setns statmount syslog umount "
    "umount2 unshare",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module init_module finit_module",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise " + _TRACE_CALLS,
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYSLOG": "syslog",
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
}

# CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID and NET.
CLONE_NAMESPACES = 0x7E020000
_AF_VSOCK = 40
# PER_LINUX and PER_LINUX32, each with UNAME26, and the query.
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
_ENOSYS = 38


def architectures(machine_name: str) -> tuple[str, ...]:
    """The architectures whose programs run on a machine; 32 bit ARM has no table here."""
    return (X86_64, I386) if machine_name == X86_64 else (machine_name,)


def default_policy(capabilities: Collection[str], machine_name: str = "") -> Policy:
    """Docker's default: an allow list that grows with the container's capabilities.

    What it does not name fails with EPERM; clone3 fails with ENOSYS without CAP_SYS_ADMIN, since
    its flags can't be seen by a filter (libraries then use clone).
    """
    name = machine_name or machine()
    rules = [
        seccomp.rule_of(BASE_CALLS),
        seccomp.rule_of(_TRACE_CALLS),
        seccomp.rule_of("socket", ALLOW, Condition(0, "ne", _AF_VSOCK, 0xFFFFFFFF)),
        *(
            seccomp.rule_of("personality", ALLOW, Condition(0, "eq", value))
            for value in _PERSONALITIES
        ),
        *(seccomp.rule_of(_NATIVE_CALLS[arch]) for arch in architectures(name)),
        *(seccomp.rule_of(c) for cap, c in _CAPABILITY_CALLS.items() if cap in capabilities),
    ]
    if "CAP_SYS_ADMIN" not in capabilities:
        same = Condition(0, "masked_eq", 0, CLONE_NAMESPACES)
        rules.append(seccomp.rule_of("clone", ALLOW, same))
        rules.append(seccomp.rule_of("clone3", errno_action(_ENOSYS)))
    return Policy(tuple(rules), errno_action(1), architectures(name))


@cache
def _compiled(capabilities: frozenset[str]) -> bytes:
    return seccomp.compile_policy(default_policy(capabilities))


def compiled_default(capabilities: Iterable[str]) -> bytes:
    """The default policy's bytes, compiled once for each set of capabilities that matters."""
    return _compiled(frozenset(capabilities) & _CAPABILITY_CALLS.keys())


ACTIONS = {
    "SCMP_ACT_KILL": seccomp.KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": seccomp.KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": seccomp.KILL,
    "SCMP_ACT_TRAP": seccomp.TRAP,
    "SCMP_ACT_ERRNO": errno_action(0),
    "SCMP_ACT_TRACE": seccomp.TRACE,
    "SCMP_ACT_NOTIFY": seccomp.NOTIFY,
    "SCMP_ACT_LOG": seccomp.LOG,
    "SCMP_ACT_ALLOW": seccomp.ALLOW,
}

OPERATORS = {
    "SCMP_CMP_NE": "ne",
    "SCMP_CMP_LT": "lt",
    "SCMP_CMP_LE": "le",
    "SCMP_CMP_EQ": "eq",
    "SCMP_CMP_GE": "ge",
    "SCMP_CMP_GT": "gt",
    "SCMP_CMP_MASKED_EQ": "masked_eq",
}

GO_ARCHITECTURES = {
    "SCMP_ARCH_X86_64": X86_64,
    "SCMP_ARCH_X86": I386,
    "SCMP_ARCH_AARCH64": AARCH64,
}
_ARGUMENTS = 6
_GO_MACHINES = {X86_64: "amd64", AARCH64: "arm64"}


def parse_profile(
    text: str,
    capabilities: Collection[str],
    machine_name: str = "",
    kernel: str = "",
    *,
    notify: bool = False,
) -> Policy:
    """A profile in Docker's JSON form (also the OCI specification's) as a policy.

    `includes` and `excludes` are decided here by capabilities, architecture and kernel version.
    Rules may ask a program outside (SCMP_ACT_NOTIFY) only if somebody will listen (`notify`).
    ValueError names the key that can't be understood.
    """
    import json  # Only who reads profiles pays for it: the default policy needs none.

    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"seccomp profile is not JSON: {error}") from None
    if not isinstance(document, dict) or "defaultAction" not in document:
        raise ValueError("seccomp profile: key defaultAction is missing")
    try:
        return _policy(document, capabilities, machine_name, kernel, notify=notify)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"seccomp profile: a value is missing or of a wrong type: {error}"
        ) from None


def _policy(
    document: Mapping[str, Any],
    capabilities: Collection[str],
    machine_name: str,
    kernel: str,
    *,
    notify: bool,
) -> Policy:
    name = machine_name or machine()
    facts = (frozenset(capabilities), _GO_MACHINES[name], _version(kernel or os.uname().release))
    default_errno = document.get("defaultErrnoRet") or 1
    default = _action(document["defaultAction"], default_errno)
    if default == seccomp.NOTIFY:
        raise ValueError("seccomp profile: SCMP_ACT_NOTIFY can't be the default action")
    rules = []
    for entry in document.get("syscalls") or ():
        if _applies(entry, *facts):
            rules += _profile_rules(entry)
    if not notify and any(rule.action == seccomp.NOTIFY for rule in rules):
        raise ValueError("seccomp profile: SCMP_ACT_NOTIFY needs somebody who listens")
    return Policy(tuple(rules), default, _profile_architectures(document, name))


def _version(text: str) -> tuple[int, int]:
    parts = text.split("-")[0].split(".")
    try:
        return int(parts[0]), int(parts[1])
    except (ValueError, IndexError):
        raise ValueError(f"seccomp profile: {text!r} is no kernel version like 4.8") from None


def _profile_architectures(document: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The native architecture always, and those named that can run here."""
    named = list(document.get("architectures") or ())
    for entry in document.get("archMap") or ():
        if GO_ARCHITECTURES.get(entry.get("architecture")) == name:
            named += entry.get("subArchitectures") or ()
    known = {GO_ARCHITECTURES.get(one) for one in named}
    return tuple(arch for arch in architectures(name) if arch == name or arch in known)


def _applies(
    entry: Mapping[str, Any], capabilities: frozenset[str], arch: str, kernel: tuple[int, int]
) -> bool:
    includes, excludes = entry.get("includes") or {}, entry.get("excludes") or {}
    needed = includes.get("minKernel")
    return not (
        (includes.get("arches") and arch not in includes["arches"])
        or not capabilities.issuperset(includes.get("caps") or ())
        or (needed and kernel < _version(needed))
        or arch in (excludes.get("arches") or ())
        or capabilities & set(excludes.get("caps") or ())
        or (excludes.get("minKernel") and kernel >= _version(excludes["minKernel"]))
    )


def _action(name: str, errno_value: int) -> int:
    if name not in ACTIONS:
        raise ValueError(f"seccomp profile: action {name!r} is unknown or not supported")
    takes_errno = name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
    return ACTIONS[name] | (errno_value & 0xFFFF if takes_errno else 0)


def _profile_rules(entry: Mapping[str, Any]) -> list[Rule]:
    """One rule; where an argument is tested more than once each test is one: any may hold (runc)."""
    names = entry.get("names") or [entry["name"]] if "name" in entry else entry.get("names") or []
    errno_value = entry.get("errnoRet")
    action = _action(entry.get("action", ""), 1 if errno_value is None else errno_value)
    conditions = tuple(_profile_condition(test) for test in entry.get("args") or ())
    if len({condition.argument for condition in conditions}) < len(conditions):
        return [Rule(tuple(names), action, (condition,)) for condition in conditions]
    return [Rule(tuple(names), action, conditions)]


def _profile_condition(test: Mapping[str, Any]) -> Condition:
    operator = OPERATORS.get(test.get("op", ""))
    if operator is None:
        raise ValueError(f"seccomp profile: operator {test.get('op')!r} is unknown")
    value, index = int(test.get("value", 0)), int(test["index"])
    if not 0 <= index < _ARGUMENTS:
        raise ValueError(f"seccomp profile: index {index} is none of an argument, 0 to 5")
    if operator == "masked_eq":
        # Docker's form has the mask in `value` and what it must equal in `valueTwo`.
        return Condition(index, operator, int(test.get("valueTwo", 0)), value)
    return Condition(index, operator, value)
