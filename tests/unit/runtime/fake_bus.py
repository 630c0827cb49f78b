"""A bus with systemd's manager on it, as far as we ask: one client, answers by a table."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sagong_runtime_linux.oci.dbus_messages import (
    ERROR,
    HEAD_SIZE,
    RETURN,
    SIGNAL,
    Message,
    length_of,
)

__all__ = ["FakeBus"]

_JOB = "/org/freedesktop/systemd1/job/7"


class FakeBus:
    """Serves while in its `with`; `asked` are the calls, `results` what jobs end with, in order.

    Of a method in `failures` the first calls fail; with `silent` no job ever ends.
    """

    def __init__(
        self,
        directory: Path,
        *,
        results: tuple[str, ...] = (),
        failures: dict[str, list[str]] | None = None,
        silent: bool = False,
        greeting: bytes = b"DATA\r\nOK 1234\r\n",
    ) -> None:
        self.address = f"unix:path={directory}/bus"
        self.asked: list[tuple[str, tuple[Any, ...]]] = []
        self._results = list(results)
        self._failures = failures or {}
        self._silent = silent
        self._greeting = greeting
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{directory}/bus")
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.join()
        self._listener.close()

    def calls(self) -> list[str]:
        """Names of the methods that were called."""
        return [name for name, _ in self.asked]

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        with client, client.makefile("rwb") as stream:
            assert stream.readline() == b"\0AUTH EXTERNAL\r\n"
            assert stream.readline() == b"DATA\r\n"
            stream.write(self._greeting)
            stream.flush()
            if not self._greeting or not stream.readline():
                return
            while head := stream.read(HEAD_SIZE):
                for message in self._answers(
                    Message.decode(head + stream.read(length_of(head) - len(head)))
                ):
                    stream.write(message.encode())
                stream.flush()

    def _answers(self, call: Message) -> list[Message]:
        member = call.fields["member"]
        self.asked.append((member, call.values))
        waiting = self._failures.get(member)
        if waiting:
            fields = {"reply_to": call.serial, "error": waiting.pop(0), "signature": "s"}
            return [Message(ERROR, 1, fields, ("no, thanks",))]
        fields = {"reply_to": call.serial}
        if member in ("StartTransientUnit", "StopUnit"):
            told = Message(RETURN, 1, {**fields, "signature": "o"}, (_JOB,))
            # Also before the answer, as it may come from systemd.
            return [*self._ended("/another", "failed"), *self._end(), told]
        return [Message(RETURN, 1, fields)]

    def _end(self) -> list[Message]:
        if self._silent:
            return []
        return self._ended(_JOB, self._results.pop(0) if self._results else "done")

    def _ended(self, job: str, result: str) -> list[Message]:
        fields = {"path": "/", "interface": "x.y", "member": "JobRemoved", "signature": "uoss"}
        return [Message(SIGNAL, 1, fields, (7, job, "box.scope", result))]
