"""One build: the context, the Dockerfile, the stages that are needed, and what is named at the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import posixpath
from collections.abc import AsyncIterator, Callable, Collection, Container, Mapping
from dataclasses import dataclass
from pathlib import Path

from sagong.contracts.builder import BuildRequest, Happening
from sagong.contracts.image import Credentials, SquashRequest, TagRequest
from sagong.errors import InvalidArgument, NotFound, SagongError
from sagong.model import oci, references
from sagong_builder.arguments import Arguments, Scope, platform_arguments
from sagong_builder.attaching import Attaching
from sagong_builder.cache import Cache
from sagong_builder.caches import Caches
from sagong_builder.checks import check_dockerfile, check_trigger, located
from sagong_builder.context import Archive, Entry, Kind, Tree
from sagong_builder.context.archive import is_archive
from sagong_builder.context.patterns import Ignore
from sagong_builder.dialect import CLASSIC, Dialect
from sagong_builder.dockerfile import Dockerfile, Expander, Instruction, Stage, parse
from sagong_builder.dockerfile.stages import parse_lines
from sagong_builder.draft import Draft
from sagong_builder.fetching import download, is_url
from sagong_builder.keys import NoKeys
from sagong_builder.origins import Origins, credentials_for, key_of
from sagong_builder.reading import ALL, Paths, grouped, readings
from sagong_builder.reporter import Reporter
from sagong_builder.repositories import clone, git_source
from sagong_builder.running import new_id
from sagong_builder.shop import Shop
from sagong_builder.sources import Sources
from sagong_builder.spool import room
from sagong_builder.steps import Steps, moment
from sagong_builder.titles import Titles

__all__ = ["Bench", "Build", "StageBuilder", "fetched_context", "read_file"]

_DOCKERFILE_LIMIT = 16 << 20
_HEAD = 512
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
            several=len(dockerfile.stages) > 1,
            own=earlier is None,
            platform=self._platform,
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
                title = titles.of(instruction, bench.steps.variables)
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
                raise InvalidArgument(f"empty platform value from expression {given[:100]}")
        wanted = oci.parse_platform(platform, os.uname().machine) if platform else self._wanted
        bench.origins.platform = oci.platform_text(wanted) if platform else ""
        draft = Draft.scratch(wanted, self._dialect.scratch_directory)
        if earlier is not None:
            image = bench.origins.stages[str(earlier.number)]
            if image:
                found = await bench.origins.inspected(image)
                draft.begin(found)
            draft.inherited = self._made[earlier.number].result().inherited
        elif not bench.origins.is_nothing(base) and not bench.origins.holds_files(base):
            draft.begin(await bench.origins.base(base, bench.origins.platform))
            draft.inherited = len(draft.history)
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
            bench.reporter.trigger(titles.of(instruction, bench.steps.variables))
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


class Build:
    """A build as it was asked for; `run` tells the reporter what happens."""

    def __init__(
        self, shop: Shop, caches: Caches, request: BuildRequest, reporter: Reporter
    ) -> None:
        self._shop = shop
        self._caches = caches
        self._request = request
        self._reporter = reporter
        self._context: Archive | None = None

    async def run(self) -> None:
        """All of it; raises what ended it."""
        with room():
            await self._run()

    async def _run(self) -> None:
        tags = [references.parse(tag) for tag in self._request.tags]
        if any(tag.digest for tag in tags):
            raise InvalidArgument("refusing to create a tag with a digest reference")
        async with self._context_open() as context:
            self._context = context
            dockerfile = parse(self._dockerfile(context), self._request.dockerfile)
            self._hide(context)
            made, unused = await self._make(dockerfile)
        if unused:
            names = " ".join(unused)
            text = f"[Warning] One or more build-args [{names}] were not consumed\n"
            await self._reporter.say(Happening.WARNING, text)
        await self._reporter.say(Happening.BUILT, image=made)
        for tag in tags:
            name = tag.tagged.familiar
            await self._shop.images.tag(TagRequest(source=made, target=name))
            await self._reporter.say(Happening.TAGGED, name)

    async def _make(self, dockerfile: Dockerfile) -> tuple[str, list[str]]:
        request = self._request
        origins = Origins(
            self._shop,
            self._reporter,
            self._opened_context,
            pull=request.pull,
            credentials=self._credentials,
        )
        sources = Sources(self._shop, origins)
        attaching = Attaching(self._shop, self._caches, sources, NoKeys())
        cache = Cache(self._shop.images, enabled=request.cache, sources=request.cache_from)
        steps = Steps(self._shop, request, self._reporter, cache, sources, attaching)
        bench = Bench(self._reporter, origins, steps)
        builder = StageBuilder(request, self._reporter, lambda: bench)
        draft = await builder.make(dockerfile)
        if not draft.image:
            raise InvalidArgument("No image was generated. Is your Dockerfile empty?")
        image = await self._squashed(draft, steps) if request.squash else draft.image
        given = (name for name, _ in request.arguments)
        return image, builder.arguments.unconsumed(given)

    async def _credentials(self, reference: str) -> Credentials:
        return credentials_for(reference, self._request.credentials)

    async def _squashed(self, draft: Draft, steps: Steps) -> str:
        """The new layers as one, above the base's."""
        step = [f"merge {draft.image} to {steps.base or 'scratch'}"]
        document = draft.document(step, "", moment())
        made = await self._shop.images.squash(
            SquashRequest(id=new_id(), image=draft.image, base=steps.base, document=document)
        )
        return made.id

    # The context.

    async def _opened_context(self, paths: Paths) -> Archive:
        assert self._context is not None
        return self._context

    @contextlib.asynccontextmanager
    async def _context_open(self) -> AsyncIterator[Archive]:
        async with contextlib.AsyncExitStack() as stack:
            if self._request.remote:
                archive = await fetched_context(
                    self._shop, self._request.remote, self._request.dockerfile, stack
                )
            elif self._request.context:
                path = await stack.enter_async_context(
                    self._shop.spool.taken(self._request.context)
                )
                archive = await self._shop.opened(path)
            else:
                raise InvalidArgument("a build needs a context: upload one, or name a remote one")
            stack.callback(archive.close)
            yield archive

    def _dockerfile(self, context: Archive) -> bytes:
        name = self._request.dockerfile or "Dockerfile"
        raw = read_file(context, name)
        if raw is None and name == "Dockerfile":
            raw = read_file(context, "dockerfile")
        if raw is None:
            raise InvalidArgument(f"Cannot locate specified Dockerfile: {name}")
        if not raw:
            raise InvalidArgument(f"the Dockerfile ({name}) cannot be empty")
        return raw

    def _hide(self, context: Archive) -> None:
        """.dockerignore may leave out itself and the Dockerfile, which the client must send."""
        raw = read_file(context, ".dockerignore")
        if raw is None:
            return
        ignore = Ignore.read(raw)
        for name in (".dockerignore", posixpath.normpath(self._request.dockerfile)):
            if ignore.excludes(name):
                context.tree.remove(name)


async def fetched_context(
    shop: Shop, remote: str, dockerfile: str, stack: contextlib.AsyncExitStack
) -> Archive:
    """A context from a git repository, or a tar or a lone Dockerfile from a URL."""
    settings = shop.settings
    path = stack.enter_context(shop.spool.file())
    repository = git_source(remote)
    if repository is not None:
        await clone(repository, path)
    elif is_url(remote):
        got = await download(
            remote, path, limit=settings.context_limit, seconds=settings.fetch_seconds
        )
        if not is_archive(_head(path)):
            if got.content_type.startswith("text/") or path.stat().st_size <= _DOCKERFILE_LIMIT:
                return _lone_dockerfile(path, shop.spool.new_file(), dockerfile)
            raise InvalidArgument(f"{remote} is neither a tar nor a Dockerfile")
    else:
        raise InvalidArgument(f"remote URL {remote[:200]!r} is neither git's nor HTTP's")
    archive = await shop.opened(path)
    ignored = read_file(archive, ".dockerignore")
    if ignored is not None:
        kept = archive.tree.get(dockerfile)
        await asyncio.to_thread(Ignore.read(ignored).apply, archive.tree)
        if kept is not None:
            archive.tree.put(dockerfile, kept)
    return archive


def _lone_dockerfile(path: Path, target: Path, name: str) -> Archive:
    os.rename(path, target)
    archive = Archive(target, target.open("rb"), Tree())
    archive.tree.put(name, Entry(Kind.FILE, 0o600, size=target.stat().st_size))
    return archive


def _head(path: os.PathLike[str]) -> bytes:
    with open(path, "rb") as file:
        return file.read(_HEAD)


def read_file(archive: Archive, name: str) -> bytes | None:
    """A file of the context, if it is there; links are followed inside."""
    try:
        _, entry = archive.tree.resolve(name)
    except NotFound:
        return None
    if entry.kind is not Kind.FILE:
        raise InvalidArgument(f"{name} of the context is no file")
    if entry.size > _DOCKERFILE_LIMIT:
        raise InvalidArgument(f"{name} of the context has more than {_DOCKERFILE_LIMIT} bytes")
    return b"".join(archive.content(entry))
