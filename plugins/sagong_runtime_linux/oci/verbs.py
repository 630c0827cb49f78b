"""Verbs about what is there already; each call is a process of its own, so little is imported."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import Any

from sagong.linux import process, syscalls
from sagong.shim.failure import StartError
from sagong_runtime_linux.oci import ending
from sagong_runtime_linux.oci.containers import CREATED, PAUSED, RUNNING, Container, Containers
from sagong_runtime_linux.oci.options import Options, UsageError

__all__ = [
    "delete",
    "features",
    "kill",
    "list_all",
    "pause",
    "resume",
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


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def start(containers: Containers, options: Options) -> int:
    """Execute the program."""
    ending.start(containers.find(options.name()))
    return 0


def state(containers: Containers, options: Options) -> int:
    """The specification's state as JSON."""
    _say(json.dumps(containers.find(options.name()).state(), indent=2) + "\n")
    return 0


def _signal_number(text: str) -> int:
    if text.isdigit():
        number = int(text)
        if 0 <= number < signal.NSIG:
            return number
    name, plus, offset = text.upper().removeprefix("SIG").partition("+")
    found = signal.Signals.__members__.get(f"SIG{name}")
    if found is not None and not plus:
        return int(found)
    # As systemd in a container is stopped: SIGRTMIN+3.
    if found == signal.SIGRTMIN and offset.isdigit() and found + int(offset) <= signal.SIGRTMAX:
        return found + int(offset)
    raise UsageError(f"signal {text!r} does not exist")


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def kill(containers: Containers, options: Options) -> int:
    """To the first process, or with --all to every one; a frozen container is thawed to die."""
    container = containers.find(options.name())
    number = _signal_number(options.words[1] if len(options.words) > 1 else "TERM")
    group = container.cgroup()
    # Without a cgroup the end of the first process is that of its pid namespace.
    if options.flag("all") and container.facts["cgroup"]:
        for pid in group.pids():
            _send(pid, number)
    else:
        pidfd = process.open_identified(container.identity)
        if pidfd is None or not container.alive():
            raise StartError("not_found", f"container {container.id} is not running")
        syscalls.pidfd_send_signal(pidfd, number)
        os.close(pidfd)
    if number == signal.SIGKILL and group.halted():
        group.thaw()
    return 0


def delete(containers: Containers, options: Options) -> int:
    """Forget a container; with --force one that runs or that nobody knows, too."""
    try:
        container = containers.find(options.name())
    except StartError as error:
        if not options.flag("force") or error.code != "not_found":
            raise
        left = containers.abandoned(options.name())
        if left is None:
            return 0
        container = left
    for warning in ending.delete(container, force=options.flag("force")):
        containers.log.warn(warning)
    return 0


def _owner(path: str) -> str:
    """Who made it, by his name if he has one."""
    import pwd  # Only lists tell it.

    uid = os.stat(path).st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def list_all(containers: Containers, options: Options) -> int:
    """All containers of the state directory."""
    found = [{**one.state(), "owner": _owner(one.directory)} for one in containers.all()]
    if options.flag("quiet"):
        _say("".join(f"{entry['id']}\n" for entry in found))
    elif options.text("format", "table") == "json":
        _say(json.dumps(found, separators=(",", ":")) + "\n")
    else:
        rows = [("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")]
        keys = ("id", "pid", "status", "bundle", "created", "owner")
        rows += [tuple(str(entry[key]) for key in keys) for entry in found]  # type: ignore[misc]
        widths = [max(len(row[n]) for row in rows) for n in range(len(keys))]
        for row in rows:
            line = "   ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
            _say(f"{line.rstrip()}\n")
    return 0


def _in_state(containers: Containers, options: Options, *wanted: str) -> Container:
    container = containers.find(options.name())
    status = container.status()
    if status not in wanted:
        text = f"container {container.id} is {status}, not {' or '.join(wanted)}"
        raise StartError("failed_precondition", text)
    return container


def _grouped(container: Container) -> Container:
    if not container.facts["cgroup"]:
        text = f"container {container.id} has no cgroup, as its creator may make none without "
        raise StartError("failed_precondition", f"{text}--systemd-cgroup")
    return container


def pause(containers: Containers, options: Options) -> int:
    """Freeze all processes."""
    _grouped(_in_state(containers, options, RUNNING, CREATED)).cgroup().freeze()
    return 0


def resume(containers: Containers, options: Options) -> int:
    """Thaw them."""
    _in_state(containers, options, PAUSED).cgroup().thaw()
    return 0


def update(containers: Containers, options: Options) -> int:
    """Change limits: those of a file, then those of options."""
    from sagong_runtime_linux.oci.cgroups import update_limits
    from sagong_runtime_linux.oci.configuration import check_supported, load_json

    container = _grouped(_in_state(containers, options, CREATED, RUNNING, PAUSED))
    resources: dict[str, Any] = (
        load_json(options.text("resources")) if options.text("resources") else {}
    )
    for option, group, key in _LIMITS:
        if options.text(option):
            read = options.size if group == "memory" else options.number
            resources[group] = {**(resources.get(group) or {}), key: read(option)}
    check_supported({"linux": {"resources": resources}})
    for option, key in (("cpuset-cpus", "cpus"), ("cpuset-mems", "mems")):
        if options.text(option):
            resources["cpu"] = {**(resources.get("cpu") or {}), key: options.text(option)}
    update_limits(container, resources)
    return 0


def features(containers: Containers, options: Options) -> int:
    """What this runtime knows, in the specification's form."""
    from sagong_runtime_linux.oci.features import known

    _say(json.dumps(known(), indent=2) + "\n")
    return 0
