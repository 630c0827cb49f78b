"""Further processes in running containers."""

from __future__ import annotations

from sagong.contracts.node import ExecRef, ExecSpec, ExecState
from sagong.contracts.runtime import ExecRequest, ExecStatus, Process
from sagong.errors import NotFound
from sagong_node import defaults
from sagong_node.command import completed, merge_environment
from sagong_node.ground import Ground
from sagong_node.lifecycle import Lifecycle
from sagong_node.records import ContainerRecord
from sagong_node.registry import Registry
from sagong_node.users import Account, resolve

__all__ = ["Execution"]


class Execution:
    """Starts processes by the container's own environment, user and rights."""

    def __init__(self, lifecycle: Lifecycle, registry: Registry, ground: Ground) -> None:
        self._life = lifecycle
        self._ground = ground
        self._registry = registry

    async def start(self, record: ContainerRecord, spec: ExecSpec) -> ExecState:
        """Start one; the same exec_id again gives its state."""
        if spec.exec_id not in record.exec_ids:
            record.exec_ids = (*record.exec_ids, spec.exec_id)[-64:]
            self._note(record, spec)
        return _state(await self._started(record, spec))

    async def probe(self, record: ContainerRecord, spec: ExecSpec) -> ExecStatus:
        """Start one of the node's own, that nobody asks for again."""
        self._note(record, spec)
        return await self._started(record, spec)

    def _note(self, record: ContainerRecord, spec: ExecSpec) -> None:
        """Told before it is tried, as in Docker: a program that is not there was started, too."""
        # Docker's words: the program, a space, its arguments.
        command = f"{spec.args[0]} {' '.join(spec.args[1:])}"
        for action in ("exec_create", "exec_start"):
            self._life.note(record, f"{action}: {command}", execID=spec.exec_id)

    async def _started(self, record: ContainerRecord, spec: ExecSpec) -> ExecStatus:
        return await self._life.runtimes.of(record).exec(
            ExecRequest(
                id=spec.id,
                exec_id=spec.exec_id,
                process=await self._process(record, spec),
                privileged=spec.privileged,
            )
        )

    async def state(self, ref: ExecRef) -> ExecState:
        """How it fares; NotFound in Docker's words."""
        try:
            status = await self._life.runtimes.of(self._life.container(ref.id)).exec_status(
                ExecRequest(id=ref.id, exec_id=ref.exec_id, process=Process(args=()))
            )
        except NotFound:
            raise NotFound(f"No such exec instance: {ref.exec_id}") from None
        return _state(status)

    async def account(self, record: ContainerRecord, user: str) -> Account:
        """Who somebody is there: a container may have got users since its start."""
        wanted = user or record.spec.command.user
        if not wanted and record.image is not None:
            wanted = record.image.config.user
        known = self._life.accounts.get(record.spec.id)
        if user or known is None:
            root = await self._ground.prepare(record)
            known = self._life.accounts[record.spec.id] = (root.passwd, root.group)
        return resolve(wanted, record.spec.command.groups, *known)

    async def _process(self, record: ContainerRecord, spec: ExecSpec) -> Process:
        container = record.spec
        account = await self.account(record, spec.user)
        known = completed(record.env, TERM="xterm") if spec.tty else _without_terminal(record)
        env = completed(merge_environment(known, spec.env), HOME=account.home)
        return Process(
            args=spec.args,
            env=env,
            cwd=spec.cwd or record.cwd,
            user=account.user,
            tty=spec.tty,
            rows=spec.rows,
            columns=spec.columns,
            stdin=spec.stdin,
            capabilities=defaults.capabilities(
                container.add_capabilities,
                container.drop_capabilities,
                privileged=container.privileged or spec.privileged,
            ),
            no_new_privileges=container.no_new_privileges,
            rlimits=container.rlimits,
        )


def _without_terminal(record: ContainerRecord) -> tuple[str, ...]:
    """A container's environment without the TERM that it has for its terminal alone."""
    image = record.image.config.env if record.image else ()
    own = any(entry.startswith("TERM=") for entry in (*record.spec.command.env, *image))
    return tuple(e for e in record.env if own or not e.startswith("TERM="))


def _state(status: ExecStatus) -> ExecState:
    return ExecState(
        exec_id=status.exec_id,
        running=status.running,
        pid=status.pid,
        code=status.code,
        stream=status.stream,
    )
