"""What this runtime knows, in the form of the specification's features.md."""

from __future__ import annotations

from typing import Any

from sagong.linux import capabilities, mounts
from sagong.linux.seccomp_profile import ACTIONS, GO_ARCHITECTURES, OPERATORS
from sagong.shim.namespaces import KINDS
from sagong_runtime_linux.oci.containers import VERSION
from sagong_runtime_linux.oci.filters import FLAGS

__all__ = ["known"]

_HOOKS = (
    *("prestart", "createRuntime", "createContainer", "startContainer"),
    *("poststart", "poststop"),
)


def known() -> dict[str, Any]:
    """The document."""
    options = {"bind", "rbind", *mounts.FLAGS, *mounts.PROPAGATIONS, "tmpcopyup"}
    options |= {f"r{name}" for name in mounts.ATTRIBUTES}
    names = capabilities.names_of((1 << capabilities.last_capability() + 1) - 1)
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": VERSION,
        "hooks": list(_HOOKS),
        "mountOptions": sorted(options),
        "linux": {
            "namespaces": sorted(KINDS),
            "capabilities": list(names),
            "cgroup": {
                "v1": True,
                "v2": True,
                "systemd": True,
                "systemdUser": True,
                "rdma": True,
            },
            "seccomp": {
                "enabled": True,
                "actions": sorted(ACTIONS),
                "operators": sorted(OPERATORS),
                "archs": sorted(GO_ARCHITECTURES),
                "knownFlags": sorted(FLAGS),
                "supportedFlags": sorted(FLAGS),
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": False},
            "netDevices": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
        },
    }
