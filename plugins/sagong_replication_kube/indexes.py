"""Sets of completion indexes as jobs write them: `1,3-5,7`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sagong.model.numbers import natural

__all__ = ["format_indexes", "parse_indexes"]

# A job has no more completions than that (spec.completions of indexed jobs, as upstream has it).
_MOST: Final = 100_000


def parse_indexes(text: str) -> set[int]:
    """The numbers that the text names; what is no number, or too long a range, is passed over."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        start, end = natural(first), natural(last or first)
        if start is not None and end is not None and end - start < _MOST:
            found.update(range(start, end + 1))
    return found


def format_indexes(numbers: Iterable[int]) -> str:
    """Runs of three and more are written as ranges."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(_run(run) for run in runs)


def _run(run: list[int]) -> str:
    if len(run) > 2:
        return f"{run[0]}-{run[-1]}"
    return ",".join(map(str, run))
