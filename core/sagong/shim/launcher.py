"""The launcher: a lean fork server outside every sandbox; monitors and short jobs are its forks.

A companion, so started with full rights: without site packages, from a read-only view of the
interpreter's file, so that no container can ever write to the host's interpreter through
/proc/PID/exe.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from sagong.linux import capabilities, cgroup, process
from sagong.shim import jobs, lean, messages
from sagong.shim.adoption import Inheritance
from sagong.shim.channel import Channel, allowed, listen
from sagong.shim.directory import RunDirectory
from sagong.shim.engines import Engines
from sagong.shim.failure import StartError, failed, wrong
from sagong.shim.lifelines import Lifelines
from sagong.shim.loop import READ, Loop
from sagong.shim.messages import PROTOCOL, MessageReader
from sagong.shim.monitor import Monitor
from sagong.shim.showing import Showing, linger
from sagong.shim.starting import Engine

__all__ = ["Launcher", "serve"]

# Statuses of orphans that are remembered for successors of their monitors.
_REAPED_LIMIT = 4096


class Launcher:
    """Accepts the plugin's connections; keeps lifelines; reaps what monitors left."""

    def __init__(self, directory: RunDirectory, engine: Engine) -> None:
        self._directory = directory
        self._engines = Engines(engine)
        self._layout = cgroup.layout_of_machine().derived()
        self._loop = Loop()
        self._lifelines = Lifelines()
        self._reaped: dict[tuple[int, int], int] = {}
        self._channels: set[Channel] = set()
        self._listener: socket.socket | None = None
        self._arguments = lean.argument_area()
        self._operations: dict[str, Callable[[Channel, int, dict[str, Any]], None]] = {
            "facts": self._facts,
            "monitor": self._monitor,
            "job": self._job,
            "show": self._show,
            "hold": self._hold,
            "release": self._release,
            "status": self._status,
        }

    def serve(self) -> None:
        """Until SIGTERM; containers and monitors live on."""
        lean.show_title("sagong-launcher", self._arguments)
        process.become_subreaper()
        self._loop.watch_signals((signal.SIGCHLD,), self._reap)
        # Found out here, once: a container may be started before the plugin asks for facts, and in
        # the container's own root neither the file nor the module of its encoding can be read.
        capabilities.last_capability()
        self._listen()
        gc.collect()
        gc.freeze()
        self._loop.run()

    def _listen(self) -> None:
        path = self._directory.launcher_socket
        try:
            self._directory.create()
            listener = listen(path, 128)
        except OSError as error:
            sys.exit(f"sagong-launcher: {failed(error, f'listening at {path}').message}")
        self._loop.add(listener.fileno(), READ, lambda _: self._accept(listener))
        self._listener = listener

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            channel, _ = listener.accept()
            if not allowed(channel, self._directory):
                channel.close()
                return
            served = Channel(
                self._loop, channel, MessageReader(), self._request, self._channels.discard
            )
            self._channels.add(served)

    def _request(self, channel: Channel, message: dict[str, Any]) -> None:
        number = message.get("n", 0)
        operation = self._operations.get(message.get("op", ""))
        if operation is None:
            channel.fail(number, "unimplemented", f"launcher knows no {message.get('op')!r}")
            return
        try:
            operation(channel, number, message)
        except (OSError, KeyError, TypeError, ValueError) as error:
            found = wrong(error)
            channel.fail(number, found.code, found.message)

    def _facts(self, channel: Channel, number: int, request: dict[str, Any]) -> None:
        """What the plugin needs to plan, being unable to look itself; its engine is loaded here."""
        self._directory.hand_over()
        self._engines.looking_after(request)
        hierarchies = [
            (str(h.version), h.mount, _cgroup_option(h)) for h in self._layout.hierarchies
        ]
        facts = {
            "protocol": PROTOCOL,
            "pid": os.getpid(),
            "hierarchies": hierarchies,
            "bounding": capabilities.bounding_set(),
            "apparmor": _reads_yes("/sys/module/apparmor/parameters/enabled"),
            "least_oom_score": _least_oom_score(),
            "selinux": os.path.isdir("/sys/fs/selinux/booleans"),
        }
        channel.answer(number, facts)

    def _monitor(self, channel: Channel, number: int, request: dict[str, Any]) -> None:
        """Fork a monitor; the connection, with what was already read of it, becomes its own."""
        if lean.fork() != 0:
            channel.close()
            return
        starts = request.get("starts", False)
        lean.end_with(lambda: self._become_monitor(channel, request["key"], starts=starts))

    def _become_monitor(self, channel: Channel, key: str, *, starts: bool) -> None:
        os.setsid()
        connection = channel.detach()
        self._leave_launcher(keep=channel)
        lifelines = self._lifelines.bequeath(key)
        inherited = Inheritance(lifelines, self._reaped, self._arguments)
        monitor = Monitor(self._directory, key, self._layout, inherited, self._engines)
        monitor.serve(connection, channel.reader, starts=starts)

    def _leave_launcher(self, keep: Channel) -> None:
        """In a fork: nothing of the launcher's stays open here."""
        signal.set_wakeup_fd(-1)
        self._loop.close()
        if self._listener is not None:
            self._listener.close()
        for channel in self._channels:
            if channel is not keep:
                channel.socket.close()

    def _job(self, channel: Channel, number: int, request: dict[str, Any]) -> None:
        """Fork for work that may take long: killing, freezing, sweeping."""

        def work(asked: socket.socket) -> None:
            own = self._engines.looking_after(request).jobs
            _tell(asked, jobs.perform(self._layout, number, request, own))

        self._apart(channel, work)

    def _show(self, channel: Channel, number: int, request: dict[str, Any]) -> None:
        """Fork to show what is asked for until the connection ends."""
        self._apart(channel, lambda asked: _shown(asked, number, request))

    def _apart(self, channel: Channel, work: Callable[[socket.socket], None]) -> None:
        """Fork; there the connection is the work's, and it may wait."""
        if lean.fork() != 0:
            channel.close()
            return

        def begin() -> None:
            channel.detach()
            self._leave_launcher(keep=channel)
            channel.socket.setblocking(True)
            work(channel.socket)

        lean.end_with(begin)

    def _hold(self, channel: Channel, number: int, request: dict[str, Any]) -> None:
        if channel.descriptors:
            self._lifelines.keep(request["key"], request["name"], channel.descriptors.pop(0))

    def _release(self, channel: Channel, number: int, request: dict[str, Any]) -> None:
        self._lifelines.drop(request["key"], request["name"])

    def _status(self, channel: Channel, number: int, request: dict[str, Any]) -> None:
        """The wait status of an orphan that was reaped here."""
        found = self._reaped.get((request["pid"], request["started"]))
        channel.answer(number, {"status": found})

    def _reap(self) -> None:
        """Collect forks and orphans, remembering how each ended, and which it was."""
        with contextlib.suppress(ChildProcessError):
            while True:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if found is None:
                    return
                started = process.start_time(found.si_pid)
                _, status = os.waitpid(found.si_pid, 0)
                self._reaped[found.si_pid, started] = status
                if len(self._reaped) > _REAPED_LIMIT:
                    del self._reaped[next(iter(self._reaped))]


def _shown(channel: socket.socket, number: int, request: dict[str, Any]) -> None:
    showing = Showing(request["directory"])
    try:
        showing.show(request["sources"], made=request.get("made", ()))
        _tell(channel, messages.answer(number, {"paths": showing.places}))
        linger(channel)
    except StartError as error:
        _tell(channel, messages.failure(number, error.code, error.message))
    except OSError as error:
        _tell(channel, messages.failure(number, "internal", str(error)))
    finally:
        showing.hide()


def _tell(channel: socket.socket, answer: bytes) -> None:
    """Who asked may be gone by now."""
    with contextlib.suppress(OSError):
        channel.sendall(answer)


def _cgroup_option(hierarchy: cgroup.Hierarchy) -> str:
    """The mount option that names a version 1 hierarchy."""
    if hierarchy.version == 2:
        return ""
    if hierarchy.name:
        return f"none,name={hierarchy.name}"
    return ",".join(sorted(hierarchy.controllers))


def _least_oom_score() -> int:
    """See `HostFacts`; proc(5), /proc/PID/oom_score_adj."""
    rights = capabilities.sets_of().effective
    if rights >> capabilities.number_of("CAP_SYS_RESOURCE") & 1:
        return -1000
    with open("/proc/self/oom_score_adj", encoding="utf-8") as file:
        return int(file.read())


def _reads_yes(path: str) -> bool:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().startswith("Y")
    except OSError:
        return False


def serve(run: str, engine: Engine) -> None:
    """Serve below `run`, starting processes by the engine."""
    directory = RunDirectory(run)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # It keeps a descriptor for each terminal and each open stdin.
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # What whoever started us ignores would stay ignored in every container.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE}:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    os.chdir("/")
    Launcher(directory, engine).serve()
