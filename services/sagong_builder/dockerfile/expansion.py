"""Words as the Dockerfile's own shell rules read them: quotes, escapes and variables.

`${x:-word}`, `${x:+word}`, `${x:?word}` (and without the colon), `${x#pattern}`, `${x##pattern}`,
`${x%pattern}`, `${x%%pattern}`, `${x/pattern/replacement}`, `${x//pattern/replacement}`.
Source: the Dockerfile reference, "Environment replacement".
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from sagong.errors import InvalidArgument

__all__ = ["Expander"]

_DEPTH = 50
_LENGTH = 1 << 20
_ANY, _ONE = "", "\0"
# Characters of a value times those of a pattern: more is no honest Dockerfile.
_PATTERN_WORK = 100_000
_SPECIAL = frozenset("@*#?-$!")
_END = "unexpected end of statement while looking for matching"


class Expander:
    """Expands words by the variables that it was made with."""

    def __init__(self, variables: Mapping[str, str], escape: str = "\\") -> None:
        self._variables = variables
        self._escape = escape

    def text(self, text: str) -> str:
        """A here-document: quotes mean nothing, variables are replaced, backslashes escape."""
        try:
            return _Scan(text, self._variables, "\\", quotes=False).run()[0]
        except _Wrong as error:
            raise InvalidArgument(f"failed to process a here-document: {error}") from None

    def by(self, variables: Mapping[str, str]) -> Expander:
        """One of other variables with the same escape character."""
        return Expander(variables, self._escape)

    def word(self, text: str) -> str:
        """One word; spaces in values stay. InvalidArgument in Docker's words."""
        return self._run(text)[0]

    def words(self, text: str) -> list[str]:
        """The words that it becomes; a value may be several."""
        return self._run(text)[1]

    def _run(self, text: str) -> tuple[str, list[str]]:
        try:
            return _Scan(text, self._variables, self._escape).run()
        except _Wrong as error:
            raise InvalidArgument(f'failed to process "{text}": {error}') from None


class _Wrong(Exception):
    pass


class _Words:
    """Collects words: quoted text never splits, expanded text does at its spaces."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._word = ""

    def add(self, text: str) -> None:
        """Text that belongs to the present word as it is."""
        self._word += text

    def split(self, text: str) -> None:
        """Text whose spaces end words."""
        for piece in re.split(r"(\s+)", text):
            if piece and piece.isspace():
                self.end()
            elif piece:
                self.add(piece)

    def end(self) -> None:
        """The word is complete; one without a character is none."""
        if self._word:
            self.found.append(self._word)
        self._word = ""


class _Scan:
    """Reads a text once, from its beginning to its end; with `quotes` these mean something."""

    def __init__(
        self, text: str, variables: Mapping[str, str], escape: str, *, quotes: bool = True
    ) -> None:
        self._text = text
        self._at = 0
        self._variables = variables
        self._escape = escape
        self._quotes = quotes
        self._depth = 0
        self._length = 0

    def run(self) -> tuple[str, list[str]]:
        return self._until("")

    def _peek(self) -> str:
        return self._text[self._at] if self._at < len(self._text) else ""

    def _next(self) -> str:
        char = self._peek()
        self._at += 1
        return char

    def _bounded(self, text: str) -> str:
        self._length += len(text)
        if self._length > _LENGTH:
            raise _Wrong(f"the result is longer than {_LENGTH} characters")
        return text

    def _until(self, stop: str, *, escapes: bool = False) -> tuple[str, list[str]]:
        """Up to the character `stop`, or to the end if that is none; `escapes` stay if told so."""
        out: list[str] = []
        words = _Words()
        while (char := self._peek()) and char != stop:
            if char == "'" and self._quotes:
                text = self._single()
                words.add(text)
            elif char == '"' and self._quotes:
                text = self._double(escapes=escapes)
                words.add(text)
            elif char == "$":
                text = self._bounded(self._dollar())
                words.split(text)
            elif char == self._escape:
                self._next()
                # An escape at the very end is none, and nothing.
                text = (char if escapes else "") + self._next()
                words.add(text)
            else:
                text = self._next()
                words.split(text)
            out.append(text)
        if stop and self._next() != stop:
            raise _Wrong(f"{_END} {stop}")
        words.end()
        return "".join(out), words.found

    def _single(self) -> str:
        self._next()
        end = self._text.find("'", self._at)
        if end < 0:
            raise _Wrong(f"{_END} single-quote")
        text = self._text[self._at : end]
        self._at = end + 1
        return text

    def _double(self, *, escapes: bool) -> str:
        self._next()
        out: list[str] = []
        while (char := self._peek()) != '"':
            if not char:
                raise _Wrong(f"{_END} double-quote")
            if char == "$":
                out.append(self._bounded(self._dollar()))
            elif char == self._escape:
                self._next()
                after = self._peek()
                escaped = after and after in ('"', "$", self._escape)
                out.append(char if escapes or not escaped else "")
                if escaped:
                    out.append(self._next())
            else:
                out.append(self._next())
        self._next()
        return "".join(out)

    def _dollar(self) -> str:
        self._next()
        if self._peek() != "{":
            name = self._name()
            return self._variables.get(name, "") if name else "$"
        self._next()
        if not self._peek():
            raise _Wrong("syntax error: missing '}'")
        if self._peek() in "{}:":
            raise _Wrong("syntax error: bad substitution")
        name = self._name()
        return self._modified(name)

    def _name(self) -> str:
        """Digits, a special parameter, or letters of any language with digits and underscores."""
        start = self._at
        if self._peek().isdecimal():
            while self._peek().isdecimal():
                self._at += 1
        elif self._peek() in _SPECIAL:
            self._at += 1
        else:
            while self._peek().isalpha() or self._peek().isdecimal() or self._peek() == "_":
                self._at += 1
        return self._text[start : self._at]

    def _modified(self, name: str) -> str:
        value = self._variables.get(name)
        char = self._next()
        match char:
            case "}":
                return value or ""
            case ":" | "+" | "-" | "?":
                return self._conditional(name, value, char)
            case "#" | "%":
                return self._trimmed(value or "", char)
            case "/":
                return self._replaced(value or "")
            case "":
                raise _Wrong("missing ':' in substitution")
        raise _Wrong(f"unsupported modifier ({char}) in substitution")

    def _conditional(self, name: str, value: str | None, char: str) -> str:
        colon = char == ":"
        if colon:
            char = self._next()
        missing = not value if colon else value is None
        if char not in ("+", "-", "?") or not char:
            raise _Wrong(f"unsupported modifier ({':' if colon else ''}{char}) in substitution")
        word = self._inner("}")
        if char == "+":
            return "" if missing else word
        if char == "-":
            return word if missing else value or ""
        if missing:
            raise _Wrong(
                f"{name}: {word or 'is not allowed to be ' + ('empty' if value == '' else 'unset')}"
            )
        return value or ""

    def _inner(self, stop: str, *, escapes: bool = False) -> str:
        """What stands up to the next `stop`, expanded; whatever brackets are in it."""
        self._depth += 1
        if self._depth > _DEPTH:
            raise _Wrong(f"substitutions are nested deeper than {_DEPTH}")
        try:
            return self._until(stop, escapes=escapes)[0]
        except _Wrong:
            if self._peek():
                raise
            raise _Wrong(f"syntax error: missing '{stop}'") from None
        finally:
            self._depth -= 1

    def _trimmed(self, value: str, char: str) -> str:
        pattern = self._inner("}", escapes=True)
        greedy = pattern.startswith(char)
        wanted = tokens(pattern[1:] if greedy else pattern)
        if char == "#":
            ends = prefixes(wanted, value)
            return value[(ends[-1] if greedy else ends[0]) :] if ends else value
        ends = prefixes(wanted[::-1], value[::-1])
        return value[: len(value) - (ends[-1] if greedy else ends[0])] if ends else value

    def _replaced(self, value: str) -> str:
        everywhere = self._peek() == "/"
        if everywhere:
            self._next()
        pattern = tokens(self._inner("/", escapes=True))
        replacement = self._inner("}", escapes=True)
        if len(pattern) * len(value) > _PATTERN_WORK:
            raise _Wrong("the pattern and the value are too long to replace in")
        return _replace(value, pattern, replacement, everywhere=everywhere)


def tokens(text: str) -> list[str]:
    """A pattern as characters; the wildcards are the empty string ("*") and "\0" ("?").

    Escapes are backslashes, whatever the Dockerfile's are; before `}` and `/` they are no part of it.
    """
    found: list[str] = []
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if char == "\\":
            char = text[at : at + 1]
            if not char or char not in "*?\\}/":
                raise _Wrong(f"invalid pattern ({text}) in substitution: invalid escape '\\{char}'")
            at += 1
            found.append(char)
        elif char == "*":
            found.append(_ANY)
        else:
            found.append(_ONE if char == "?" else char)
    return found


def prefixes(pattern: list[str], value: str) -> list[int]:
    """Where the beginnings of a value end that a pattern matches, in order."""
    if len(pattern) * len(value) > _PATTERN_WORK:
        raise _Wrong("the pattern and the value are too long")
    ends = {0}
    for token in pattern:
        if token == _ANY:
            ends = set(range(min(ends), len(value) + 1))
        else:
            ends = {at + 1 for at in ends if value[at : at + 1] and token in (value[at], _ONE)}
        if not ends:
            return []
    return sorted(ends)


def _replace(value: str, pattern: list[str], replacement: str, *, everywhere: bool) -> str:
    out: list[str] = []
    at = 0
    if not pattern:
        # Nothing is at the beginning of everything.
        return value if everywhere else replacement + value
    while at < len(value):
        ends = prefixes(pattern, value[at:])
        if not ends or not ends[-1]:
            out.append(value[at])
            at += 1
            continue
        out.append(replacement)
        at += ends[-1]
        if not everywhere:
            break
    return "".join(out) + value[at:]
