"""Checks of cron schedules: five fields, or a word such as `@daily`."""

from __future__ import annotations

import re
from typing import Final

from sagong.errors import InvalidArgument
from sagong.model import times
from sagong_kube.schema.rules.findings import Findings

__all__ = ["check_schedule"]

_WORDS: Final = frozenset(
    ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
)
_MONTHS: Final = (
    "jan",
    "feb",
    "mar",
    "apr",
    "may",
    "jun",
    "jul",
    "aug",
    "sep",
    "oct",
    "nov",
    "dec",
)
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
# (lowest, highest, names and the number of the first)
_FIELDS: Final = (
    (0, 59, (), 0),
    (0, 23, (), 0),
    (1, 31, (), 0),
    (1, 12, _MONTHS, 1),
    (0, 6, _DAYS, 0),
)
_NUMBER = re.compile(r"\d+\Z", re.ASCII)


def check_schedule(found: Findings, schedule: str, path: str) -> None:
    """A schedule; the message is that of the library which upstream parses it with."""
    wrong = _problem(schedule)
    if wrong:
        found.invalid(path, schedule, wrong)
    if "TZ" in schedule:
        said = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        found.invalid(path, schedule, said)


def _problem(schedule: str) -> str:
    text = schedule.strip()
    if text.startswith(("TZ=", "CRON_TZ=")):
        text = text.partition(" ")[2].strip()
    if text.startswith("@"):
        return _word_problem(text)
    fields = text.split()
    if len(fields) != len(_FIELDS):
        return f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]"
    for said, bounds in zip(fields, _FIELDS, strict=True):
        wrong = next((w for part in said.split(",") if (w := _part_problem(part, bounds))), "")
        if wrong:
            return wrong
    return ""


def _word_problem(text: str) -> str:
    if text in _WORDS:
        return ""
    if text.startswith("@every "):
        try:
            times.duration(text[7:])
        except InvalidArgument as error:
            return f"failed to parse duration {text}: {error.message}"
        return ""
    return f"unrecognized descriptor: {text}"


def _part_problem(part: str, bounds: tuple[int, int, tuple[str, ...], int]) -> str:
    low, high, words, first = bounds
    span, slash, step = part.partition("/")
    if "/" in step:
        return f"too many slashes: {part}"
    if slash and (not _NUMBER.match(step) or int(step) == 0):
        number = f"step of range should be a positive number: {part}"
        return number if step == "0" else f"failed to parse int from {step}: strconv.Atoi"
    if span in ("*", "?"):
        return ""
    ends = span.split("-")
    if len(ends) > 2:
        return f"too many hyphens: {part}"
    values: list[int] = []
    for end in ends:
        if end.lower() in words:
            values.append(words.index(end.lower()) + first)
        elif _NUMBER.match(end):
            values.append(int(end))
        else:
            return f'failed to parse int from {end}: strconv.Atoi: parsing "{end}": invalid syntax'
    if values[0] < low:
        return f"beginning of range ({values[0]}) below minimum ({low}): {part}"
    if values[-1] > high:
        return f"end of range ({values[-1]}) above maximum ({high}): {part}"
    if values[0] > values[-1]:
        return f"beginning of range ({values[0]}) beyond end of range ({values[-1]}): {part}"
    return ""
