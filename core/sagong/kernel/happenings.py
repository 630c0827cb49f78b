"""What may happen to a unit, and what may be done about it: the words of `sagong.kernel.life`."""

from __future__ import annotations

from dataclasses import dataclass

from sagong.kernel.units import Unit

__all__ = [
    "Action",
    "Begin",
    "Drain",
    "Drained",
    "End",
    "Event",
    "Exited",
    "Failed",
    "Finish",
    "Idle",
    "Ill",
    "Kill",
    "Launch",
    "Launched",
    "Leave",
    "Remember",
    "Reset",
    "Retry",
    "RetryIn",
    "Say",
    "Settle",
    "Start",
    "Started",
    "Swap",
    "TrialOver",
    "Wake",
    "WakeIn",
    "Watch",
]

# What happened


@dataclass(frozen=True)
class Begin:
    """Serve, if nothing does."""


@dataclass(frozen=True)
class Swap:
    """The operator wants `what` instead; `trial` is how long it has to prove itself, 0 for not."""

    what: Unit
    trial: float


@dataclass(frozen=True)
class Launched:
    """Its process attends, with all imported: it can be started at once."""

    generation: int


@dataclass(frozen=True)
class Started:
    """It serves, and says that it is well."""

    generation: int


@dataclass(frozen=True)
class Failed:
    """It could not be forked, or does not start, or says that it is not well."""

    generation: int
    error: str


@dataclass(frozen=True)
class Drained:
    """It finished its calls, or its bound is over; `state` is for its successor.

    With `free` it has let go of all that a successor needs, and only tidies up. One that falls asleep
    has left word then of what it waits for, and is to be woken after `seconds` at the latest, 0: never.
    """

    generation: int
    state: bytes = b""
    free: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class Exited:
    """Its process ended; `how`, in words, as far as it is known."""

    generation: int
    how: str = ""


@dataclass(frozen=True)
class Ill:
    """One on trial says what is wrong; or whoever serves does not answer any more (`hung`)."""

    generation: int
    error: str
    hung: bool = False


@dataclass(frozen=True)
class TrialOver:
    """It has proved itself."""

    generation: int


@dataclass(frozen=True)
class Idle:
    """It had nothing to do for as long as it waits for work."""

    generation: int


@dataclass(frozen=True)
class Wake:
    """Somebody calls the unit, or connects to it; or what it waits for has happened."""


@dataclass(frozen=True)
class Retry:
    """The rest is over."""


@dataclass(frozen=True)
class Reset:
    """The operator wants a new try: forget the crashes."""


@dataclass(frozen=True)
class Leave:
    """The unit is to end for good."""


Event = (
    Begin
    | Swap
    | Launched
    | Started
    | Failed
    | Drained
    | Exited
    | Ill
    | Idle
    | Wake
    | TrialOver
    | Retry
    | Reset
    | Leave
)

# What is to be done


@dataclass(frozen=True)
class Launch:
    """Fork it; tell `Launched` or `Failed`."""

    generation: int
    what: Unit


@dataclass(frozen=True)
class Start:
    """Let it serve, and ask how it is; tell `Started` or `Failed`."""

    generation: int
    state: bytes


@dataclass(frozen=True)
class Drain:
    """Let it finish, bounded, and export its state if there is a `successor`; tell `Drained`.

    `asleep`: that comes only when it is needed.
    """

    generation: int
    successor: bool = True
    asleep: bool = False


@dataclass(frozen=True)
class End:
    """Tell it to end, and kill it if it does not."""

    generation: int


@dataclass(frozen=True)
class Kill:
    """End it at once."""

    generation: int


@dataclass(frozen=True)
class RetryIn:
    """Tell `Retry` after that many seconds."""

    seconds: float


@dataclass(frozen=True)
class WakeIn:
    """Tell `Wake` after that many seconds, unless it wakes before."""

    seconds: float


@dataclass(frozen=True)
class Watch:
    """Ask it again and again how it is; tell `Ill`, or `TrialOver` after that many seconds."""

    generation: int
    seconds: float


@dataclass(frozen=True)
class Remember:
    """`what` is the operator's choice, proved."""

    what: Unit


@dataclass(frozen=True)
class Say:
    """Progress for the operator."""

    text: str


@dataclass(frozen=True)
class Finish:
    """The swap is over; `ok` tells whether the newcomer serves."""

    ok: bool
    text: str
    generation: int = 0


@dataclass(frozen=True)
class Settle:
    """The trial is over; `ok` tells whether the newcomer stays."""

    ok: bool
    text: str


Action = (
    Launch
    | Start
    | Drain
    | End
    | Kill
    | RetryIn
    | WakeIn
    | Watch
    | Remember
    | Say
    | Finish
    | Settle
)
