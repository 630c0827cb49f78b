"""Lines of .dockerignore: which names are left out.

They are patterns with `**`, and `!` takes names back in; the last line that fits decides, and what lies
below a name that fits, fits. Source: the Dockerfile reference, ".dockerignore file".
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

from sagong.errors import InvalidArgument
from sagong.model.patterns import translated
from sagong_builder.context.tree import Tree, parts_of

__all__ = ["Ignore"]

_LINES_LIMIT = 10_000


@dataclass(frozen=True)
class Rule:
    """A line of .dockerignore."""

    text: str
    rule: re.Pattern[str]
    takes_in: bool


class Ignore:
    """The rules of a .dockerignore file."""

    def __init__(self, rules: tuple[Rule, ...] = ()) -> None:
        self.rules = rules

    @classmethod
    def read(cls, raw: bytes) -> Ignore:
        """Rules of a file; InvalidArgument names the pattern that is none."""
        text = raw.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
        lines = text.splitlines()
        if len(lines) > _LINES_LIMIT:
            raise InvalidArgument(f".dockerignore has more than {_LINES_LIMIT} lines")
        return cls(tuple(rule for line in lines if (rule := _rule(line)) is not None))

    @property
    def patterns(self) -> tuple[str, ...]:
        """The rules as they are written, cleaned."""
        return tuple(("!" if r.takes_in else "") + r.text for r in self.rules)

    def excludes(self, path: str) -> bool:
        """Whether a path is left out."""
        parts = path.split("/")
        out = False
        for rule in self.rules:
            if rule.takes_in == out and self._fits(rule, parts):
                out = not rule.takes_in
        return out

    @staticmethod
    def _fits(rule: Rule, parts: list[str]) -> bool:
        """The path itself or a directory above it."""
        return any(rule.rule.fullmatch("/".join(parts[:n])) for n in range(len(parts), 0, -1))

    def apply(self, tree: Tree) -> None:
        """Take what is excluded out of a tree; directories stay that still hold something."""
        if not self.rules:
            return
        kept: list[str] = []
        gone: list[str] = []
        for path, _ in tree.walk():
            (gone if self.excludes(path) else kept).append(path)
        needed = {
            "/".join(parts_of(path)[:n]) for path in kept for n in range(1, path.count("/") + 1)
        }
        for path in gone:
            if path not in needed:
                tree.remove(path)


def _rule(line: str) -> Rule | None:
    if line.startswith("#"):
        return None
    text = line.strip()
    takes_in = text.startswith("!")
    if takes_in:
        text = text[1:].strip()
    if not text:
        if takes_in:
            raise InvalidArgument('illegal exclusion pattern: "!"')
        return None
    cleaned = posixpath.normpath(text).lstrip("/").strip()
    if not cleaned and takes_in:
        raise InvalidArgument('illegal exclusion pattern: "!"')
    if cleaned == ".":
        return None
    return Rule(cleaned, translated(cleaned, deep=True), takes_in)
