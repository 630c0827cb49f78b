"""Heads of HTTP/1.1 messages: strict parsing of requests, and writing of answers.

Strict where laxity lets two parsers disagree (RFC 9112 sections 2.2, 5.1, 6.1 and 11.2): a bare line
feed, white space before a colon, folded lines, or two lengths are refused.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from http import HTTPStatus

import msgspec

from sagong.model.numbers import natural

__all__ = ["BadRequest", "Head", "HeaderItems", "format_head", "parse_head", "reason"]

HeaderItems = Mapping[str, str] | Iterable[tuple[str, str]]

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_REASONS = {status.value: status.phrase for status in HTTPStatus}
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT"))


class BadRequest(Exception):
    """Bytes that are not a request we serve; answered with `status`, then the connection ends."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Head(msgspec.Struct):
    """A request's first lines. Header names are in lower case, repeated ones joined by a comma.

    `length` is the body's, -1 if it is chunked.
    """

    method: str
    target: str
    old: bool
    headers: dict[str, str]
    length: int
    keep_alive: bool


def parse_head(data: bytes) -> Head:
    """Read the bytes before the empty line."""
    text = data.decode("latin-1")
    lines = text.split("\r\n")
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1 or "\0" in text:
        raise BadRequest(400, "line ends must be CR LF")
    method, target, version = _request_line(lines[0])
    headers = _fields(lines)
    old = version == "HTTP/1.0"
    if not old and "host" not in headers:
        raise BadRequest(400, "missing required Host header")
    connection = headers.get("connection", "").lower()
    keep = "keep-alive" in connection if old else "close" not in connection
    return Head(method, target, old, headers, _length(headers), keep)


def _request_line(line: str) -> tuple[str, str, str]:
    parts = line.split(" ")
    if len(parts) != 3 or not parts[1]:
        raise BadRequest(400, "malformed request line")
    method, target, version = parts
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise BadRequest(505, "only HTTP/1.1 is spoken here")
    if method not in _METHODS and not _TOKEN.fullmatch(method):
        raise BadRequest(400, "malformed method")
    if target[0] != "/":
        target = _origin_form(target)
    return method, target, version


def _origin_form(target: str) -> str:
    """The path of an absolute target (RFC 9112 section 3.2.2), and `*` of OPTIONS as it is."""
    if target == "*":
        return target
    _, separator, rest = target.partition("://")
    if not separator:
        raise BadRequest(400, "malformed request target")
    return "/" + rest.partition("/")[2]


def _fields(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name):
            raise BadRequest(400, "malformed header field")
        name = name.lower()
        value = value.strip(" \t")
        if name in headers:
            value = _joined(name, headers[name], value)
        headers[name] = value
    return headers


def _joined(name: str, first: str, second: str) -> str:
    if name in ("content-length", "host", "transfer-encoding") and first != second:
        raise BadRequest(400, f"header {name} is given twice")
    return first if name in ("content-length", "host") else f"{first}, {second}"


def _length(headers: dict[str, str]) -> int:
    encoding = headers.get("transfer-encoding")
    length = headers.get("content-length")
    if encoding is not None:
        if length is not None:
            raise BadRequest(400, "both Content-Length and Transfer-Encoding are given")
        if encoding.lower() != "chunked":
            raise BadRequest(501, f"transfer encoding {encoding!r} is not supported")
        return -1
    if length is None:
        return 0
    size = natural(length)
    if size is None:
        raise BadRequest(400, f"malformed Content-Length {length[:40]!r}")
    return size


def reason(status: int) -> str:
    """The phrase that belongs to a status."""
    return _REASONS.get(status, "Unknown")


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


def _date_line(now: int) -> str:
    """IMF-fixdate, without the import of the email package."""
    t = time.gmtime(now)
    day = f"{_DAYS[t.tm_wday]}, {t.tm_mday:02} {_MONTHS[t.tm_mon - 1]} {t.tm_year}"
    return f"Date: {day} {t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} GMT\r\n"


class _Clock:
    """The Date header, made once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._line = ""

    def line(self) -> str:
        now = int(time.time())
        if now != self._second:
            self._second, self._line = now, _date_line(now)
        return self._line


_clock = _Clock()


def format_head(status: int, headers: HeaderItems, *, phrase: str = "", fixed: str = "") -> bytes:
    """An answer's head with its empty line; a value with a line end in it is a `ValueError`.

    `fixed` are header lines that every answer has.
    """
    lines = [f"HTTP/1.1 {status} {phrase or reason(status)}\r\n"]
    items = headers.items() if isinstance(headers, Mapping) else headers
    for name, value in items:
        if "\n" in value or "\r" in value:
            raise ValueError(f"header {name} has a line end in its value")
        lines.append(f"{name}: {value}\r\n")
    lines.append(fixed)
    lines.append(_clock.line())
    lines.append("\r\n")
    return "".join(lines).encode("latin-1", "replace")
