"""A monitor: holds what a container or a pod needs while it runs, and outlives all above it.

Forked from the launcher by a connection of the plugin, which becomes its first control channel.
One socket serves all: the first line of a connection is a token of `attach`, or `control`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
from collections.abc import Callable
from typing import Any

from sagong.linux.cgroup import CgroupLayout
from sagong.shim import lean
from sagong.shim.adoption import Inheritance, adopt_container
from sagong.shim.birth import Birth
from sagong.shim.cgroups import container_cgroup
from sagong.shim.channel import Channel, Incoming, listen
from sagong.shim.clients import Client
from sagong.shim.container import Container
from sagong.shim.directory import (
    RunDirectory,
    reserve_record,
    withdraw_record,
    write_record,
)
from sagong.shim.engines import Engines
from sagong.shim.failure import StartError, wrong
from sagong.shim.group import Group
from sagong.shim.jobs import perform_briefly
from sagong.shim.lifelines import Deposit, ask_status
from sagong.shim.logs import open_log
from sagong.shim.loop import READ, Loop, Timer
from sagong.shim.messages import PROTOCOL, MessageReader
from sagong.shim.session import Session
from sagong.shim.starting import Attempt, Order, exit_code
from sagong.shim.tickets import Tickets

__all__ = ["Monitor"]

# Who starts containers one after the other finds a monitor that has learned its work.
_IDLE_SECONDS = 15.0
# What a request of a plugin of another version may run into.
_WRONG = (OSError, KeyError, TypeError, ValueError)


class Monitor:
    """Serves the plugin and the clients of some containers, under a key that the plugin chose.

    Nothing here may wait for one container: the others wait with it.
    """

    def __init__(
        self,
        directory: RunDirectory,
        key: str,
        layout: CgroupLayout,
        inherited: Inheritance,
        engines: Engines,
    ) -> None:
        self.directory = directory
        self.engines = engines
        self.layout = layout
        self.inherited = inherited
        self.loop = Loop()
        self.containers: dict[str, Container] = {}
        self._groups: dict[str, Group] = {}
        self.key = key
        self.sessions: dict[int, Session] = {}
        self._starts: dict[int, Attempt] = {}
        self._early: dict[int, int] = {}
        # Who asked for execs that are being started: a successor of the plugin asks for the same.
        self._asking: dict[tuple[str, str], list[tuple[Channel, int, dict[str, Any]]]] = {}
        self._channels: list[Channel] = []
        self._tickets = Tickets()
        self._listener: socket.socket | None = None
        self._socket_inode = 0
        self._leaving: Timer | None = None
        self._operations: dict[str, Callable[[Channel, int, dict[str, Any]], None]] = {
            "run": self._run,
            "prepare": self._prepare,
            "go": self._go,
            "discard": self._discard,
            "exec": self._exec,
            "adopt": self._adopt,
            "attach": self._attach,
            "resize": self._resize,
            "deposit": self._deposit,
            "let_go": self._let_go,
            "job": self._job,
            "hello": self._hello,
        }

    # -- life ----------------------------------------------------------------------------------

    def serve(self, first: socket.socket, reader: MessageReader, *, starts: bool = False) -> None:
        """Until nothing is left to watch; `starts` says that it is made for a container's start."""
        # By this directory we are found when everything is to end, so before anything begins.
        os.chdir(self.directory.base)
        lean.become_subreaper()
        self.loop.watch_wakeups(self._reap)
        if starts:
            self.engines.own.expect_starts(self.loop, self.directory, self.layout)
        self.add_channel(first, reader)
        # The request is there already: the child works while we make ourselves known.
        self._channels[0].take(b"")
        if not self.loop.running:
            return
        self._listen()
        lean.show_title(f"sagong-monitor {self.key}", self.inherited.arguments)
        self.tidy()
        self.loop.run()

    def _listen(self) -> None:
        path = self.directory.monitor_socket(self.key)
        listener = listen(path, 64)
        self.loop.add(listener.fileno(), READ, lambda _: self._accept(listener))
        self._listener = listener
        self._socket_inode = os.stat(path).st_ino

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            channel, _ = listener.accept()
            Incoming(self, channel)

    def add_channel(self, channel: socket.socket, reader: MessageReader) -> None:
        """A control channel of the plugin."""
        self._channels.append(Channel(self.loop, channel, reader, self._request, self._gone))

    def _gone(self, channel: Channel) -> None:
        self._channels.remove(channel)
        for container in list(self.containers.values()):
            if container.birth is not None and container.birth.awaited_by(channel):
                container.birth.give_up()
        self.tidy()

    def tidy(self) -> None:
        """Forget what is over; end when nothing is left and, for a while, nothing comes."""
        for container in list(self.containers.values()):
            container.forget_execs()
            if container.over:
                self._drop(container)
        if self._starts or self.containers:
            self._stay()
        elif not self._channels:
            self._leave()
        elif self._leaving is None:
            self._leaving = self.loop.later(_IDLE_SECONDS, self._leave)

    def _stay(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None

    def _leave(self) -> None:
        self._unlink_socket()
        self.loop.stop()

    def _drop(self, container: Container) -> None:
        """Forget a container, and its group's namespaces with the last one."""
        self.containers.pop(container.id, None)
        if all(other.group_name != container.group_name for other in self.containers.values()):
            group = self._groups.pop(container.group_name, None)
            if group is not None:
                group.end()

    def group_of(self, container: Container) -> Group:
        """The namespaces that the container shares with others of its group."""
        return self._groups.setdefault(container.group_name, Group(self.directory.root))

    def _unlink_socket(self) -> None:
        """Ours, and not that of a younger monitor of the same key."""
        path = self.directory.monitor_socket(self.key)
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_ino == self._socket_inode:
                os.unlink(path)

    def tell(self, event: dict[str, Any]) -> None:
        """An event to all control channels."""
        for channel in tuple(self._channels):
            channel.send(event)

    def _request(self, channel: Channel, message: dict[str, Any]) -> None:
        number = message.get("n", 0)
        operation = self._operations.get(message.get("op", ""))
        if operation is None:
            channel.fail(number, "unimplemented", f"monitor knows no {message.get('op')!r}")
            return
        try:
            operation(channel, number, message)
        except StartError as error:
            channel.fail(number, error.code, error.message)
        except _WRONG as error:
            found = wrong(error)
            channel.fail(number, found.code, found.message)

    def _reap(self) -> None:
        """Collect every child: first processes, exec'd ones, and orphans that came to us."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            start = self._starts.get(pid)
            if start is not None:
                start.reaped(pid, status)
            if pid in self._starts or (self._starts and pid not in self.sessions):
                # Of a start that is not over, or perhaps about to be told by one.
                self._early[pid] = status
                continue
            session = self.sessions.pop(pid, None)
            if session is not None:
                session.exited(exit_code(status))

    # -- containers ----------------------------------------------------------------------------

    def _run(self, channel: Channel, number: int, request: dict[str, Any]) -> None:
        container = self._taken_in(request)
        birth = Birth(self.loop, channel, container)
        birth.ask(channel, number, request.get("attach"))
        self._begin(container, birth)

    def _prepare(self, channel: Channel, number: int, request: dict[str, Any]) -> None:
        """All of a run but its program's execution, which `go` asks for if the start is wanted."""
        container = self._taken_in(request)
        self._begin(container, Birth(self.loop, channel, container), ahead=True)
        channel.answer(number)

    def _go(self, channel: Channel, number: int, request: dict[str, Any]) -> None:
        container, birth = self._prepared(request)
        container.request["session"]["hold"] = request["hold"]
        birth.ask(channel, number, request.get("attach"))
        birth.proceed()

    def _discard(self, channel: Channel, number: int, request: dict[str, Any]) -> None:
        _, birth = self._prepared(request)
        birth.discard(channel, number)

    def _prepared(self, request: dict[str, Any]) -> tuple[Container, Birth]:
        container = self.containers.get(request["id"])
        if container is None or container.run != request["run"] or container.birth is None:
            raise StartError(
                "not_found", f"run {request['run']} of {request['id']} is not prepared"
            )
        return container, container.birth

    def _taken_in(self, request: dict[str, Any]) -> Container:
        """A container that is about to be started."""
        self._stay()
        container_id = request["id"]
        known = self.containers.get(container_id)
        if known is not None and not known.cleaned:
            raise StartError("already_exists", f"container {container_id} is in this monitor")
        directory = self.directory.container(container_id)
        container = Container(request, directory, container_cgroup(self.layout, request["cgroup"]))
        container.claim()
        container.session = self.make_session(container, request["session"], directory)
        self.containers[container_id] = container
        return container

    def _begin(self, container: Container, birth: Birth, *, ahead: bool = False) -> None:
        request, session, group = container.request, container.session, self.group_of(container)
        assert session is not None

        def written(pid: int, started: int) -> None:
            self._known(start, session, pid)
            container.write_state(pid, started, {"key": self.key, **group.facts()})

        def done(error: StartError | None) -> None:
            self._forget_start(start)
            if error is not None:
                self._abandon(container, lambda: birth.failed(error))
                return
            container.mark_begun()
            birth.succeeded(self._tickets)
            self.watch(container)

        start = self._attempt(container, session, request, written, done, ahead=ahead)
        container.birth = birth
        birth.expect(start)
        try:
            container.thaw_group()
            container.reserve_exit()
            session.log = open_log(request["session"]["log"])
            session.make_fifos(*request["owner"])
            start.begin()
        except StartError as error:
            self._abandon(container, functools.partial(birth.failed, error))
        except _WRONG as error:
            self._abandon(container, functools.partial(birth.failed, wrong(error)))

    def _attempt(
        self,
        container: Container,
        session: Session,
        request: dict[str, Any],
        started: Callable[[int, int], None],
        done: Callable[[StartError | None], None],
        target: int = 0,
        *,
        ahead: bool = False,
    ) -> Attempt:
        """One attempt of the engine, which hears when its children end."""
        order = Order(
            loop=self.loop,
            directory=self.directory,
            layout=self.layout,
            group=self.group_of(container),
            session=session,
            request=request,
            target=target,
            forked=lambda pid: self._starts.update({pid: attempt}),
            started=started,
            done=done,
            ahead=ahead,
        )
        attempt = self.engines.of(request.get("maker") or self.engines.own.maker).attempt(order)
        return attempt

    def _known(self, start: Attempt, session: Session, pid: int) -> None:
        """This child is the session's; its end is told when its start is over."""
        self.sessions[pid] = session
        self._starts[pid] = start

    def _forget_start(self, start: Attempt) -> None:
        for pid in [pid for pid, known in self._starts.items() if known is start]:
            del self._starts[pid]
            if pid in self._early and pid in self.sessions:
                self._end_later(self.sessions.pop(pid), self._early.pop(pid))
        if not self._starts:
            self._early.clear()

    def _end_later(self, session: Session, status: int) -> None:
        """It ended before its start was over; who asked for the start hears of that first."""
        self.loop.later(0.0, lambda: session.exited(exit_code(status)))

    def watch(self, container: Container) -> None:
        """Tell the plugin of kills for memory."""
        event = {"event": "oom", "id": container.id, "run": container.run}
        container.watch_memory(self.loop, lambda: self.tell(event))

    def make_session(self, container: Container, spec: dict[str, Any], directory: str) -> Session:
        """A session of the container, connected to what happens at its end."""
        return Session(
            self.loop,
            directory,
            spec,
            log=None,
            lifelines=Deposit(self.directory, self.key, container.id),
            on_exit=lambda session: self._exited(container, session),
            on_end=lambda session: self._ended(container, session),
        )

    def _abandon(self, container: Container, then: Callable[[], None]) -> None:
        """A failed start leaves nothing: no process, no cgroup, no FIFO, no log it began.

        What a successor of the plugin has begun at the same path meanwhile stays.
        """

        def done() -> None:
            container.release()
            self._drop(container)
            then()
            self.tidy()

        self.engines.looking_after(container.request).clean(container)
        mine = not container.superseded
        if container.session is not None:
            container.session.discard(files=mine)
        if mine:
            container.discard_exit()
        container.end_cgroup(self.loop, done)

    def _exited(self, container: Container, session: Session) -> None:
        code = session.code or 0
        if session is container.session:
            container.write_exit(code)
            container.kill_rest()
            return
        container.leave(session.directory, {"code": code})
        self.tell(
            {"event": "exec_exited", "id": container.id, "exec_id": session.name, "code": code}
        )

    def _ended(self, container: Container, session: Session) -> None:
        code = session.code or 0
        if session is container.session:
            self.tell({"event": "exited", **container.exit_facts(code)})
            # After who waits for the rest of the output has got it.
            self.loop.later(0.0, lambda: self._clean(container))
        self.loop.later(0.0, self.tidy)

    def _clean(self, container: Container) -> None:
        def done() -> None:
            container.cleaned = True
            container.release()
            self.tell({"event": "cleaned", "id": container.id})
            self.tidy()

        self.engines.looking_after(container.request).clean(container)
        container.end_cgroup(self.loop, done)

    # -- exec ----------------------------------------------------------------------------------

    def _exec(self, channel: Channel, number: int, request: dict[str, Any]) -> None:
        container = self._running(request["id"])
        exec_id = request["exec_id"]
        known, asking = container.execs.get(exec_id), self._asking.get((container.id, exec_id))
        if asking is not None:
            asking.append((channel, number, request))
            return
        if known is not None:
            self._tell_of_exec(known, channel, number, request)
            return
        directory = self.directory.execution(container.id, exec_id)
        os.makedirs(directory, exist_ok=True)
        for path in (os.path.dirname(directory), directory):
            os.chown(path, self.directory.owner(), -1)
        session = self.make_session(container, request["session"], directory)
        session.name = exec_id
        assert container.session is not None

        def written(pid: int, started: int) -> None:
            self._known(start, session, pid)
            facts = {"pid": pid, "started": started, "session": session.spec}
            write_record(f"{session.directory}/state.json", facts)

        def done(error: StartError | None) -> None:
            self._forget_start(start)
            if error is not None:
                self._abandon_exec(container, session)
            for asker, its_number, its_request in self._asking.pop((container.id, exec_id), ()):
                if error is not None:
                    asker.fail(its_number, error.code, error.message)
                else:
                    self._tell_of_exec(session, asker, its_number, its_request)

        start = self._attempt(container, session, request, written, done, container.session.pid)
        container.execs[exec_id] = session
        self._asking[container.id, exec_id] = [(channel, number, request)]
        try:
            reserve_record(f"{directory}/exit.json")
            session.make_fifos(*request["owner"])
            start.begin()
        except (StartError, *_WRONG):
            self._abandon_exec(container, session)
            self._asking.pop((container.id, exec_id), None)
            raise

    def _tell_of_exec(
        self, session: Session, channel: Channel, number: int, request: dict[str, Any]
    ) -> None:
        """Who comes late gets what was written before."""
        token = self._tickets.issue(session, {**request, "replay": True})
        channel.answer(number, {"pid": session.pid, "token": token})

    def _abandon_exec(self, container: Container, session: Session) -> None:
        container.execs.pop(session.name, None)
        session.discard()
        withdraw_record(f"{session.directory}/exit.json")

    def _running(self, container_id: str) -> Container:
        container = self.containers.get(container_id)
        if container is None or container.session is None:
            raise StartError("not_found", f"No such container: {container_id}")
        if container.session.code is not None:
            raise StartError("failed_precondition", f"container {container_id} is not running")
        return container

    # -- streams -------------------------------------------------------------------------------

    def admit(self, token: str, channel: socket.socket, early: bytes) -> bool:
        """Let a client with a good token in; False if the token is none."""
        ticket = self._tickets.take(token)
        if ticket is None:
            return False
        client = Client(self.loop, channel, ticket.session, stdin=ticket.stdin)
        ticket.session.attach(client, early, replay=ticket.replay)
        return True

    def _attach(self, channel: Channel, number: int, request: dict[str, Any]) -> None:
        container = self.containers.get(request["id"])
        session = None if container is None else container.session
        if container is not None and "exec_id" in request:
            session = container.execs.get(request["exec_id"])
        if session is None or session.ended:
            raise StartError("failed_precondition", f"container {request['id']} is not running")
        channel.answer(number, {"token": self._tickets.issue(session, request)})

    def _let_go(self, channel: Channel, number: int, request: dict[str, Any]) -> None:
        """Nobody will attach any more: held output goes to the log."""
        container = self.containers.get(request["id"])
        if container is not None and container.session is not None:
            container.session.let_go()
        channel.answer(number)

    def _job(self, channel: Channel, number: int, request: dict[str, Any]) -> None:
        """What needs no fork."""
        own = self.engines.looking_after(request).jobs
        channel.pass_on(perform_briefly(self.layout, number, request, own))

    def _resize(self, channel: Channel, number: int, request: dict[str, Any]) -> None:
        container = self._running(request["id"])
        session = container.session
        if request.get("exec_id"):
            session = container.execs.get(request["exec_id"])
        if session is None:
            raise StartError("not_found", f"No such exec instance: {request['exec_id']}")
        session.resize(request["rows"], request["columns"])
        channel.answer(number)

    def ask_launcher(self, pid: int, started: int) -> int | None:
        """The wait status of a process that the launcher had to reap."""
        return ask_status(self.directory, pid, started)

    # -- adoption ------------------------------------------------------------------------------

    def _hello(self, channel: Channel, number: int, request: dict[str, Any]) -> None:
        """Who is here, and how far each one is."""
        facts = {
            c.id: {"run": c.run, "ended": c.session is None or c.session.ended, "clean": c.cleaned}
            for c in self.containers.values()
        }
        channel.answer(number, {"protocol": PROTOCOL, "pid": os.getpid(), "containers": facts})

    def _adopt(self, channel: Channel, number: int, request: dict[str, Any]) -> None:
        self._stay()
        for container_id in request["ids"]:
            if container_id not in self.containers:
                self._adopt_one(container_id)
        self._hello(channel, number, request)

    def _adopt_one(self, container_id: str) -> None:
        """All of it or nothing: half of a container would keep us for ever."""
        try:
            adopt_container(self, container_id)
        except (StartError, *_WRONG):
            container = self.containers.get(container_id)
            if container is not None:
                container.release()
                self._drop(container)
            self.tidy()
            raise

    def _deposit(self, channel: Channel, number: int, request: dict[str, Any]) -> None:
        """A new launcher knows none of our lifelines: give it duplicates."""
        for container in self.containers.values():
            for session in (container.session, *container.execs.values()):
                if session is not None and not session.ended:
                    session.deposit()
        channel.answer(number)
