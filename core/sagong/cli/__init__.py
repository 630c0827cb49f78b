"""The command line, `sagong VERB`: the table of verbs and how one of them is run."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

from sagong import __version__
from sagong.errors import InvalidArgument, NotFound, SagongError

__all__ = ["main", "parser", "utf8_mode", "verb_in"]

# verb → (module, summary); each module has arguments(parser) and run(options) -> exit status.
VERBS: dict[str, tuple[str, str]] = {
    "up": ("lifecycle", "start the platform and wait until it is ready"),
    "down": ("lifecycle", "stop the platform; with --all, containers too"),
    "status": ("inspection", "what runs, since when, with how much memory"),
    "plugins": ("inspection", "installed plugins, what they provide and what they may touch"),
    "new-plugin": ("scaffold", "make a plugin's repository: manifest, code, tests, README"),
    "plugin": ("plugin", "install, verify and remove plugins of others"),
    "swap": ("operation", "replace a plugin while everything runs"),
    "enable": ("operation", "add a unit while everything runs"),
    "disable": ("operation", "take a unit away while everything runs"),
    "restart": ("operation", "replace a unit's process, or start again what was given up"),
    "upgrade": ("upgrade", "take the installed code into use: kernel, units, companions"),
    "top": ("observation", "calls of every unit now: rates, errors, times"),
    "trace": ("observation", "what the system does for a command or a request, as a tree"),
    "metrics": ("observation", "figures of the bus and of each process, for Prometheus"),
    "logs": ("logs", "logs of units or slots (or of the kernel), -f to follow"),
    "load": ("access", "load images from an archive, as `docker load` does"),
    "kubeconfig": ("access", "print a kubeconfig with a new client certificate"),
    "registry": (
        "registry",
        "repositories and accounts of the registry; collect what nobody needs",
    ),
    "contracts": ("inspection", "the contracts of all slots, as a table or as JSON Schema"),
    "completion": ("completion", "what lets a shell complete verbs, options, units and plugins"),
    "check": (
        "inspection",
        "check configuration, manifests and this machine, and say how to mend them",
    ),
}


# All others speak to the kernel, which obeys root alone, or change what is root's.
_FOR_ANYBODY = frozenset({"plugins", "new-plugin", "contracts", "completion", "check"})


def parser(only: str | None = None) -> argparse.ArgumentParser:
    """The whole command line, as the reference documentation is generated from it.

    With `only` that verb alone has its arguments: no other verb's module is imported for them.
    """
    top = argparse.ArgumentParser(
        prog="sagong", description="A container platform as a microkernel."
    )
    top.add_argument("--version", action="version", version=f"sagong {__version__}")
    top.add_argument(
        "--root", default="/", help="directory below which an instance lives (default: /)"
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, (module, summary) in VERBS.items():
        sub = verbs.add_parser(verb, help=summary, description=summary)
        if only not in (None, verb):
            continue
        step = import_module(f"sagong.cli.{module}")
        getattr(step, f"{_word(verb)}_arguments")(sub)
        # Also behind the verb, where people write it.
        sub.add_argument("--root", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return top


def verb_in(words: Sequence[str]) -> str:
    """The first word that is no option and no option's value; "" without one."""
    rest = iter(words)
    for word in rest:
        # Also `--ro DIRECTORY`: argparse takes what is unambiguous.
        if len(word) > 2 and "--root".startswith(word):
            next(rest, None)
        elif not word.startswith("-"):
            return word
    return ""


def _word(verb: str) -> str:
    """A verb as a part of a Python name."""
    return verb.replace("-", "_")


def utf8_mode(encoding: str, environment: Mapping[str, str]) -> dict[str, str]:
    """What Python must be started with in a locale of this encoding; nothing if all is well.

    Files are UTF-8 whatever the terminal is (PEP 540); what it can't show is shown as `?`.
    """
    if encoding == "utf-8" or "PYTHONUTF8" in environment:
        return {}
    return {"PYTHONUTF8": "1", "PYTHONIOENCODING": f"{encoding}:replace"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; errors go to standard error in one line and give a status other than 0."""
    wanted = utf8_mode(sys.getfilesystemencoding(), os.environ) if arguments is None else {}
    if wanted:
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **wanted})
    words = sys.argv[1:] if arguments is None else arguments
    verb = verb_in(words)
    if verb and verb not in VERBS:
        print(f"sagong: no verb {verb}; {_verbs_like(verb)}", file=sys.stderr)
        return 2
    try:
        status = _run(verb, words)
        sys.stdout.flush()
        return status
    except (InvalidArgument, NotFound) as error:
        print(f"sagong {verb}: {error}", file=sys.stderr)
        return 2
    except SagongError as error:
        print(f"sagong {verb}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"sagong {verb}: {where}{error.strerror or error}", file=sys.stderr)
        return 1


def _run(verb: str, words: Sequence[str]) -> int:
    """Its exit status; all that it imports may be interrupted, too."""
    options = parser(verb).parse_args(words)
    if verb not in _FOR_ANYBODY and os.geteuid() != 0:
        print(f"sagong {verb} needs root; use sudo", file=sys.stderr)
        return 1
    module = import_module(f"sagong.cli.{VERBS[verb][0]}")
    run: Callable[[argparse.Namespace], int] = getattr(module, f"run_{_word(verb)}")
    return run(options)


def _verbs_like(word: str) -> str:
    """What was meant, or where all stand."""
    from difflib import get_close_matches

    meant = get_close_matches(word, VERBS, n=1)
    return f"did you mean {meant[0]}?" if meant else "`sagong --help` lists them"
