"""Messages of contract `node` about processes with streams: further ones, attaching, terminals."""

from __future__ import annotations

from sagong.contract import Message
from sagong.contracts.streams import Address

__all__ = ["AccountQuery", "AttachSpec", "ExecRef", "ExecSpec", "ExecState", "ResizeSpec"]


class ExecSpec(Message):
    """A further process; `exec_id` (64 hex digits) is made by the caller.

    `detach_keys` are raw bytes that end an attached client's session.
    """

    id: str
    exec_id: str
    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = ""
    user: str = ""
    tty: bool = False
    rows: int = 0
    columns: int = 0
    stdin: bool = False
    privileged: bool = False


class AccountQuery(Message):
    """Who `user` (`NAME|UID[:GROUP|GID]`) is in a container by its files of now; "" is its own user."""

    id: str
    user: str = ""


class ExecRef(Message):
    """Names an exec."""

    id: str
    exec_id: str


class ExecState(Message):
    """An exec as it is; `stream` (protocol "frames") only in the answer that started it."""

    exec_id: str
    running: bool
    pid: int = 0
    code: int = 0
    stream: Address | None = None


class AttachSpec(Message):
    """Attach to a running container's streams."""

    id: str
    stdin: bool = False
    replay: bool = False


class ResizeSpec(Message):
    """Set the size of a terminal of the container or of an exec."""

    id: str
    exec_id: str = ""
    rows: int
    columns: int
