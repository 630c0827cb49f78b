"""YAML as JSON would have it: string keys, no dates, no aliases that grow, duplicates noted."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any, Final

import yaml

__all__ = ["Loader"]

_TIMESTAMP: Final = "tag:yaml.org,2002:timestamp"
_LONGEST_ALIASES: Final = 1000


class Loader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
    """Reads one document; `doubled` fills with the paths of keys that stand twice."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self.doubled: list[str] = []
        self._aliases = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Count aliases: a handful is a convenience, a thousand an attack."""
        if self.check_event(yaml.events.AliasEvent):
            self._aliases += 1
            if self._aliases > _LONGEST_ALIASES:
                raise yaml.YAMLError("document contains excessive aliasing")
        return super().compose_node(parent, index)

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
