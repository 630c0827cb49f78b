"""System calls of plugins: an allow list without anything dangerous, and groups that add to it."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache

from sagong.errors import InvalidArgument
from sagong.linux import seccomp
from sagong.linux.seccomp import ALLOW, Condition, Policy, Rule, errno_action
from sagong.linux.seccomp_profile import BASE_CALLS, CLONE_NAMESPACES
from sagong.linux.syscall_table import I386, machine, numbers

__all__ = ["GROUPS", "compiled_policy", "plugin_policy"]

# Group -> calls. `namespace` also frees clone of its flags; `packet`, `vsock` and `alg` are
# families of socket().
GROUPS: dict[str, str] = {
    "mount": "mount umount umount2 pivot_root open_tree open_tree_attr move_mount fsopen fsconfig "
    "fsmount fspick mount_setattr statmount listmount",
    "namespace": "unshare setns clone clone3",
    "chroot": "chroot",
    "hostname": "sethostname setdomainname",
    "bpf": "bpf perf_event_open",
    "ptrace": "ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd process_madvise",
    "keyring": "add_key request_key keyctl",
    "module": "init_module finit_module delete_module",
    "clock": "settimeofday stime clock_settime clock_settime64",
    "io_uring": "io_uring_setup io_uring_enter io_uring_register",
    "quota": "quotactl quotactl_fd",
    "handle": "open_by_handle_at",
    "fanotify": "fanotify_init fanotify_mark",
    "numa": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node move_pages migrate_pages",
    "reboot": "reboot kexec_load kexec_file_load swapon swapoff",
    "syslog": "syslog acct vhangup",
    "port": "iopl ioperm",
    "userfaultfd": "userfaultfd",
    "personality": "personality",
    "packet": "",
    "vsock": "",
    "alg": "",
}

# Open to containers, but of no use to a plugin.
_NOT_FOR_PLUGINS = frozenset(
    (
        *("fanotify_mark", "memfd_secret", "modify_ldt", "adjtimex", "clock_adjtime", "uretprobe"),
        "sched_setattr",  # how long its turns are is the kernel's process to say
    )
)

_FAMILIES = {"packet": 17, "vsock": 40, "alg": 38}
_COMMON_FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK
_WORD = 0xFFFFFFFF
# Both push characters into the terminal somebody else reads: TIOCSTI, TIOCLINUX.
_TERMINAL_IOCTLS = (0x5412, 0x541C)
_EPERM = errno_action(1)
_ENOSYS = errno_action(38)


def plugin_policy(groups: Collection[str] = (), extra: Collection[str] = ()) -> Policy:
    """The policy of a plugin with these groups and single calls; only the native architecture.

    The rest fails with EPERM; clone3 and io_uring with ENOSYS, whereupon libraries fall back.
    InvalidArgument names an unknown group or call.
    """
    _check(groups, extra)
    granted = set(extra).union(*(GROUPS[group].split() for group in groups))
    base = [name for name in BASE_CALLS.split() if name not in _NOT_FOR_PLUGINS]
    rules = [
        *(_equal("ioctl", request, action=_EPERM, argument=1) for request in _TERMINAL_IOCTLS),
        seccomp.rule_of([*base, "arch_prctl", "sync_file_range2"]),
        Rule(tuple(sorted(granted - {"socket"}))),
        *(_equal("socket", family) for family in _COMMON_FAMILIES),
        *(_equal("socket", _FAMILIES[group]) for group in groups if group in _FAMILIES),
        *(_equal("personality", value) for value in (0, _WORD)),
        seccomp.rule_of("clone", ALLOW, Condition(0, "masked_eq", 0, CLONE_NAMESPACES)),
        seccomp.rule_of("clone3 io_uring_setup io_uring_enter io_uring_register", _ENOSYS),
    ]
    return Policy(tuple(rules), _EPERM, (machine(),))


def _equal(name: str, value: int, *, action: int = ALLOW, argument: int = 0) -> Rule:
    """The kernel looks at 32 bits of these arguments: so do we, else high bits would slip by."""
    return Rule((name,), action, (Condition(argument, "masked_eq", value, _WORD),))


def _check(groups: Collection[str], extra: Collection[str]) -> None:
    unknown = [group for group in groups if group not in GROUPS]
    if unknown:
        raise InvalidArgument(f"seccomp groups {unknown}; known: {', '.join(GROUPS)}")
    calls = [c for c in extra if c not in numbers(machine()) and c not in numbers(I386)]
    if calls:
        raise InvalidArgument(f"system calls {calls} are unknown on {machine()}")


@cache
def _compiled(groups: frozenset[str], extra: frozenset[str]) -> bytes:
    return seccomp.compile_policy(plugin_policy(sorted(groups), sorted(extra)))


def compiled_policy(groups: Collection[str] = (), extra: Collection[str] = ()) -> bytes:
    """The policy's BPF bytes, compiled once for each set of groups."""
    return _compiled(frozenset(groups), frozenset(extra))
