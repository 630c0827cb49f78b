"""`--log-opt tag=`: templates of Go's text/template, as far as tags of logs use them. Pure.

Fields (`.Name`, `.ContainerLabels.key`), texts and numbers, the functions that Docker gives such
templates, and pipes between them; neither conditions nor variables.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence

from sagong.errors import InvalidArgument

__all__ = ["Value", "tag_text"]

Value = str | int | Sequence[str] | Mapping[str, str]
_WORD = re.compile(r'\s*("(?:[^"\\]|\\.)*"|`[^`]*`|\||[^\s|"`]+)')


def tag_text(template: str, facts: Mapping[str, Value]) -> str:
    """The template with these fields; InvalidArgument in Go's words."""
    out, rest = [], template
    while rest:
        text, opening, rest = rest.partition("{{")
        out.append(text)
        if opening:
            action, closing, rest = rest.partition("}}")
            if not closing:
                raise _wrong("unclosed action")
            if action.startswith("- "):
                action, out[-1] = action[1:], out[-1].rstrip()
            if action.endswith(" -"):
                action, rest = action[:-1], rest.lstrip()
            out.append(_shown(_pipeline(action, facts)))
    return "".join(out)


def _wrong(what: str, where: str = "1") -> InvalidArgument:
    return InvalidArgument(f"template: log-tag:{where}: {what}")


def _pipeline(action: str, facts: Mapping[str, Value]) -> Value:
    """Each command has the value of the one before it as its last argument."""
    commands: list[list[str]] = [[]]
    if _WORD.sub("", action).strip():
        raise _wrong(f"unexpected {action.strip()!r} in operand")
    for word in _WORD.findall(action):
        if word == "|":
            commands.append([])
        else:
            commands[-1].append(word)
    found: list[Value] = []
    for words in commands:
        if not words:
            raise _wrong("missing value for command")
        found = [_command(words, found, facts)]
    return found[0]


def _command(words: list[str], last: list[Value], facts: Mapping[str, Value]) -> Value:
    name = words[0]
    if not name[0].isalpha():
        if words[1:] or last:
            raise _wrong(f"can't give argument to non-function {name}")
        return _operand(name, facts)
    if name not in _FUNCTIONS:
        raise _wrong(f'function "{name}" not defined')
    try:
        return _FUNCTIONS[name](*(_operand(word, facts) for word in words[1:]), *last)
    except (TypeError, ValueError, LookupError, AttributeError):
        raise _wrong(
            f'executing "log-tag" at <{" ".join(words)}>: wrong arguments', "1:2"
        ) from None


def _operand(word: str, facts: Mapping[str, Value]) -> Value:
    if word.startswith('"'):
        return _quoted(word)
    if word.startswith("`"):
        return word[1:-1]
    if re.fullmatch(r"-?[0-9]+", word):
        return int(word)
    first, *further = word[1:].split(".")
    if not word.startswith(".") or first not in facts or len(further) > 1:
        raise _wrong(
            f'executing "log-tag" at <{word}>: can\'t evaluate field {first} in type *logger.Info',
            "1:2",
        )
    value = facts[first]
    if not further:
        return value
    return value.get(further[0], "<no value>") if isinstance(value, Mapping) else ""


def _quoted(word: str) -> str:
    try:
        return str(json.loads(word))
    except ValueError:
        raise _wrong(f"invalid syntax: {word}") from None


def _shown(value: Value) -> str:
    """As Go prints it."""
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{k}:{v}' for k, v in sorted(value.items()))}]"
    return str(value) if isinstance(value, str | int) else f"[{' '.join(value)}]"


def _index(value: Value, key: Value) -> Value:
    if isinstance(value, Mapping):
        return value.get(str(key), "")
    return value[int(str(key))] if isinstance(value, Sequence) else ""


def _pad(value: Value, before: Value, after: Value) -> str:
    text = str(value)
    return f"{' ' * int(str(before))}{text}{' ' * int(str(after))}" if text else text


_FUNCTIONS: dict[str, Callable[..., Value]] = {
    "index": _index,
    "join": lambda values, between: between.join(values),
    "json": lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")),
    "len": len,
    "lower": lambda text: text.lower(),
    "pad": _pad,
    "print": lambda *values: "".join(_shown(value) for value in values),
    "split": lambda text, at: text.split(at),
    "title": lambda text: re.sub(r"\b\w", lambda found: found[0].upper(), text),
    "truncate": lambda text, size: text[:size],
    "upper": lambda text: text.upper(),
}
