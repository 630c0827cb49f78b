"""Ranges of the host's ids for user namespaces: one for each private sandbox. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from sagong.contracts.network import UserNamespace
from sagong.contracts.node import ContainerSpec, SandboxSpec
from sagong.errors import InvalidArgument, ResourceExhausted

__all__ = ["RANGE", "check_private", "free_base", "mapping"]

# What every image may use, and what Kubernetes gives a pod.
RANGE = 65_536


def free_base(first: int, count: int, taken: Iterable[int]) -> int:
    """The first host id of the lowest range that is free; `count` ranges begin at `first`."""
    used = set(taken)
    for number in range(count):
        base = first + number * RANGE
        if base not in used:
            return base
    raise ResourceExhausted(
        f"all {count} ranges of ids for user namespaces are in use: remove containers, or set "
        "`user_ranges` of node"
    )


def mapping(base: int) -> UserNamespace:
    """Ids from 0 on are the host's from `base` on."""
    table = ((0, base, RANGE),)
    return UserNamespace(uid_map=table, gid_map=table)


def check_private(sandbox: SandboxSpec, container: ContainerSpec | None = None) -> None:
    """Refuse, in Docker's words, what a user namespace of one's own can't have."""
    wrong = "cannot share the host's {} namespace when user namespaces are enabled"
    if sandbox.network.mode == "host":
        raise InvalidArgument(wrong.format("network"))
    if container is None:
        return
    if container.pid_mode == "host":
        raise InvalidArgument(wrong.format("PID"))
    if container.ipc_mode == "host":
        raise InvalidArgument(wrong.format("IPC"))
    if container.privileged:
        raise InvalidArgument(
            "privileged mode is incompatible with user namespaces.  You must run the container in the "
            "host namespace when running privileged mode"
        )
