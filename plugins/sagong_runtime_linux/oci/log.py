"""Where the runtime says what went wrong: the standard error, and the file of --log."""

from __future__ import annotations

import json
import sys
import time

__all__ = ["Log"]


class Log:
    """The log of one call, in the form that its caller asked for."""

    def __init__(self, path: str = "", *, as_json: bool = False, debugging: bool = False) -> None:
        self._path = "" if path == "/dev/stderr" else path
        self._as_json = as_json
        self._debugging = debugging

    def error(self, message: str) -> None:
        """Why the call failed, for who sees it and for who reads the log."""
        sys.stderr.write(f"{message}\n")
        self._write("error", message)

    def warn(self, message: str) -> None:
        """What went wrong and prevents nothing: to the log alone if there is one.

        The standard error is the container's, too.
        """
        if self._path:
            self._write("warning", message)
        else:
            sys.stderr.write(f"warning: {message}\n")

    def debug(self, message: str) -> None:
        """What is done, for who asked for it with --debug."""
        if self._debugging and self._path:
            self._write("debug", message)
        elif self._debugging:
            sys.stderr.write(f"level=debug {message}\n")

    def _write(self, level: str, message: str) -> None:
        if not self._path:
            return
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = f'time="{now}" level={level} msg={json.dumps(message)}'
        if self._as_json:
            entry = {"level": level, "msg": message, "time": now}
            line = json.dumps(entry, separators=(",", ":"))
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(f"{line}\n")
        except OSError as error:
            sys.stderr.write(f"log {self._path}: {error.strerror}\n")
