"""A Dockerfile's lines as statements: directives, comments, continuations, heredocs, flags.

Source: the Dockerfile reference of docs.docker.com ("Format", "Parser directives", "Here-documents").
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import msgspec

from sagong.errors import InvalidArgument

__all__ = [
    "SPACES",
    "Heredoc",
    "Source",
    "Statement",
    "fault",
    "json_list",
    "read_source",
    "split",
    "syntax_of",
]

_DIRECTIVE = re.compile(r"\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*\Z")
_DIRECTIVES = frozenset(("escape", "syntax", "check"))
_SHEBANG = re.compile(r"#!.*\n")
_HEREDOC = re.compile(r"(\d*)<<(-?)\s*([^<]*)\Z")
_WITH_HEREDOCS = frozenset(("ADD", "COPY", "RUN"))
SPACES = re.compile(r"[ \t\v\f\r]+")
_LINES_LIMIT = 100_000
# Directives stand within so many bytes.
_HEAD = 1 << 16
_HEREDOCS_LIMIT = 100


@dataclass(frozen=True)
class Heredoc:
    """A here-document: `name` is its terminator, `expand` False when that was quoted."""

    name: str
    content: str
    expand: bool
    word: str


@dataclass(frozen=True)
class Statement:
    """One instruction as written: its keyword in capitals, flags, and the rest of the line.

    `comments` stand before it. It begins in line `line` and ends in line `last`.
    """

    line: int
    last: int
    keyword: str
    flags: tuple[str, ...]
    rest: str
    original: str
    heredocs: tuple[Heredoc, ...] = ()
    comments: tuple[str, ...] = ()


@dataclass
class Source:
    """All statements, the escape character, and what is to be warned of."""

    statements: list[Statement] = field(default_factory=list)
    escape: str = "\\"
    syntax: str = ""
    check: str = ""
    warnings: list[str] = field(default_factory=list)
    # Lines in which statements end that go on over an empty line.
    gaps: list[int] = field(default_factory=list)


def fault(line: int, message: str) -> InvalidArgument:
    """What is wrong on a line, in Docker's words."""
    return InvalidArgument(
        f"dockerfile parse error on line {line}: {message}", detail={"lines": f"{line}-{line}"}
    )


def read_source(raw: bytes, name: str = "Dockerfile") -> Source:
    """Cut a Dockerfile into statements; InvalidArgument says what is wrong and on which line."""
    text = raw.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    lines = text.removesuffix("\n").split("\n")
    if len(lines) > _LINES_LIMIT:
        raise InvalidArgument(f"failed to parse {name}: more than {_LINES_LIMIT} lines")
    source = Source()
    start = _directives(lines, source, name)
    _Reader(lines, source).read(start)
    if not source.statements:
        raise InvalidArgument(f"failed to parse {name}: file with no instructions")
    return source


def syntax_of(raw: bytes, name: str = "Dockerfile") -> str:
    """The frontend that a Dockerfile asks for, whatever else is in it; "" if it asks for none.

    It may stand behind a line for the machine's own programs (`#!`), and as `// syntax=`.
    """
    text = raw[:_HEAD].removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    text = _SHEBANG.sub("", text, count=1) if text.startswith("#!") else text
    for mark in ("#", "//"):
        source = Source()
        _directives(text.splitlines(), source, name, mark)
        if source.syntax:
            return source.syntax.split(" ", 1)[0]
    return ""


def _directives(lines: list[str], source: Source, name: str, mark: str = "#") -> int:
    """Parser directives stand before everything else; the number of lines that they take."""
    seen: set[str] = set()
    for number, line in enumerate(lines):
        line = line.strip()
        found = _DIRECTIVE.match(line.removeprefix(mark)) if line.startswith(mark) else None
        key = found[1].lower() if found else ""
        if found is None or key not in _DIRECTIVES:
            return number
        if key in seen:
            raise InvalidArgument(
                f"failed to parse {name}: only one {key} parser directive can be used"
            )
        seen.add(key)
        if key == "escape":
            if found[2] not in ("\\", "`"):
                raise InvalidArgument(
                    f"failed to parse {name}: invalid escape token '{found[2]}' does not match ` or \\"
                )
            source.escape = found[2]
        elif key == "syntax":
            source.syntax = found[2]
        else:
            source.check = found[2]
    return len(lines)


class _Reader:
    def __init__(self, lines: list[str], source: Source) -> None:
        self._lines = lines
        self._source = source
        token = re.escape(source.escape)
        self._continued = re.compile(f"(?:(?<!{token})|^){token}[ \\t]*\\Z")

    def read(self, at: int) -> None:
        lines = self._lines
        comments: list[str] = []
        while at < len(lines):
            stripped = lines[at].strip()
            if stripped.startswith("#"):
                comment = stripped[1:].strip()
                comments = [*comments, comment] if comment else []
            if not stripped or stripped.startswith("#"):
                at += 1
                continue
            at = self._statement(at, tuple(comments))
            comments = []

    def _statement(self, first: int, comments: tuple[str, ...]) -> int:
        text, at = self._joined(first)
        if not text.strip():
            return at  # nothing but a sign that it goes on
        keyword, flags, rest = split(text, self._source.escape)
        heredocs: list[Heredoc] = []
        if _may_have_heredocs(keyword, rest, self._source.escape):
            for found in _heredocs_of(text):
                if len(heredocs) == _HEREDOCS_LIMIT:
                    raise fault(first + 1, f"more than {_HEREDOCS_LIMIT} here-documents")
                heredoc, at = self._heredoc(found, at, first + 1)
                heredocs.append(heredoc)
        original = "\n".join([text.strip(), *(f"{h.content}{h.name}" for h in heredocs)])
        self._source.statements.append(
            Statement(first + 1, at, keyword, flags, rest, original, tuple(heredocs), comments)
        )
        return at

    def _joined(self, at: int) -> tuple[str, int]:
        """A line with those that continue it, and the number of the next one."""
        parts: list[str] = []
        empty = False
        first = True
        while at < len(self._lines):
            line = self._lines[at].rstrip("\r")
            at += 1
            if not first and line.strip().startswith("#"):
                continue
            if not first and not line.strip():
                empty = True
                continue
            text = line.lstrip() if first else line
            first = False
            found = self._continued.search(text)
            if found is None:
                parts.append(text)
                break
            parts.append(text[: found.start()])
        joined = "".join(parts)
        if empty:
            self._source.gaps.append(at)
            self._source.warnings.append(
                f"[WARNING]: Empty continuation line found in:\n    {joined.strip()}\n"
                "[WARNING]: Empty continuation lines will become errors in a future release.\n"
            )
        return joined, at

    def _heredoc(self, word: str, at: int, line: int) -> tuple[Heredoc, int]:
        found = _HEREDOC.match(word)
        assert found is not None
        chomp = found[2] == "-"
        name, quoted = _unquoted(found[3])
        content: list[str] = []
        while at < len(self._lines):
            text = self._lines[at]
            at += 1
            text = text.lstrip("\t") if chomp else text
            if text.rstrip("\r") == name:
                body = "".join(f"{piece}\n" for piece in content)
                return Heredoc(name, body, not quoted, word), at
            content.append(text)
        raise fault(line, f"unterminated heredoc {name!r}")


def json_list(rest: str) -> list[Any] | None:
    """A list as JSON writes it; None if it is none."""
    if not rest.startswith("["):
        return None
    try:
        return msgspec.json.decode(rest.encode("utf-8", "replace"), type=list[Any])
    except (msgspec.DecodeError, RecursionError):
        return None


def _may_have_heredocs(keyword: str, rest: str, escape: str) -> bool:
    if keyword == "ONBUILD":
        keyword, _, rest = split(rest, escape)
    return keyword in _WITH_HEREDOCS and "<<" in rest and json_list(rest) is None


def _heredocs_of(text: str) -> list[str]:
    """Words of an instruction that begin here-documents."""
    begun = []
    for word in _shell_words(text):
        found = _HEREDOC.match(word)
        if found is not None and _unquoted(found[3])[0]:
            begun.append(word)
    return begun


def _shell_words(line: str) -> list[str]:
    """Words as they are written; a space behind `<<` ends none."""
    words: list[str] = []
    word, quote, at = "", "", 0
    while at < len(line):
        char = line[at]
        at += 1
        if char == "\\" and quote != "'":
            char += line[at : at + 1]
            at += 1
        elif quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char == "<" and line[at : at + 1] == "<":
            end = at + 1
            while line[end : end + 1] in (" ", "\t", "\r"):
                end += 1
            char, at = line[at - 1 : end], end
        elif char.isspace():
            words.append(word)
            word, char = "", ""
        word += char
    return [] if quote else [*words, word]


def _unquoted(text: str) -> tuple[str, bool]:
    """A word without its quotes and escapes, and whether there were quotes."""
    out: list[str] = []
    quote, quoted, at = "", False, 0
    while at < len(text):
        char = text[at]
        at += 1
        if char == "\\" and quote != "'":
            after = text[at : at + 1]
            kept = quote and after not in ('"', "$", "\\")
            out.append((char if kept else "") + after)
            at += 1
        elif quote and char == quote:
            quote = ""
        elif not quote and char in "\"'":
            quote, quoted = char, True
        else:
            out.append(char)
    return "".join(out), quoted


def split(text: str, escape: str) -> tuple[str, tuple[str, ...], str]:
    """Keyword, flags and what follows them."""
    keyword, *more = SPACES.split(text.strip(), maxsplit=1)
    rest = more[0].lstrip() if more else ""
    flags: list[str] = []
    while rest.startswith("--"):
        word, rest = _first_word(rest, escape)
        rest = rest.lstrip()
        if word == "--":
            break
        flags.append(word)
    return keyword.upper(), tuple(flags), rest


def _first_word(text: str, escape: str) -> tuple[str, str]:
    """A flag up to the next space that is not quoted, its quotes and escapes taken away."""
    word: list[str] = []
    quote, at = "", 0
    while at < len(text):
        char = text[at]
        at += 1
        if char == escape:
            word.append(text[at : at + 1])
            at += 1
        elif quote:
            quote = "" if char == quote else quote
            word.append(char if quote else "")
        elif char in "\"'":
            quote = char
        elif char.isspace():
            return "".join(word), text[at:]
        else:
            word.append(char)
    return "".join(word), ""
