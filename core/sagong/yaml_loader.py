"""YAML as JSON would have it: string keys, no dates, no aliases that grow, duplicates noted."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any, Final

import yaml

__all__ = ["Loader"]

_TIMESTAMP: Final = "tag:yaml.org,2002:timestamp"
_MOST_REPEATED: Final = 100_000


class Loader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
    """Reads one document; `doubled` fills with the paths of keys that stand twice."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self.doubled: list[str] = []

    def construct_document(self, node: yaml.Node) -> Any:
        """A document whose aliases say again no more than a convenience would: written out, as JSON
        is, a few lines of them fill any memory."""
        aliases = _Aliases()
        aliases.size(node)
        if aliases.repeated > _MOST_REPEATED:
            raise yaml.YAMLError("document contains excessive aliasing")
        return super().construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping with string keys."""
        self.flatten_mapping(node)
        found: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = _key(self.construct_object(key_node, deep=True))
            if key in found:
                self.doubled.append(key)
            found[key] = self.construct_object(value_node, deep=deep)
        return found


class _Aliases:
    """Counts the nodes that aliases repeat when each is written out."""

    def __init__(self) -> None:
        self.repeated = 0
        self._sizes: dict[int, int] = {}

    def size(self, node: yaml.Node) -> int:
        """How many nodes a node is, written out."""
        if not isinstance(node, yaml.CollectionNode):
            return 1
        if (known := self._sizes.get(id(node))) is not None:
            if not known:
                raise yaml.YAMLError("an anchor's value contains itself")
            self.repeated += known
            return known
        self._sizes[id(node)] = 0
        parts = node.value
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        self._sizes[id(node)] = total = 1 + sum(map(self.size, parts))
        return total


def _key(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, str | int | float):
        return str(key)
    raise yaml.YAMLError("map keys must be strings")


def _plain_resolvers() -> dict[Any, Any]:
    """Without timestamps, and with booleans as YAML 1.2 has them plus yes and no as upstream."""
    resolvers = {
        first: [(tag, form) for tag, form in pairs if tag != _TIMESTAMP]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for first in "0123456789":
        resolvers.setdefault(first, []).append(("tag:yaml.org,2002:float", _EXPONENT))
    return resolvers


_EXPONENT = re.compile(r"[0-9]+[eE][-+]?[0-9]+\Z")
Loader.yaml_implicit_resolvers = _plain_resolvers()
