"""What is better written otherwise in a Dockerfile, by the names that Docker gives to its checks. Pure.

Source: the page "Build checks" of docs.docker.com.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from sagong.errors import InvalidArgument
from sagong.model import references
from sagong_builder.dockerfile.expansion import Expander
from sagong_builder.dockerfile.hints import hint
from sagong_builder.dockerfile.instructions import Instruction
from sagong_builder.dockerfile.rules import RULES, CheckOptions, url_of
from sagong_builder.dockerfile.stages import Dockerfile, Stage

__all__ = ["Base", "Finding", "Known", "failure_of", "findings"]

_RESERVED = ("context", "scratch")
_SECRET = re.compile(
    r"(?:^|_)(apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:$|_)", re.I
)
_PUBLIC = re.compile(r"(?:^|_)(?:public|file|version)(?:$|_)", re.I)
_VARIABLE = re.compile(r"(?<!\\)\$\{?([A-Za-z_]\w*)")
_GIVEN = re.compile(r"(?:(?:BUILD|TARGET)(?:PLATFORM|OS|ARCH|VARIANT|STAGE)|BUILDKIT_\w+)\Z")
# Found where a Dockerfile is read, whatever is built of it.
_READ = frozenset(
    (
        "ConsistentInstructionCasing",
        "DuplicateStageName",
        "FromAsCasing",
        "InvalidDefaultArgInFrom",
        "InvalidDefinitionDescription",
        "MaintainerDeprecated",
        "ReservedStageName",
        "StageNameCasing",
        "UndefinedArgInFrom",
    )
)
_SPARING = re.compile(r"\s*check=skip=([\w, ]+)")
_PATHS = ("PATH", "HOME", "HOSTNAME", "TERM")


@dataclass(frozen=True)
class Finding:
    """One: the check's name, what it is about, and where."""

    check: str
    detail: str
    line: int
    last: int

    @property
    def description(self) -> str:
        """What the check is about."""
        return RULES[self.check]

    @property
    def url(self) -> str:
        """The page about it."""
        return url_of(self.check)

    @property
    def short(self) -> str:
        """In one line."""
        return f"{self.check}: {self.detail} (line {self.line})"


@dataclass(frozen=True)
class Base:
    """What is known of an image that a stage begins from: the names of its variables, its platform, and
    the one that the stage is for ("": not known)."""

    variables: tuple[str, ...] = ()
    platform: str = ""
    wanted: str = ""


@dataclass(frozen=True)
class Known:
    """What is known besides the Dockerfile: images that stages begin from, by the stages' numbers, and
    whether a path of the context is left out of it (None where that can't be told of paths alone)."""

    bases: Mapping[int, Base] = field(default_factory=dict)
    ignored: Callable[[str], bool] | None = None


Found = Iterator[tuple[str, str, Instruction]]


def findings(
    dockerfile: Dockerfile,
    options: CheckOptions | None = None,
    needed: Iterable[Stage] | None = None,
    known: Known | None = None,
) -> list[Finding]:
    """All, by lines, that the options want, else the Dockerfile's directive `check`.

    Of stages that are not `needed` only what is told by their reading.
    """
    options = options or CheckOptions.read(dockerfile.check)
    stages = dockerfile.stages if needed is None else needed
    lines = {i.line for stage in stages for i in (stage.origin, *stage.instructions)}
    lines |= {instruction.line for instruction in dockerfile.arguments}
    found = [one for look in _CHECKS for one in look(dockerfile)]
    found += [one for look in _KNOWING for one in look(dockerfile, known or Known())]
    made = [
        Finding(check, detail, instruction.line, instruction.last)
        for check, detail, instruction in found
        if options.wants(check)
        and (instruction.line in lines or check in _READ)
        and not {check, "all"} & _spared(instruction)
    ]
    if options.wants("NoEmptyContinuation"):
        made += [
            Finding("NoEmptyContinuation", "Empty continuation line", line, line)
            for line in dockerfile.gaps
        ]
    return sorted(made, key=lambda finding: (finding.line, finding.check))


def failure_of(found: list[Finding]) -> InvalidArgument:
    """Findings that end the build."""
    names = ", ".join(sorted({finding.check for finding in found}))
    first = found[0]
    return InvalidArgument(
        f"lint violation found for rules: {names}", detail={"lines": f"{first.line}-{first.last}"}
    )


def _spared(instruction: Instruction) -> set[str]:
    """Checks that a comment before it leaves out: `# check=skip=NAME,NAME // why`."""
    found = (_SPARING.match(comment) for comment in instruction.comments)
    return {name.strip() for match in found if match for name in match[1].split(",")}


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
        elif platform and "$" not in platform and not _names_platform(stage.name, platform):
            text = f'FROM --platform flag should not use constant value "{platform}"'
            yield "FromPlatformFlagConstDisallowed", text, stage.origin


def _names_platform(name: str, platform: str) -> bool:
    """Whether a stage is called by its platform."""
    return any(part in name for part in platform.lower().split("/")[:2])


def _commands(dockerfile: Dockerfile) -> Found:
    shelled: set[str] = set()
    for stage in dockerfile.stages:
        counts = Counter(i.keyword for i in stage.instructions)
        shells = counts["SHELL"] or stage.base.lower() in shelled
        shelled |= {stage.name} if shells and stage.name else set()
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


def _origins(dockerfile: Dockerfile) -> Found:
    globals_ = {name for i in dockerfile.arguments for name, _ in i.pairs}
    for stage in dockerfile.stages:
        for name in _VARIABLE.findall(f"{stage.base} {stage.origin.flag('platform')}"):
            if name not in globals_ and not _GIVEN.match(name):
                text = f"FROM argument '{name}' is not declared{hint(name, globals_)}"
                yield "UndefinedArgInFrom", text, stage.origin


def _variables(dockerfile: Dockerfile, given: Known) -> Found:
    """Where it is known what a stage begins with."""
    ends: dict[int, set[str]] = {}
    for stage in dockerfile.stages:
        earlier = dockerfile.find(stage.base, stage.number)
        if earlier is not None:
            known = set(ends.get(earlier.number, ())) if earlier.number in ends else None
        elif stage.base == "scratch":
            known = set(_PATHS)
        else:
            base = given.bases.get(stage.number)
            known = None if base is None else {*_PATHS, *base.variables}
        if known is not None:
            yield from _undefined(stage.instructions, known)
            ends[stage.number] = known


_EXPANDED = frozenset(("ADD", "COPY", "ENV", "EXPOSE", "LABEL", "STOPSIGNAL", "USER", "VOLUME",
                       "WORKDIR"))  # fmt: skip


def _undefined(instructions: tuple[Instruction, ...], known: set[str]) -> Found:
    """Of one stage; what it defines is known afterwards."""
    for instruction in instructions:
        if instruction.keyword in _EXPANDED:
            texts = [*instruction.words, *(value or "" for _, value in instruction.pairs)]
            for name in _VARIABLE.findall(" ".join(texts)):
                if name not in known and not _GIVEN.match(name):
                    text = f"Usage of undefined variable '${name}'{hint(name, known, '$')}"
                    yield "UndefinedVar", text, instruction
        if instruction.keyword in ("ARG", "ENV"):
            known |= {name for name, _ in instruction.pairs}


def _defaults(dockerfile: Dockerfile) -> Found:
    """Names of images as they are when nothing is given."""
    values: dict[str, str] = {}
    for instruction in dockerfile.arguments:
        for name, default in instruction.pairs:
            try:
                if default is not None:
                    values[name] = Expander(values, dockerfile.escape).word(default)
            except InvalidArgument:
                return  # the build says it, if nothing is given
    names = {stage.name for stage in dockerfile.stages if stage.name}
    for stage in dockerfile.stages:
        if "$" not in stage.base or any(_GIVEN.match(n) for n in _VARIABLE.findall(stage.base)):
            continue
        try:
            base = Expander(values, dockerfile.escape).word(stage.base)
            if base.lower() not in names:
                references.parse(base)
        except InvalidArgument:
            text = f"Default value for ARG {stage.base} results in empty or invalid base image name"
            yield "InvalidDefaultArgInFrom", text, stage.origin


def _descriptions(dockerfile: Dockerfile) -> Found:
    """The last comment before an ARG or a FROM begins with the name that it describes."""
    for instruction in _all(dockerfile):
        names = [name for name, _ in instruction.pairs]
        if instruction.keyword == "FROM":
            names = list(instruction.words[1:])
        elif instruction.keyword != "ARG":
            continue
        told = [comment for comment in instruction.comments if not _SPARING.match(comment)]
        if names and told:
            last = told[-1].split(" ", 1)[0]
            if last not in names:
                name = names[0] if len(names) == 1 else "<arg_key>"
                text = f"Comment for {instruction.keyword} should follow the format: "
                yield "InvalidDefinitionDescription", f"{text}`# {name} <description>`", instruction


_CHECKS: tuple[Callable[[Dockerfile], Found], ...] = (
    _casing, _stages, _platforms, _commands, _words, _directories, _origins, _defaults,
    _descriptions,
)  # fmt: skip


def _images(dockerfile: Dockerfile, known: Known) -> Found:
    """Images that are here, and are not for the platform that is built for."""
    for stage in dockerfile.stages:
        base = known.bases.get(stage.number, Base())
        actual, wanted = base.platform.split("/")[:2], base.wanted.split("/")[:2]
        if base.platform and base.wanted and actual != wanted:
            text = f'Base image {stage.base} was pulled with platform "{base.platform}", expected '
            text += f'"{base.wanted}" for current build'
            yield "InvalidBaseImagePlatform", text, stage.origin


def _copies(dockerfile: Dockerfile, known: Known) -> Found:
    """Files of the context that it does not have, for .dockerignore says so."""
    if known.ignored is None:
        return
    for stage in dockerfile.stages:
        for instruction in stage.instructions:
            if instruction.keyword not in ("ADD", "COPY") or instruction.flag("from"):
                continue
            for word in instruction.words[:-1]:
                path = posixpath.normpath(word).lstrip("/") or "."
                # Addresses are none of the context's, and what variables say is known later.
                if _ADDRESS.match(word) or "$" in word or not known.ignored(path):
                    continue
                verb = instruction.keyword.capitalize()
                text = f'Attempting to {verb} file "{path}" that is excluded by .dockerignore'
                yield "CopyIgnoredFile", text, instruction


_ADDRESS = re.compile(r"(?:[a-z]+://|git@)")
_KNOWING: tuple[Callable[[Dockerfile, Known], Found], ...] = (_variables, _images, _copies)
