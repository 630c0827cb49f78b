"""exec: a further process in a container."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from sagong.linux import capabilities, process
from sagong.linux.cgroup import layout_of_machine
from sagong.shim.failure import StartError
from sagong_runtime_linux.oci import child
from sagong_runtime_linux.oci.configuration import check_process
from sagong_runtime_linux.oci.containers import PAUSED, STOPPED, Container, Containers
from sagong_runtime_linux.oci.creation import write_pid_file
from sagong_runtime_linux.oci.filters import filter_code
from sagong_runtime_linux.oci.planning import (
    exec_plan,
    mask_of,
    may_be_traced,
    missing_capabilities,
    namespaces_of,
    own_mounts,
)
from sagong_runtime_linux.oci.starting import Birth
from sagong_runtime_linux.operations import Stage

__all__ = ["ExecWish", "execute"]


class ExecWish(NamedTuple):
    """What is to be executed, and who hears of it."""

    process: dict[str, Any]
    console: str = ""
    pid_file: str = ""
    preserved: int = 0
    keep_terminal: bool = False
    ignore_paused: bool = False


def execute(containers: Containers, container: Container, wish: ExecWish) -> Birth:
    """Returns when the program has been executed."""
    check_process(wish.process)
    status = container.status()
    if status == STOPPED:
        raise StartError("failed_precondition", f"container {container.id} is not running")
    if status == PAUSED and not wish.ignore_paused:
        raise StartError(
            "failed_precondition", "cannot exec in a paused container: --ignore-paused would"
        )
    if wish.process.get("terminal") and not wish.console and not wish.keep_terminal:
        raise StartError("invalid_argument", "a terminal needs --console-socket with --detach")
    config = container.config()
    bounding = capabilities.bounding_set()
    sets = (wish.process.get("capabilities") or {}).get("bounding")
    missing = missing_capabilities(wish.process, bounding)
    if missing:
        containers.log.warn(f"process.capabilities: {', '.join(missing)} can't be granted")
    seccomp = (config.get("linux") or {}).get("seccomp")
    code = filter_code(seccomp, mask_of(sets, bounding), f"{containers.root}/filters")
    plan = exec_plan(
        config, wish.process, cgroup=container.facts["cgroup"], code=code, bounding=bounding
    )
    stage = Stage(containers.empty, container.directory, layout_of_machine().derived())
    pidfd = process.open_identified(container.identity)
    if pidfd is None:
        raise StartError("failed_precondition", f"container {container.id} is not running")
    stage.namespaces["container"] = pidfd
    if not own_mounts(config):
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        stage.namespaces["root"] = os.open(f"/proc/{container.pid}/root", flags)
    birth = Birth(
        stage,
        console=wish.console,
        keep_terminal=wish.keep_terminal,
        seccomp=seccomp,
        state=container.state(status),
    )
    birth.fork(
        pidfd if "pid" in namespaces_of(config) and not may_be_traced(config) else "",
        lambda: child.become_executed(stage, plan, wish.process, preserved=wish.preserved),
    )
    stage.close()
    try:
        birth.wait_ready({})
        write_pid_file(wish.pid_file, birth.pid)
        birth.let_go()
        birth.wait_executed()
    except BaseException:
        birth.kill()
        os.waitpid(birth.pid, 0)
        raise
    return birth
