"""What must hold of a history. Pure: a history in, violations in words out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

from tests.system.chaos.errors import unclear
from tests.system.chaos.excuses import allowed, during
from tests.system.chaos.history import AT_THE_END, Attempt, History, Line, Log, Watched

__all__ = ["CHECKS", "check"]

# Kinds whose things come and go, and are listed at the end.
_LISTED = ("container", "volume", "network", "image", "object", "pod")
_MADE_BY = ("create", "build", "pull")
_BREAKS_SHOWN = 5
# What a program does between having written a line and the log's taking it down.
_LATE = 2.0
# The steady containers write every second, or oftener: none of it for so long is a log that rests,
# on a machine that has other things to do.
_RESTS = 30.0
_PRESENT, _ABSENT = "present", "absent"


def check(history: History) -> list[str]:
    """All violations, each with the check that found it."""
    return [f"{name}: {text}" for name, found in CHECKS.items() for text in found(history)]


def _writes(history: History) -> Iterator[str]:
    """Everything acknowledged is there, what was removed is gone, at every look and at the end."""
    for (kind, key), attempts in _by_thing(history).items():
        if kind in _LISTED:
            states = {_ABSENT}
            for attempt in attempts:
                told = _state_told(attempt)
                if told and told not in states:
                    yield f"{kind} {key} was {told} at {attempt.verb}, but must be {_words(states)}"
                states = _states_after(attempt, states, told)
            there = _PRESENT if key in history.listed.get(kind, ()) else _ABSENT
            if there not in states:
                yield f"{kind} {key} is {there} at the end, but must be {_words(states)}"


def _state_told(attempt: Attempt) -> str:
    """What an answer says the thing's state was when it was asked."""
    match attempt.verb, attempt.outcome:
        case "create", "exists":
            return _PRESENT
        case (("read" | "start" | "wait" | "logs" | "label"), "done"):
            return _PRESENT
        case (("read" | "start" | "wait" | "logs" | "label" | "remove" | "end"), "absent"):
            return _ABSENT
    return ""


def _states_after(attempt: Attempt, states: set[str], told: str) -> set[str]:
    """What the thing can be after a request: either, if nobody knows whether it was done."""
    wanted = {"remove": _ABSENT, "end": _ABSENT}.get(attempt.verb, "")
    wanted = _PRESENT if attempt.verb in _MADE_BY else wanted
    if told:
        return {told}
    if not wanted:
        return states
    if attempt.outcome == "done" and attempt.verb != "end":
        return {wanted}
    return states | {wanted}


def _autoremoved(history: History) -> Iterator[str]:
    """A container with --rm is gone when it has run."""
    for (kind, key), attempts in _by_thing(history).items():
        if kind == "auto":
            started = any(a.verb == "start" and a.outcome == "done" for a in attempts)
            if started and key in history.listed.get("container", ()):
                yield f"container {key} was to be removed when it ended, and is there"


def _values(history: History) -> Iterator[str]:
    """An object has the last acknowledged value, or one that was asked for later."""
    for (kind, key), attempts in _by_thing(history).items():
        if kind == "configmap":
            possible: set[str] = set()
            for attempt in attempts:
                if attempt.verb == "read" and attempt.value not in possible:
                    yield f"{key} was {attempt.value}, but must be {_words(possible)}"
                if attempt.verb in ("create", "set", "read"):
                    certain = attempt.outcome == "done"
                    possible = {attempt.value} if certain else possible | {attempt.value}
            last = history.values.get(key, "missing")
            if last not in possible and any(a.outcome == "done" for a in attempts):
                yield f"{key} is {last} at the end, but must be {_words(possible)}"


def _results(history: History) -> Iterator[str]:
    """Programs ended with their exit codes, and said what they say."""
    for attempt in history.attempts:
        wrong = attempt.wanted is not None and attempt.value != attempt.wanted
        if wrong and not allowed(attempt, history.faults):
            yield f"{attempt.kind} {attempt.key}: {attempt.value} instead of {attempt.wanted}"


def _lives(history: History) -> Iterator[str]:
    """No container ended that was not told to."""
    for life in history.lives:
        if life.before != life.after:
            yield f"{life.container} was {life.before!r}, is {life.after!r}"


def _logs(history: History) -> Iterator[str]:
    """Every line once and in order; a killed monitor may lose or repeat what it read last."""
    for log in history.logs:
        breaks = list(_breaks(log, history))
        yield from breaks[:_BREAKS_SHOWN]
        if len(breaks) > _BREAKS_SHOWN:
            yield f"… and {len(breaks) - _BREAKS_SHOWN} more in {log.container}"
        for text in log.garbage[:_BREAKS_SHOWN]:
            yield f"{log.container}, read by {log.reader}: no line of it: {text!r}"


def _breaks(log: Log, history: History) -> Iterator[str]:
    before = Line(-1, 0.0)
    for line in log.lines:
        if line.number != before.number + 1:
            began = (before.at or log.began) - _LATE
            if not during(history.faults, "log", log.container, began, line.at or log.ended):
                where = f"{log.container}, read by {log.reader} from {log.began:.1f}"
                yield f"{where}: {line.number} ({line.at:.2f}) after {before.number} ({before.at:.2f})"
        before = line


def _rests(history: History) -> Iterator[str]:
    """A log grows as long as its container writes, and so does what a follower is shown."""
    for log in history.logs:
        times = [line.at for line in log.lines if line.at]
        if not times:
            continue  # a stream that did not open, or a log whose end is missing: see there
        # Who begins to read is shown first what was written before.
        turns = (*pairwise(times), (max(times[-1], log.began), log.ended))
        if log.reader == AT_THE_END:
            turns = (*pairwise(times), (times[-1], log.ended))
        for before, after in turns:
            rests = after - before > _RESTS
            if rests and not during(history.faults, "log", log.container, before, after):
                where = f"{log.container}, read by {log.reader}"
                yield f"{where}: nothing from {before:.1f} to {after:.1f}"


def _endings(history: History) -> Iterator[str]:
    """The log that is read at the end has all that followers were shown."""
    last = {log.container: log for log in history.logs if log.reader == AT_THE_END}
    for log in history.logs:
        final = last.get(log.container)
        if (
            final
            and log.lines
            and (not final.lines or final.lines[-1].number < log.lines[-1].number)
        ):
            yield f"{log.container}: a follower saw {log.lines[-1].number}, the log ends before"


def _watches(history: History) -> Iterator[str]:
    """Changes come in order and without a gap; a new list needs an explicit answer."""
    acknowledged = defaultdict(list)
    for attempt in history.attempts:
        if attempt.kind == "configmap" and attempt.verb == "set" and attempt.outcome == "done":
            acknowledged[attempt.key].append(int(attempt.value))
    seen: dict[str, int] = {}
    for watched in history.watched:
        if watched.reason != "begin" and not watched.reason.startswith("410"):
            yield f"a list was made because of {watched.reason!r}"
        seen = {**seen, **watched.listed}
        yield from _order(watched, seen, acknowledged)
    if history.watched:
        for key, numbers in acknowledged.items():
            if numbers[-1] > seen.get(key, -1):
                yield f"{key}: {numbers[-1]} was acknowledged, the watch saw {seen.get(key)} last"


def _order(
    watched: Watched, seen: dict[str, int], acknowledged: dict[str, list[int]]
) -> Iterator[str]:
    revision = 0
    for change in watched.changes:
        if change.revision <= revision:
            yield f"{change.key}: revision {change.revision} after {revision}"
        revision = change.revision
        last = seen.get(change.key, -1)
        if change.value <= last and change.value > 0:
            yield f"{change.key}: {change.value} after {last}"
        missed = [n for n in acknowledged.get(change.key, ()) if last < n < change.value]
        if missed:
            yield f"{change.key}: {missed} never came, {change.value} came after {last}"
        seen[change.key] = max(change.value, last)


def _leaks(history: History) -> Iterator[str]:
    """What the platform has on the machine is what it had before."""
    for kind in sorted({*history.before, *history.after}):
        # Names have lost what differs from one to the other: two that look alike are two.
        before, after = Counter(history.before.get(kind, ())), Counter(history.after.get(kind, ()))
        for word, found in (("left", after - before), ("missing", before - after)):
            if found:
                yield f"{kind} {word}: {', '.join(sorted(found.elements())[:10])}"


def _defects(history: History) -> Iterator[str]:
    """Whatever is done to it, the platform knows what to say of it."""
    yield from history.defects


def _errors(history: History) -> Iterator[str]:
    """Errors come only where a fault explains them, and say what is wrong."""
    for attempt in history.attempts:
        if attempt.outcome == "done":
            continue
        what = f"{attempt.client}: {attempt.verb} {attempt.kind} {attempt.key}"
        how = f"{attempt.outcome} {attempt.status or ''} {attempt.text!r}"
        when = f"{attempt.began:.2f} to {attempt.ended:.2f}"
        if not allowed(attempt, history.faults):
            yield f"{what}: {how} from {when}, which no fault explains"
        elif attempt.status and unclear(attempt.text):
            yield f"{what}: {how} from {when} is not clear: {unclear(attempt.text)}"


def _recovery(history: History) -> Iterator[str]:
    """After every fault all was ready again; no client was at a loss."""
    for fault in history.faults:
        if fault.problem:
            yield f"{fault.kind} {fault.target} at {fault.began:.2f}: {fault.problem}"
    yield from history.problems


def _by_thing(history: History) -> dict[tuple[str, str], list[Attempt]]:
    things = defaultdict(list)
    for attempt in sorted(history.attempts, key=lambda a: a.began):
        things[attempt.kind, attempt.key].append(attempt)
    return things


def _words(states: Iterable[str]) -> str:
    return " or ".join(sorted(states)) or "nothing"


CHECKS: dict[str, Callable[[History], Iterator[str]]] = {
    "writes": _writes,
    "autoremoved": _autoremoved,
    "values": _values,
    "results": _results,
    "lives": _lives,
    "logs": _logs,
    "rests": _rests,
    "endings": _endings,
    "watches": _watches,
    "leaks": _leaks,
    "defects": _defects,
    "errors": _errors,
    "recovery": _recovery,
}
