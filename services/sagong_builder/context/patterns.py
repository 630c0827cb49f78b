"""Patterns of names: of COPY's sources, and of .dockerignore.

A COPY source's are those of Go's filepath.Match: `*` and `?` don't cross a slash, `[a-z]` is a class.
Lines of .dockerignore have `**` too, and `!` takes names back in; the last line that fits decides,
and what lies below a name that fits, fits. `**` is any number of directories, with or without a slash
behind it; at the end of a line, and before a line's only fixed text, it is any characters.
No class matches a slash (in Go negated ones do). Source: the Dockerfile reference, ".dockerignore
file"; github.com/moby/patternmatcher.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

from sagong.errors import InvalidArgument
from sagong_builder.context.tree import Tree, parts_of

__all__ = ["Ignore", "has_wildcard", "translated"]

_WILD = re.compile(r"[*?\[\\]")
_LINES_LIMIT = 10_000
_DIRECTORIES, _REST = "(?:.*/)?", ".*"
_DEEP_LIMIT = 3


def has_wildcard(path: str) -> bool:
    """Whether it is a pattern."""
    return _WILD.search(path) is not None


def translated(pattern: str, *, deep: bool = False) -> re.Pattern[str]:
    """A pattern as a regular expression for a whole path; `deep` knows `**`."""
    out: list[str] = [""]
    fixed: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*" and deep and pattern[at : at + 1] == "*":
            at += 2 if pattern[at + 1 : at + 2] == "/" else 1
            _close(out, fixed, last=False)
            ends = at == len(pattern) or (at == 2 and not has_wildcard(pattern[2:]))
            wild = _REST if ends else _DIRECTORIES
            if out[-1] != wild:
                out.append(wild)
        elif char == "*":
            while not deep and pattern[at : at + 1] == "*":
                at += 1
            _close(out, fixed, last=False)
            out.append("[^/]*?")
        elif char == "?":
            fixed.append("[^/]")
        elif char == "[":
            at = _class(pattern, at, fixed)
        elif char == "\\":
            if at == len(pattern):
                raise InvalidArgument(f"syntax error in pattern: {pattern[:200]}")
            fixed.append(re.escape(pattern[at]))
            at += 1
        else:
            fixed.append(re.escape(char))
    _close(out, fixed, last=True)
    if sum(piece in (_REST, _DIRECTORIES) for piece in out) > _DEEP_LIMIT:
        raise InvalidArgument(f"the pattern {pattern[:100]!r} has more than {_DEEP_LIMIT} times **")
    return re.compile("".join(out), re.DOTALL)


def _close(out: list[str], fixed: list[str], *, last: bool) -> None:
    """Put the fixed text behind the wildcard before it.

    Why atomic: where another wildcard follows, the first place that fits is as good as any later
    one; so a stranger's pattern can't make the search long.
    """
    text = "".join(fixed)
    fixed.clear()
    if not text and not last and out[-1] == _DIRECTORIES:
        return
    if out[-1] == "[^/]*?" and not last:
        out[-1] = f"(?>[^/]*?{text})"
    else:
        out.append(text)


def _class(pattern: str, at: int, out: list[str]) -> int:
    """A class of characters; where it ends."""
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges: list[str] = []
    while True:
        if at >= len(pattern):
            raise InvalidArgument(f"syntax error in pattern: {pattern[:200]}")
        if pattern[at] == "]" and ranges:
            break
        low, at = _class_character(pattern, at)
        high = low
        if pattern[at : at + 1] == "-":
            high, at = _class_character(pattern, at + 1)
        if low <= high:
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
        elif not ranges:
            ranges.append("")
    body = "".join(ranges)
    if not body:
        out.append("[^/]" if negated else "(?!)")
    else:
        out.append(f"(?!/)[{'^' if negated else ''}{body}]")
    return at + 1


def _class_character(pattern: str, at: int) -> tuple[str, int]:
    if pattern[at : at + 1] == "\\":
        at += 1
    if at >= len(pattern) or (pattern[at] in "-]" and pattern[at - 1] != "\\"):
        raise InvalidArgument(f"syntax error in pattern: {pattern[:200]}")
    return pattern[at], at + 1


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
