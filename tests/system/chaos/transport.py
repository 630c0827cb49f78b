"""One HTTP request on a connection of its own, taken down with how it ended."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import yaml

from tests.system.chaos.history import Attempt, Recorder

__all__ = [
    "SECONDS",
    "STREAM_SECONDS",
    "Act",
    "Answer",
    "Caller",
    "Dial",
    "GaveUp",
    "engine_dial",
    "kube_dial",
]

SECONDS = 60.0
# A watch ends by itself after that long, and is taken up again.
STREAM_SECONDS = 10
_PATIENCE = 120.0
_MEANINGS = {404: "absent", 409: "exists"}
Dial = Callable[[], http.client.HTTPConnection]


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """What a request is about, for the history."""

    kind: str
    key: str
    verb: str
    value: str = ""
    wanted: str | None = None
    told: bool = False
    """Whether the answer is a stream of progress, whose last line may be an error."""


class Answer(msgspec.Struct, frozen=True):
    """How a request ended; `body` of an answer."""

    outcome: str
    status: int = 0
    body: bytes = b""

    @property
    def document(self) -> Any:
        """The answer's JSON."""
        return json.loads(self.body)


class GaveUp(Exception):
    """A thing could not be done although it was tried for a long time."""


class _Local(http.client.HTTPConnection):
    """HTTP over a local socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(SECONDS)
        self.sock.connect(str(self._path))


def engine_dial(path: Path) -> Dial:
    """Connections to the engine's socket."""
    return lambda: _Local(path)


def kube_dial(kubeconfig: Path, home: Path) -> Dial:
    """Connections to the API server as its administrator."""
    config = yaml.safe_load(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    context = ssl.create_default_context(cadata=authority)
    given = (user["client-certificate-data"], user["client-key-data"])
    # OpenSSL reads both from a file only.
    with tempfile.NamedTemporaryFile(dir=home) as pair:
        pair.write(b"".join(base64.b64decode(part) for part in given))
        pair.flush()
        context.load_cert_chain(pair.name)
    address = cluster["server"].removeprefix("https://")
    return lambda: http.client.HTTPSConnection(address, context=context, timeout=SECONDS)


class Caller:
    """A client that asks one thing after the other, and repeats what failed."""

    def __init__(self, name: str, dial: Dial, recorder: Recorder, stop: threading.Event) -> None:
        self.name = name
        self.recorder = recorder
        self.stop = stop
        self._dial = dial

    def ask(self, act: Act, method: str, path: str, body: object = None) -> Answer:
        """Ask once; whatever comes of it is in the history. Bytes are sent as a tar."""
        began = time.time()
        answer = self._exchange(method, path, body)
        if act.told:
            answer = _judged(answer)
        text = "" if answer.outcome == "done" else _message(answer)
        self.note(act, answer, began, text)
        return answer

    def note(self, act: Act, answer: Answer, began: float, text: str = "") -> None:
        """Take down a request."""
        self.recorder.attempt(
            Attempt(
                client=self.name,
                kind=act.kind,
                key=act.key,
                verb=act.verb,
                outcome=answer.outcome,
                began=began,
                ended=time.time(),
                status=answer.status,
                text=text,
                value=act.value,
                wanted=act.wanted,
            )
        )

    def insist(
        self, act: Act, method: str, path: str, body: object = None, *, also: tuple[str, ...] = ()
    ) -> Answer:
        """Ask until it is done, or an answer of `also` says that it need not be."""
        limit = time.monotonic() + _PATIENCE
        while True:
            answer = self.ask(act, method, path, body)
            if answer.outcome in ("done", *also):
                return answer
            if time.monotonic() > limit:
                raise GaveUp(f"{act.kind} {act.key}: {act.verb} was refused for {_PATIENCE:.0f} s")
            time.sleep(0.25)

    @contextlib.contextmanager
    def stream(self, act: Act, path: str) -> Iterator[Callable[[], http.client.HTTPResponse]]:
        """An answer without an end, to be opened and read; how it ended is in the history.

        "ended" means orderly, by the server, before its time and before it was told to stop.
        """
        began = time.time()
        connection = self._dial()
        found, text = Answer("ended"), ""
        try:
            yield lambda: _open(connection, path)
        except _Refused as refused:
            found, text = refused.answer, _message(refused.answer)
        except (OSError, http.client.HTTPException) as error:
            found, text = Answer(_how_ended(error)), repr(error)
        finally:
            connection.close()
            over = self.stop.is_set() or time.time() - began >= STREAM_SECONDS - 1
            if found.outcome == "ended" and over:
                found = Answer("done")
            self.note(act, found, began, text)

    def _exchange(self, method: str, path: str, body: object) -> Answer:
        connection = self._dial()
        kind = "merge-patch+json" if method == "PATCH" else "json"
        kind = "x-tar" if isinstance(body, bytes) else kind
        given = json.dumps(body) if body is not None and not isinstance(body, bytes) else body
        headers = {"Content-Type": f"application/{kind}", "X-Registry-Auth": "e30="}
        try:
            connection.request(method, path, given, headers)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            return Answer(_how_ended(error), 0, repr(error).encode())
        finally:
            connection.close()
        outcome = "done" if answer.status < 400 else _MEANINGS.get(answer.status, "refused")
        return Answer(outcome, answer.status, content)


class _Refused(Exception):
    """A stream was answered with an error."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def _open(connection: http.client.HTTPConnection, path: str) -> http.client.HTTPResponse:
    connection.request("GET", path)
    answer = connection.getresponse()
    if answer.status >= 300:
        outcome = "gone" if answer.status == 410 else "refused"
        raise _Refused(Answer(outcome, answer.status, answer.read()))
    return answer


def _how_ended(error: Exception) -> str:
    if isinstance(error, (ConnectionRefusedError, FileNotFoundError)):
        return "unreachable"
    if isinstance(error, TimeoutError):
        return "timeout"
    return "cut"


def _judged(answer: Answer) -> Answer:
    """What a stream of progress came to; one that was begun can't be refused but in its last line."""
    if answer.outcome != "done":
        return answer
    last = answer.body.strip().rpartition(b"\n")[2]
    try:
        error = msgspec.json.decode(last).get("error")
    except (msgspec.DecodeError, AttributeError):
        return Answer("cut", 0, answer.body[-200:])
    return Answer("refused", 503, error.encode()) if error else answer


def _message(answer: Answer) -> str:
    """The text of an error in Docker's or in Kubernetes' form; the raw answer where it is neither."""
    try:
        return str(msgspec.json.decode(answer.body)["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return answer.body.decode(errors="replace")
