"""Instructions that change nothing but the config: each says what it did in Docker's words. Pure."""

from __future__ import annotations

import posixpath
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sagong.errors import InvalidArgument
from sagong.model.numbers import natural
from sagong_builder.arguments import Scope
from sagong_builder.dockerfile import Expander, Instruction
from sagong_builder.draft import Draft, quoted

__all__ = ["CHANGES", "command_words", "ports_of", "with_line", "working_directory"]

Change = Callable[[Draft, Instruction, Expander, Scope], str]
_DURATION = re.compile(r"(-?\d+(?:\.\d*)?|\.\d+)(h|ms|m|s|us|µs|ns)")
_NANOSECONDS = {"h": 3600e9, "m": 60e9, "s": 1e9, "ms": 1e6, "us": 1e3, "µs": 1e3, "ns": 1.0}
_REALTIME = re.compile(r"SIGRTM(IN(\+\d{1,2})?|AX(-\d{1,2})?)")
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?\Z", re.IGNORECASE)


def command_words(draft: Draft, instruction: Instruction) -> list[str]:
    """A command as it is executed: lines are given to the shell, RUN's also if it is empty."""
    if instruction.keyword == "RUN" and instruction.shell and not instruction.words:
        return [*draft.shell, ""]
    return [*(draft.shell if instruction.shell else ()), *instruction.words]


def with_line(instruction: Instruction) -> Instruction:
    """CMD and ENTRYPOINT without a word give the shell an empty line."""
    silent = instruction.keyword in ("CMD", "ENTRYPOINT") and not instruction.words
    return replace(instruction, words=("",)) if silent and instruction.shell else instruction


def _cmd(draft: Draft, instruction: Instruction, expander: Expander, scope: Scope) -> str:
    words = command_words(draft, instruction)
    draft.config["Cmd"] = words
    draft.cmd_set = bool(instruction.words)
    return f"CMD {quoted(words)}"


def _entrypoint(draft: Draft, instruction: Instruction, expander: Expander, scope: Scope) -> str:
    words = command_words(draft, instruction) if instruction.words else []
    draft.config["Entrypoint"] = words
    if not draft.cmd_set:
        draft.config["Cmd"] = None
    return f"ENTRYPOINT {quoted(words)}"


def _env(draft: Draft, instruction: Instruction, expander: Expander, scope: Scope) -> str:
    # All values are expanded by what stood before the instruction.
    pairs = [(expander.word(name), expander.word(value or "")) for name, value in instruction.pairs]
    for name, value in pairs:
        if not name:
            raise InvalidArgument("ENV names can not be blank")
        draft.set_environment(name, value)
        scope.set_environment(name)
    return "ENV " + " ".join(f"{name}={value}" for name, value in pairs)


def _label(draft: Draft, instruction: Instruction, expander: Expander, scope: Scope) -> str:
    pairs = [(expander.word(name), expander.word(value or "")) for name, value in instruction.pairs]
    if not all(name for name, _ in pairs):
        raise InvalidArgument("LABEL names can not be blank")
    draft.config["Labels"] = {**(draft.config.get("Labels") or {}), **dict(pairs)}
    return "LABEL " + " ".join(f"{name}={value}" for name, value in pairs)


def _maintainer(draft: Draft, instruction: Instruction, expander: Expander, scope: Scope) -> str:
    draft.author = instruction.words[0]
    return f"MAINTAINER {draft.author}"


def _expose(draft: Draft, instruction: Instruction, expander: Expander, scope: Scope) -> str:
    words = sorted(word for text in instruction.words for word in expander.words(text))
    ports: dict[str, Any] = dict(draft.config.get("ExposedPorts") or {})
    for word in words:
        ports.update((port, {}) for port in ports_of(word))
    draft.config["ExposedPorts"] = dict(sorted(ports.items()))
    return "EXPOSE " + " ".join(words)


def ports_of(word: str) -> list[str]:
    """The ports of one word of EXPOSE, each with its protocol."""
    # Docker takes what `-p` takes, and uses the container's part.
    protocol = word.rpartition(":")[2].partition("/")[2]
    if protocol.lower() not in ("", "tcp", "udp", "sctp"):
        raise InvalidArgument(f"invalid proto: {protocol[:100]}")
    found = _PORT.match(word.rpartition(":")[2])
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if found is None or first > last or last > 65535:
        raise InvalidArgument(f"invalid containerPort: {word[:100]}")
    return [f"{port}/{(found[3] or 'tcp').lower()}" for port in range(first, last + 1)]


def _volume(draft: Draft, instruction: Instruction, expander: Expander, scope: Scope) -> str:
    paths = [expander.word(word) for word in instruction.words]
    if not all(path.strip() for path in paths):
        raise InvalidArgument("VOLUME specified can not be an empty string")
    volumes = {**(draft.config.get("Volumes") or {}), **{path: {} for path in paths}}
    draft.config["Volumes"] = dict(sorted(volumes.items()))
    return f"VOLUME [{' '.join(paths)}]"


def _user(draft: Draft, instruction: Instruction, expander: Expander, scope: Scope) -> str:
    draft.config["User"] = expander.word(instruction.words[0])
    return f"USER {draft.config['User']}"


def working_directory(draft: Draft, instruction: Instruction, expander: Expander) -> str:
    """WORKDIR: the new directory, absolute."""
    path = expander.word(instruction.words[0])
    if not path:
        raise InvalidArgument("cannot normalize nothing")
    joined = posixpath.join("/", draft.config.get("WorkingDir") or "/", path)
    return "/" + posixpath.normpath(joined).lstrip("/")


def _arg(draft: Draft, instruction: Instruction, expander: Expander, scope: Scope) -> str:
    shown = []
    for name, default in instruction.pairs:
        # Later ones of one line see the earlier.
        word = expander.by(scope.visible(draft.environment)).word
        try:
            value = None if default is None else word(default)
        except InvalidArgument:
            if name not in scope.arguments.given:
                raise
            value = default  # nobody needs it
        scope.declare(name, value)
        shown.append(name if value is None else f"{name}={value}")
    return "ARG " + " ".join(shown)


def _onbuild(draft: Draft, instruction: Instruction, expander: Expander, scope: Scope) -> str:
    draft.config["OnBuild"] = [*(draft.config.get("OnBuild") or ()), instruction.words[0]]
    return f"ONBUILD {instruction.words[0]}"


def _stopsignal(draft: Draft, instruction: Instruction, expander: Expander, scope: Scope) -> str:
    name = expander.word(instruction.words[0])
    known = {s.name for s in signal.Signals}
    number = natural(name)
    if number is not None:
        # Docker takes any number here; whether it is a signal shows when it is sent.
        valid = number > 0
    else:
        wanted = "SIG" + name.upper().removeprefix("SIG")
        valid = wanted in known or _REALTIME.fullmatch(wanted) is not None
    if not valid:
        raise InvalidArgument(f"invalid signal: {name[:100]}")
    draft.config["StopSignal"] = name
    return f"STOPSIGNAL {name}"


def _shell(draft: Draft, instruction: Instruction, expander: Expander, scope: Scope) -> str:
    draft.config["Shell"] = list(instruction.words)
    return f"SHELL [{' '.join(instruction.words)}]"


def _nanoseconds(flag: str, text: str) -> int:
    """A duration as Go writes it."""
    at, total = 0, 0.0
    while at < len(text):
        found = _DURATION.match(text, at)
        if found is None:
            break
        total += float(found[1]) * _NANOSECONDS[found[2]]
        at = found.end()
    if not text or at != len(text) or total > 2**62:
        raise InvalidArgument(f'time: invalid duration "{text[:100]}" of --{flag}')
    if total and total < 1e6:
        raise InvalidArgument(f'Interval "{text}" cannot be less than 1ms')
    return int(total)


_HEALTH_FLAGS = (
    ("interval", "Interval"),
    ("timeout", "Timeout"),
    ("start-period", "StartPeriod"),
    ("start-interval", "StartInterval"),
)


def _healthcheck(draft: Draft, instruction: Instruction, expander: Expander, scope: Scope) -> str:
    check: dict[str, Any] = {"Test": list(instruction.words)}
    if instruction.words != ("NONE",):
        for flag, key in _HEALTH_FLAGS:
            if text := instruction.flag(flag):
                check[key] = _nanoseconds(flag, text)
        if text := instruction.flag("retries"):
            retries = natural(text)
            if retries is None or retries >= 1 << 31:
                raise InvalidArgument(f"--retries cannot be negative ({text[:20]})")
            check["Retries"] = retries
    draft.config["Healthcheck"] = {k: v for k, v in check.items() if v}
    return f"HEALTHCHECK {_health_text(check)}"


def _health_text(check: dict[str, Any]) -> str:
    """Go's `%q` of the struct, as Docker's history has it."""
    times = [_duration_text(check.get(key, 0)) for _, key in _HEALTH_FLAGS]
    shown = " ".join(f'"{text}"' for text in times)
    return f"&{{{quoted(check['Test'])} {shown} {_rune(check.get('Retries', 0))}}}"


def _rune(number: int) -> str:
    if 32 <= number < 127:
        return repr(chr(number))
    named = {7: "a", 8: "b", 9: "t", 10: "n", 11: "v", 12: "f", 13: "r"}
    return f"'\\{named[number]}'" if number in named else f"'\\x{number:02x}'"


def _duration_text(nanoseconds: int) -> str:
    if not nanoseconds:
        return "0s"
    if nanoseconds < 10**9:
        return f"{nanoseconds / 1e6:g}ms"
    minutes, rest = divmod(nanoseconds, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1e9:g}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


CHANGES: dict[str, Change] = {
    "ARG": _arg,
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
}
