"""The stages of a Dockerfile: which are needed, in which order, and what each is made with."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Container, Mapping
from dataclasses import dataclass

from sagong.contracts.builder import BuildRequest, Happening
from sagong.errors import InvalidArgument, SagongError
from sagong.model import oci
from sagong_builder.arguments import Arguments, Scope, platform_arguments
from sagong_builder.checks import check_dockerfile, check_trigger, located
from sagong_builder.dialect import CLASSIC, Dialect
from sagong_builder.dockerfile import Dockerfile, Expander, Instruction, Stage
from sagong_builder.dockerfile.hints import hint
from sagong_builder.dockerfile.stages import parse_lines
from sagong_builder.draft import Draft
from sagong_builder.origins import Origins, key_of
from sagong_builder.reading import ALL, Paths, grouped, readings
from sagong_builder.reporter import Reporter
from sagong_builder.spool import room
from sagong_builder.steps import Steps
from sagong_builder.titles import Titles, borrows

__all__ = ["Bench", "StageBuilder"]

# Steps of a build at one time.
_BESIDE = 8


@dataclass(frozen=True)
class Bench:
    """What a stage is made with."""

    reporter: Reporter
    origins: Origins
    steps: Steps


class StageBuilder:
    """Makes the stages of a Dockerfile, wherever that and the files come from.

    Each stage has what `bench` gives. Stages whose names or numbers are in `anew` are made without the
    cache. With a dialect that allows it stages are made beside each other: one waits for another where
    it begins from it or reads its files.
    """

    def __init__(
        self,
        request: BuildRequest,
        reporter: Reporter,
        bench: Callable[[], Bench],
        *,
        named: Container[str] = (),
        anew: Collection[str] = (),
        dialect: Dialect = CLASSIC,
        platform: str = "",
    ) -> None:
        """`platform` is the one of several that this build is for, and its steps tell it."""
        self._platform = platform
        self._request = request
        self._reporter = reporter
        self._bench = bench
        self._named = named
        self._anew = anew
        self._dialect = dialect
        self._scopes: dict[int, Scope] = {}
        self._made: dict[int, asyncio.Task[Draft]] = {}
        self._expected: Mapping[str, Paths] = {}
        self._begin_stage: Callable[[Stage], asyncio.Task[Draft]]
        self._places = asyncio.Semaphore(_BESIDE)
        machine = os.uname().machine
        self._native = oci.parse_platform("", machine)
        self._wanted = oci.parse_platform(request.platform, machine)
        self.arguments = Arguments(
            given={name: value for name, value in request.arguments if value is not None},
            platforms={
                **platform_arguments(self._native, self._wanted),
                "TARGETSTAGE": request.target,
            },
        )

    @property
    def images(self) -> list[str]:
        """Of all stages that are made; those of nothing have none."""
        return [image for task in self._made.values() if (image := task.result().image)]

    async def make(self, dockerfile: Dockerfile) -> Draft:
        """The target stage's image."""
        target = dockerfile.target(self._request.target)
        self.arguments.platforms["TARGETSTAGE"] = target.name or "default"
        for warning in dockerfile.warnings if self._dialect.tells_gaps else ():
            await self._reporter.say(Happening.WARNING, warning)
        check_dockerfile(dockerfile, self._named)
        # Arguments before the first FROM are steps that are shown but make nothing.
        for instruction in dockerfile.arguments:
            self.arguments.declare_global(instruction, dockerfile.escape)
        expander = self.arguments.origin(dockerfile.escape)
        bases: dict[int, str] = {}
        for stage in dockerfile.stages:
            with located(stage.origin):
                bases[stage.number] = expander.word(stage.base)
        needed = dockerfile.needed(target, bases, replaced=self._named)
        if self._dialect.all_stages:
            needed = list(dockerfile.stages[: target.number + 1])
        labels = self._label_step()
        self._reporter.total = (
            len(dockerfile.arguments)
            + sum(1 + len(stage.instructions) for stage in needed)
            + len(labels)
        )
        self._expected = grouped(
            [(bases[stage.number], "") for stage in needed]
            + [read for stage in needed for i in stage.instructions for read in readings(i)]
        )
        for instruction in dockerfile.arguments:
            await self._reporter.step(instruction.text)
        try:
            await self._make(dockerfile, needed, bases, labels)
        except BaseExceptionGroup as failed:
            raise _first(failed) from None
        return self._made[target.number].result()

    async def _make(
        self,
        dockerfile: Dockerfile,
        needed: list[Stage],
        bases: dict[int, str],
        labels: tuple[Instruction, ...],
    ) -> None:
        """All stages, the target last; the first that fails ends the others."""
        names = [stage.name for stage in needed if stage.name]
        beside = self._dialect.beside and len(set(names)) == len(names)
        async with asyncio.TaskGroup() as group:

            def begin(stage: Stage) -> asyncio.Task[Draft]:
                extra = labels if stage is needed[-1] else ()
                made = self._told(dockerfile, stage, bases[stage.number], extra)
                return group.create_task(made, name=f"stage {stage.number}")

            self._begin_stage = begin
            for stage in needed:
                task = self._task(stage)
                if not beside:
                    await asyncio.wait([task])
                    if task.cancelled() or task.exception() is not None:
                        return

    def _label_step(self) -> tuple[Instruction, ...]:
        """The labels of the command line, as one more instruction."""
        pairs = tuple(sorted(self._request.labels))
        if not pairs:
            return ()
        text = "LABEL " + " ".join(f"{name}={value}" for name, value in pairs)
        return (Instruction(0, "LABEL", text, pairs=tuple((_raw(n), _raw(v)) for n, v in pairs)),)

    async def _told(
        self, dockerfile: Dockerfile, stage: Stage, base: str, extra: tuple[Instruction, ...]
    ) -> Draft:
        """A stage; if it ends early, so does its step."""
        bench = self._bench()
        bench.origins.expect(self._expected)
        try:
            with room():
                return await self._stage(bench, dockerfile, stage, base, extra)
        except (SagongError, asyncio.CancelledError) as error:
            bench.reporter.fail(error)
            raise

    async def _stage(
        self,
        bench: Bench,
        dockerfile: Dockerfile,
        stage: Stage,
        base: str,
        extra: tuple[Instruction, ...],
    ) -> Draft:
        earlier = self._earlier(dockerfile, stage, base)
        if earlier is not None:
            await self._wait_made(bench, earlier)
        titles = Titles(
            stage,
            several=len(dockerfile.stages) > 1 or borrows(dockerfile),
            own=earlier is None,
            platform=self._platform,
            escape=dockerfile.escape,
        )
        await bench.reporter.step(stage.origin.text, titles.origin(base))
        scope = self._scope(stage, earlier)
        with located(stage.origin):
            draft = await self._begin(bench, dockerfile, stage, base, earlier)
            cached = not {stage.name, str(stage.number)} & set(self._anew)
            bench.steps.begin(draft, scope, dockerfile.escape, cached=cached)
            lines = tuple(draft.config.pop("OnBuild", None) or ())
            if lines:
                await self._triggers(bench, dockerfile, stage, titles, lines)
            else:
                await bench.reporter.image(draft.image)
            if earlier is None and bench.origins.holds_files(base):
                await bench.origins.prepare({base: ALL})
                await bench.steps.take(_all_of(base, stage.origin))
        for instruction in (*stage.instructions, *extra):
            with located(instruction):
                await self._prepare(bench, dockerfile, stage, instruction)
                title = titles.of(instruction, bench.steps.variables, bench.steps.directory)
                await bench.reporter.step(instruction.text, title)
                async with self._places:
                    await bench.steps.take(instruction)
        if not draft.image and self._dialect.empty_images:
            await bench.steps.empty_image()
        bench.reporter.rest()
        return draft

    async def _prepare(
        self, bench: Bench, dockerfile: Dockerfile, stage: Stage, instruction: Instruction
    ) -> None:
        """Have what the instruction reads: stages are waited for, files of the client's sent."""
        expander = Expander(bench.steps.variables, dockerfile.escape)
        read = grouped(readings(instruction, expander))
        if not read:
            return
        bench.reporter.rest()
        for origin in read:
            if "$" in origin:
                needs = [s for s in dockerfile.stages[: stage.number] if s.number in self._made]
            elif key_of(origin) in self._named:
                needs = []
            else:
                found = dockerfile.numbered(origin, stage.number)
                needs = [] if found is None else [found]
            for need in needs:
                await self._wait_made(bench, need)
        await bench.origins.prepare(read)

    def _task(self, stage: Stage) -> asyncio.Task[Draft]:
        """A stage being made: triggers of images want stages that nobody knew of before."""
        if stage.number not in self._made:
            self._made[stage.number] = self._begin_stage(stage)
        return self._made[stage.number]

    async def _wait_made(self, bench: Bench, stage: Stage) -> None:
        """Until another stage is made; this one knows its image then."""
        image = (await asyncio.shield(self._task(stage))).image
        bench.origins.stages[str(stage.number)] = image
        if stage.name:
            bench.origins.stages[stage.name] = image

    def _earlier(self, dockerfile: Dockerfile, stage: Stage, base: str) -> Stage | None:
        """The stage that this one begins from; a further context of its name comes first."""
        found = dockerfile.find(base, stage.number)
        return None if found is not None and found.name in self._named else found

    def _scope(self, stage: Stage, earlier: Stage | None) -> Scope:
        scope = self._scopes[stage.number] = Scope(self.arguments, win=self._dialect.arguments_win)
        if self._dialect.inherit and earlier is not None:
            scope.declared.update(self._scopes[earlier.number].declared)
        return scope

    async def _begin(
        self,
        bench: Bench,
        dockerfile: Dockerfile,
        stage: Stage,
        base: str,
        earlier: Stage | None,
    ) -> Draft:
        if not base:
            raise InvalidArgument(
                f"base name ({stage.base}) should not be blank: give --build-arg, or the ARG before "
                "FROM a default"
            )
        platform, given = self._request.platform, stage.origin.flag("platform")
        if given:
            platform = self.arguments.origin(dockerfile.escape).word(given)
            if not platform:
                known = {**self.arguments.platforms, **self.arguments.globals}
                meant = hint(given.strip("${}"), known)
                raise InvalidArgument(f"empty platform value from expression {given[:100]}{meant}")
        wanted = oci.parse_platform(platform, os.uname().machine) if platform else self._wanted
        bench.origins.platform = oci.platform_text(wanted) if platform else ""
        draft = Draft.scratch(wanted, self._dialect.scratch_directory)
        if earlier is not None:
            image = bench.origins.stages[str(earlier.number)]
            if image:
                found = await bench.origins.inspected(image)
                draft.begin(found, author=self._dialect.authors)
            before = self._made[earlier.number].result()
            draft.inherited, draft.layers = before.inherited, before.layers
        elif not bench.origins.is_nothing(base) and not bench.origins.holds_files(base):
            found = await bench.origins.base(base, bench.origins.platform)
            draft.begin(found, author=self._dialect.authors)
            draft.inherited, draft.layers = len(draft.history), len(found.layers)
        return draft

    async def _triggers(
        self,
        bench: Bench,
        dockerfile: Dockerfile,
        stage: Stage,
        titles: Titles,
        lines: tuple[str, ...],
    ) -> None:
        """What the base image's ONBUILD wants done."""
        word = "trigger" if len(lines) == 1 else "triggers"
        await bench.reporter.say(Happening.NOTE, f"# Executing {len(lines)} build {word}")
        for instruction in parse_lines(lines):
            check_trigger(instruction)
            await self._prepare(bench, dockerfile, stage, instruction)
            bench.reporter.trigger(
                titles.of(instruction, bench.steps.variables, bench.steps.directory)
            )
            await bench.steps.take(instruction)


def _first(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended the others."""
    error = failed.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _all_of(context: str, origin: Instruction) -> Instruction:
    """A stage that begins from files begins with them."""
    words, flags = (".", "/"), {"from": (context,)}
    return Instruction(origin.line, "COPY", origin.text, words=words, flags=flags, last=origin.last)


def _raw(text: str) -> str:
    """A word that expansion leaves as it is."""
    return "'" + text.replace("'", "'\"'\"'") + "'"
