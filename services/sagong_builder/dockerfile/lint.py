"""What is better written otherwise in a Dockerfile, by the names that Docker gives to its checks. Pure.

Source: the page "Build checks" of docs.docker.com.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sagong_builder.dockerfile.instructions import Instruction
from sagong_builder.dockerfile.stages import Dockerfile

__all__ = ["Finding", "findings"]

_RESERVED = ("context", "scratch")
_SECRET = re.compile(
    r"(?:^|[_-])(apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:$|[_-])", re.I
)
_PUBLIC = re.compile(r"(?:^|[_-])public(?:$|[_-])", re.I)
_VARIABLE = re.compile(r"(?<!\\)\$\{?([A-Za-z_]\w*)")
_GIVEN = re.compile(r"(?:(?:BUILD|TARGET)(?:PLATFORM|OS|ARCH|VARIANT|STAGE)|BUILDKIT_\w+)\Z")
_PATHS = ("PATH", "HOME", "HOSTNAME", "TERM")


@dataclass(frozen=True)
class Finding:
    """One: the check's name, what it is about, and where."""

    check: str
    detail: str
    line: int
    last: int


Found = Iterator[tuple[str, str, Instruction]]


def findings(dockerfile: Dockerfile) -> list[Finding]:
    """All, by lines; without those that the Dockerfile's directive `check` skips."""
    made = [
        Finding(check, detail, instruction.line, instruction.last)
        for look in _CHECKS
        for check, detail, instruction in look(dockerfile)
        if check not in dockerfile.skipped and "all" not in dockerfile.skipped
    ]
    return sorted(made, key=lambda finding: (finding.line, finding.check))


def _all(dockerfile: Dockerfile) -> Iterator[Instruction]:
    yield from dockerfile.arguments
    for stage in dockerfile.stages:
        yield stage.origin
        yield from stage.instructions


def _first(instruction: Instruction) -> str:
    return instruction.text.split(None, 1)[0]


def _casing(dockerfile: Dockerfile) -> Found:
    words = [(_first(i), i) for i in _all(dockerfile)]
    upper = sum(word.isupper() for word, _ in words)
    wanted = "uppercase" if upper * 2 >= len(words) else "lowercase"
    for word, instruction in words:
        if not (word.isupper() if wanted == "uppercase" else word.islower()):
            text = f"Command '{word}' should match the case of the command majority ({wanted})"
            yield "ConsistentInstructionCasing", text, instruction


def _stages(dockerfile: Dockerfile) -> Found:
    seen: set[str] = set()
    for stage in dockerfile.stages:
        written = stage.origin.text.split()
        name = written[-1] if stage.name else ""
        if not name:
            continue
        if name != name.lower():
            yield "StageNameCasing", f"Stage name '{name}' should be lowercase", stage.origin
        if written[0].isupper() != written[-2].isupper():
            text = f"'{written[-2]}' and '{written[0]}' keywords' casing do not match"
            yield "FromAsCasing", text, stage.origin
        if stage.name in seen:
            text = f'Duplicate stage name "{name}", stage names should be unique'
            yield "DuplicateStageName", text, stage.origin
        if stage.name in _RESERVED:
            text = f'Stage name should not use the same name as reserved stage "{stage.name}"'
            yield "ReservedStageName", text, stage.origin
        seen.add(stage.name)


def _platforms(dockerfile: Dockerfile) -> Found:
    for stage in dockerfile.stages:
        platform = stage.origin.flag("platform")
        if platform in ("$TARGETPLATFORM", "${TARGETPLATFORM}"):
            text = f"Setting platform to predefined {platform} in FROM is redundant as this is the "
            yield "RedundantTargetPlatform", f"{text}default behavior", stage.origin
        elif platform and "$" not in platform:
            text = f'FROM --platform flag should not use constant value "{platform}"'
            yield "FromPlatformFlagConstDisallowed", text, stage.origin


def _commands(dockerfile: Dockerfile) -> Found:
    for stage in dockerfile.stages:
        counts = Counter(i.keyword for i in stage.instructions)
        shells = counts["SHELL"]
        for instruction in stage.instructions:
            keyword = instruction.keyword
            if keyword in ("CMD", "ENTRYPOINT") and instruction.shell and not shells:
                text = f"JSON arguments recommended for {keyword} to prevent unintended behavior "
                yield "JSONArgsRecommended", f"{text}related to OS signals", instruction
            if keyword in ("CMD", "ENTRYPOINT", "HEALTHCHECK") and counts[keyword] > 1:
                counts[keyword] -= 1
                text = (
                    f"Multiple {keyword} instructions should not be used in the same stage because "
                )
                text += "only the last one will be used"
                yield "MultipleInstructionsDisallowed", text, instruction


def _words(dockerfile: Dockerfile) -> Found:
    for instruction in _all(dockerfile):
        keyword = instruction.keyword
        if keyword == "MAINTAINER":
            text = "Maintainer instruction is deprecated in favor of using label"
            yield "MaintainerDeprecated", text, instruction
        if keyword in ("ENV", "LABEL") and "=" not in instruction.text.split()[1]:
            text = f'"{keyword} key=value" should be used instead of legacy "{keyword} key value" '
            yield "LegacyKeyValueFormat", f"{text}format", instruction
        if keyword in ("ARG", "ENV"):
            for name, _ in instruction.pairs:
                if _SECRET.search(name) and not _PUBLIC.search(name):
                    text = "Do not use ARG or ENV instructions for sensitive data "
                    yield "SecretsUsedInArgOrEnv", f'{text}({keyword} "{name}")', instruction
        for word in instruction.words if keyword == "EXPOSE" else ():
            port, _, protocol = word.partition("/")
            if protocol != protocol.lower():
                text = f"Defined protocol '{word}' in EXPOSE instruction should be lowercase"
                yield "ExposeProtoCasing", text, instruction
            if ":" in port:
                text = "EXPOSE instruction should not define an IP address or host-port mapping, found "
                yield "ExposeInvalidFormat", f"{text}'{word}'", instruction


def _directories(dockerfile: Dockerfile) -> Found:
    absolute: dict[str, bool] = {}
    for stage in dockerfile.stages:
        known = absolute.get(stage.base.lower(), False)
        for instruction in stage.instructions:
            if instruction.keyword != "WORKDIR":
                continue
            path = instruction.words[0].strip("\"'")
            if not known and not path.startswith(("/", "$")):
                text = f'Relative workdir "{path}" can have unexpected results if the base image '
                yield "WorkdirRelativePath", f"{text}changes", instruction
            known = True
        if stage.name:
            absolute[stage.name] = known


def _variables(dockerfile: Dockerfile) -> Found:
    """Of stages that begin from an image what is known is less: its environment is not asked for."""
    globals_ = {name for i in dockerfile.arguments for name, _ in i.pairs}
    for stage in dockerfile.stages:
        for name in _VARIABLE.findall(f"{stage.base} {stage.origin.flag('platform')}"):
            if name not in globals_ and not _GIVEN.match(name):
                text = f"FROM argument '{name}' is not declared"
                yield "UndefinedArgInFrom", text, stage.origin
        if stage.base == "scratch":
            yield from _undefined(stage.instructions)


_EXPANDED = frozenset(("ADD", "COPY", "ENV", "EXPOSE", "LABEL", "STOPSIGNAL", "USER", "VOLUME",
                       "WORKDIR"))  # fmt: skip


def _undefined(instructions: tuple[Instruction, ...]) -> Found:
    known = set(_PATHS)
    for instruction in instructions:
        if instruction.keyword in _EXPANDED:
            texts = [*instruction.words, *(value or "" for _, value in instruction.pairs)]
            for name in _VARIABLE.findall(" ".join(texts)):
                if name not in known and not _GIVEN.match(name):
                    yield "UndefinedVar", f"Usage of undefined variable '${name}'", instruction
        if instruction.keyword in ("ARG", "ENV"):
            known |= {name for name, _ in instruction.pairs}


_CHECKS: tuple[Callable[[Dockerfile], Found], ...] = (
    _casing, _stages, _platforms, _commands, _words, _directories, _variables,
)  # fmt: skip
