"""A connection to a bus of D-Bus: calls with a deadline, and signals that came meanwhile.

Who connects is told to the bus by the kernel alone ("EXTERNAL" without a name), since root of a user
namespace is another user to it.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from sagong.shim.failure import StartError, reason
from sagong_runtime_linux.oci.dbus_messages import (
    CALL,
    ERROR,
    HEAD_SIZE,
    RETURN,
    SIGNAL,
    Message,
    length_of,
)

__all__ = ["Bus", "BusError"]

_BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
_LINE_LENGTH = 4096
_READ_SIZE = 64 << 10
_ESCAPED = re.compile("%([0-9a-fA-F]{2})")
# The specification's greatest message.
_MESSAGE_LENGTH = 128 << 20


class BusError(Exception):
    """An answer that is an error: `name` is the one that programs tell it by."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message or name)
        self.name = name


class Bus:
    """Connected while in its `with`; whatever takes longer than `seconds` is an error."""

    def __init__(self, address: str, *, seconds: float) -> None:
        self.address = address
        self._seconds = seconds
        self._serial = 0
        self._pending = b""
        self._signals: list[Message] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def __enter__(self) -> Self:
        try:
            self._connect()
        except BaseException:
            self._socket.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def _connect(self) -> None:
        limit = time.monotonic() + self._seconds
        try:
            self._socket.settimeout(self._seconds)
            self._socket.connect(_place(self.address))
        except OSError as error:
            raise self._unavailable(reason(error)) from None
        self._send_all(b"\0AUTH EXTERNAL\r\nDATA\r\n")
        for wanted in (b"DATA", b"OK"):
            line = self._line(limit)
            if line.split(b" ")[0] != wanted:
                raise self._unavailable(f"it refuses us: {line.decode(errors='replace')}")
        self._send_all(b"BEGIN\r\n")
        self.call(*_BUS, "Hello")

    def _line(self, limit: float) -> bytes:
        found = b""
        while not found.endswith(b"\r\n"):
            found += self._receive(1, limit)
            if len(found) > _LINE_LENGTH:
                raise self._unavailable("it speaks no D-Bus")
        return found[:-2]

    def call(
        self, destination: str, path: str, interface: str, member: str, *arguments: Any
    ) -> tuple[Any, ...]:
        """Call a method and wait for what it gives; `arguments` are a signature and its values."""
        limit = time.monotonic() + self._seconds
        serial = self._send(destination, path, interface, member, arguments)
        while True:
            message = self._next(limit)
            if message.fields.get("reply_to") != serial:
                self._keep(message)
            elif message.kind == ERROR:
                text = str(message.values[0]) if message.values else ""
                raise BusError(message.fields.get("error", ""), text)
            elif message.kind == RETURN:
                return message.values

    def listen(self, rule: str) -> None:
        """Have signals sent that match a rule."""
        self.call(*_BUS, "AddMatch", "s", rule)

    def wait_signal(self, member: str, matches: Callable[[tuple[Any, ...]], bool]) -> Any:
        """The values of the first signal that is the one meant, also if it came before."""
        limit = time.monotonic() + self._seconds
        while True:
            for message in self._signals:
                if message.fields.get("member") == member and matches(message.values):
                    return message.values
            self._signals.clear()
            self._keep(self._next(limit))

    def _keep(self, message: Message) -> None:
        if message.kind == SIGNAL:
            self._signals.append(message)

    def _send(
        self, destination: str, path: str, interface: str, member: str, arguments: tuple[Any, ...]
    ) -> int:
        self._serial += 1
        fields = {"destination": destination, "path": path}
        fields |= {"interface": interface, "member": member}
        if arguments:
            fields["signature"] = arguments[0]
        message = Message(CALL, self._serial, fields, arguments[1:])
        self._send_all(message.encode())
        return self._serial

    def _send_all(self, data: bytes) -> None:
        try:
            self._socket.settimeout(self._seconds)
            self._socket.sendall(data)
        except OSError as error:
            raise self._unavailable(reason(error)) from None

    def _next(self, limit: float) -> Message:
        head = self._receive(HEAD_SIZE, limit)
        length = length_of(head)
        if length > _MESSAGE_LENGTH:
            raise self._unavailable("it speaks no D-Bus")
        try:
            return Message.decode(head + self._receive(length - HEAD_SIZE, limit))
        except ValueError as error:
            raise self._unavailable(str(error)) from None

    def _receive(self, count: int, limit: float) -> bytes:
        while len(self._pending) < count:
            left = limit - time.monotonic()
            if left <= 0:
                raise self._late()
            self._socket.settimeout(left)
            try:
                part = self._socket.recv(_READ_SIZE)
            except TimeoutError:
                raise self._late() from None
            except OSError as error:
                raise self._unavailable(reason(error)) from None
            if not part:
                raise self._unavailable("it closed the connection")
            self._pending += part
        found, self._pending = self._pending[:count], self._pending[count:]
        return found

    def _late(self) -> StartError:
        text = f"D-Bus {self.address}: no answer in {self._seconds:g} s"
        return StartError("deadline_exceeded", text)

    def _unavailable(self, why: str) -> StartError:
        return StartError("unavailable", f"D-Bus {self.address}: {why}")


def _place(address: str) -> str:
    """The socket of an address such as `unix:path=/run/dbus/system_bus_socket`, the first that has one.

    Source: D-Bus Specification, "Server Addresses".
    """
    for one in address.split(";"):
        transport, _, rest = one.partition(":")
        keys = dict(part.partition("=")[::2] for part in rest.split(","))
        if transport == "unix" and "path" in keys:
            return _plain(keys["path"])
        if transport == "unix" and "abstract" in keys:
            return "\0" + _plain(keys["abstract"])
    raise StartError(
        "invalid_argument", f"D-Bus address {address!r}: only unix:path=… is supported"
    )


def _plain(escaped: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), escaped)
