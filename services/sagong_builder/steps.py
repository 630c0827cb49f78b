"""The instructions of a stage, one after another, each into an image.

Every step is: what was it (for the history and the cache), is its image there already, else make it.
"""

from __future__ import annotations

import asyncio
import contextlib
import stat
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sagong.contracts.builder import BuildRequest, Happening
from sagong.contracts.image import CommitRequest, DeriveRequest, Image
from sagong.contracts.node import HostFile
from sagong.errors import Aborted, InvalidArgument
from sagong_builder import mounting, wording
from sagong_builder.arguments import Scope
from sagong_builder.attaching import Attaching
from sagong_builder.cache import Cache
from sagong_builder.copying import (
    Member,
    Owner,
    destination,
    label,
    members,
    owner_of,
    written,
)
from sagong_builder.dialect import CLASSIC, Dialect
from sagong_builder.dockerfile import Expander, Instruction
from sagong_builder.draft import Draft
from sagong_builder.landing import land, missing_directories
from sagong_builder.metadata import CHANGES, command_words, with_line, working_directory
from sagong_builder.reporter import Reporter
from sagong_builder.running import Errand, new_id, run
from sagong_builder.shop import Lease, Shop
from sagong_builder.sources import Sources, merges, unpacks

__all__ = ["Steps", "moment"]


def moment() -> str:
    """Now, as images tell it."""
    now = time.time_ns()
    base = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9))
    return f"{base}.{now % 10**9:09d}Z"


class Steps:
    """Runs the instructions of one stage on a draft."""

    def __init__(
        self,
        shop: Shop,
        request: BuildRequest,
        reporter: Reporter,
        cache: Cache,
        sources: Sources,
        attaching: Attaching,
        *,
        dialect: Dialect = CLASSIC,
        host_network: bool = False,
    ) -> None:
        """With `host_network` commands may ask for the machine's network."""
        self._shop = shop
        self._request = request
        self._reporter = reporter
        self._cache = cache
        self._sources = sources
        self._attaching = attaching
        self._dialect = dialect
        self._host_network = host_network or request.surroundings.network.mode == "host"
        self.draft: Draft
        self.scope: Scope
        self.base = ""
        self._anew = False
        self._escape = "\\"

    def begin(self, draft: Draft, scope: Scope, escape: str, *, cached: bool = True) -> None:
        """A stage begins; what it did before serves again only if it may be `cached`."""
        self.draft, self.scope, self._escape = draft, scope, escape
        self.base = draft.image
        self._anew = not (cached and self._request.cache)
        self._cache.begin_stage(cached=cached)

    @property
    def variables(self) -> dict[str, str]:
        """What the next instruction sees."""
        return self.scope.visible(self.draft.environment)

    @property
    def directory(self) -> str:
        """Where the next instruction is done."""
        return self.draft.config.get("WorkingDir") or "/"

    @property
    def _expander(self) -> Expander:
        return Expander(self.variables, self._escape)

    async def take(self, instruction: Instruction) -> None:
        """One instruction."""
        if instruction.keyword == "RUN":
            await self._run(instruction)
        elif instruction.keyword in ("ADD", "COPY"):
            await self._copy(instruction)
        elif instruction.keyword == "WORKDIR":
            await self._workdir(instruction)
        else:
            if self._dialect.empty_lines:
                instruction = with_line(instruction)
            change = CHANGES[instruction.keyword]
            comment = change(self.draft, instruction, self._expander, self.scope)
            if instruction.keyword == "CMD":
                self.draft.mark_escaped(escaped=self._dialect.buildkit_words)
            step = self.draft.note(comment)
            if not await self._cached(step):
                if instruction.keyword == "VOLUME" and self._dialect.volumes:
                    await self._check_volumes()
                await self._derive(step, self._told(step, wording.change_words(comment)))
        await self._reporter.image(self.draft.image)

    async def _check_volumes(self) -> None:
        """Commands to come have the volumes: these can't be where files are."""
        async with self._shop.lent(self.draft.image, readonly=True) as lease:
            for path in self.draft.config["Volumes"]:
                there = await self._shop.stat(lease, path)
                if there is not None and stat.S_ISREG(there.mode):
                    raise InvalidArgument(
                        f"cannot mount volume over existing file, file exists {path}"
                    )

    # What all have in common.

    async def _cached(self, step: Sequence[str]) -> bool:
        image = await self._cache.find(self.draft, step, self.base)
        if image is None:
            return False
        self.draft.advance(image)
        await self._reporter.say(Happening.CACHED)
        return True

    def _document(self, step: Sequence[str], container: str, told: str, *, empty: bool) -> bytes:
        theirs = self._dialect.buildkit_words
        return self.draft.document(
            step, container, moment(), empty=empty, told=told, buildkit=theirs
        )

    def _told(self, step: Sequence[str], words: str) -> str:
        """What the history says: BuildKit's words, or the classic builder's, the step itself."""
        return words if self._dialect.buildkit_words else " ".join(step)

    async def _derive(self, step: Sequence[str], told: str) -> None:
        """An image without a layer of its own; `told` is what its history says of it."""
        id_ = new_id()
        self._advance(
            await self._shop.images.derive(
                DeriveRequest(
                    id=id_,
                    parent=self.draft.image,
                    document=self._document(step, id_, told, empty=True),
                )
            )
        )

    async def _commit(
        self,
        step: Sequence[str],
        told: str,
        container: str,
        *,
        consume: bool,
        stubs: tuple[str, ...] = (),
    ) -> None:
        id_ = new_id()
        self._advance(
            await self._shop.images.commit(
                CommitRequest(
                    id=id_,
                    container=container,
                    document=self._document(step, container, told, empty=False),
                    consume=consume,
                    stubs=stubs,
                )
            )
        )

    def _advance(self, image: Image) -> None:
        self.draft.advance(image)

    async def empty_image(self) -> str:
        """The image of a stage that begins from nothing and adds nothing."""
        step = self.draft.note("FROM scratch")
        await self._derive(step, self._told(step, "FROM scratch"))
        return self.draft.image

    # RUN.

    async def _run(self, instruction: Instruction) -> None:
        network = self._network(instruction)
        args, files = self._command(instruction)
        if not args and not self._dialect.empty_commands:
            raise InvalidArgument("no command specified")
        environment = self.draft.environment
        seen = self.scope.seen(environment)
        prefix = [f"|{len(seen)}", *sorted(f"{k}={v}" for k, v in seen.items())] if seen else []
        mounts = mounting.read_mounts(instruction, self._expander, self.draft)
        bound = await self._attaching.fingerprint(mounts)
        if network not in ("", "default"):
            bound = [*bound, f"--network={network}"]
        if self.draft.config.get("Volumes") and not self._dialect.volumes:
            bound = [*bound, "--volumes=kept"]
        scripts = [file.content.decode("utf-8", "replace") for file in files]
        step = [*prefix, *args, *bound, *scripts]
        if await self._cached(step):
            return
        passed = self.scope.passed(environment)
        async with self._attaching.mounted(mounts, anew=self._anew) as attached:
            errand = Errand(
                id=new_id(),
                image=self.draft.image,
                args=tuple(args),
                env=(
                    *self._unset(environment),
                    *(f"{k}={v}" for k, v in passed.items()),
                    *attached.env,
                ),
                network=network,
                mounts=attached.mounts,
                files=(*files, *attached.files),
                volumes=self._dialect.volumes,
                hostname=self._dialect.hostname,
            )
            words = wording.run_words(args, self.scope.told(environment))
            told = self._told(step, words)
            await self._run_errand(errand, step, told, attached.stubs)

    def _unset(self, environment: Mapping[str, str]) -> tuple[str, ...]:
        """The machine's name is no variable in BuildKit's containers, if the image has none."""
        named = not self._dialect.hostname or "HOSTNAME" in environment
        return () if named else ("HOSTNAME",)

    def _network(self, instruction: Instruction) -> str:
        mode = instruction.flag("network")
        if mode == "host" and not self._host_network:
            raise InvalidArgument(
                "network.host is not allowed: build with --network host, or, with buildx, "
                "--allow network.host"
            )
        return mode

    def _command(self, instruction: Instruction) -> tuple[list[str], tuple[HostFile, ...]]:
        """What is executed; a here-document is the script itself, or goes to the shell with it."""
        if not instruction.heredocs:
            return command_words(self.draft, instruction), ()
        line = instruction.words[0]
        first = instruction.heredocs[0]
        if len(instruction.heredocs) == 1 and line.strip() == first.word:
            if first.content.startswith("#!"):
                target = f"/dev/pipes/{first.name}"
                content = first.content.encode()
                return [target], (HostFile(target=target, content=content, mode=0o755),)
            return [*self.draft.shell, first.content], ()
        bodies = "".join(f"{h.content}{h.name}\n" for h in instruction.heredocs)
        return [*self.draft.shell, f"{line}\n{bodies}"], ()

    async def _run_errand(
        self, errand: Errand, step: Sequence[str], told: str, stubs: tuple[str, ...]
    ) -> None:
        request = self._request
        await self._reporter.container(Happening.RUNNING, errand.id)
        kept = False
        try:
            code = await run(self._shop, errand, request.surroundings, self._reporter.output)
            if code:
                # It stays to be looked into, as Docker keeps it.
                kept = not request.force_remove
                raise Aborted(
                    f"The command '{' '.join(errand.args)}' returned a non-zero code: {code}",
                    detail={"code": str(code)},
                )
            await self._commit(step, told, errand.id, consume=request.remove, stubs=stubs)
            kept = not request.remove
        except Aborted:
            await self._settle(errand.id, kept=kept)
            raise
        except BaseException:
            await self._shop.remove(errand.id)
            raise
        await self._settle(errand.id, kept=kept)

    async def _settle(self, container: str, *, kept: bool) -> None:
        if kept:
            self._shop.keeping(container)
            return
        await self._shop.remove(container)
        await self._reporter.container(Happening.REMOVED, container)

    # WORKDIR.

    async def _workdir(self, instruction: Instruction) -> None:
        path = working_directory(self.draft, instruction, self._expander)
        self.draft.config["WorkingDir"] = path
        user = self.draft.config.get("User") or "" if self._dialect.own_directories else ""
        whose = f"--chown={user} " if user not in ("", "0", "root") else ""
        step = self.draft.note(f"WORKDIR {whose}{path}", single=True)
        if await self._cached(step):
            return
        async with self._shop.lent(self.draft.image) as lease:
            told = self._told(step, f"WORKDIR {path}")
            if await self._is_directory(lease, path):
                await self._derive(step, told)
                return
            tables = lease.prepared.passwd, lease.prepared.group
            owner = owner_of(user if whose else "", "", *tables, own_group=True)
            new = await missing_directories(self._shop, lease, path, owner)
            await self._shop.write(lease.id, _directories(new or (path,), owner))
            await self._commit(step, told, lease.id, consume=True)

    async def _is_directory(self, lease: Lease, path: str) -> bool:
        """Whether it is there; neither it nor what is above it may be a file."""
        parts = path.strip("/").split("/")
        for length in range(1, len(parts) + 1):
            above = "/" + "/".join(parts[:length])
            there = await self._shop.stat(lease, above + "/.")
            if there is None:
                return False
            if not stat.S_ISDIR(there.mode):
                raise InvalidArgument(f"Cannot mkdir: {above} is not a directory")
        return True

    # COPY and ADD.

    async def _copy(self, instruction: Instruction) -> None:
        async with contextlib.AsyncExitStack() as stack:
            items = await self._sources.items(instruction, self._expander, stack)
            *_, target = instruction.words
            target = self._expander.word(target)
            chown = self._expander.word(instruction.flag("chown"))
            chmod = self._expander.word(instruction.flag("chmod"))
            content = await asyncio.to_thread(label, items)
            kept = "from" in instruction.flags and not chown
            unpack = "" if instruction.keyword == "COPY" or unpacks(instruction) else "no"
            own = self._dialect.own_directories and bool(chown)
            owned = "all" if own and any(merges(item, instruction) for item in items) else ""
            given = (("chown", chown), ("owned", owned), ("chmod", chmod), ("unpack", unpack))
            flags = "".join(f"--{name}={value}" for name, value in given if value)
            comment = f"{flags}{content} in {target} "
            shown = self.draft.note(f"{instruction.keyword} {comment}", single=True)
            owners = "--chown=kept" if kept else ""
            step = self.draft.note(f"{instruction.keyword} {owners}{comment}", single=True)
            if await self._cached(step):
                return
            told = self._told(shown, wording.copy_words(instruction, self._expander))
            if not items:
                await self._derive(step, told)
                return
            lease = await stack.enter_async_context(self._shop.lent(self.draft.image))
            tables = lease.prepared.passwd, lease.prepared.group
            owner = owner_of(chown, chmod, *tables, own_group=self._dialect.own_group)
            owner = replace(owner, kept=kept, unpacked=own)
            path = destination(self.draft.config.get("WorkingDir") or "/", target)
            landing = await land(self._shop, lease, items, path, owner, dialect=self._dialect)
            unpacked = [await self._sources.unpacked(item, instruction, stack) for item in items]
            await self._shop.write(lease.id, written(members(unpacked, landing, owner)))
            await self._commit(step, told, lease.id, consume=True)


def _directories(paths: Sequence[str], owner: Owner) -> list[bytes]:
    made: list[Member] = []
    for path in paths:
        member = tarfile.TarInfo(path.strip("/"))
        member.type, member.mode, member.mtime = tarfile.DIRTYPE, 0o755, int(time.time())
        member.uid, member.gid = owner.uid, owner.gid
        made.append((member, None))
    return list(written(made))
