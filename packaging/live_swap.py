"""Replaces parts of the running platform while clients call it, and counts the calls that failed."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Docker", "Load", "show"]

# Another plugin and back, parts with state of their own, and an API server among what it serves.
SWAPS = ("scheduler binpack", "scheduler kube", "state-cluster", "network", "runtime", "kube")
TRIAL_SECONDS = "1"
# A client's pause after a call, by how long it took.
_RESTS = 2


class Docker:
    """The Docker API by its socket; each request on a connection of its own."""

    def __init__(self, path: Path, seconds: float) -> None:
        self._path = str(path)
        self._seconds = seconds

    def ask(self, verb: str, path: str, document: object = None) -> Any:
        """What it answers; OSError if it refuses."""
        connection = http.client.HTTPConnection("docker", timeout=self._seconds)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(self._seconds)
        connection.sock.connect(self._path)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request(verb, path, json.dumps(document), headers)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise OSError(f"{verb} {path}: {answer.status} {body.decode(errors='replace').strip()}")
        return json.loads(body) if body else None

    def run(self, image: str) -> None:
        """One container from its creation to its end."""
        made = self.ask("POST", "/containers/create", {"Image": image, "Cmd": ["true"]})["Id"]
        self.ask("POST", f"/containers/{made}/start")
        code = self.ask("POST", f"/containers/{made}/wait")["StatusCode"]
        self.ask("DELETE", f"/containers/{made}")
        if code:
            raise OSError(f"container {made[:12]} ended with {code}")


class Load:
    """Clients that call, each one call after the other, until they are told to stop."""

    def __init__(self, clients: dict[str, Callable[[], object]]) -> None:
        self.calls: Counter[str] = Counter()
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._go_on, args=one) for one in clients.items()]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _go_on(self, name: str, call: Callable[[], object]) -> None:
        pause = 0.0
        while not self._stop.wait(pause):
            began = time.monotonic()
            try:
                call()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{name}: {error}")
            self.calls[name] += 1
            # The machine's processors are the platform's, too: it shall show no race for them,
            # however slow they are.
            pause = max(0.005, _RESTS * (time.monotonic() - began))

    def told(self) -> str:
        """In a line."""
        each = ", ".join(f"{name} {number}" for name, number in self.calls.items())
        return f"{self.calls.total()} calls meanwhile ({each}), {len(self.failures)} failed"


def show(sagong: Sequence[str], clients: dict[str, Callable[[], object]]) -> None:
    """Swap one after the other under load; print what became of each, and of the calls."""
    print("\nReplaced while everything runs:")
    with Load(clients) as load:
        for words in SWAPS:
            print(f"  sagong swap {words:18} {_swap(sagong, words)}", flush=True)
    # Their last calls are over.
    print(load.told())
    for failure in load.failures[:5]:
        print(f"  {failure}")


def _swap(sagong: Sequence[str], words: str) -> str:
    command = [*sagong, "swap", *words.split(), "--trial", TRIAL_SECONDS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    serves = re.search(r"serves after .*? ms", done.stdout)
    return serves[0] if serves else (done.stderr or done.stdout).strip()


def web(address: str, seconds: float) -> None:
    """One request to the web service."""
    with urllib.request.urlopen(f"http://{address}/", timeout=seconds) as answer:
        answer.read()
