"""A Dockerfile as global arguments and stages, and which of the stages a build needs."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

from sagong.errors import InvalidArgument
from sagong.model.numbers import natural
from sagong_builder.dockerfile.hints import hint
from sagong_builder.dockerfile.instructions import Instruction, read_instruction
from sagong_builder.dockerfile.source import fault, read_source

__all__ = ["Dockerfile", "Stage", "parse", "parse_lines"]


@dataclass(frozen=True)
class Stage:
    """A stage: its FROM and the instructions below; `name` is empty if it has none."""

    number: int
    origin: Instruction
    instructions: tuple[Instruction, ...] = ()

    @property
    def base(self) -> str:
        """What it begins from, not expanded."""
        return self.origin.words[0]

    @property
    def name(self) -> str:
        """The name after AS, in small letters."""
        return self.origin.words[1] if len(self.origin.words) > 1 else ""


@dataclass(frozen=True)
class Dockerfile:
    """What a Dockerfile says."""

    arguments: tuple[Instruction, ...]
    stages: tuple[Stage, ...]
    escape: str = "\\"
    warnings: tuple[str, ...] = ()
    gaps: tuple[int, ...] = ()
    check: str = ""
    raw: bytes = field(default=b"", repr=False)

    def find(self, reference: str, before: int | None = None) -> Stage | None:
        """A stage by its name, of those before the stage `before`; the last of several wins."""
        found = None
        for stage in self.stages[:before]:
            if stage.name and stage.name == reference.lower():
                found = stage
        return found

    def numbered(self, reference: str, before: int | None = None) -> Stage | None:
        """A stage by name or by number."""
        found = self.find(reference, before)
        number = natural(reference)
        if found is None and number is not None:
            stages = self.stages[:before]
            return stages[number] if number < len(stages) else None
        return found

    def target(self, reference: str) -> Stage:
        """The stage that is built: the named one, else the last."""
        if not reference:
            return self.stages[-1]
        found = self.numbered(reference)
        if found is None:
            names = [stage.name for stage in self.stages if stage.name]
            meant = hint(reference.lower(), names)
            raise InvalidArgument(
                f'target stage "{reference[:100]}" could not be found{meant}: the stages are '
                f"{', '.join(s.name or str(s.number) for s in self.stages)}"
            )
        return found

    def needed(
        self, target: Stage, bases: dict[int, str], replaced: Container[str] = ()
    ) -> list[Stage]:
        """The stages that the target is made of, in order; `bases` are the expanded FROMs.

        Stages whose names are `replaced` by something else are not.
        """
        wanted: set[int] = set()
        todo = [target]
        while todo:
            stage = todo.pop()
            if stage.number in wanted:
                continue
            wanted.add(stage.number)
            base = self.find(bases[stage.number], stage.number)
            found = [] if base is None else [base]
            for instruction in stage.instructions:
                found += self._sources(instruction, stage.number)
            todo += [stage for stage in found if stage.name not in replaced]
        return [stage for stage in self.stages if stage.number in wanted]

    def _sources(self, instruction: Instruction, before: int) -> list[Stage]:
        names = list(instruction.flags.get("from", ()))
        own = self.stages[before].name
        if own and any(name.lower() == own for name in names):
            raise InvalidArgument(f"circular dependency detected on stage: {own}")
        for mount in instruction.flags.get("mount", ()):
            names += [part[5:] for part in mount.split(",") if part.startswith("from=")]
        if instruction.keyword == "ONBUILD":
            return []
        # A name that has variables may be any stage.
        if any("$" in name for name in names):
            return list(self.stages[:before])
        found = (self.numbered(name, before) for name in names)
        return [stage for stage in found if stage is not None]


def parse(raw: bytes, name: str = "Dockerfile") -> Dockerfile:
    """A whole Dockerfile; InvalidArgument in Docker's words, with the line."""
    source = read_source(raw, name)
    arguments: list[Instruction] = []
    stages: list[tuple[Instruction, list[Instruction]]] = []
    for statement in source.statements:
        instruction = read_instruction(statement, source.escape)
        if instruction.keyword == "FROM":
            stages.append((instruction, []))
        elif stages:
            stages[-1][1].append(instruction)
        elif instruction.keyword == "ARG":
            arguments.append(instruction)
        else:
            raise fault(instruction.line, "no build stage in current context")
    if not stages:
        raise InvalidArgument("dockerfile contains no stages to build: it has no FROM")
    return Dockerfile(
        arguments=tuple(arguments),
        stages=tuple(
            Stage(number, origin, tuple(instructions))
            for number, (origin, instructions) in enumerate(stages)
        ),
        escape=source.escape,
        warnings=tuple(source.warnings),
        gaps=tuple(source.gaps),
        check=source.check,
        raw=raw,
    )


def parse_lines(lines: tuple[str, ...]) -> list[Instruction]:
    """Instructions of an image's ONBUILD triggers."""
    found = []
    for line in lines:
        source = read_source(line.encode(), "ONBUILD")
        found += [read_instruction(statement) for statement in source.statements]
    return found
