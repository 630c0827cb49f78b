"""What is asked of the node about containers that there are, and its answers."""

from __future__ import annotations

from sagong.contract import Message
from sagong.contracts.network import Attachment
from sagong.contracts.node.containers import RestartPolicy
from sagong.contracts.runtime import Limits

__all__ = [
    "ConnectSpec",
    "DialRequest",
    "KillRequest",
    "LogsRequest",
    "NodeQuery",
    "Ref",
    "RemoveRequest",
    "ShownMounts",
    "StartRequest",
    "StopRequest",
    "TopResult",
    "UpdateSpec",
    "WaitRequest",
    "WaitResult",
]


class Ref(Message):
    """Names a container or sandbox by its full id."""

    id: str


class NodeQuery(Message):
    """`owner` "" lists all, "docker" those of "docker/build", too; `begun` only those that run, are
    paused or between two tries.
    """

    owner: str = ""
    begun: bool = False


class StartRequest(Message):
    """Start a container; `expect_attach` holds output back until somebody attached.

    Then the answer may have the `stream` of that attach, with the program's input if `attach_stdin`.

    `run` is the run that shall begin (one more than its status tells): one that has begun, though
    it may have ended since, does not begin again, however often it is asked for. 0 is the next.
    """

    id: str
    run: int = 0
    expect_attach: bool = False
    rows: int = 0
    columns: int = 0
    attach_stdin: bool = False


class StopRequest(Message):
    """Stop: the stop signal, then after `seconds` (None: the spec's; -1: never) SIGKILL."""

    id: str
    seconds: float | None = None
    signal: str = ""


class KillRequest(Message):
    """Send a signal by name or number."""

    id: str
    signal: str = "SIGKILL"


class RemoveRequest(Message):
    """Remove; `force` kills first, `volumes` deletes its anonymous volumes."""

    id: str
    force: bool = False
    volumes: bool = False


class UpdateSpec(Message):
    """Change limits and restart policy; None leaves.

    `hosts` are the sandbox's further lines of /etc/hosts, at once for those that run; `env` is the
    command's environment from the next start on.
    """

    id: str
    limits: Limits | None = None
    restart: RestartPolicy | None = None
    name: str = ""
    hosts: tuple[tuple[str, str], ...] | None = None
    env: tuple[str, ...] | None = None


class LogsRequest(Message):
    """Read logs: `tail` lines (-1: all) of those written from `since_nanos` to `until_nanos`.

    Both since the epoch (0: none): a line's own stamp as a bound takes that line in.

    The answer's stream has frames STDOUT and STDERR, after some of them a PLACE, and at the end EOF:
    where the log ends, or with `follow` where the container has ended. Without EOF it was cut; the
    same request with the last PLACE as `place` goes on from there (`sagong.log_frames` does).
    `previous` reads the run before. `limit` bounds the bytes (0: none).
    """

    id: str
    stdout: bool = True
    stderr: bool = True
    since_nanos: int = 0
    until_nanos: int = 0
    tail: int = -1
    follow: bool = False
    timestamps: bool = False
    previous: bool = False
    details: bool = False
    limit: int = 0
    place: bytes = b""


class WaitRequest(Message):
    """`condition`: not-running, next-exit, removed.

    `run` is the first whose end is a next exit (0: the present one or the next); as the first result
    said it, for whoever asks again after a cut.
    """

    id: str
    condition: str = "not-running"
    run: int = 0


class WaitResult(Message):
    """The code it ended with; the first item says `waiting` at once, and for the end of which run."""

    waiting: bool = False
    run: int = 0
    code: int = 0
    error: str = ""


class ConnectSpec(Message):
    """Connect the sandbox to a network (also when it is not running: at its next start)."""

    id: str
    attachment: Attachment
    disconnect: bool = False
    force: bool = False


class DialRequest(Message):
    """A raw stream to a TCP port inside a sandbox (port forwarding)."""

    id: str
    port: int


class ShownMounts(Message):
    """Where what is mounted in a container can be seen by slot `image`: (target, path)."""

    mounts: tuple[tuple[str, str], ...] = ()


class TopResult(Message):
    """Processes as (host pid, /proc stat fields by name)."""

    processes: tuple[tuple[int, tuple[tuple[str, str], ...]], ...]
