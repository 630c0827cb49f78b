"""The runtime's side of a start: fork, run hooks, hand the terminal over, write down who it is."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Any

from sagong.linux import process
from sagong.shim.failure import StartError
from sagong_runtime_linux.oci.console import hand_over, leave_lines
from sagong_runtime_linux.oci.forking import fork_into
from sagong_runtime_linux.oci.notifying import hand_listener, take_listener
from sagong_runtime_linux.operations import Stage

__all__ = ["Birth"]

_MESSAGE_SIZE = 64 << 10


class Birth:
    """One process on its way from the fork to where its plan ends."""

    def __init__(
        self,
        stage: Stage,
        *,
        console: str = "",
        keep_terminal: bool = False,
        seccomp: dict[str, Any] | None = None,
        state: dict[str, Any] | None = None,
    ) -> None:
        self.pid = 0
        self.master = -1
        self._stage = stage
        self._console = console
        self._keep_terminal = keep_terminal
        self._seccomp = seccomp or {}
        self._state = state or {}
        self._channel: socket.socket | None = None

    def fork(self, namespace: str | int, become: Callable[[], None]) -> None:
        """Fork into a pid namespace; the child calls `become`, which never returns."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._stage.monitor = theirs
        self.pid = fork_into(namespace)
        if self.pid == 0:
            ours.close()
            become()
        theirs.close()
        self._channel = ours

    def wait_ready(self, answers: Mapping[str, Callable[[int], None]]) -> None:
        """Until the plan is applied; what the child asks for is done by `answers`, with its pid."""
        told = False
        while True:
            message, descriptors = self._hear()
            if "pid" in message and not told:
                # Once: who traces the child may speak for it from then on.
                self.pid, told = message["pid"], True
            elif "tty" in message:
                self._take_terminal(descriptors)
            elif "notify" in message:
                self._pass_listener(message["notify"])
            elif "ready" in message:
                return
            elif asked := answers.keys() & message.keys():
                answers[asked.pop()](self.pid)
                self._go()

    def _hear(self) -> tuple[dict[str, Any], tuple[int, ...]]:
        assert self._channel is not None
        try:
            data, descriptors = process.receive_descriptors(self._channel, _MESSAGE_SIZE, 2)
        except ConnectionResetError:
            data, descriptors = b"", ()
        if not data:
            text = "the process ended before its program could be executed (killed?)"
            raise StartError("internal", text)
        message = json.loads(data)
        if "error" in message:
            raise StartError(message["error"]["code"], message["error"]["message"])
        return message, descriptors

    def _take_terminal(self, descriptors: tuple[int, ...]) -> None:
        master, slave = descriptors
        os.close(slave)
        if self._console:
            hand_over(self._console, master)
        if self._keep_terminal:
            leave_lines(master)
            self.master = master
        else:
            os.close(master)

    def _pass_listener(self, number: int) -> None:
        """Who answers for the filter must have it before the process is asked anything."""
        assert self._channel is not None
        listener = take_listener(self.pid, number, self._channel)
        if listener >= 0:
            try:
                state = {**self._state, "pid": self._state.get("pid") or self.pid}
                hand_listener(listener, self._seccomp, state, self.pid)
            finally:
                os.close(listener)
            self._go()

    def _go(self) -> None:
        assert self._channel is not None
        self._channel.send(b"go %d" % self.pid)

    def let_go(self) -> None:
        """It is written down: go on to the program, or to waiting for `start`."""
        self._go()

    def wait_executed(self) -> None:
        """Until the program has replaced the process, which closes its end."""
        assert self._channel is not None
        data = self._channel.recv(_MESSAGE_SIZE)
        if data:
            error = json.loads(data)["error"]
            raise StartError(error["code"], error["message"])

    def kill(self) -> None:
        """Nothing of it stays."""
        if self.pid > 0:
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                return
