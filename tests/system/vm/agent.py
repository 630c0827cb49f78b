"""Runs inside the virtual machine: carries out commands that come in by a virtio serial port.

One JSON object a line: `{"id", "run", "seconds"}` in, `{"id", "code", "out"}` out.
Standard library only.
"""

from __future__ import annotations

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


def main() -> None:
    """Say hello, then serve for ever; a port whose other end is closed reads as empty."""
    with open(find_port(), "r+b", buffering=0) as port:
        port.write(b'{"id": 0, "code": 0, "out": "booted"}\n')
        pending = b""
        while True:
            chunk = port.read(1 << 16)
            if not chunk:
                time.sleep(0.05)
                continue
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                asked = json.loads(line)
                code, out = carry_out(asked["run"], asked["seconds"])
                answer = {"id": asked["id"], "code": code, "out": out}
                port.write(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    os.environ.update(HOME="/root", LC_ALL="C.UTF-8")
    main()
