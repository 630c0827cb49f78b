"""Load through the Docker API, and the containers that nothing may end."""

from __future__ import annotations

import io
import itertools
import random
import tarfile
import time
from pathlib import Path
from typing import Any

from tests.system.chaos.frames import Lines, payloads, text_of
from tests.system.chaos.history import AT_THE_END, Log
from tests.system.chaos.transport import Act, Answer, Caller
from tests.system.platform.rig import IMAGE

__all__ = ["STEADY", "Engine", "life", "pushed", "read_log"]

STEADY = ("steady-slow", "steady-burst")
_SCRIPTS = {
    "steady-slow": "i=0; while :; do echo $i; i=$((i+1)); sleep 0.1; done",
    "steady-burst": "i=0; while :; do n=0; while [ $n -lt 40 ]; do echo $i; i=$((i+1)); n=$((n+1));"
    " done; sleep 1; done",
}
_KEPT_NETWORKS = 4


class Engine:
    """What clients of the engine do over and over; each thing has one client."""

    def __init__(self, caller: Caller, seed: int) -> None:
        self._caller = caller
        self._chance = random.Random(f"{seed} {caller.name}")
        self._numbers = itertools.count()
        self._networks = 0

    # -- containers that stay -------------------------------------------------------------------

    def begin_steady(self) -> None:
        """Start the containers that nothing may end."""
        for name in STEADY:
            self._create("container", name, _SCRIPTS[name])
            self._start("container", name)

    def follow(self, name: str) -> None:
        """Read a log as it grows; anew from its beginning when the stream ends."""
        act = Act(kind="log", key=name, verb="follow")
        path = f"/containers/{name}/logs?follow=1&stdout=1&timestamps=1"
        lines, began = Lines(), time.time()
        with self._caller.stream(act, path) as open_stream:
            for payload in payloads(open_stream().read):
                lines.feed(payload.decode())
                if self._caller.stop.is_set():
                    break
        self._keep(name, began, lines)
        self._caller.stop.wait(0.3)

    def _keep(self, name: str, began: float, lines: Lines) -> None:
        self._caller.recorder.log(
            Log(
                container=name,
                reader=self._caller.name,
                began=began,
                ended=time.time(),
                lines=tuple(lines.found),
                garbage=tuple(lines.garbage),
            )
        )

    def execute(self) -> None:
        """A command in a steady container: its output and its exit code."""
        number = next(self._numbers)
        name, code = self._chance.choice(STEADY), number % 250
        command = ["sh", "-c", f"echo {number}; exit {code}"]
        made = self._caller.insist(
            Act(kind="exec", key=name, verb="prepare"),
            "POST",
            f"/containers/{name}/exec",
            {"Cmd": command, "AttachStdout": True},
        )
        identity = made.document["Id"]
        self._judge(identity, number, code)
        time.sleep(0.2)

    def _judge(self, identity: str, number: int, code: int) -> None:
        began = time.time()
        act = Act(kind="exec", key=identity, verb="start")
        said = self._caller.ask(act, "POST", f"/exec/{identity}/start", {"Detach": False})
        if said.outcome != "done":
            return
        act = Act(kind="exec", key=identity, verb="inspect")
        shown = self._caller.ask(act, "GET", f"/exec/{identity}/json")
        if shown.outcome != "done":
            return
        seen = f"{shown.document['ExitCode']}: {text_of(said.body)!r}"
        self._said("exec", identity, seen, f"{code}: {f'{number}{chr(10)}'!r}", began)

    def _said(self, kind: str, key: str, seen: str, wanted: str, began: float) -> None:
        """A result is of all the time from the start on that it was asked for."""
        act = Act(kind=kind, key=key, verb="result", value=seen, wanted=wanted)
        self._caller.note(act, Answer("done", 200), began)

    # -- containers that come and go ------------------------------------------------------------

    def run(self) -> None:
        """What `docker run` does, step by step; some stay as they have ended."""
        number = next(self._numbers)
        name, code = f"{self._caller.name}-{number}", number % 250
        if not self._create("container", name, f"echo {number}; exit {code}"):
            return
        began = time.time()
        starts = self._start("container", name)
        ended = self._caller.insist(
            Act(kind="container", key=name, verb="wait"),
            "POST",
            f"/containers/{name}/wait",
            also=("absent",),
        )
        self._result(name, ended, number, code, starts, began)
        if self._chance.random() < 0.8:
            self._remove("container", name, f"/containers/{name}?v=1")

    def _result(
        self, name: str, ended: Answer, number: int, code: int, starts: int, began: float
    ) -> None:
        act = Act(kind="container", key=name, verb="logs")
        path = f"/containers/{name}/logs?stdout=1&stderr=1"
        logs = self._caller.insist(act, "GET", path, also=("absent",))
        if "absent" in (ended.outcome, logs.outcome):
            return
        lines = text_of(logs.body).split("\n")[:-1]
        # A start without an answer is repeated, and what had ended already runs once more.
        right = set(lines) == {str(number)} and len(lines) <= starts
        seen = str(number) if right else repr(lines[:5])
        seen = f"{ended.document['StatusCode']}: {seen}"
        self._said("container", name, seen, f"{code}: {number}", began)

    def run_removed(self) -> None:
        """What `docker run --rm -d` does: it is to disappear by itself."""
        name = f"{self._caller.name}-{next(self._numbers)}"
        self._create("auto", name, "true", HostConfig={"AutoRemove": True})
        self._start("auto", name)
        time.sleep(0.2)

    def hold(self) -> None:
        """A container that is started, forced away while it runs."""
        name = f"{self._caller.name}-{next(self._numbers)}"
        if self._create("container", name, "sleep 1000"):
            self._start("container", name)
            self._remove("container", name, f"/containers/{name}?v=1&force=1")

    def leave(self, name: str) -> None:
        """One of each kind, acknowledged, and left."""
        self._make("volume", name, "/volumes/create", {"Name": name})
        self._make("network", name, "/networks/create", {"Name": name})
        if self._create("container", name, "sleep 1000"):
            self._start("container", name)

    # -- volumes and networks -------------------------------------------------------------------

    def volume(self) -> None:
        """A volume comes, is seen, and goes or stays."""
        name = f"{self._caller.name}-{next(self._numbers)}"
        self._make("volume", name, "/volumes/create", {"Name": name})
        self._see("volume", name, f"/volumes/{name}")
        if self._chance.random() < 0.8:
            self._remove("volume", name, f"/volumes/{name}")
        time.sleep(0.2)

    def network(self) -> None:
        """A network comes, is seen, and goes or stays."""
        name = f"{self._caller.name}-{next(self._numbers)}"
        self._make("network", name, "/networks/create", {"Name": name, "CheckDuplicate": True})
        self._see("network", name, f"/networks/{name}")
        if self._networks >= _KEPT_NETWORKS or self._chance.random() < 0.8:
            self._remove("network", name, f"/networks/{name}")
        else:
            self._networks += 1
        time.sleep(0.5)

    # -- images ---------------------------------------------------------------------------------

    def pull(self, name: str) -> None:
        """An image comes from the platform's own registry, and goes."""
        act = Act(kind="image", key=name, verb="pull", told=True)
        self._caller.insist(act, "POST", f"/images/create?fromImage={name}")
        self._remove("image", name, f"/images/{name}")
        time.sleep(0.2)

    def build(self) -> None:
        """An image is built of a Dockerfile, runs, and goes."""
        number = next(self._numbers)
        name = f"chaos.test/{self._caller.name}-{number}:one"
        text = f"FROM {IMAGE}\nRUN echo {number} > /n\nCMD cat /n\n"
        act = Act(kind="image", key=name, verb="build", told=True)
        self._caller.insist(act, "POST", f"/build?t={name}&forcerm=1", _context(text))
        self._see("image", name, f"/images/{name}/json")
        self._remove("image", name, f"/images/{name}")
        time.sleep(0.3)

    # -- steps ----------------------------------------------------------------------------------

    def _create(self, kind: str, name: str, script: str, **more: object) -> bool:
        body = {"Image": IMAGE, "Cmd": ["sh", "-c", script], **more}
        return self._make(kind, name, f"/containers/create?name={name}", body)

    def _make(self, kind: str, name: str, path: str, body: object) -> bool:
        act = Act(kind=kind, key=name, verb="create")
        return self._caller.insist(act, "POST", path, body, also=("exists",)).status < 500

    def _start(self, kind: str, name: str) -> int:
        """How many times it was asked to start."""
        before = len(self._caller.recorder.attempts)
        act = Act(kind=kind, key=name, verb="start")
        self._caller.insist(act, "POST", f"/containers/{name}/start", also=("absent",))
        done = self._caller.recorder.attempts[before:]
        return sum(1 for a in done if (a.kind, a.key, a.verb) == (kind, name, "start"))

    def _see(self, kind: str, name: str, path: str) -> None:
        act = Act(kind=kind, key=name, verb="read")
        self._caller.insist(act, "GET", path, also=("absent",))

    def _remove(self, kind: str, name: str, path: str) -> None:
        act = Act(kind=kind, key=name, verb="remove")
        self._caller.insist(act, "DELETE", path, also=("absent",))


def _context(dockerfile: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("Dockerfile")
        info.size = len(dockerfile)
        tar.addfile(info, io.BytesIO(dockerfile.encode()))
    return buffer.getvalue()


def pushed(caller: Caller, registry: str) -> str:
    """The name of an image in that registry, which is not here any more."""
    name = f"{registry}/chaos:one"
    repository = name.rpartition(":")[0]
    act = Act(kind="image", key=name, verb="tag")
    caller.insist(act, "POST", f"/images/{IMAGE}/tag?repo={repository}&tag=one")
    act = Act(kind="image", key=name, verb="push", told=True)
    caller.insist(act, "POST", f"/images/{repository}/push?tag=one")
    caller.insist(Act(kind="image", key=name, verb="remove"), "DELETE", f"/images/{name}")
    return name


def read_log(caller: Caller, name: str) -> Log:
    """The whole log as it is now."""
    began, lines = time.time(), Lines()
    act = Act(kind="log", key=name, verb="read")
    path = f"/containers/{name}/logs?stdout=1&timestamps=1"
    lines.feed(text_of(caller.insist(act, "GET", path).body))
    return Log(
        container=name,
        reader=AT_THE_END,
        began=began,
        ended=time.time(),
        lines=tuple(lines.found),
        garbage=tuple(lines.garbage),
    )


def life(caller: Caller, name: str) -> tuple[str, str]:
    """Its id, and what changes when it ends: state, pid, start by the engine and by the machine."""
    act = Act(kind="container", key=name, verb="read")
    found: dict[str, Any] = caller.insist(act, "GET", f"/containers/{name}/json").document
    state = found["State"]
    return found[
        "Id"
    ], f"{state['Status']} {state['Pid']} {state['StartedAt']} {_birth(state['Pid'])}"


def _birth(pid: int) -> str:
    """The start time of a process in ticks, see proc_pid_stat(5)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "dead"
