"""The command line `sagong-runtime`: global options, a table of verbs, errors to the log."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import NamedTuple

import sagong
from sagong.shim.failure import StartError, reason
from sagong_runtime_linux.oci.caller import run_directory
from sagong_runtime_linux.oci.containers import VERSION, Containers
from sagong_runtime_linux.oci.log import Log
from sagong_runtime_linux.oci.options import Options, UsageError, parse

__all__ = ["VERBS", "action", "run", "usage"]

_GLOBAL = {
    "root": True,
    "log": True,
    "log-format": True,
    "debug": False,
    "systemd-cgroup": False,
    "rootless": True,
    "criu": True,
    "version": False,
    "help": False,
}
_SHORT = {"v": "version", "h": "help"}
_CHECKPOINTS = "checkpoints need CRIU, which is not there"
_EXEC_FAILED = 255
_REFUSED = {"checkpoint": _CHECKPOINTS, "restore": _CHECKPOINTS}


class Verb(NamedTuple):
    """A verb: "MODULE.FUNCTION" that does it, words for the help, options and short names."""

    act: str
    usage: str
    options: dict[str, bool] = {}
    short: dict[str, str] = {}
    stop: bool = False


_PROCESS = {"console-socket": True, "pid-file": True, "preserve-fds": True}
_CREATE = {**_PROCESS, "bundle": True, "no-pivot": False, "no-new-keyring": False}
_EXEC = {
    **_PROCESS,
    "process": True,
    "detach": False,
    "tty": False,
    "cwd": True,
    "env": True,
    "user": True,
    "additional-gids": True,
    "cap": True,
    "no-new-privs": False,
    "ignore-paused": False,
    "process-label": True,
    "apparmor": True,
}
_UPDATE = {
    "resources": True,
    **dict.fromkeys(("memory", "memory-swap", "memory-reservation", "pids-limit"), True),
    **dict.fromkeys(("cpu-period", "cpu-quota", "cpu-share", "blkio-weight"), True),
    **dict.fromkeys(("cpuset-cpus", "cpuset-mems"), True),
}
_EXEC_SHORT = {
    "p": "process",
    "d": "detach",
    "t": "tty",
    "e": "env",
    "u": "user",
    "g": "additional-gids",
    "c": "cap",
}
VERBS = {
    "create": Verb("making.create", "CONTAINER", _CREATE, {"b": "bundle"}),
    "start": Verb("verbs.start", "CONTAINER"),
    "run": Verb(
        "making.run",
        "CONTAINER",
        {**_CREATE, "detach": False, "keep": False, "no-subreaper": False},
        {"b": "bundle", "d": "detach"},
    ),
    "exec": Verb("making.execute", "CONTAINER [COMMAND…]", _EXEC, _EXEC_SHORT, stop=True),
    "state": Verb("verbs.state", "CONTAINER"),
    "kill": Verb("verbs.kill", "CONTAINER [SIGNAL]", {"all": False}, {"a": "all"}),
    "delete": Verb("verbs.delete", "CONTAINER", {"force": False}, {"f": "force"}),
    "list": Verb(
        "verbs.list_all", "", {"format": True, "quiet": False}, {"f": "format", "q": "quiet"}
    ),
    "ps": Verb(
        "watching.processes",
        "CONTAINER [OPTIONS OF ps…]",
        {"format": True},
        {"f": "format"},
        stop=True,
    ),
    "events": Verb("watching.events", "CONTAINER", {"interval": True, "stats": False}),
    "pause": Verb("verbs.pause", "CONTAINER"),
    "resume": Verb("verbs.resume", "CONTAINER"),
    "update": Verb("verbs.update", "CONTAINER", _UPDATE, {"r": "resources"}),
    "features": Verb("verbs.features", ""),
    "spec": Verb(
        "specifying.write_specification",
        "",
        {"bundle": True, "rootless": False},
        {"b": "bundle"},
    ),
}


def run(words: list[str]) -> int:
    """Do it; the exit status."""
    log, options = Log(), Options({}, ())
    try:
        options = parse(words, _GLOBAL, _SHORT, stop=True)
        as_json = options.text("log-format", "text") == "json"
        debugging = options.flag("debug")
        log = Log(options.text("log"), as_json=as_json, debugging=debugging)
        return _dispatch(options, log)
    except UsageError as error:
        log.error(str(error))
    except StartError as error:
        log.error(error.message)
    except OSError as error:
        log.error(reason(error))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        # A configuration whose values have other types than the specification gives them.
        log.error(f"invalid configuration: {type(error).__name__}: {error}")
    # Of exec 1 is what many programs end with.
    return _EXEC_FAILED if options.words[:1] == ("exec",) else 1


def _dispatch(options: Options, log: Log) -> int:
    if options.flag("version"):
        sys.stdout.write(f"sagong-runtime version {sagong.__version__}\nspec: {VERSION}\n")
        return 0
    if options.flag("help") or not options.words:
        sys.stdout.write(usage())
        return 0
    name = options.words[0]
    verb = VERBS.get(name)
    if name in _REFUSED:
        raise StartError("unimplemented", f"{name} is not supported: {_REFUSED[name]}")
    if verb is None:
        raise UsageError(f"{name!r} is no command; there are: {', '.join(VERBS)}")
    given = parse(
        list(options.words[1:]), {**verb.options, "help": False}, {**verb.short, "h": "help"},
        stop=verb.stop,
    )  # fmt: skip
    if given.flag("help"):
        sys.stdout.write(_help(name, verb))
        return 0
    log.debug(f"sagong-runtime {sagong.__version__}: {' '.join(options.words)}")
    root = options.text("root") or f"{run_directory()}/sagong-runtime"
    return action(verb)(Containers(root, log, systemd=options.flag("systemd-cgroup")), given)


def action(verb: Verb) -> Callable[[Containers, Options], int]:
    """What does it; imported now, since each call is a process that needs one of them."""
    module, _, name = verb.act.partition(".")
    found = importlib.import_module(f"sagong_runtime_linux.oci.{module}")
    return getattr(found, name)  # type: ignore[no-any-return]


def usage() -> str:
    """What `--help` says."""
    lines = ["usage: sagong-runtime [OPTIONS] COMMAND …", "", "An OCI runtime. Commands:", ""]
    lines += [f"  {name:10}{verb.usage}" for name, verb in VERBS.items()]
    lines += ["", "Options:", ""]
    lines += [f"  --{name}{' VALUE' if takes else ''}" for name, takes in _GLOBAL.items()]
    return "\n".join([*lines, ""])


def _help(name: str, verb: Verb) -> str:
    lines = [f"usage: sagong-runtime {name} [OPTIONS] {verb.usage}", ""]
    lines += [f"  --{option}{' VALUE' if takes else ''}" for option, takes in verb.options.items()]
    return "\n".join([*lines, ""])
