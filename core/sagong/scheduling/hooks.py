"""Extension point of schedulers: filters of one's own beside the built-in ones."""

from __future__ import annotations

from sagong.errors import SagongError
from sagong.hooks import hookspec
from sagong.host import Host
from sagong.scheduling.node import Node
from sagong.scheduling.shape import Pod
from sagong.scheduling.snapshot import Filter

__all__ = ["SchedulerHooks", "filters"]


class SchedulerHooks:
    """What a hook of a scheduler may implement."""

    @hookspec
    def refuses(self, pod: Pod, node: Node) -> str:
        """Why the node can't take the pod, in a few words for its events; "" if it can.

        Asked last, of nodes that the built-in filters let through. It must depend on `pod.shape`
        and the node alone: answers are kept for pods of one shape until something changes. If it
        raises, the node is refused, and the pod's events say so.
        """
        raise AssertionError("a specification is not called")


def filters(host: Host) -> tuple[Filter, ...]:
    """What this process's hooks refuse, as filters; none where there is no hook."""
    said = host.hooks(SchedulerHooks)

    def refusal(pod: Pod, node: Node) -> str:
        try:
            return next((why for why in said.refuses(pod=pod, node=node) if why), "")
        except SagongError as error:
            # Somebody else's mistake about one pod is no reason to place no other.
            return f"node(s) about which {error}"

    return (refusal,) if host.has_hooks else ()
