"""`sagong completion`: a script for bash (and zsh) made of the command line's own tables."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from sagong import manifest
from sagong.config import Paths

__all__ = ["completion_arguments", "run_completion"]

_UNITS = frozenset({"unit", "units", "part"})
_HEAD = """\
# bash: source <(sagong completion)
# zsh:  autoload -U bashcompinit && bashcompinit && source <(sagong completion)
_sagong() {
    local here=${COMP_WORDS[COMP_CWORD]} verb= words= n
    for ((n = 1; n < COMP_CWORD; n++)); do
        case ${COMP_WORDS[n]} in
            --root) n=$((n + 1)) ;;
            -*) ;;
            *) verb=${COMP_WORDS[n]}; break ;;
        esac
    done
    case $verb in
"""
_TAIL = """\
    esac
    COMPREPLY=($(compgen -W "$words" -- "$here"))
}
complete -o default -F _sagong sagong
"""


def completion_arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def run_completion(options: argparse.Namespace) -> int:
    """Print the script."""
    from sagong.cli import parser

    print(_HEAD, *_cases(parser(), Paths.below(options.root)), _TAIL, sep="", end="")
    return 0


def _cases(top: argparse.ArgumentParser, paths: Paths) -> Iterator[str]:
    verbs = _below(top)
    yield _case('""', [*verbs, "--root", "--help"])
    for verb, sub in verbs.items():
        parsers = (sub, *_below(sub).values())
        options = (word for p in parsers for action in p._actions for word in action.option_strings)
        words = [*_below(sub), *dict.fromkeys(options)]
        names = {action.dest for action in sub._actions}
        if names & _UNITS:
            words.append(f"$(ls {paths.run}/slots 2>/dev/null)")
        if names & {"plugin", "name"} and verb != "new-plugin":
            words += [*manifest.discover(), f"$(ls {paths.data}/shelf 2>/dev/null)"]
        if verb == "logs":
            words.append("all kernel")
        yield _case(verb, words)


def _below(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """A parser's verbs."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _case(verb: str, words: list[str]) -> str:
    return f'        {verb}) words="{" ".join(words)}" ;;\n'
