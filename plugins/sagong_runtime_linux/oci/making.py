"""Verbs that make processes: create, run, exec."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

from sagong.shim import lean
from sagong_runtime_linux.oci import creation, ending
from sagong_runtime_linux.oci.caller import has_machine
from sagong_runtime_linux.oci.configuration import load_json
from sagong_runtime_linux.oci.containers import Container, Containers
from sagong_runtime_linux.oci.options import Options, UsageError
from sagong_runtime_linux.oci.planning import Ways

__all__ = ["create", "execute", "run"]


def _preserved(options: Options) -> int:
    """Descriptors after the standard ones that the program gets, with those of socket activation."""
    with contextlib.suppress(ValueError):
        return options.count("preserve-fds") + int(os.environ.get("LISTEN_FDS", "0"))
    return options.count("preserve-fds")


def _wish(options: Options, *, keep_terminal: bool) -> creation.Wish:
    return creation.Wish(
        name=options.name(),
        bundle=options.text("bundle", "."),
        console=options.text("console-socket"),
        pid_file=options.text("pid-file"),
        preserved=_preserved(options),
        keep_terminal=keep_terminal,
        ways=Ways(
            options.flag("no-pivot"),
            options.flag("no-new-keyring"),
            confined=not has_machine(),
        ),
    )


def create(containers: Containers, options: Options) -> int:
    """Everything but the program."""
    creation.create(containers, _wish(options, keep_terminal=False))
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
        ending.start(container)
        if detached:
            return 0
        code = _foreground(birth.pid, birth.master)
    except BaseException:
        _forget(containers, container)
        raise
    if not options.flag("keep"):
        _forget(containers, container)
    return code


def _forget(containers: Containers, container: Container) -> None:
    for warning in ending.delete(container, force=True):
        containers.log.warn(warning)


def _forward_signals(pid: int) -> None:
    """Before the program runs: whoever sees it run may signal it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
        signal.signal(number, lambda which, _: _forward(pid, which))


def _foreground(pid: int, master: int) -> int:
    """Until the process ends; its terminal is shown."""
    if master >= 0:
        from sagong_runtime_linux.oci.console import relay

        relay(master)
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
    from sagong_runtime_linux.oci import execution

    container = containers.find(options.name())
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


def _user(text: str) -> dict[str, int]:
    """Of `UID[:GID]`; names are in the image, which the caller reads."""
    uid, _, gid = text.partition(":")
    try:
        return {"uid": int(uid), "gid": int(gid or 0)}
    except ValueError:
        raise UsageError(f"option --user needs UID[:GID] as numbers, not {text!r}") from None


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
        found["user"] = _user(options.text("user"))
    if options.values.get("additional-gids"):
        gids = options.numbers("additional-gids")
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
