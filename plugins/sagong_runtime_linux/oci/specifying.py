"""spec: a configuration to begin with, for a shell on a terminal in the bundle's `rootfs`."""

from __future__ import annotations

import json
import os

from sagong.shim.failure import StartError, reason
from sagong_runtime_linux.oci.containers import VERSION, Containers
from sagong_runtime_linux.oci.options import Options

__all__ = ["write_specification"]

_SAFE = ("nosuid", "noexec", "nodev")
_CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
# Destination, type, source, options.
_MOUNTS = (
    ("/proc", "proc", "proc", ()),
    ("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    (
        *("/dev/pts", "devpts", "devpts"),
        ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    ),
    ("/dev/shm", "tmpfs", "shm", (*_SAFE, "mode=1777", "size=65536k")),
    ("/dev/mqueue", "mqueue", "mqueue", _SAFE),
    ("/sys", "sysfs", "sysfs", (*_SAFE, "ro")),
    ("/sys/fs/cgroup", "cgroup", "cgroup", (*_SAFE, "relatime", "ro")),
)
_MASKED = (
    *("/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"),
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_NAMESPACES = ("pid", "network", "ipc", "uts", "mount")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def write_specification(containers: Containers, options: Options) -> int:
    """Write config.json; one that is there stays."""
    if options.flag("rootless"):
        raise StartError("unimplemented", "spec --rootless: containers need root")
    path = os.path.join(options.text("bundle", "."), "config.json")
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(
                f"{json.dumps(_document(os.path.exists('/sys/fs/cgroup/cgroup.procs')), indent=2)}\n"
            )
    except FileExistsError:
        raise StartError("already_exists", f"{path} exists already: remove it first") from None
    except OSError as error:
        raise StartError("failed_precondition", reason(error)) from None
    return 0


def _document(only_version_2: bool) -> dict[str, object]:
    """On version 2 of cgroups the container sees its own from a namespace."""
    keys = ("destination", "type", "source", "options")
    mounts = [dict(zip(keys, (*mount[:3], list(mount[3])), strict=True)) for mount in _MOUNTS]
    names = (*_NAMESPACES, "cgroup") if only_version_2 else _NAMESPACES
    sets = ("bounding", "effective", "permitted")
    return {
        "ociVersion": VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [f"PATH={_PATH}", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {name: list(_CAPABILITIES) for name in sets},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "sagong",
        "mounts": mounts,
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": name} for name in names],
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READ_ONLY),
        },
    }
