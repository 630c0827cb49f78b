"""How steps are named where they are shown by stages: `[build 2/5] RUN make`. Pure.

Source: the names that BuildKit's Dockerfile frontend gives to its vertexes.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping

from sagong.errors import InvalidArgument
from sagong_builder.dockerfile import Dockerfile, Expander, Instruction, Stage

__all__ = ["Titles", "borrows"]

# Other instructions change the config alone, and are no steps there.
_COUNTED = frozenset(("ADD", "COPY", "RUN", "WORKDIR"))
_VARIABLE = re.compile(r"'[^']*'|\\.|\$\{(\w+)\}|\$(\w+)", re.DOTALL)


class Titles:
    """Of one stage. `several`: the Dockerfile has other stages; `own`: it begins from an image.

    `platform` is the one of several that this is for, `escape` the Dockerfile's directive.
    """

    def __init__(
        self, stage: Stage, *, several: bool, own: bool, platform: str = "", escape: str = "\\"
    ) -> None:
        self._escape = escape
        name = stage.name or f"stage-{stage.number}" if several else ""
        self._name = "".join(f"{part} " for part in (platform, name) if part)
        self._own = own and stage.base != "scratch"
        counted = sum(i.keyword in _COUNTED for i in stage.instructions)
        self._total = self._own + counted
        self._index = 0

    def origin(self, base: str) -> str:
        """The FROM; empty if nothing is fetched for it."""
        return self._next(f"FROM {base}") if self._own else ""

    def of(
        self, instruction: Instruction, variables: Mapping[str, str], directory: str = "/"
    ) -> str:
        """An instruction, its variables replaced as far as they have values; empty for no step.

        `directory` is where it is done: a WORKDIR that leads to `/` is counted, and no step.
        """
        if instruction.keyword not in _COUNTED:
            return ""
        if instruction.keyword == "WORKDIR" and self._leads_up(instruction, variables, directory):
            return ""
        line, *more = instruction.text.split("\n")
        if instruction.heredocs:
            if (
                instruction.keyword == "RUN"
                and instruction.words[0] == instruction.heredocs[0].word
            ):
                line += f" ({_summary(instruction.heredocs[0].content)})"
        elif more:
            line = instruction.text
        keyword, _, rest = line.partition(" ")
        # What comes of a secret is not what a variable of the same name has.
        lent = secret_variables(instruction)
        variables = {**variables, **dict.fromkeys(lent, "****")} if lent else variables
        shown = (
            _expanded(rest, variables) if keyword.upper() == "RUN" else self._word(rest, variables)
        )
        return self._next(f"{keyword.upper()} {shown}")

    def _word(self, text: str, variables: Mapping[str, str]) -> str:
        """Without quotes, for it is no shell's."""
        try:
            return Expander(variables, self._escape).word(text)
        except InvalidArgument:
            return text

    def _leads_up(
        self, instruction: Instruction, variables: Mapping[str, str], directory: str
    ) -> bool:
        path = self._word(" ".join(instruction.words), variables)
        return posixpath.normpath(posixpath.join("/", directory, path)) in ("/", "//")

    def _next(self, text: str) -> str:
        self._index += 1
        width = len(str(self._total))
        return f"[{self._name}{self._index:>{width}}/{self._total}] {text}"


def borrows(dockerfile: Dockerfile) -> bool:
    """Whether files come of images that no stage begins from: each is counted as a stage."""
    for stage in dockerfile.stages:
        for instruction in stage.instructions:
            mounts = [dict(p.partition("=")[::2] for p in text.split(",")) for text in
                      instruction.flags.get("mount", ())]  # fmt: skip
            names = [instruction.flag("from"), *(mount.get("from", "") for mount in mounts)]
            if any(name and dockerfile.numbered(name, stage.number) is None for name in names):
                return True
    return False


def secret_variables(instruction: Instruction) -> list[str]:
    """Variables that a RUN's secrets become, as far as they are named without variables."""
    found = []
    for text in instruction.flags.get("mount", ()):
        fields = dict(part.partition("=")[::2] for part in text.split(","))
        if fields.get("type") == "secret" and fields.get("env"):
            found.append(fields["env"])
    return found


def _summary(document: str) -> str:
    first, _, more = document.strip().partition("\n")
    return f"{first}..." if more else first


def _expanded(text: str, variables: Mapping[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        return variables.get(name, found[0]) if name else found[0]

    return _VARIABLE.sub(value, text)
