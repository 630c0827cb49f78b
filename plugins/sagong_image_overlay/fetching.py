"""A file by HTTP, in the courier's process: archives that are imported from where they lie."""

from __future__ import annotations

import os
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

from sagong.errors import InvalidArgument
from sagong_image_overlay.endpoint import Endpoint, is_insecure
from sagong_image_overlay.errand import Errand, Login
from sagong_image_overlay.exchange import Answer, Http
from sagong_image_overlay.hosts import Ways
from sagong_image_overlay.room import CHECK_EVERY, check_room

__all__ = ["fetch"]

_TELL_EVERY = 0.1


def fetch(errand: Errand, ways: Ways, tell: Callable[[dict[str, Any]], None]) -> None:
    """The file of the URL `reference` into the path `content`, of which `reserve` bytes stay free."""
    url = errand.reference
    parsed = urllib.parse.urlsplit(url)
    endpoint = Endpoint(
        parsed.scheme,
        parsed.netloc,
        insecure=is_insecure(parsed.netloc, ways.settings),
        login=Login(),
        trust=ways.of(parsed.netloc).trust,
    )
    answer = Http(ways, endpoint).send("GET", url, headers={})
    if answer.status != 200:
        answer.abandon()
        raise InvalidArgument(f"failed to GET {url} with status {answer.status}")
    _keep(answer, errand, tell)
    tell({"event": "done"})


def _keep(answer: Answer, errand: Errand, tell: Callable[[dict[str, Any]], None]) -> None:
    length = answer.header("Content-Length")
    total = int(length[:18]) if length.isdecimal() else 0
    last, got, checked = 0.0, 0, 0
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(errand.content, flags, 0o600), "wb") as file:
        for piece in answer.pieces():
            if got >= checked:
                check_room(file.fileno(), errand.reserve, CHECK_EVERY)
                checked = got + CHECK_EVERY
            file.write(piece)
            got += len(piece)
            if time.monotonic() - last > _TELL_EVERY:
                last = time.monotonic()
                tell({"event": "status", "current": got, "total": total})
