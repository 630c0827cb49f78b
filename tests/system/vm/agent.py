"""Runs inside the virtual machine: carries out commands that come in by a virtio serial port.

One JSON object a line: `{"id", "run", "seconds"}` in, `{"id", "code", "out"}` out. With `ask` (a list
of words) instead of `run` a question of guest.py is asked, in a process that stays: an interpreter
takes seconds to start here. Standard library only.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import time
from pathlib import Path

PORT = "sagong.test"


def find_port() -> str:
    """The device of our port, by the name that the host gave it; udev need not have run."""
    while True:
        for name in Path("/sys/class/virtio-ports").glob("*/name"):
            if name.read_text().strip() == PORT:
                return f"/dev/{name.parent.name}"
        time.sleep(0.05)


def carry_out(command: str, seconds: float) -> tuple[int, str]:
    """Run a shell command; its exit code and all its output."""
    try:
        done = subprocess.run(
            ["bash", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
        )
        return done.returncode, done.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired as error:
        return 124, (error.output or b"").decode(errors="replace")


class Guest:
    """guest.py, once somebody asks."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ask(self, words: list[str]) -> tuple[int, str]:
        """0 and the answer as JSON; or 1 and what went wrong."""
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [".venv/bin/python", "tests/system/vm/guest.py"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            return 1, f"guest.py ended with {self._process.wait()}"
        code, out = json.loads(line)
        return code, out


def say(port: io.FileIO, answer: bytes) -> None:
    """All of it: the port takes 32 KiB at once."""
    left = memoryview(answer)
    while left:
        left = left[port.write(left) :]


def main() -> None:
    """Say hello, then serve for ever; a port whose other end is closed reads as empty."""
    with open(find_port(), "r+b", buffering=0) as port:
        port.write(b'{"id": 0, "code": 0, "out": "booted"}\n')
        pending, guest = b"", Guest()
        while True:
            chunk = port.read(1 << 16)
            if not chunk:
                time.sleep(0.05)
                continue
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                asked = json.loads(line)
                if "ask" in asked:
                    code, out = guest.ask(asked["ask"])
                else:
                    code, out = carry_out(asked["run"], asked["seconds"])
                answer = {"id": asked["id"], "code": code, "out": out}
                say(port, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    os.environ.update(HOME="/root", LC_ALL="C.UTF-8")
    main()
