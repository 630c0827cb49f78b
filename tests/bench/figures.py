"""What a benchmark found: values beside a peer's of the same run, held against a budget.

A benchmark calls `report(...)` once: it prints one table and, if `SAGONG_FIGURES` names a file, adds
the figures to it, one line of JSON each, for `tests/bench/run`, which makes Markdown of them.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

import msgspec

__all__ = ["Budget", "Figure", "Kept", "markdown", "read", "report"]

VARIABLE = "SAGONG_FIGURES"


class Kept(Enum):
    """How a figure stands to its budget."""

    YES = "kept"
    NEARLY = "within a factor of two"
    NO = "missed"
    NONE = ""


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A limit of the median, or of its ratio to the peer's; `least` for rates."""

    limit: float
    ratio: bool = False
    least: bool = False

    def kept(self, value: float) -> Kept:
        """The verdict about a value."""
        excess = self.limit / max(value, 1e-9) if self.least else value / self.limit
        return Kept.YES if excess <= 1 else Kept.NEARLY if excess <= 2 else Kept.NO

    def shown(self, unit: str) -> str:
        """For a table: `≤ 0.12 of it`, `≥ 60/s`."""
        sign = "≥" if self.least else "≤"
        if self.ratio:
            return f"{sign} {self.limit:g} {'times' if self.least else 'of it'}"
        return f"{sign} {number(self.limit)}{joined(unit)}"


class Figure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row. With as many peer's values as own ones they are pairs, taken in turn."""

    what: str
    unit: str
    ours: Sequence[float]
    theirs: Sequence[float] = ()
    peer: str = ""
    budget: Budget | None = None
    note: str = ""
    command: str = ""

    @property
    def median(self) -> float:
        """Of our values."""
        return statistics.median(self.ours)

    @property
    def ratio(self) -> float | None:
        """Ours by theirs: the median of the pairs' ratios, or the ratio of the medians."""
        if not self.theirs:
            return None
        if len(self.theirs) == len(self.ours):
            return statistics.median(o / t for o, t in zip(self.ours, self.theirs))
        return self.median / statistics.median(self.theirs)

    @property
    def kept(self) -> Kept:
        """The verdict."""
        if self.budget is None:
            return Kept.NONE
        if not self.budget.ratio:
            return self.budget.kept(self.median)
        return Kept.NONE if self.ratio is None else self.budget.kept(self.ratio)


def number(value: float) -> str:
    """Three digits that matter, thousands with a comma."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def joined(unit: str) -> str:
    """A unit behind a number: `/s` without a space."""
    return unit if unit.startswith("/") else f" {unit}"


def spread(values: Sequence[float], unit: str) -> str:
    """Median (least – most)."""
    text = f"{number(statistics.median(values))}{joined(unit)}"
    if len(values) > 1:
        text += f" ({number(min(values))} – {number(max(values))})"
    return text


def cells(figure: Figure) -> tuple[str, ...]:
    """A row's texts, without the command."""
    theirs = ratio = ""
    if figure.theirs:
        theirs = f"{figure.peer}: {spread(figure.theirs, figure.unit)}"
        ratio = number(figure.ratio or 0)
    budget = figure.budget.shown(figure.unit) if figure.budget else ""
    what = f"{figure.what}, {figure.note}" if figure.note else figure.what
    ours = spread(figure.ours, figure.unit)
    return what, ours, theirs or "–", ratio or "–", budget or "–", figure.kept.value or "–"


HEAD = ("what", "median (least – most)", "peer", "ratio", "budget", "kept")


def report(name: str, figures: Sequence[Figure]) -> None:
    """Print the table of one benchmark and keep it for the whole."""
    rows = [HEAD, *(cells(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    print(f"== {name}")
    for row in rows:
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths))
        print(line.rstrip(), flush=True)
    if target := os.environ.get(VARIABLE):
        with open(target, "ab") as file:
            for figure in figures:
                known = msgspec.structs.replace(figure, command=f"tests/bench/run {name}")
                file.write(msgspec.json.encode(known) + b"\n")


def read(path: Path) -> list[Figure]:
    """What benchmarks left in a file."""
    return [msgspec.json.decode(line, type=Figure) for line in path.read_bytes().splitlines()]


def markdown(figures: Sequence[Figure]) -> str:
    """The table of all, with the command of each."""
    head = (*HEAD, "command")
    lines = [head, ("---",) * len(head)]
    lines += [(*cells(figure), f"`{figure.command}`") for figure in figures]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
