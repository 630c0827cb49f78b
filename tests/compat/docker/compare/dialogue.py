"""Dialogues with a Docker API: scenarios of requests, told to an engine one by one.

A scenario is data. `$name` in a path or body stands for a value kept from an earlier answer; the
names `image`, `image_id`, `shared`, `port` and `version` are there from the start. The same scenario
goes to two engines, and `shape.py` compares what came back.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Template
from typing import Any

__all__ = [
    "Answer",
    "Scenario",
    "Step",
    "delete",
    "filters",
    "get",
    "head",
    "joined",
    "mark",
    "post",
    "put",
    "tell",
]

# Stands for the newest version of the API that the engine compared with speaks.
NEWEST = "newest"
_SECONDS = 60.0


@dataclass(frozen=True)
class Step:
    """One request. `quiet`: its answer is not compared. `behind`: it goes on beside the next steps
    until `joined` of the same name. `stdin` is sent after the head of a hijacked stream."""

    method: str
    path: str
    body: Any = None
    keeps: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    quiet: bool = False
    behind: str = ""
    until_path: str = ""
    until_value: Any = None
    until_text: bytes = b""
    stdin: bytes | None = None
    hijack: bool = False
    lines: int = 0
    sorted: bool = False
    version: str = NEWEST

    @property
    def label(self) -> str:
        """How differences name it."""
        return f"{self.method} {urllib.parse.unquote(self.path)}"

    def keep(self, **names: str) -> Step:
        """Keep values of the answer by their paths (`Id`, `0.State`)."""
        return replace(self, keeps=names)

    def silent(self) -> Step:
        """Do not compare its answer."""
        return replace(self, quiet=True)

    def beside(self, name: str) -> Step:
        """Begin it and go on."""
        return replace(self, behind=name)

    def until(self, path: str, value: Any) -> Step:
        """Ask again until the answer says so."""
        return replace(self, until_path=path, until_value=value)

    def until_said(self, text: str) -> Step:
        """Ask again until the answer has this text."""
        return replace(self, until_text=text.encode())

    def hijacked(self, stdin: bytes | None = None) -> Step:
        """Upgrade the connection, send the input, read to the end."""
        return replace(self, hijack=True, stdin=stdin)

    def with_headers(self, **headers: str) -> Step:
        """Send these as well (`_` is `-`)."""
        return replace(self, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def first(self, lines: int) -> Step:
        """Read so many lines of an answer that has no end."""
        return replace(self, lines=lines)

    def unordered(self) -> Step:
        """The order of the answer's list means nothing."""
        return replace(self, sorted=True)

    def of(self, version: str) -> Step:
        """Ask in another version of the API; "" is none."""
        return replace(self, version=version)


@dataclass(frozen=True)
class Scenario:
    """Requests in their order; `cleanup` is sent at the end in any case.

    `since` is the API without which Docker Engine can't be asked (1.44 as 44).
    """

    name: str
    steps: tuple[Step, ...]
    cleanup: tuple[Step, ...] = ()
    since: int = 0


@dataclass
class Answer:
    """What came back. `values` are the names kept so far, for the normalisers."""

    status: int
    headers: dict[str, str]
    body: bytes
    values: dict[str, str] = field(default_factory=dict)


def get(path: str) -> Step:
    """A GET."""
    return Step("GET", path)


def head(path: str) -> Step:
    """A HEAD."""
    return Step("HEAD", path)


def post(path: str, body: Any = None) -> Step:
    """A POST of JSON, or of bytes."""
    return Step("POST", path, body)


def put(path: str, body: Any = None) -> Step:
    """A PUT."""
    return Step("PUT", path, body)


def delete(path: str) -> Step:
    """A DELETE."""
    return Step("DELETE", path)


def mark(name: str) -> Step:
    """Keep the time of now, in seconds with a fraction."""
    return Step("MARK", name, quiet=True)


def joined(name: str) -> Step:
    """The answer of a step that went on beside."""
    return Step("JOIN", name)


def filters(**wanted: Iterable[str] | str) -> str:
    """`filters=...` of a query; `label_not` is `label!`."""
    named = {
        k.replace("_not", "!").replace("_", "-"): [v] if isinstance(v, str) else list(v)
        for k, v in wanted.items()
    }
    return "filters=" + urllib.parse.quote(json.dumps(named), safe="$")


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("docker", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        """To the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_SECONDS)
        self.sock.connect(str(self._path))


def tell(engine: Path, scenario: Scenario, given: Mapping[str, str]) -> list[tuple[Step, Answer]]:
    """All answers of an engine."""
    values = dict(given)
    beside: dict[str, tuple[threading.Thread, list[Answer], Step]] = {}
    found: list[tuple[Step, Answer]] = []
    try:
        for step in scenario.steps:
            told = _step(engine, step, values, beside)
            if told is not None:
                found.append(told)
    finally:
        for step in scenario.cleanup:
            with contextlib.suppress(OSError, http.client.HTTPException, KeyError):
                _asked(engine, step, values)
    return found


def _step(
    engine: Path,
    step: Step,
    values: dict[str, str],
    beside: dict[str, tuple[threading.Thread, list[Answer], Step]],
) -> tuple[Step, Answer] | None:
    if step.method == "MARK":
        values[step.path] = f"{time.time():.9f}"
        return None
    if step.method == "JOIN":
        thread, answers, begun = beside.pop(step.path)
        thread.join(_SECONDS)
        assert answers, f"{begun.label}: no end"
        answers[0].values = dict(values)
        return begun, answers[0]
    if step.behind:
        began = threading.Event()
        answers = []
        thread = threading.Thread(
            target=lambda: answers.append(_asked(engine, step, dict(values), began)), daemon=True
        )
        thread.start()
        began.wait(_SECONDS)
        beside[step.behind] = (thread, answers, step)
        return None
    answer = _asked(engine, step, values)
    limit = time.monotonic() + _SECONDS
    while not _says(answer, step):
        assert time.monotonic() < limit, (step, answer.body[:2000])
        time.sleep(0.05)
        answer = _asked(engine, step, values)
    for name, path in step.keeps.items():
        assert answer.status < 300, (step.label, answer.status, answer.body[:2000])
        values[name] = str(_at(json.loads(answer.body), path))
    answer.values = dict(values)
    return step, answer


def _says(answer: Answer, step: Step) -> bool:
    """What is waited for, if anything is."""
    if step.until_text not in answer.body or not step.until_path:
        return step.until_text in answer.body
    try:
        return bool(_at(json.loads(answer.body), step.until_path) == step.until_value)
    except (KeyError, IndexError, TypeError, ValueError):
        return False


def _at(document: Any, path: str) -> Any:
    for part in path.split("."):
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    """Names replaced; in a path they are within JSON that is quoted."""
    return Template(value).safe_substitute(values) if isinstance(value, str) else value


def _asked(
    engine: Path, step: Step, values: Mapping[str, str], began: threading.Event | None = None
) -> Answer:
    connection = _Connection(engine)
    headers = {"Host": "docker", **step.headers}
    body: bytes | None = None
    if isinstance(step.body, bytes):
        body = step.body
        headers.setdefault("Content-Type", "application/x-tar")
    elif step.body is not None:
        body = _filled(json.dumps(step.body), values).encode()
        headers.setdefault("Content-Type", "application/json")
    if step.hijack:
        headers |= {"Connection": "Upgrade", "Upgrade": "tcp"}
    asked = values["version"] if step.version == NEWEST else step.version
    version = f"/{asked}" if asked else ""
    with contextlib.closing(connection):
        connection.request(step.method, version + _filled(step.path, values), body, headers)
        sock = connection.sock
        response = connection.getresponse()
        if began is not None:
            began.set()
        shown = {k.lower(): v for k, v in response.getheaders()}
        if step.hijack and response.status in (101, 200):
            return Answer(response.status, shown, _hijacked(sock, response, step.stdin))
        if step.lines:
            data = b"".join(response.readline() for _ in range(step.lines))
        else:
            data = response.read()
        return Answer(response.status, shown, data)


def _hijacked(
    sock: socket.socket, response: http.client.HTTPResponse, stdin: bytes | None
) -> bytes:
    if stdin is not None:
        sock.sendall(stdin)
        sock.shutdown(socket.SHUT_WR)
    # What came with the head is in the response's own buffer.
    stream = response.fp
    found = b""
    while data := stream.read1(65536):
        found += data
    return found
