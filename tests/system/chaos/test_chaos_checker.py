"""The checker must be able to fail: a good history passes, and each thing that is broken is found."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from tests.system.chaos.checker import check
from tests.system.chaos.defects import defects_of
from tests.system.chaos.errors import unclear
from tests.system.chaos.history import (
    Attempt,
    Change,
    Fault,
    History,
    Life,
    Line,
    Log,
    Watched,
)

AT = 1000.0


def attempt(
    key: str,
    verb: str,
    outcome: str = "done",
    *,
    kind: str = "container",
    at: float = AT,
    **more: object,
) -> Attempt:
    """A request of a tenth of a second."""
    facts = {"client": "docker-x", "began": at, "ended": at + 0.1, **more}
    return msgspec.convert(
        {"kind": kind, "key": key, "verb": verb, "outcome": outcome, **facts}, Attempt
    )


def lines(*numbers: int, at: float = AT) -> tuple[Line, ...]:
    """A line every tenth of a second."""
    return tuple(Line(number, at + 0.1 * turn) for turn, number in enumerate(numbers))


def log(*numbers: int, reader: str = "at the end") -> Log:
    """What a reader got of the steady container."""
    ended = AT + 0.1 * len(numbers)
    return Log(container="steady", reader=reader, began=AT, ended=ended, lines=lines(*numbers))


def fault(kind: str, target: str, at: float = AT, seconds: float = 5.0) -> Fault:
    """A fault of some seconds."""
    return Fault(kind=kind, target=target, began=at, ended=at + seconds)


def count(number: int, outcome: str = "done", **more: object) -> Attempt:
    """A counter is set."""
    facts = {"kind": "configmap", "value": str(number), "at": AT + number, **more}
    return attempt("c", "set", outcome, **facts)  # type: ignore[arg-type]


GOOD = History(
    seed=1,
    attempts=(
        attempt("kept", "create"),
        attempt("kept", "start", at=AT + 1),
        attempt("kept", "result", at=AT + 2, value="3: x", wanted="3: x"),
        attempt("gone", "create"),
        attempt("gone", "remove", at=AT + 1),
        attempt("v", "create", kind="volume"),
        attempt("auto", "create", kind="auto"),
        attempt("auto", "start", kind="auto", at=AT + 1),
        attempt("c", "create", kind="configmap", value="0"),
        count(1),
        count(2),
    ),
    logs=(log(0, 1, 2, 3, 4), log(0, 1, 2, reader="a follower")),
    lives=(Life(container="steady", before="running 7", after="running 7"),),
    watched=(
        Watched(reason="begin", listed={"c": 0}, changes=(Change(5, "c", 1), Change(6, "c", 2))),
    ),
    listed={"container": ("kept", "steady"), "volume": ("v",)},
    values={"c": "2"},
    before={"mounts": ("a",)},
    after={"mounts": ("a",)},
)


def changed(**parts: object) -> History:
    """The good history with something else in it."""
    return msgspec.structs.replace(GOOD, **parts)


def more(*attempts: Attempt, faults: tuple[Fault, ...] = ()) -> History:
    """The good history with requests added."""
    return changed(attempts=(*GOOD.attempts, *attempts), faults=faults)


def watched(*changes: Change, reason: str = "begin", listed: int = 0) -> History:
    """The good history with another watch."""
    return changed(watched=(Watched(reason=reason, listed={"c": listed}, changes=changes),))


BROKEN: dict[str, tuple[History, str]] = {
    "a lost container": (changed(listed={"volume": ("v",)}), "writes"),
    "a lost image": (
        more(
            attempt("i", "build", kind="image"),
            attempt("i", "read", "absent", kind="image", at=AT + 1),
        ),
        "writes",
    ),
    "an image that is not there at the end": (more(attempt("i", "pull", kind="image")), "writes"),
    "a removed image that is back": (
        changed(
            attempts=(
                *GOOD.attempts,
                attempt("i", "build", kind="image"),
                attempt("i", "remove", kind="image", at=AT + 1),
            ),
            listed={**GOOD.listed, "image": ("i",)},
        ),
        "writes",
    ),
    "a lost volume": (changed(listed={"container": ("kept",)}), "writes"),
    "a removed one that is back": (
        changed(listed={"container": ("kept", "gone"), "volume": ("v",)}),
        "writes",
    ),
    "gone when it was used": (more(attempt("kept", "wait", "absent", at=AT + 3)), "writes"),
    "there before it was made": (more(attempt("n", "create", "exists", kind="network")), "writes"),
    "not removed by itself": (
        changed(listed={"container": ("kept", "auto"), "volume": ("v",)}),
        "autoremoved",
    ),
    "an old value": (changed(values={"c": "1"}), "values"),
    "an old value read": (
        more(attempt("c", "read", kind="configmap", value="1", at=AT + 9)),
        "values",
    ),
    "a lost object": (changed(values={}), "values"),
    "a wrong exit code": (
        more(attempt("kept", "result", value="0: x", wanted="3: x", at=AT + 3)),
        "results",
    ),
    "a dead container": (
        changed(lives=(Life(container="steady", before="running 7", after="running 9"),)),
        "lives",
    ),
    "a pod's container that was replaced": (
        changed(
            lives=(
                Life(container="steady-1", before="Running u c1 restarts=0", after="gone"),
                Life(container="steady-2", before="missing", after="Running v c2 restarts=0"),
            )
        ),
        "lives",
    ),
    "a swap that failed": (
        changed(faults=(msgspec.structs.replace(fault("swap", "node"), problem="swap failed"),)),
        "recovery",
    ),
    "a lost line": (changed(logs=(log(0, 1, 3, 4),)), "logs"),
    "a doubled line": (changed(logs=(log(0, 1, 1, 2),)), "logs"),
    "lines out of order": (changed(logs=(log(0, 2, 1, 3),)), "logs"),
    "lost first lines": (changed(logs=(log(2, 3, 4),)), "logs"),
    "half a line": (
        changed(logs=(msgspec.structs.replace(log(0, 1), garbage=("{half",)),)),
        "logs",
    ),
    "a line lost long after the fault": (
        changed(logs=(log(0, 1, 3),), faults=(fault("full", "disk", at=AT - 60),)),
        "logs",
    ),
    "a line lost by a swap": (
        changed(logs=(log(0, 1, 3),), faults=(fault("swap", "runtime"),)),
        "logs",
    ),
    "a line lost with another's monitor": (
        changed(logs=(log(0, 1, 3),), faults=(fault("kill", "monitor other"),)),
        "logs",
    ),
    "a log that rests": (
        changed(logs=(msgspec.structs.replace(log(0, 1, 2), ended=AT + 60),)),
        "rests",
    ),
    "a container that rests": (
        changed(
            logs=(
                msgspec.structs.replace(
                    log(), lines=(*lines(0, 1), *lines(2, 3, at=AT + 50)), ended=AT + 50.2
                ),
            )
        ),
        "rests",
    ),
    "a follower that is shown no more": (
        changed(
            logs=(
                msgspec.structs.replace(log(), lines=lines(*range(500)), ended=AT + 50),
                msgspec.structs.replace(log(*range(9), reader="f"), ended=AT + 50),
            )
        ),
        "rests",
    ),
    "a log cut off": (changed(logs=(log(0, 1), log(0, 1, 2, reader="f"))), "endings"),
    "a change that never came": (watched(Change(6, "c", 2)), "watches"),
    "a change that never came at the end": (watched(Change(5, "c", 1)), "watches"),
    "a change told twice": (
        watched(Change(5, "c", 1), Change(6, "c", 2), Change(7, "c", 2)),
        "watches",
    ),
    "revisions out of order": (watched(Change(6, "c", 1), Change(5, "c", 2)), "watches"),
    "a list without a reason": (watched(reason="500: sorry", listed=2), "watches"),
    "a leak": (changed(after={"mounts": ("a", "b")}), "leaks"),
    "a leak that looks like what is there": (changed(after={"mounts": ("a", "a")}), "leaks"),
    "a traceback": (changed(defects=("node: a pod: defect … KeyError: 'x'",)), "defects"),
    "something missing": (changed(after={}), "leaks"),
    "an error without a fault": (
        more(attempt("kept", "look", "refused", status=503, text="node does not answer now")),
        "errors",
    ),
    "a conflict without a fault": (
        more(attempt("kept", "start", "exists", status=409, text="kept is being removed")),
        "errors",
    ),
    "refused while the keeper lives": (
        more(attempt("kept", "look", "unreachable"), faults=(fault("kill", "keeper"),)),
        "errors",
    ),
    "cut by another's death": (
        more(attempt("kept", "look", "cut"), faults=(fault("kill", "kube"),)),
        "errors",
    ),
    "cut by a swap": (
        more(attempt("kept", "look", "cut"), faults=(fault("swap", "docker"),)),
        "errors",
    ),
    "a call that hangs": (
        more(attempt("kept", "look", "timeout"), faults=(fault("kill", "docker"),)),
        "errors",
    ),
    "a defect": (
        more(
            attempt("kept", "look", "refused", status=500, text="Node.start: LookupError: ascii"),
            faults=(fault("kill", "node"),),
        ),
        "errors",
    ),
    "an unclear error": (
        more(
            attempt("kept", "look", "refused", status=503, text="[Errno 28] no"),
            faults=(fault("kill", "node"),),
        ),
        "errors",
    ),
    "nothing said": (
        more(attempt("kept", "look", "refused", status=503), faults=(fault("kill", "node"),)),
        "errors",
    ),
    "not ready again": (
        changed(faults=(msgspec.structs.replace(fault("kill", "node"), problem="node: down"),)),
        "recovery",
    ),
    "a client at a loss": (changed(problems=("it gave up",)), "recovery"),
}


def test_a_good_history_passes() -> None:
    assert check(GOOD) == []


@pytest.mark.parametrize("name", BROKEN)
def test_a_violation_is_found(name: str) -> None:
    history, kind = BROKEN[name]
    found = check(history)
    assert found, "nothing was found"
    assert {text.partition(":")[0] for text in found} == {kind}, found


EXCUSED: dict[str, Callable[[], History]] = {
    "a write without an answer may be done": lambda: changed(
        attempts=(*GOOD.attempts, count(3, "cut", client="kube-x")),
        faults=(fault("kill", "kube"),),
    ),
    "or not": lambda: changed(
        attempts=(*GOOD.attempts, count(3, "cut", client="kube-x")),
        faults=(fault("kill", "kube"),),
        values={"c": "3"},
    ),
    "a removal without an answer may be done": lambda: changed(
        attempts=(*GOOD.attempts, attempt("kept", "remove", "cut", at=AT + 3)),
        faults=(fault("kill", "docker"),),
        listed={"container": (), "volume": ("v",)},
    ),
    "its own monitor's death costs a line": lambda: changed(
        logs=(log(0, 1, 3),), faults=(fault("kill", "monitor steady"),)
    ),
    "a full disk costs lines": lambda: changed(
        logs=(log(0, 1, 3),), faults=(fault("full", "disk"),)
    ),
    "an answer that history is gone": lambda: changed(
        watched=(
            Watched(reason="begin", listed={"c": 0}, changes=()),
            Watched(reason="410: too old", listed={"c": 2}, changes=()),
        )
    ),
    "no listener while everything is down": lambda: more(
        attempt("kept", "look", "unreachable"), faults=(fault("power", "all"),)
    ),
    "a stream cut by the death of the generation that was replaced": lambda: more(
        attempt("steady", "logs", "cut", kind="log"), faults=(fault("kill", "worker of docker"),)
    ),
}


def test_defects_are_found_in_logs() -> None:
    text = """\
2026-11-30T21:15:58.870 INFO sagong.node fine
2026-11-30T21:15:58.902 ERROR sagong.node pod default/one: defect
    Traceback (most recent call last):
      File "worker.py", line 262, in _guarded
        await work
        ^^^^^^^^^^
    OSError: [Errno 28] No space left on device
2026-11-30T21:16:18.264 INFO sagong.node fine, too
Traceback (most recent call last):
  File "x.py", line 1, in <module>
    main()
KeyError: 'x'
runners.py:118: RuntimeWarning: coroutine 'Store.commit' was never awaited
"""
    assert list(defects_of(text)) == [
        "2026-11-30T21:15:58.902 ERROR sagong.node pod default/one: defect … "
        "OSError: [Errno 28] No space left on device",
        "2026-11-30T21:16:18.264 INFO sagong.node fine, too … KeyError: 'x'",
        "runners.py:118: RuntimeWarning: coroutine 'Store.commit' was never awaited",
    ]


@pytest.mark.parametrize("name", EXCUSED)
def test_what_a_fault_may_do_is_no_violation(name: str) -> None:
    assert check(EXCUSED[name]()) == []


@pytest.mark.parametrize(
    ("text", "clear"),
    [
        ("the disk of /x/local.db is full; nothing was written: free space there", True),
        ("node does not answer now; try again", True),
        ("", False),
        ("None", False),
        ("OSError: [Errno 5]", False),
        ("internal error in request 7", False),
        ("failed", False),
    ],
)
def test_what_a_clear_error_is(text: str, clear: bool) -> None:
    assert (unclear(text) == "") is clear
