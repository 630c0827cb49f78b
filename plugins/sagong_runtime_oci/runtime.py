"""The plugin's class: monitored containers whose plans are bundles for a runtime binary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from sagong.contracts.runtime import RunSpec
from sagong.errors import InvalidArgument
from sagong.host import Host
from sagong.shim.facts import HostFacts
from sagong.shim.runtime import MonitoredRuntime
from sagong_runtime_oci.planning import run_request

__all__ = ["OciConfig", "RuntimeOci"]


class OciConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`binary` is the runtime, by its path or by a name in the PATH; `options` stand before its verbs.

    `init` is the static program that `docker run --init` starts first; "" tries the usual places.
    `cgroup_parent` is where containers without a parent of their own go.
    """

    binary: str = "runc"
    options: tuple[str, ...] = ()
    init: str = ""
    cgroup_parent: str = "/sagong"


class BundlePlans:
    """Plans for the launcher's engine: a configuration of the OCI runtime specification each."""

    maker = "sagong_runtime_oci.engine:OciEngine"

    def __init__(self, config: OciConfig, run: Path) -> None:
        self._config = config
        self._engine = {
            "binary": config.binary,
            "options": config.options,
            "init": config.init,
            "root": f"{run}/oci",
        }

    def run(self, spec: RunSpec, facts: HostFacts) -> dict[str, Any]:
        """The message that makes a monitor start this container."""
        request = run_request(spec, facts, parent=self._config.cgroup_parent)
        return {**request, "engine": self._engine}

    @property
    def engine(self) -> dict[str, Any]:
        """The binary, and how to call it."""
        return self._engine


class RuntimeOci(MonitoredRuntime):
    """Runs containers by the binary that its settings name."""

    def __init__(self, host: Host) -> None:
        config = host.config(OciConfig)
        if not config.binary or ("/" in config.binary and not config.binary.startswith("/")):
            raise InvalidArgument(
                f"setting binary {config.binary!r} must be an absolute path or a program's name"
            )
        super().__init__(host, BundlePlans(config, host.run), cgroup_parent=config.cgroup_parent)
