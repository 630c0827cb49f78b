"""The table of what each kind of fault may do to clients; what is not in it is a violation.

An error is excused by a fault that its time touches: from when it began until all was ready again.
A swap, and an upgrade, excuse nothing but the orderly end of a stream.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from tests.system.chaos.history import Attempt, Fault

__all__ = ["TABLE", "allowed", "during"]

# Seconds after the recovery in which what was asked during it may still fail.
_SLACK = 3.0


class Excuse(msgspec.Struct, frozen=True):
    """Errors of `outcome`, `status` and `text` (patterns) are due to `faults`: "KIND TARGET" patterns.

    In `faults`, {server} is the service that the client talks to.
    """

    outcome: str
    faults: tuple[str, ...]
    status: str = ".*"
    text: str = ""
    kind: str = ".*"
    verb: str = ".*"


_DISTURBED = ("kill .*", "stop .*", "power .*", "full .*")
# What counts as a worker may be the generation before, which still serves its streams.
_SERVER = ("kill {server}", "kill worker of {server}", "stop {server}", "power .*")

TABLE: tuple[Excuse, ...] = (
    # Listeners are held by the keeper: they are gone only while everything is.
    Excuse("unreachable", ("power .*",)),
    Excuse("cut", _SERVER),
    # Output comes straight from the container's monitor.
    Excuse("cut|ended", ("kill monitor .*",), kind="log|exec"),
    Excuse("ended", (*_SERVER, "swap {server}", "upgrade .*"), kind="watch"),
    Excuse("ended", _SERVER, kind="log"),
    Excuse("refused", _DISTURBED, status="503"),
    Excuse("refused", ("kill .*", "stop .*", "power .*"), status="504"),
    Excuse("refused", ("stop .*", "kill .*"), status="500", text=r"in time|deadline|not answer"),
    Excuse("refused", ("full .*",), status="500|507|429", text=r"(?i)full|no space|disk"),
    # Two attempts of the same thing at once, after the first was not answered.
    Excuse("exists", ("kill .*", "stop .*", "power .*"), verb="remove|start|read|wait|prepare"),
    # Answers that tell how a thing is; whether that is true is for the other checks.
    Excuse("exists", (), verb="create"),
    Excuse("absent", (), verb="remove|end|read|look|start|wait|logs|label"),
    Excuse("gone", (), kind="watch"),
    # ADR 42: who ended while nobody was there to wait for it, ended with 255; and the last read.
    Excuse("done", ("kill monitor .*", "power .*", "kill runtime-companion"), verb="result"),
    # A full disk loses log lines, never the container.
    Excuse("done", ("full .*",), kind="container", verb="result"),
    # A client of an exec sees less where its server or the monitor went meanwhile.
    Excuse("done", _SERVER, kind="exec", verb="result"),
)
_LOGS = ("kill monitor {server}", "power .*", "full .*")


def allowed(attempt: Attempt, faults: Iterable[Fault]) -> bool:
    """Whether the table has an excuse for an error, in the faults of its time."""
    # Connections end for clients of both APIs alike; what they spoke to is in their names.
    server = attempt.client.partition("-")[0]
    excuses = [e for e in TABLE if _fits(e, attempt)]
    if any(not e.faults for e in excuses):
        return True
    patterns = [p.format(server=server) for e in excuses for p in e.faults]
    return _touched(faults, patterns, attempt.began, attempt.ended)


def during(faults: Iterable[Fault], kind: str, server: str, began: float, ended: float) -> bool:
    """Whether a gap in a log between two times has an excuse."""
    assert kind == "log"
    return _touched(faults, [p.format(server=server) for p in _LOGS], began, ended)


def _fits(excuse: Excuse, attempt: Attempt) -> bool:
    pairs = (
        (excuse.outcome, attempt.outcome),
        (excuse.status, str(attempt.status)),
        (excuse.kind, attempt.kind),
        (excuse.verb, attempt.verb),
    )
    return all(re.fullmatch(p, v) for p, v in pairs) and bool(re.search(excuse.text, attempt.text))


def _touched(faults: Iterable[Fault], patterns: list[str], began: float, ended: float) -> bool:
    return any(
        fault.began <= ended and began <= fault.ended + _SLACK
        for fault in faults
        if any(re.fullmatch(p, f"{fault.kind} {fault.target}") for p in patterns)
    )
