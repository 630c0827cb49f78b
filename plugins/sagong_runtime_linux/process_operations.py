"""Operations that change the process itself: namespaces, limits, credentials, confinement."""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import os
import resource
import socket
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from sagong.linux import capabilities, process, seccomp, syscalls
from sagong.linux.places import open_in_proc, open_place
from sagong.shim import lean
from sagong.shim.cgroups import container_cgroup, make_cgroup, resolved_limits
from sagong.shim.failure import StartError
from sagong.shim.namespaces import KINDS, namespace_flags
from sagong.shim.rlimits import RLIMITS
from sagong_runtime_linux.operations import Stage

__all__ = [
    "ChangeDirectory",
    "Confine",
    "EnterCgroup",
    "EnterNamespace",
    "EnterProcess",
    "Filter",
    "ForbidNewPrivileges",
    "JoinKeyring",
    "LoopbackUp",
    "MakeCgroup",
    "SetHostname",
    "SetOomScore",
    "SetRlimit",
    "SetUmask",
    "TakeCredentials",
    "Unshare",
    "WriteSysctl",
]

_PR_SET_KEEPCAPS = 8
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_IFREQ = struct.Struct("16sh22x")
# More than a start has open at once.
_OWN_DESCRIPTORS = 64


class MakeCgroup(NamedTuple):
    """Create the container's cgroup with its limits, and move in."""

    path: str
    limits: dict[str, Any]

    def describe(self) -> str:
        """For error messages."""
        return "setting cgroup limits"

    def apply(self, stage: Stage) -> None:
        """Limits first: the container is never without them."""
        group = container_cgroup(stage.layout, self.path)
        make_cgroup(group)
        try:
            group.limit(resolved_limits(self.limits))
        except ValueError as error:
            raise StartError("failed_precondition", str(error)) from None
        group.enter()
        stage.cgroup = self.path


class EnterCgroup(NamedTuple):
    """Move into the container's cgroup."""

    path: str

    def describe(self) -> str:
        """For error messages."""
        return "entering the cgroup"

    def apply(self, stage: Stage) -> None:
        """Writing "0" moves the writer."""
        container_cgroup(stage.layout, self.path).enter()


class Unshare(NamedTuple):
    """Make new namespaces."""

    kinds: Sequence[str]

    def describe(self) -> str:
        """For error messages."""
        return f"making namespaces {' '.join(self.kinds)}"

    def apply(self, stage: Stage) -> None:
        """unshare(2)."""
        syscalls.unshare(namespace_flags(self.kinds))
        stage.cgroup_is_root |= bool(stage.cgroup) and "cgroup" in self.kinds


class EnterNamespace(NamedTuple):
    """Enter a namespace by its path, or one that the monitor holds for the group (path "")."""

    kind: str
    path: str = ""

    def describe(self) -> str:
        """For error messages."""
        return f"entering {self.kind} namespace {self.path or 'of the group'}"

    def apply(self, stage: Stage) -> None:
        """setns(2)."""
        if not self.path:
            syscalls.setns(stage.namespaces[self.kind], KINDS[self.kind])
            return
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(descriptor, KINDS[self.kind], path=self.path)
        finally:
            os.close(descriptor)


class EnterProcess(NamedTuple):
    """Enter namespaces of the container's first process, whose pidfd the monitor holds."""

    kinds: Sequence[str]

    def describe(self) -> str:
        """For error messages."""
        return "entering the container"

    def apply(self, stage: Stage) -> None:
        """setns(2) with a pidfd enters all at once."""
        syscalls.setns(stage.namespaces["container"], namespace_flags(self.kinds))


class LoopbackUp(NamedTuple):
    """Bring up lo in a new network namespace."""

    def describe(self) -> str:
        """For error messages."""
        return "bringing up lo"

    def apply(self, stage: Stage) -> None:
        """SIOCSIFFLAGS."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            asked = fcntl.ioctl(probe, _SIOCGIFFLAGS, _IFREQ.pack(b"lo", 0))
            flags = _IFREQ.unpack(asked)[1]
            if not flags & _IFF_UP:
                fcntl.ioctl(probe, _SIOCSIFFLAGS, _IFREQ.pack(b"lo", flags | _IFF_UP))


class SetHostname(NamedTuple):
    """Set host and domain name in the uts namespace."""

    hostname: str
    domainname: str = ""

    def describe(self) -> str:
        """For error messages."""
        return f"setting the host name {self.hostname}"

    def apply(self, stage: Stage) -> None:
        """sethostname(2), setdomainname(2)."""
        if self.hostname:
            syscalls.sethostname(self.hostname)
        if self.domainname:
            syscalls.setdomainname(self.domainname)


class WriteSysctl(NamedTuple):
    """Write a kernel parameter of the container's namespaces."""

    key: str
    value: str

    def describe(self) -> str:
        """For error messages."""
        return f"setting sysctl {self.key}"

    def apply(self, stage: Stage) -> None:
        """Through the container's own /proc."""
        descriptor = open_in_proc("sys/" + self.key.replace(".", "/"), os.O_WRONLY)
        try:
            os.write(descriptor, self.value.encode())
        finally:
            os.close(descriptor)


class SetRlimit(NamedTuple):
    """Set a resource limit; -1 is no limit."""

    name: str
    soft: int
    hard: int

    def describe(self) -> str:
        """For error messages."""
        return f"setting rlimit {self.name} to {self.soft}:{self.hard}"

    def apply(self, stage: Stage) -> None:
        """setrlimit(2); raising a hard limit needs CAP_SYS_RESOURCE, so that is done here."""
        soft, hard = self.soft, self.hard
        if self.name == "nofile" and 0 <= soft < _OWN_DESCRIPTORS:
            stage.last.append(LowerRlimit(*self))
            soft = _OWN_DESCRIPTORS
            hard = hard if hard < 0 else max(soft, hard)
        _set_rlimit(self, soft, hard)


class LowerRlimit(SetRlimit):
    """The limit that is wanted, after one with which the start itself could go on."""

    def apply(self, stage: Stage) -> None:
        """setrlimit(2); to lower it needs no right."""
        _set_rlimit(self, self.soft, self.hard)


def _set_rlimit(limit: SetRlimit, soft: int, hard: int) -> None:
    try:
        resource.setrlimit(RLIMITS.index(limit.name), (soft, hard))
    except ValueError as error:
        raise StartError("failed_precondition", f"{limit.describe()}: {error}") from None


class SetOomScore(NamedTuple):
    """Set the score by which the kernel chooses whom to kill."""

    score: int

    def describe(self) -> str:
        """For error messages."""
        return f"setting oom_score_adj to {self.score}"

    def apply(self, stage: Stage) -> None:
        """A lower score than the launcher's own needs CAP_SYS_RESOURCE."""
        descriptor = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
        try:
            if int(os.read(descriptor, 16)) != self.score:
                os.write(descriptor, str(self.score).encode())
        finally:
            os.close(descriptor)


class SetUmask(NamedTuple):
    """Set the mask of new files."""

    mask: int

    def describe(self) -> str:
        """For error messages."""
        return f"setting umask {self.mask:o}"

    def apply(self, stage: Stage) -> None:
        """umask(2)."""
        os.umask(self.mask)


class JoinKeyring(NamedTuple):
    """A session keyring of its own, so that the host's is out of reach."""

    name: str

    def describe(self) -> str:
        """For error messages."""
        return "joining a session keyring"

    def apply(self, stage: Stage) -> None:
        """Kernels without keyrings, or a full quota, don't prevent the start."""
        with contextlib.suppress(OSError):
            syscalls.join_session_keyring(self.name)


class ForbidNewPrivileges(NamedTuple):
    """no_new_privs, when asked for."""

    def describe(self) -> str:
        """For error messages."""
        return "setting no_new_privs"

    def apply(self, stage: Stage) -> None:
        """prctl(2)."""
        process.set_no_new_privs()


class Filter(NamedTuple):
    """A compiled seccomp filter, as base64."""

    code: str

    def describe(self) -> str:
        """For error messages."""
        return "loading the seccomp filter"

    def apply(self, stage: Stage) -> None:
        """seccomp(2)."""
        seccomp.load(base64.b64decode(self.code))


class Confine(NamedTuple):
    """Label the next exec for AppArmor (a profile) or SELinux (a context)."""

    module: str
    label: str

    def describe(self) -> str:
        """For error messages."""
        return f"setting {self.module} label {self.label}"

    def apply(self, stage: Stage) -> None:
        """AppArmor has a directory of its own since Linux 5.8."""
        ours = self.module == "apparmor"
        descriptor = -1
        if ours:
            with contextlib.suppress(FileNotFoundError):
                descriptor = open_in_proc("self/attr/apparmor/exec", os.O_WRONLY)
        if descriptor < 0:
            descriptor = open_in_proc("self/attr/exec", os.O_WRONLY)
        try:
            os.write(descriptor, f"exec {self.label}".encode() if ours else self.label.encode())
        finally:
            os.close(descriptor)


class ChangeDirectory(NamedTuple):
    """Change the working directory; `create` makes it, as the root user, when it is missing.

    It is tried before the credentials change and again after: either identity may be the one that
    can reach it. `final` is the second attempt, whose failure counts.
    """

    path: str
    create: bool = False
    final: bool = False

    def describe(self) -> str:
        """For error messages."""
        return f'chdir to cwd ("{self.path}") set in config.json failed'

    def apply(self, stage: Stage) -> None:
        """chdir(2), whose result is inside of the root, or nothing is executed there."""
        try:
            self._enter()
        except PermissionError:
            if self.final and os.getcwd() != os.path.realpath(self.path):
                raise StartError(
                    "failed_precondition", f"{self.describe()}: permission denied"
                ) from None
        except OSError as error:
            code = "not_found" if error.errno == errno.ENOENT else "failed_precondition"
            reason = os.strerror(error.errno or 0).lower()
            raise StartError(code, f"{self.describe()}: {reason}") from None

    def _enter(self) -> None:
        place, _ = open_place(self.path, "directory" if self.create else "")
        try:
            os.fchdir(place)
        finally:
            os.close(place)
        # The kernel tells no path of a directory that is outside: ENOENT.
        os.getcwd()


class TakeCredentials(NamedTuple):
    """Become the user and keep exactly the capabilities in `mask`."""

    uid: int
    gid: int
    groups: Sequence[int]
    mask: int
    ambient: bool = False

    def describe(self) -> str:
        """For error messages."""
        return f"becoming user {self.uid}:{self.gid}"

    def apply(self, stage: Stage) -> None:
        """Inheritable stays empty unless ambient is asked for, as in Docker since CVE-2022-24769."""
        mask = self.mask
        lean.reduce_bounding_set(mask, capabilities.last_capability())
        syscalls.prctl(_PR_SET_KEEPCAPS, 1)
        os.setgroups(list(self.groups))
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)
        syscalls.prctl(_PR_SET_KEEPCAPS, 0)
        kept = mask if self.ambient else 0
        capabilities.apply(capabilities.CapabilitySets(kept, mask, mask, mask, kept))
        process.set_dumpable(dumpable=False)
