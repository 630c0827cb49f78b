"""The runtime of a pod: its RuntimeClass names a handler, which is an instance of slot `runtime`."""

from __future__ import annotations

import msgspec

from sagong.contracts.objects import GetRequest, Objects
from sagong.errors import InvalidArgument, NotFound
from sagong.model.k8s.core_v1 import Pod
from sagong.model.k8s.node_v1 import RuntimeClass
from sagong_node.runtimes import Runtimes

__all__ = ["runtime_of"]


async def runtime_of(pod: Pod, objects: Objects, runtimes: Runtimes) -> str:
    """The instance; what is unknown is told in the words of kubelet and containerd."""
    name = pod.spec.runtime_class_name
    if not name:
        return ""
    try:
        found = await objects.get(GetRequest(resource="node.k8s.io/v1/runtimeclasses", name=name))
    except NotFound:
        raise NotFound(
            f'failed to get handler for RuntimeClass "{name}": '
            f'runtimeclass.node.k8s.io "{name}" not found'
        ) from None
    handler = msgspec.json.decode(found.body, type=RuntimeClass).handler
    try:
        return runtimes.instance(handler)
    except InvalidArgument:
        raise InvalidArgument(
            "rpc error: code = Unknown desc = failed to get sandbox runtime: "
            f'no runtime for "{handler}" is configured'
        ) from None
