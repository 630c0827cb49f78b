"""A virtual machine: qemu without KVM, a kernel booted directly, commands through a serial port."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.system.vm.agent import PORT

# No more than one translated block cache of this size (MB) in qemu; the default thrashes.
_TRANSLATION_CACHE = 512
# Without what is dear to emulate and nothing here is about: copies byte by byte, a fifth level of
# page tables, and protection of the kernel against itself.
_CPU = "max,-erms,-la57,-smap,-smep,-pku"
_KERNEL = "root=/dev/vda rw console=ttyS0 quiet systemd.show_status=0 mitigations=off"
_KERNEL += " nokaslr no_timer_check clocksource=tsc tsc=reliable random.trust_cpu=on"


class Machine:
    """Runs while in its `with`: `vmlinuz`, `initrd`, and a disk of its own in directory `work`.

    Each boot is a process of its own: where a kernel is unpacked over one that was translated, qemu
    forgets that in pieces, for a minute and more (ADR 440).
    """

    def __init__(self, work: Path) -> None:
        self._console = work / "console.log"
        self._port = work / "port"
        self._command = _command(work, self._console, self._port)
        self._number = 0

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cut_power()

    def _start(self) -> None:
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)
        self._pending = b""
        while True:
            self._socket = socket.socket(socket.AF_UNIX)
            # The socket of the boot before may still lie there.
            if self._socket.connect_ex(str(self._port)) == 0:
                return
            self._socket.close()
            assert self._process.poll() is None, "qemu ended at once"
            time.sleep(0.05)

    def cut_power(self) -> None:
        """End it without any warning: what it has not written to its disk is lost."""
        self._process.kill()
        self._process.wait()
        self._socket.close()

    def power_on(self) -> None:
        """Start it again."""
        self._start()

    def reboot(self, seconds: float = 900.0) -> None:
        """Let systemd reboot it."""
        asked = {"id": -1, "run": "systemctl reboot", "seconds": 60.0}
        self._socket.sendall(json.dumps(asked).encode() + b"\n")
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the machine does not go down; its console:\n{self.console()}")
        self._socket.close()
        self._start()

    def wait_booted(self, seconds: float = 900.0) -> None:
        """Wait until the agent says hello, which it does after each boot."""
        self._answer(0, seconds)

    def run(self, command: str, seconds: float = 600.0) -> str:
        """The output of a shell command inside; a failed one fails the test."""
        return self._told(command, {"run": command, "seconds": seconds}, seconds)

    def ask(self, *words: str, seconds: float = 600.0) -> Any:
        """The answer of guest.py to a question."""
        return json.loads(self._told(" ".join(words), {"ask": words}, seconds))

    def _told(self, what: str, asked: dict[str, Any], seconds: float) -> str:
        self._number += 1
        self._socket.sendall(json.dumps({"id": self._number, **asked}).encode() + b"\n")
        answer = self._answer(self._number, seconds + 60.0)
        if answer["code"] != 0:
            pytest.fail(f"{what}\nended with {answer['code']}:\n{answer['out']}")
        return str(answer["out"])

    def console(self) -> str:
        """The end of what it wrote to its console."""
        return self._console.read_text(errors="replace")[-4000:]

    def _answer(self, number: int, seconds: float) -> dict[str, Any]:
        limit = time.monotonic() + seconds
        while True:
            *lines, self._pending = self._pending.split(b"\n")
            for position, line in enumerate(lines):
                answer: dict[str, Any] = json.loads(line)
                if answer["id"] == number:
                    self._pending = b"\n".join([*lines[position + 1 :], self._pending])
                    return answer
            left = limit - time.monotonic()
            if left <= 0:
                pytest.fail(f"the machine does not answer; its console:\n{self.console()}")
            self._socket.settimeout(left)
            try:
                chunk = self._socket.recv(1 << 16)
            except TimeoutError:
                continue
            assert chunk, f"qemu ended; the machine's console:\n{self.console()}"
            self._pending += chunk


def _command(work: Path, console: Path, port: Path) -> list[str]:
    # Who ends pytest by a signal ends the machine: no `finally` is run at SIGTERM.
    command = ["setpriv", "--pdeathsig", "KILL"]
    command += ["qemu-system-x86_64", "-machine", "q35", "-cpu", _CPU, "-smp", "2", "-m", "2048"]
    command += ["-accel", f"tcg,thread=multi,tb-size={_TRANSLATION_CACHE}"]
    command += ["-nodefaults", "-display", "none", "-nic", "none"]
    command += ["-kernel", str(work / "vmlinuz"), "-initrd", str(work / "initrd")]
    command += ["-append", _KERNEL]
    command += ["-drive", f"file={work}/disk.img,if=virtio,format=raw,cache=unsafe"]
    command += ["-serial", f"file:{console}", "-device", "virtio-rng-pci"]
    command += ["-device", "virtio-serial-pci"]
    command += ["-chardev", f"socket,path={port},server=on,wait=off,id=port"]
    command += ["-device", f"virtserialport,chardev=port,name={PORT}"]
    command += ["-no-reboot"]
    return command
