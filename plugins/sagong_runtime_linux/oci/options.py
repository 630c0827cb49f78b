"""Options of the command line, as OCI runtimes share them: a table for each verb, no library."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Options", "UsageError", "parse"]


_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class UsageError(Exception):
    """What was typed can't be understood."""


class Options(NamedTuple):
    """Options by their long names, and the words that are none."""

    values: dict[str, list[str]]
    words: tuple[str, ...]

    def name(self) -> str:
        """The container's id, which comes first."""
        if not self.words:
            raise UsageError("the container's id is missing")
        return self.words[0]

    def flag(self, name: str) -> bool:
        """Whether a switch was given (`--x`, `--x=true`)."""
        return self.values.get(name, ["false"])[-1] != "false"

    def text(self, name: str, default: str = "") -> str:
        """The last value of an option."""
        return self.values.get(name, [default])[-1]

    def number(self, name: str) -> int:
        """The last value as a number, 0 when it was not given."""
        return _number(name, self.text(name, "0"))

    def count(self, name: str) -> int:
        """The last value as a number that is not negative, 0 when it was not given."""
        found = self.number(name)
        if found < 0:
            raise UsageError(f"option --{name} needs a number from 0 on, not {found}")
        return found

    def numbers(self, name: str) -> list[int]:
        """All values as numbers."""
        return [_number(name, text) for text in self.values.get(name, [])]

    def size(self, name: str) -> int:
        """The last value in bytes: a number, or one with a unit as in 50M (of 1024); 0 for none."""
        text = self.text(name, "0").lower().removesuffix("b").removesuffix("i")
        unit = text[-1:] if text[-1:] in _UNITS else ""
        try:
            return int(float(text.removesuffix(unit)) * _UNITS.get(unit, 1))
        except ValueError:
            raise UsageError(f"option --{name} needs a size, not {self.text(name)!r}") from None


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"option --{name} needs a number, not {text!r}") from None


def parse(
    words: list[str], known: dict[str, bool], short: dict[str, str], *, stop: bool = False
) -> Options:
    """Split words; `known` tells of each option whether it takes a value.

    With `stop` everything from the first word that is no option on is left as it is.
    """
    values: dict[str, list[str]] = {}
    rest: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if word == "--":
            rest += queue
            break
        if not word.startswith("-") or word == "-":
            rest.append(word)
            if stop:
                rest += queue
                break
            continue
        name, equals, value = word.lstrip("-").partition("=")
        name = short.get(name, name) if not word.startswith("--") else name
        if name not in known:
            raise UsageError(f"option {word} is unknown")
        if not known[name]:
            value = value if equals else "true"
        elif not equals:
            if not queue:
                raise UsageError(f"option --{name} needs a value")
            value = queue.pop(0)
        values.setdefault(name, []).append(value)
    return Options(values, tuple(rest))
