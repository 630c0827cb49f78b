"""A container's hosts, hostname and resolv.conf: written for each run, and as its network changes.

They are bound into it, so whoever writes them later does so in place.
"""

from __future__ import annotations

import os
from pathlib import Path

from sagong.contracts.network import Sandbox
from sagong.contracts.node import SandboxSpec
from sagong.linux.files import remove_directory
from sagong_node import hostfiles
from sagong_node.records import ContainerRecord, SandboxRecord

__all__ = ["NetworkFiles"]

_SHORT_ID = 12
_RESOLV, _HOSTS, _HOSTNAME = "/etc/resolv.conf", "/etc/hosts", "/etc/hostname"


class NetworkFiles:
    """Those of all containers, each in a directory of its own, in memory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(
        self, record: ContainerRecord, spec: SandboxSpec, network: Sandbox | None, hostname: str
    ) -> list[tuple[str, str]]:
        """Write them; (source, target) of each."""
        directory = f"{self._directory}/{record.spec.id}"
        _make_directory(directory)
        machine = hostfiles.machine_resolv_conf()
        texts = {
            _RESOLV: hostfiles.resolv_conf(spec, network, machine),
            _HOSTS: hostfiles.hosts(spec, network, hostname),
            # The last: `lead_to_resolver` tells by its time whether another was changed since.
            _HOSTNAME: f"{hostname}\n",
        }
        paths = [f"{directory}/{os.path.basename(target)}" for target in texts]
        for path, text in zip(paths, texts.values(), strict=True):
            hostfiles.write_text(path, text)
        return _noted(record, paths)

    def share(self, record: ContainerRecord, lender: ContainerRecord) -> list[tuple[str, str]]:
        """Those of the container whose network it shares; (source, target) of each."""
        return _noted(record, [lender.resolv_path, lender.hosts_path, lender.hostname_path])

    def rewrite_hosts(self, record: ContainerRecord, sandbox: SandboxRecord) -> None:
        """The network has changed under a running container."""
        hostname = sandbox.spec.hostname or record.spec.id[:_SHORT_ID]
        text = hostfiles.hosts(sandbox.spec, sandbox.network, hostname)
        hostfiles.write_text(record.hosts_path, text)

    def lead_to_resolver(self, record: ContainerRecord, sandbox: SandboxRecord) -> None:
        """The first network with names has come: a resolv.conf that is as it was written says so.

        It was written before the hostname; later is what the container, or its user, made of it.
        """
        if os.stat(record.resolv_path).st_mtime_ns <= os.stat(record.hostname_path).st_mtime_ns:
            machine = hostfiles.machine_resolv_conf()
            text = hostfiles.resolv_conf(sandbox.spec, sandbox.network, machine)
            hostfiles.write_text(record.resolv_path, text)

    def remove(self, identity: str) -> None:
        """Those of a container that is given back."""
        remove_directory(f"{self._directory}/{identity}")


def _noted(record: ContainerRecord, paths: list[str]) -> list[tuple[str, str]]:
    record.resolv_path, record.hosts_path, record.hostname_path = paths
    return list(zip(paths, (_RESOLV, _HOSTS, _HOSTNAME), strict=True))


def _make_directory(path: str) -> None:
    """With those above, which most often are there."""
    try:
        os.mkdir(path, 0o711)
    except FileExistsError:
        pass
    except FileNotFoundError:
        os.makedirs(path, mode=0o711, exist_ok=True)
