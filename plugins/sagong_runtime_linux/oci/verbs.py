"""What each verb does: from options to the parts that do it, and what is printed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import Any

from sagong.linux import process, syscalls
from sagong.shim import lean
from sagong.shim.cgroups import resolved_limits
from sagong.shim.failure import StartError
from sagong_runtime_linux.oci import console, creation, execution
from sagong_runtime_linux.oci.configuration import load_json
from sagong_runtime_linux.oci.containers import (
    CREATED,
    PAUSED,
    RUNNING,
    Container,
    Containers,
)
from sagong_runtime_linux.oci.options import Options, UsageError
from sagong_runtime_linux.oci.resources import limits_from

__all__ = [
    "create",
    "delete",
    "execute",
    "features",
    "kill",
    "list_all",
    "pause",
    "processes",
    "resume",
    "run",
    "start",
    "state",
    "update",
]

_LIMITS = (
    ("memory", "memory", "limit"),
    ("memory-swap", "memory", "swap"),
    ("memory-reservation", "memory", "reservation"),
    ("cpu-period", "cpu", "period"),
    ("cpu-quota", "cpu", "quota"),
    ("cpu-share", "cpu", "shares"),
    ("pids-limit", "pids", "limit"),
    ("blkio-weight", "blockIO", "weight"),
)


def _name(options: Options) -> str:
    if not options.words:
        raise UsageError("the container's id is missing")
    return options.words[0]


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _warn(warnings: list[str]) -> None:
    for text in warnings:
        sys.stderr.write(f"warning: {text}\n")


def _preserved(options: Options) -> int:
    """Descriptors after the standard ones that the program gets, with those of socket activation."""
    with contextlib.suppress(ValueError):
        return options.number("preserve-fds") + int(os.environ.get("LISTEN_FDS", "0"))
    return options.number("preserve-fds")


def _wish(options: Options, *, keep_terminal: bool) -> creation.Wish:
    return creation.Wish(
        name=_name(options),
        bundle=options.text("bundle", "."),
        console=options.text("console-socket"),
        pid_file=options.text("pid-file"),
        preserved=_preserved(options),
        keep_terminal=keep_terminal,
    )


def create(containers: Containers, options: Options) -> int:
    """Everything but the program."""
    creation.create(containers, _wish(options, keep_terminal=False))
    return 0


def start(containers: Containers, options: Options) -> int:
    """Execute the program."""
    _warn(creation.start(containers.find(_name(options))))
    return 0


def run(containers: Containers, options: Options) -> int:
    """create and start; in the foreground also wait and delete, with the program's exit status."""
    detached = options.flag("detach")
    own_terminal = not detached and not options.text("console-socket")
    lean.become_subreaper()
    container, birth = creation.create(containers, _wish(options, keep_terminal=own_terminal))
    try:
        if not detached:
            _forward_signals(birth.pid)
        _warn(creation.start(container))
        if detached:
            return 0
        code = _foreground(birth.pid, birth.master)
    except StartError:
        creation.delete(container, force=True)
        raise
    if not options.flag("keep"):
        _warn(creation.delete(container, force=True))
    return code


def _forward_signals(pid: int) -> None:
    """Before the program runs: whoever sees it run may signal it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
        signal.signal(number, lambda which, _: _forward(pid, which))


def _foreground(pid: int, master: int) -> int:
    """Until the process ends; its terminal is shown."""
    if master >= 0:
        console.relay(master)
    while True:
        found, status = os.waitpid(-1, 0)
        if found == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _forward(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def execute(containers: Containers, options: Options) -> int:
    """A further process."""
    container = containers.find(_name(options))
    detached = options.flag("detach")
    wish = execution.ExecWish(
        process=_process(container, options),
        console=options.text("console-socket"),
        pid_file=options.text("pid-file"),
        preserved=_preserved(options),
        keep_terminal=not detached and not options.text("console-socket"),
        ignore_paused=options.flag("ignore-paused"),
    )
    birth = execution.execute(containers, container, wish)
    if detached:
        return 0
    _forward_signals(birth.pid)
    return _foreground(birth.pid, birth.master)


def _process(container: Container, options: Options) -> dict[str, Any]:
    """From a file, or the container's own process with another command and what options change."""
    if options.text("process"):
        return load_json(options.text("process"))
    if len(options.words) < 2:
        raise UsageError("exec needs a command or --process FILE")
    found = dict(container.config()["process"])
    found["args"] = list(options.words[1:])
    found["terminal"] = options.flag("tty")
    found["env"] = [*(found.get("env") or ()), *options.values.get("env", [])]
    found["cwd"] = options.text("cwd", found.get("cwd") or "/")
    if options.text("user"):
        uid, _, gid = options.text("user").partition(":")
        found["user"] = {"uid": int(uid), "gid": int(gid or 0)}
    if options.values.get("additional-gids"):
        gids = [int(gid) for gid in options.values["additional-gids"]]
        found["user"] = {**(found.get("user") or {}), "additionalGids": gids}
    if options.values.get("cap"):
        sets = found.get("capabilities") or {}
        names = ("bounding", "effective", "permitted")
        more = {name: [*(sets.get(name) or ()), *options.values["cap"]] for name in names}
        found["capabilities"] = {**sets, **more}
    for option, key in (("apparmor", "apparmorProfile"), ("process-label", "selinuxLabel")):
        if options.text(option):
            found[key] = options.text(option)
    if options.flag("no-new-privs"):
        found["noNewPrivileges"] = True
    return found


def state(containers: Containers, options: Options) -> int:
    """The specification's state as JSON."""
    _say(json.dumps(containers.find(_name(options)).state(), indent=2) + "\n")
    return 0


def _signal_number(text: str) -> int:
    if text.isdigit():
        number = int(text)
        if 0 < number < signal.NSIG:
            return number
    name = text.upper().removeprefix("SIG")
    known = {f"SIG{name}"} & set(signal.Signals.__members__)
    if known:
        return int(signal.Signals[f"SIG{name}"])
    raise UsageError(f"signal {text!r} does not exist")


def kill(containers: Containers, options: Options) -> int:
    """To the first process, or with --all to every one; a frozen container is thawed to die."""
    container = containers.find(_name(options))
    number = _signal_number(options.words[1] if len(options.words) > 1 else "TERM")
    group = container.cgroup()
    if options.flag("all"):
        for pid in group.pids():
            _forward(pid, number)
    else:
        pidfd = process.open_identified(container.identity)
        if pidfd is None or not container.alive():
            raise StartError("not_found", f"container {container.id} is not running")
        syscalls.pidfd_send_signal(pidfd, number)
        os.close(pidfd)
    if number == signal.SIGKILL and group.frozen():
        group.thaw()
    return 0


def delete(containers: Containers, options: Options) -> int:
    """Forget a container; with --force one that runs or that nobody knows, too."""
    try:
        container = containers.find(_name(options))
    except StartError as error:
        if options.flag("force") and error.code == "not_found":
            return 0
        raise
    _warn(creation.delete(container, force=options.flag("force")))
    return 0


def list_all(containers: Containers, options: Options) -> int:
    """All containers of the state directory."""
    found = [container.state() for container in containers.all()]
    if options.flag("quiet"):
        _say("".join(f"{entry['id']}\n" for entry in found))
    elif options.text("format", "table") == "json":
        _say(json.dumps(found) + "\n")
    else:
        rows = [("ID", "PID", "STATUS", "BUNDLE", "CREATED")]
        keys = ("id", "pid", "status", "bundle", "created")
        rows += [tuple(str(entry[key]) for key in keys) for entry in found]  # type: ignore[misc]
        widths = [max(len(row[n]) for row in rows) for n in range(len(keys))]
        for row in rows:
            line = "   ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
            _say(f"{line.rstrip()}\n")
    return 0


def processes(containers: Containers, options: Options) -> int:
    """Pids as the host sees them."""
    container = containers.find(_name(options))
    pids = list(container.cgroup().pids())
    if options.text("format", "table") == "json":
        _say(json.dumps(pids) + "\n")
    else:
        _say("".join(f"{line}\n" for line in ("PID", *pids)))
    return 0


def _in_state(containers: Containers, options: Options, *wanted: str) -> Container:
    container = containers.find(_name(options))
    status = container.status()
    if status not in wanted:
        text = f"container {container.id} is {status}, not {' or '.join(wanted)}"
        raise StartError("failed_precondition", text)
    return container


def pause(containers: Containers, options: Options) -> int:
    """Freeze all processes."""
    _in_state(containers, options, RUNNING, CREATED).cgroup().freeze()
    return 0


def resume(containers: Containers, options: Options) -> int:
    """Thaw them."""
    _in_state(containers, options, PAUSED).cgroup().thaw()
    return 0


def update(containers: Containers, options: Options) -> int:
    """Change limits: those of a file, then those of options."""
    container = _in_state(containers, options, CREATED, RUNNING, PAUSED)
    resources = load_json(options.text("resources")) if options.text("resources") else {}
    for option, group, key in _LIMITS:
        if options.text(option):
            resources[group] = {**(resources.get(group) or {}), key: options.number(option)}
    for option, key in (("cpuset-cpus", "cpus"), ("cpuset-mems", "mems")):
        if options.text(option):
            resources["cpu"] = {**(resources.get("cpu") or {}), key: options.text(option)}
    try:
        container.cgroup().limit(resolved_limits(limits_from(resources, None)))
    except ValueError as error:
        raise StartError("failed_precondition", str(error)) from None
    return 0


def features(containers: Containers, options: Options) -> int:
    """What this runtime knows, in the specification's form."""
    from sagong_runtime_linux.oci.features import known

    _say(json.dumps(known(), indent=2) + "\n")
    return 0
