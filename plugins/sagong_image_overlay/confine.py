"""Gives up rights, irrevocably: what a parser, a writer and a reader of files may still do.

All are forked from the workshop (`foreman`); each takes exactly the capabilities of its role, a
root directory, limits, and a seccomp filter that allows only the calls its work needs.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
from dataclasses import dataclass

from sagong.linux import capabilities, process, seccomp, syscalls
from sagong.linux.syscall_table import machine

__all__ = ["PARSER", "READER", "WRITER", "Role", "confine", "preload"]

_MEMORY = """
    read write readv writev close fstat newfstatat lseek mmap munmap mremap mprotect madvise brk
    futex rt_sigreturn rt_sigaction rt_sigprocmask sigaltstack restart_syscall exit exit_group
    getrandom clock_gettime clock_nanosleep gettimeofday getpid gettid rseq set_robust_list
    prlimit64 sched_yield
"""
_READING = """
    stat lstat statx readlink readlinkat getdents getdents64 getxattr
    lgetxattr fgetxattr listxattr llistxattr flistxattr statfs fstatfs fcntl dup ioctl pread64
    access faccessat faccessat2 getcwd poll ppoll sendfile splice wait4 kill umask chdir fchdir
    fadvise64
"""
_WRITING = """
    mkdir mkdirat mknod mknodat link linkat symlink symlinkat unlink unlinkat rmdir rename renameat
    renameat2 chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utimensat setxattr
    lsetxattr fsetxattr removexattr lremovexattr fremovexattr ftruncate fallocate pwrite64
    copy_file_range fsync fdatasync syncfs
"""


@dataclass(frozen=True)
class Role:
    """The rights of a kind of process. `opens` is "", "read" or "write"."""

    name: str
    capabilities: tuple[str, ...]
    calls: str
    opens: str
    memory: int
    files: int


PARSER = Role("parser", (), _MEMORY, "", 768 << 20, 0)
# FSETID: without it chmod drops the set-group-id bit of files of other groups (/usr/bin/wall).
WRITER = Role(
    "writer",
    (
        "CAP_CHOWN",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_DAC_OVERRIDE",
        "CAP_SETFCAP",
        "CAP_MKNOD",
    ),
    _MEMORY + _READING + _WRITING,
    "write",
    768 << 20,
    8192,
)
READER = Role("reader", ("CAP_DAC_OVERRIDE",), _MEMORY + _READING, "read", 768 << 20, 8192)
ROLES = (PARSER, WRITER, READER)
_NOBODY = 65534


# Bits of open(2) that a reader must not set.
_CHANGING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_TMPFILE & ~os.O_DIRECTORY


def _open_rules(opens: str) -> list[seccomp.Rule]:
    if opens == "write":
        return [seccomp.rule_of("open openat openat2")]
    if opens == "read":
        # openat2 takes its flags by pointer, which a filter can't see: not for readers.
        flags = {"open": 1, "openat": 2}
        return [
            seccomp.rule_of(
                name, seccomp.ALLOW, seccomp.Condition(number, "masked_eq", 0, _CHANGING)
            )
            for name, number in flags.items()
        ]
    return []


@functools.cache
def _filter(role: Role) -> bytes:
    rules = (seccomp.rule_of(role.calls), *_open_rules(role.opens))
    policy = seccomp.Policy(rules, seccomp.errno_action(1), (machine(),))
    return seccomp.compile_policy(policy)


def preload() -> None:
    """Compile the filters once, before forking."""
    for role in ROLES:
        _filter(role)


def _become_nobody() -> None:
    """Started by root, a process without capabilities would still own root's files."""
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)


def _limit(role: Role) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (role.memory, role.memory))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = role.files if hard < 0 else min(role.files, hard)
    if role.files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))


def confine(role: Role, root: str) -> None:
    """Enter `root` as "/" and keep only the role's rights."""
    os.chdir(root)
    os.chroot(".")
    os.umask(0)
    _limit(role)
    if not role.capabilities and os.geteuid() == 0:
        _become_nobody()
    keep = capabilities.mask_of(role.capabilities) & syscalls.capget()[1]
    process.set_no_new_privs()
    with contextlib.suppress(PermissionError):  # without CAP_SETPCAP; no exec follows anyway
        capabilities.drop_bounding(keep)
    capabilities.apply(capabilities.CapabilitySets(permitted=keep, effective=keep))
    process.set_dumpable(dumpable=False)
    seccomp.load(_filter(role))
