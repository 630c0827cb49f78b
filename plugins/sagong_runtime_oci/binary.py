"""Calling the runtime's binary, and understanding what it says when it fails."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import Any

from sagong.linux import process
from sagong.shim import lean
from sagong.shim.failure import StartError

__all__ = ["call", "command", "error_of", "execute", "refusal"]

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MOST_OUTPUT = 16 << 20
_MOST_SECONDS = 20.0

# What a runtime's message holds, and the error it means; the first that fits.
_MEANINGS = (
    ("no space left on device", "resource_exhausted"),
    ("disk quota exceeded", "resource_exhausted"),
    ("does not exist", "not_found"),
    ("not running", "not_found"),
    ("executable file not found", "not_found"),
    ("no such file or directory", "not_found"),
    ("permission denied", "failed_precondition"),
    ("is a directory", "failed_precondition"),
    ("not a directory", "failed_precondition"),
)


# How crun says what Docker's clients know from runc.
_WORDS = (
    (
        r"executable file `(.*/.*)` not found in \$PATH: (No such file or directory)",
        r'exec: "\1": stat \1: \2',
    ),
    (
        r"executable file `(.*)` not found in \$PATH: No such file or directory",
        r'exec: "\1": executable file not found in $PATH',
    ),
    (
        r"chdir `(.*)`: (.*)",
        r'chdir to cwd ("\1") set in config.json failed: \2',
    ),
    (
        r"open executable: (.*)",
        r"exec: \1",
    ),
)


def _in_known_words(message: str) -> str:
    for pattern, words in _WORDS:
        found, count = re.subn(f"^{pattern}$", words, message)
        if count:
            head, colon, reason = found.rpartition(": ")
            return f"{head}{colon}{reason.lower()}" if "$PATH" not in found else found
    return message


def refusal(message: str) -> StartError:
    """The error that a runtime's message stands for."""
    message = _in_known_words(message)
    for text, code in _MEANINGS:
        if text in message.lower():
            return StartError(code, message)
    return StartError("failed_precondition", message)


def command(engine: dict[str, Any], *words: str, log: str = "") -> list[str]:
    """The command line: binary, options of the settings, state directory, log, verb."""
    logging = ["--log", log] if log else []
    options = [*engine["options"], "--root", engine["root"], *logging, "--log-format", "json"]
    return [engine["binary"], *options, *words]


def execute(words: list[str]) -> None:
    """Become the binary; StartError when there is none."""
    environment = {"PATH": os.environ.get("PATH", _PATH), "LANG": "C.UTF-8"}
    try:
        os.execvpe(words[0], words, environment)
    except OSError as error:
        text = os.strerror(error.errno or 0).lower()
        raise StartError(
            "failed_precondition",
            f"runtime binary {words[0]}: {text}; install it or change the setting `binary`",
        ) from None


def error_of(text: str, name: str, status: int) -> StartError:
    """What a log in JSON lines says at last; other lines are taken as they are."""
    said = ""
    for line in text.splitlines():
        try:
            entry = json.loads(line)
            if entry.get("level") in ("error", "fatal", "panic"):
                said = str(entry["msg"])
        except (ValueError, KeyError, AttributeError):
            said = said or line.strip()
    if said:
        return refusal(said)
    code = os.waitstatus_to_exitcode(status)
    return StartError("failed_precondition", f"{name} ended with {code} and said nothing")


def call(engine: dict[str, Any], *words: str, given: bytes = b"") -> bytes:
    """Run a verb to its end and give its standard output; StartError when it fails.

    Descriptors go by files without a name: nothing here can wait for a full pipe.
    """
    source, output, errors = (os.memfd_create("runtime", os.MFD_CLOEXEC) for _ in range(3))
    try:
        os.write(source, given)
        os.lseek(source, 0, os.SEEK_SET)
        status = _run(command(engine, *words), (source, output, errors))
        if status:
            text = os.pread(errors, _MOST_OUTPUT, 0).decode("utf-8", "replace")
            raise error_of(text, f"{engine['binary']} {words[0]}", status)
        return os.pread(output, _MOST_OUTPUT, 0)
    finally:
        for descriptor in (source, output, errors):
            os.close(descriptor)


def _run(words: list[str], streams: tuple[int, ...]) -> int:
    pid = lean.fork()
    if pid == 0:
        try:
            reset_child()
            for number, descriptor in enumerate(streams):
                os.dup2(descriptor, number)
            execute(words)
        except StartError as error:
            os.write(2, error.message.encode())
        finally:
            os._exit(127)
    return _wait(pid, words)


def _wait(pid: int, words: list[str]) -> int:
    """The wait status; one that hangs is ended, for a monitor waits here, too."""
    pidfd = os.pidfd_open(pid)
    try:
        if not process.wait_ended(pidfd, _MOST_SECONDS):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            text = f"{words[0]} {words[-1]}: no answer in {_MOST_SECONDS:.0f} s: killed"
            raise StartError("unavailable", text)
    finally:
        os.close(pidfd)
    return os.waitpid(pid, 0)[1]


def reset_child() -> None:
    """What a fork of monitor or launcher must undo before it becomes another program."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    process.set_death_signal(signal.SIGKILL)
