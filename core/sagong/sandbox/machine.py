"""Facts of the machine that a sandbox's plan depends on, gathered once."""

from __future__ import annotations

import os
import re
import resource
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from sagong.linux import capabilities, landlock, syscalls
from sagong.linux.cgroup import CgroupLayout, layout_of_machine
from sagong.linux.syscall_table import machine as architecture

__all__ = ["Machine", "probe"]

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")

# What name resolution, TLS, time zones and the dynamic linker read; nothing secret.
_ETC = (
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/group",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/pki/tls/certs",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The facts. `links` are (path, target) of merged layouts such as /bin → usr/bin.

    `stage` is an empty directory on which each child builds its root in its own mount namespace.
    `etc` are (place in the sandbox, real file). `capabilities` are those that can be given.
    """

    stage: str
    root: bool
    kernel: tuple[int, int]
    architecture: str
    landlock: int
    capabilities: int
    directories: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    python: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    etc: tuple[tuple[str, str], ...] = ()
    open_files: int = 4096
    cgroups: CgroupLayout = field(default_factory=lambda: CgroupLayout(()))
    cpu_quotas: bool = False


def probe(*, stage: str, sources: Iterable[str] | None = None) -> Machine:
    """Look at this machine and this Python; `sources` default to the directories of sys.path."""
    directories = [path for path in _SYSTEM if os.path.isdir(path) and not os.path.islink(path)]
    links = [(path, os.readlink(path)) for path in _SYSTEM if os.path.islink(path)]
    prefixes = {os.path.realpath(p) for p in (sys.prefix, sys.base_prefix, sys.exec_prefix)}
    python = _outermost(prefixes, outside=directories)
    given = sys.path if sources is None else sources
    found = {os.path.realpath(path) for path in given if path and os.path.exists(path)}
    # The directory of `python -m`, where that is "/": binding it would show the whole machine.
    found.discard("/")
    layout = layout_of_machine()
    return Machine(
        stage=stage,
        root=os.geteuid() == 0,
        kernel=_kernel_version(os.uname().release),
        architecture=architecture(),
        landlock=landlock.abi_version(),
        capabilities=capabilities.bounding_set() & syscalls.capget()[1],
        directories=tuple(directories),
        links=tuple(links),
        python=python,
        sources=_outermost(found, outside=[*directories, *python]),
        etc=tuple((path, os.path.realpath(path)) for path in _ETC if os.path.exists(path)),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        cgroups=layout,
        cpu_quotas=_has_quotas(layout),
    )


def _has_quotas(layout: CgroupLayout) -> bool:
    """Whether groups may be given a part of the processor's time (CFS_BANDWIDTH)."""
    hierarchy = layout.of("cpu")
    if hierarchy is None:
        return False
    top = Path(hierarchy.directory("/"))
    # In version 2 the top itself has no limits.
    places = (top, *(path for path in top.iterdir() if path.is_dir()))
    return any((p / f).exists() for p in places for f in ("cpu.cfs_quota_us", "cpu.max"))


def _kernel_version(release: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _below(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/")


def _outermost(paths: Iterable[str], *, outside: Iterable[str]) -> tuple[str, ...]:
    """The paths that no other one, and none of `outside`, contains."""
    kept: list[str] = []
    tops = list(outside)
    for path in sorted(set(paths)):
        if not any(_below(path, top) for top in (*tops, *kept)):
            kept.append(path)
    return tuple(kept)
