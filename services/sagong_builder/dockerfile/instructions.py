"""Statements as instructions: arguments cut and checked, nothing expanded yet.

The errors are Docker's words; each names the line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sagong.errors import InvalidArgument
from sagong_builder.dockerfile.hints import hint
from sagong_builder.dockerfile.source import (
    SPACES,
    Heredoc,
    Statement,
    fault,
    json_list,
    split,
)

__all__ = ["Instruction", "keywords", "read_instruction"]

_WORDS_LIMIT = 10_000


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    `words` are its arguments; `pairs` those of ENV, LABEL and ARG (None: no value given); `shell`
    tells that a command is a line for the shell. `flags` by name, several values in order.
    `text` is the instruction as a step shows it. It stands in the lines from `line` to `last`; the
    command line's own are in line 0. `comments` stand before it.
    """

    line: int
    keyword: str
    text: str
    words: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str | None], ...] = ()
    shell: bool = False
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    heredocs: tuple[Heredoc, ...] = ()
    last: int = 0
    comments: tuple[str, ...] = ()

    def flag(self, name: str, default: str = "") -> str:
        """The last value of a flag."""
        return self.flags.get(name, (default,))[-1]

    def switch(self, name: str) -> bool:
        """Whether a flag that takes true or false is set."""
        return name in self.flags and self.flag(name).lower() in ("", "true")


def _json_words(rest: str) -> list[str] | None:
    """The words of the JSON form; None if it is none."""
    found = json_list(rest)
    if found is not None and not all(isinstance(word, str) for word in found):
        raise InvalidArgument(
            "when using JSON array syntax, arrays must be comprised of strings only"
        )
    return found


def _plain_words(rest: str) -> list[str]:
    return SPACES.split(rest) if rest else []


def _words_or_json(rest: str) -> list[str]:
    found = _json_words(rest)
    return _plain_words(rest) if found is None else found


def _quoted_words(rest: str, escape: str) -> list[str]:
    """Words that spaces part, quotes kept (they are taken away when the words are expanded)."""
    words: list[str] = []
    word, quote, at = "", "", 0
    begun = False
    while at < len(rest):
        char = rest[at]
        if char == escape and quote != "'":
            # One at the very end is none.
            word += rest[at : at + 2] if at + 1 < len(rest) else ""
            at += 2
            begun = True
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char.isspace():
            if begun:
                words.append(word)
            word, begun = "", False
            at += 1
            continue
        word += char
        begun = True
        at += 1
    if begun:
        words.append(word)
    return words


class _Reading:
    """What the readers of the single instructions are given."""

    def __init__(self, statement: Statement, escape: str) -> None:
        self.statement = statement
        self.escape = escape
        self.rest = statement.rest
        self.line = statement.line
        self.keyword = statement.keyword

    def wrong(self, message: str) -> InvalidArgument:
        """An error on this line."""
        return fault(self.line, message)

    def one(self) -> tuple[str, ...]:
        """Exactly one argument: the rest of the line."""
        if not self.rest:
            raise self.wrong(f"{self.keyword} requires exactly one argument")
        return (self.rest,)


Parts = dict[str, object]


def _pairs(reading: _Reading) -> Parts:
    """ENV and LABEL: NAME=VALUE..., or the old form NAME and a value."""
    words = _quoted_words(reading.rest, reading.escape)
    if not words:
        raise reading.wrong(f"{reading.keyword} requires at least one argument")
    if "=" not in words[0]:
        named = SPACES.split(reading.rest, maxsplit=1)
        if len(named) < 2:
            raise reading.wrong(f"{reading.keyword} must have two arguments")
        return {"pairs": (tuple(named),)}
    pairs = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise reading.wrong(
                f'Syntax error - can\'t find = in "{word[:100]}". Must be of the form: name=value'
            )
        if not name:
            raise reading.wrong(f"{reading.keyword} names can not be blank")
        pairs.append((name, value))
    return {"pairs": tuple(pairs)}


def _arg(reading: _Reading) -> Parts:
    words = _quoted_words(reading.rest, reading.escape)
    if not words:
        raise reading.wrong("ARG requires at least one argument")
    pairs: list[tuple[str, str | None]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not name:
            raise reading.wrong("ARG names can not be blank")
        pairs.append((name, value if equals else None))
    return {"pairs": tuple(pairs)}


def _command(reading: _Reading) -> Parts:
    """CMD, ENTRYPOINT, RUN: the JSON form, or a line for the shell."""
    words = _json_words(reading.rest)
    if words is not None:
        return {"words": tuple(words), "shell": False}
    return {"words": (reading.rest,) if reading.rest else (), "shell": True}


def _files(reading: _Reading) -> Parts:
    words = _words_or_json(reading.rest)
    heredocs = {h.word for h in reading.statement.heredocs}
    if len(words) < 2:
        raise reading.wrong(
            f"{reading.keyword} requires at least two arguments, but only one was provided. "
            "Destination could not be determined"
        )
    if words[-1] in heredocs:
        raise reading.wrong(f"{reading.keyword} cannot accept a heredoc as a destination")
    return {"words": tuple(words)}


def _from(reading: _Reading) -> Parts:
    words = _plain_words(reading.rest)
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].lower() != "as"):
        raise reading.wrong("FROM requires either one or three arguments")
    if len(words) == 3 and not re.fullmatch(r"[a-z][a-z0-9-_.]*", words[2].lower()):
        raise reading.wrong(
            f'invalid name for build stage: "{words[2]}", name can\'t start with a number or '
            "contain symbols"
        )
    return {"words": (words[0], *(w.lower() for w in words[2:]))}


def _ports(reading: _Reading) -> Parts:
    words = _plain_words(reading.rest)
    if not words:
        raise reading.wrong("EXPOSE requires at least one argument")
    return {"words": tuple(words)}


def _paths(reading: _Reading) -> Parts:
    words = [word.strip() for word in _words_or_json(reading.rest)]
    if not words:
        raise reading.wrong("VOLUME requires at least one argument")
    if not all(words):
        raise reading.wrong("VOLUME specified can not be an empty string")
    return {"words": tuple(words)}


def _single(reading: _Reading) -> Parts:
    return {"words": reading.one()}


def _onbuild(reading: _Reading) -> Parts:
    if not reading.rest:
        raise reading.wrong("ONBUILD requires at least one argument")
    keyword = split(reading.rest, reading.escape)[0]
    if keyword == "ONBUILD":
        raise reading.wrong("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if keyword in ("FROM", "MAINTAINER"):
        raise reading.wrong(f"{keyword} isn't allowed as an ONBUILD trigger")
    heredocs = [f"{h.content}{h.name}" for h in reading.statement.heredocs]
    return {"words": ("\n".join([reading.rest, *heredocs]),)}


def _shell(reading: _Reading) -> Parts:
    words = _json_words(reading.rest)
    if words is None:
        raise reading.wrong("SHELL requires the arguments to be in JSON form")
    if not words:
        raise reading.wrong("SHELL requires at least one argument")
    return {"words": tuple(words)}


def _healthcheck(reading: _Reading) -> Parts:
    if not reading.rest:
        raise reading.wrong("HEALTHCHECK requires at least one argument")
    kind, *more = SPACES.split(reading.rest, maxsplit=1)
    rest = more[0] if more else ""
    if kind.upper() == "NONE":
        if rest:
            raise reading.wrong("HEALTHCHECK NONE takes no arguments")
        return {"words": ("NONE",)}
    if kind.upper() != "CMD":
        raise reading.wrong(f'Unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
    words = _json_words(rest)
    if not rest or words == []:
        raise reading.wrong("Missing command after HEALTHCHECK CMD")
    if words is None:
        return {"words": ("CMD-SHELL", rest), "shell": True}
    return {"words": ("CMD", *words)}


_Reader = Callable[[_Reading], Parts]
_COPY_FLAGS = ("chown", "chmod", "link", "parents", "exclude")

# Keyword: how its arguments are read, and its flags.
_TABLE: dict[str, tuple[_Reader, tuple[str, ...]]] = {
    "ADD": (_files, (*_COPY_FLAGS, "keep-git-dir", "checksum", "unpack")),
    "ARG": (_arg, ()),
    "CMD": (_command, ()),
    "COPY": (_files, (*_COPY_FLAGS, "from")),
    "ENTRYPOINT": (_command, ()),
    "ENV": (_pairs, ()),
    "EXPOSE": (_ports, ()),
    "FROM": (_from, ("platform",)),
    "HEALTHCHECK": (
        _healthcheck,
        ("interval", "timeout", "start-period", "start-interval", "retries"),
    ),
    "LABEL": (_pairs, ()),
    "MAINTAINER": (_single, ()),
    "ONBUILD": (_onbuild, ()),
    "RUN": (_command, ("mount", "network", "security", "device")),
    "SHELL": (_shell, ()),
    "STOPSIGNAL": (_single, ()),
    "USER": (_single, ()),
    "VOLUME": (_paths, ()),
    "WORKDIR": (_single, ()),
}
_SWITCHES = frozenset(("link", "parents", "keep-git-dir", "unpack"))
_REPEATED = frozenset(("mount", "exclude", "device"))


def keywords() -> tuple[str, ...]:
    """All that are known."""
    return tuple(_TABLE)


def read_instruction(statement: Statement, escape: str = "\\") -> Instruction:
    """A statement as an instruction; InvalidArgument names the line and what is wrong."""
    if statement.keyword not in _TABLE:
        written = statement.original.split(None, 1)[0][:100]
        raise fault(
            statement.line, f"unknown instruction: {written}{hint(statement.keyword, _TABLE)}"
        )
    reader, allowed = _TABLE[statement.keyword]
    flags = _flags(statement, allowed)
    try:
        parts = reader(_Reading(statement, escape))
    except InvalidArgument as error:
        error.detail.setdefault("lines", f"{statement.line}-{statement.last}")
        raise
    words = parts.get("words", ())
    assert isinstance(words, tuple)
    if len(words) > _WORDS_LIMIT:
        raise fault(statement.line, f"more than {_WORDS_LIMIT} arguments")
    return Instruction(
        line=statement.line,
        last=statement.last,
        keyword=statement.keyword,
        text=statement.original.strip(),
        flags=flags,
        heredocs=statement.heredocs,
        comments=statement.comments,
        **parts,  # type: ignore[arg-type]
    )


def _flags(statement: Statement, allowed: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for word in statement.flags:
        name, equals, value = word[2:].partition("=")
        if name not in allowed:
            raise fault(statement.line, f"unknown flag: --{name[:100]}{hint(name, allowed)}")
        if not equals and name not in _SWITCHES:
            raise fault(statement.line, f"missing a value on flag: --{name}")
        if name in found and name not in _REPEATED:
            raise fault(statement.line, f"duplicate flag specified: --{name}")
        if name in _SWITCHES and equals and value.lower() not in ("true", "false"):
            raise fault(
                statement.line, f"expecting boolean value for flag --{name}, not: {value[:100]}"
            )
        found[name] = (*found.get(name, ()), value)
    return found
