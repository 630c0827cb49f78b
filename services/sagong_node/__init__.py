"""Service `node`: the one way to start a container on this machine."""

from sagong_node.plugin import Node

__all__ = ["Node"]
