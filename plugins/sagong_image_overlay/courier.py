"""The courier: a process that talks to registries for one pull, push or question, without rights.

`python -m sagong_image_overlay.courier` reads one request (a line of JSON) from standard input and
writes events, one JSON line each, to standard output; event `pin` is answered by an empty line. A push
is given up by SIGTERM: it withdraws its uploads first. What registries answer is read nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec

from sagong.errors import Internal, ResourceExhausted, SagongError
from sagong.linux import capabilities, process
from sagong.model import references
from sagong_image_overlay.content import Content
from sagong_image_overlay.download import Download
from sagong_image_overlay.errand import Errand
from sagong_image_overlay.fetching import fetch
from sagong_image_overlay.hosts import Ways, read_hosts
from sagong_image_overlay.inquiry import QUESTIONS
from sagong_image_overlay.uploading import Push

__all__ = ["main"]


class Teller:
    """Writes events; several threads do."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self, event: dict[str, Any]) -> None:
        line = memoryview(msgspec.json.encode(event) + b"\n")
        with self._lock:
            while line:
                line = line[os.write(1, line) :]


def _give_up_rights() -> None:
    process.set_no_new_privs()
    if os.geteuid() != 0:
        # Root in a test needs them to reach its own files in other's directories.
        capabilities.apply(capabilities.CapabilitySets())


def _wait_answered() -> None:
    if not sys.stdin.buffer.readline():
        os._exit(0)  # nobody wants the errand any more


def _given_up() -> threading.Event:
    """Set by SIGTERM from now on."""
    found = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: found.set())
    return found


def _run(errand: Errand, ways: Ways, tell: Teller) -> None:
    if errand.task in QUESTIONS:
        tell({"event": "done", **QUESTIONS[errand.task](errand, ways)})
        return
    if errand.task == "fetch":
        fetch(errand, ways, tell)
        return
    content = Content(Path(errand.content))
    reference = references.parse(errand.reference)
    if errand.task == "push":
        Push(
            reference,
            errand.manifest.encode(),
            errand.media_type,
            errand.login,
            ways,
            errand.parallel,
            content,
            errand.sources,
            tell,
            _given_up(),
        ).run()
        return
    Download(
        reference,
        errand.platform,
        errand.login,
        ways,
        errand.parallel,
        content,
        errand.reserve,
        tell,
        _wait_answered,
    ).run()


def main() -> None:
    """Do one errand."""
    tell = Teller()
    with contextlib.suppress(BrokenPipeError):
        try:
            errand = msgspec.json.decode(sys.stdin.buffer.readline(), type=Errand)
            # Keys of clients are only root's: read while we may, before anybody is asked.
            ways = Ways(errand.settings, read_hosts(errand.settings.certificates))
            _give_up_rights()
            _run(errand, ways, tell)
        except SagongError as error:
            tell({"event": "error", "code": error.code, "message": error.message})
        except OSError as error:
            code = ResourceExhausted.code if error.errno in (28, 122) else Internal.code
            tell({"event": "error", "code": code, "message": f"{error.strerror}: {error.filename}"})
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            tell({"event": "error", "code": Internal.code, "message": text})
    os._exit(0)


if __name__ == "__main__":
    main()
