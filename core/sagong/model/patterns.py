"""Patterns of names, those of Go's filepath.Match: `*` and `?` don't cross a slash, `[a-z]` is a class.

With `**` they are those of .dockerignore: any number of directories, with or without a slash behind
it; at the end, and before a pattern's only fixed text, any characters. No class matches a slash (in
Go negated ones do). Source: pkg.go.dev/path/filepath, "Match"; github.com/moby/patternmatcher.
"""

from __future__ import annotations

import re

from sagong.errors import InvalidArgument

__all__ = ["has_wildcard", "translated"]

_WILD = re.compile(r"[*?\[\\]")
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
