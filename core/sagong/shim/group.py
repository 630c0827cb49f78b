"""Namespaces that the containers of a group share, held by their monitor's descriptors."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from typing import Any

from sagong.linux import process, syscalls
from sagong.shim import init
from sagong.shim.forking import fork_into
from sagong.shim.namespaces import FILES, namespace_flags
from sagong.shim.user_namespace import fork_owned, owned

__all__ = ["Group"]


class Group:
    """Made when the first container asks; a shared pid namespace has an init of ours."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._held: dict[str, int] = {}
        self._init: process.ProcessId | None = None

    def prepare(self, kinds: Iterable[str], into: dict[str, int]) -> None:
        """Put duplicates of the shared namespaces into a start's stage.

        They belong to the user namespace that is in there, if one is.
        """
        for kind in kinds:
            if kind not in self._held:
                user = into.get("user")
                self._held[kind] = self._make(kind) if user is None else owned(kind, user)
            into[kind] = os.dup(self._held[kind])

    def _make(self, kind: str) -> int:
        """Enter a new namespace, keep a descriptor, and come back."""
        path = f"/proc/self/ns/{FILES[kind]}"
        own = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.unshare(namespace_flags((kind,)))
            try:
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            finally:
                syscalls.setns(own)
        finally:
            os.close(own)

    def pid_namespace(self, wanted: str, into: dict[str, int]) -> str | int:
        """What to fork into: "" ours, "new", or a descriptor that the stage closes."""
        if wanted in ("", "new"):
            return wanted
        if wanted == "group":
            into["pid"] = os.dup(self._shared_pids(into.get("user")))
        else:
            into["pid"] = os.open(wanted, os.O_RDONLY | os.O_CLOEXEC)
        return into["pid"]

    def _shared_pids(self, user: int | None) -> int:
        if "pid" not in self._held:
            pid = self._fork_init(user)
            self._init = process.identify(pid)
            self._hold_from(pid, "pid")
        return self._held["pid"]

    def _fork_init(self, user: int | None) -> int:
        pid = fork_into("new") if user is None else fork_owned(user, self._root)
        if pid == 0:
            try:
                init.serve_group(self._root if user is None else ".")
            finally:
                os._exit(1)
        return pid

    def _hold_from(self, pid: int, kind: str) -> None:
        path = f"/proc/{pid}/ns/{FILES[kind]}"
        self._held[kind] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def facts(self) -> dict[str, Any]:
        """What a successor needs to find them again."""
        return {"group_init": self._init, "group_kinds": sorted(self._held)}

    def adopt(self, state: dict[str, Any]) -> None:
        """Take the namespaces of a living container of a former monitor."""
        kinds = [kind for kind in state.get("group_kinds", ()) if kind not in self._held]
        for kind in kinds:
            with contextlib.suppress(OSError):
                self._hold_from(state["pid"], kind)
        if state.get("group_init") and self._init is None:
            self._init = process.ProcessId(*state["group_init"])

    def end(self) -> None:
        """No container is left: give the namespaces up, end the shared init."""
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()
        if self._init is None:
            return
        pidfd = process.open_identified(self._init)
        if pidfd is not None:
            with contextlib.suppress(OSError):
                syscalls.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
        self._init = None
