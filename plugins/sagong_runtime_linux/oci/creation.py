"""create: everything of a container but its program."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import Any, NamedTuple

from sagong.linux import capabilities, process
from sagong.linux.cgroup import CgroupLayout, Hierarchy, layout_of_machine
from sagong.shim.failure import StartError, reason
from sagong.shim.user_namespace import make_user_namespace
from sagong_runtime_linux.oci import child, foreign_mounts
from sagong_runtime_linux.oci.bind_planning import mapping_of
from sagong_runtime_linux.oci.cgroups import group_of, make_scope
from sagong_runtime_linux.oci.configuration import load_config, rootfs_of
from sagong_runtime_linux.oci.containers import VERSION, Container, Containers
from sagong_runtime_linux.oci.ending import delete, end_scope, poststop, undo_mounts
from sagong_runtime_linux.oci.filters import filter_code
from sagong_runtime_linux.oci.planning import (
    Ways,
    maps_of,
    mask_of,
    missing_capabilities,
    namespaces_of,
    own_mounts,
    run_plan,
)
from sagong_runtime_linux.oci.starting import Birth
from sagong_runtime_linux.operations import Stage

__all__ = ["Wish", "create", "write_pid_file"]

_KILL_SECONDS = 10.0


class Wish(NamedTuple):
    """How a container is to be created, besides its bundle."""

    name: str
    bundle: str
    console: str = ""
    pid_file: str = ""
    preserved: int = 0
    keep_terminal: bool = False
    ways: Ways = Ways()


def create(containers: Containers, wish: Wish) -> tuple[Container, Birth]:
    """Everything but the program, which waits for `start`; nothing is left after an error."""
    bundle = os.path.realpath(wish.bundle)
    config = load_config(bundle)
    _check_terminal(config, wish)
    rootfs = rootfs_of(config, bundle)
    facts = {
        "id": wish.name,
        "pid": 0,
        "started": 0,
        "bundle": bundle,
        "rootfs": rootfs,
        **group_of(config, wish.name, layout_of_machine(), systemd=containers.systemd),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "annotations": config.get("annotations") or {},
    }
    left = containers.abandoned(wish.name)
    if left is not None:
        delete(left, force=True)
    container = containers.claim(wish.name, facts, config)
    facts = container.facts
    try:
        _check_cgroup(container)
    except BaseException:
        container.remove()
        raise
    try:
        if not own_mounts(config):
            space = namespaces_of(config).get("mount", "")
            facts["mounts"] = [space, foreign_mounts.mounts_at(rootfs, space)]
        return container, _bear(containers, container, config, wish)
    except BaseException:
        _undo(containers, container, config)
        raise


def _check_cgroup(container: Container) -> None:
    """`delete` ends all that is in it; and who enters one that is frozen never comes out."""
    group = container.cgroup()
    if not group.exists():
        return
    path = container.facts["cgroup"]
    if group.frozen():
        raise StartError("failed_precondition", f"container's cgroup unexpectedly frozen: {path}")
    count = len(group.pids())
    if count:
        text = f"container's cgroup is not empty: {count} process(es) found in {path}"
        raise StartError("failed_precondition", text)


def _undo(containers: Containers, container: Container, config: dict[str, Any]) -> None:
    """What `delete` would do to it: hooks that prepared something may have their counterparts."""
    with contextlib.suppress(OSError):
        container.cgroup().kill(seconds=2.0)
    with contextlib.suppress(StartError):
        end_scope(container)
    with contextlib.suppress(OSError):
        container.cgroup().remove(seconds=1.0)
    with contextlib.suppress(OSError, StartError):
        undo_mounts(container)
    for warning in poststop(container, config):
        containers.log.warn(warning)
    container.remove()


def _check_terminal(config: dict[str, Any], wish: Wish) -> None:
    wanted = bool((config.get("process") or {}).get("terminal"))
    if wanted and not wish.console and not wish.keep_terminal:
        raise StartError(
            "invalid_argument", "process.terminal needs --console-socket with create or --detach"
        )
    if wish.console and not wanted:
        raise StartError("invalid_argument", "--console-socket needs process.terminal")


def _bear(
    containers: Containers, container: Container, config: dict[str, Any], wish: Wish
) -> Birth:
    layout = layout_of_machine().derived()
    stage = Stage(containers.empty, container.directory, layout)
    bounding = capabilities.bounding_set()
    what = config.get("process") or {}
    sets = what.get("capabilities") or {}
    missing = missing_capabilities(what, bounding)
    if missing:
        containers.log.warn(f"process.capabilities: {', '.join(missing)} can't be granted")
    linux = config.get("linux") or {}
    code = filter_code(
        linux.get("seccomp"), mask_of(sets.get("bounding"), bounding), f"{containers.root}/filters"
    )
    state = {**_state_of(container), "status": "creating"}
    plan = run_plan(
        config,
        cgroup=container.facts["cgroup"],
        unit=container.facts.get("unit", ""),
        rootfs=container.facts["rootfs"],
        hierarchies=_hierarchies(layout),
        code=code,
        state=state,
        bounding=bounding,
        ways=wish.ways,
    )
    namespace = _namespaces(config, stage)
    birth = Birth(
        stage,
        console=wish.console,
        keep_terminal=wish.keep_terminal,
        seccomp=linux.get("seccomp"),
        state=state,
    )
    with _listening(container) as listener:
        birth.fork(
            namespace,
            lambda: child.become_created(
                stage, plan, config, state, listener, preserved=wish.preserved
            ),
        )
    stage.close()
    try:
        birth.wait_ready(
            {
                "scope": lambda pid: make_scope(container, config, pid),
                "hooks": lambda pid: _runtime_hooks(config, state, pid),
            }
        )
        _write_down(container, birth.pid, wish.pid_file)
        birth.let_go()
    except BaseException:
        birth.kill()
        raise
    return birth


def _state_of(container: Container) -> dict[str, Any]:
    facts = container.facts
    kept = {key: facts[key] for key in ("id", "bundle", "rootfs", "annotations")}
    return {"ociVersion": VERSION, **kept}


def _hierarchies(layout: CgroupLayout) -> tuple[tuple[str, str, str], ...]:
    return tuple((str(h.version), h.mount, _option(h)) for h in layout.hierarchies)


def _option(hierarchy: Hierarchy) -> str:
    """The mount option that names a version 1 hierarchy."""
    if hierarchy.version == 2:
        return ""
    if hierarchy.name:
        return f"none,name={hierarchy.name}"
    return ",".join(sorted(hierarchy.controllers))


def _namespaces(config: dict[str, Any], stage: Stage) -> str | int:
    """What must be opened or made before the fork; the pid namespace to fork into."""
    spaces = namespaces_of(config)
    linux = config.get("linux") or {}
    flags = os.O_RDONLY | os.O_CLOEXEC
    if spaces.get("user"):
        stage.namespaces["user"] = os.open(spaces["user"], flags)
    elif "user" in spaces:
        stage.namespaces["user"] = make_user_namespace(*maps_of(linux))
    for number, mount in enumerate(config.get("mounts") or ()):
        name = mapping_of(number, mount, in_user_namespace="user" in spaces)
        if name and name not in stage.namespaces:
            stage.namespaces[name] = make_user_namespace(*maps_of(mount))
    if spaces.get("pid"):
        stage.namespaces["pid"] = os.open(spaces["pid"], flags)
        return stage.namespaces["pid"]
    # Of a user namespace it is made by the child itself.
    return "new" if "pid" in spaces and "user" not in spaces else ""


@contextlib.contextmanager
def _listening(container: Container) -> Any:
    """Where `start` will knock; bound by a short name, since such paths end at 107 bytes."""
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        os.chdir(container.directory)
        listener.bind(os.path.basename(container.waiting))
        listener.listen(1)
        os.fchdir(here)
        # The child gets no directory of the host: the image could name it by /proc/self/fd.
        os.close(here)
        yield listener
    finally:
        listener.close()


def _runtime_hooks(config: dict[str, Any], state: dict[str, Any], pid: int) -> None:
    hooks = config.get("hooks") or {}
    for kind in ("prestart", "createRuntime"):
        if not hooks.get(kind):
            continue
        from sagong_runtime_linux.oci.hooks import run_hooks

        run_hooks(hooks.get(kind) or [], kind, {**state, "pid": pid})


def _write_down(container: Container, pid: int, pid_file: str) -> None:
    container.facts["pid"] = pid
    container.facts["started"] = process.start_time(pid)
    container.write()
    write_pid_file(pid_file, pid)


def write_pid_file(path: str, pid: int) -> None:
    """Whole or not at all: who waits for it reads it as soon as it is there."""
    if not path:
        return
    new = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.new")
    try:
        with open(new, "w", encoding="ascii") as file:
            file.write(str(pid))
        os.rename(new, path)
    except OSError as error:
        raise StartError("failed_precondition", f"pid file: {reason(error)}") from None
