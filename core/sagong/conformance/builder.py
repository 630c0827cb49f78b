"""What every provider of `builder` must do; the lab has an image store and runs containers.

The base image has `/bin/sh` with the usual small commands, a user `app` (1000:1000), and no cache of
earlier builds of these checks is needed or harmful.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import secrets
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import msgspec

from sagong.building import follow
from sagong.contracts.builder import Builder, BuildProgress, BuildRef, BuildRequest, Happening
from sagong.contracts.image import Image, ImageQuery, ImageRef, Images, RemoveRequest
from sagong.contracts.node import Node, NodeQuery
from sagong.errors import Aborted, Cancelled, InvalidArgument, NotFound, SagongError
from sagong.uploading import send_file

__all__ = ["BuilderLab", "Built"]

Files = Mapping[str, bytes | str]
NO_FILES: Files = MappingProxyType({})


@dataclass
class BuilderLab:
    """The candidate, the store and the node that it works with, and the name of a base image."""

    builder: Builder
    images: Images
    node: Node
    base: str
    owner: str = field(default_factory=lambda: f"check-{secrets.token_hex(4)}")
    _numbers: Any = field(default_factory=itertools.count)

    def name(self) -> str:
        """A name for an image that no other check has."""
        return f"builder.check/{self.owner}:{next(self._numbers)}"

    async def request(self, text: str, files: Files = NO_FILES, /, **fields: Any) -> BuildRequest:
        """A request whose context was uploaded; `BASE` in the Dockerfile is the base image."""
        raw = context({"Dockerfile": text.replace("BASE", self.base), **files})
        address = await self.builder.upload()
        await send_file(address, io.BytesIO(raw))
        return BuildRequest(id=secrets.token_hex(16), context=address.token, **fields)

    async def told(self, request: BuildRequest) -> AsyncGenerator[BuildProgress, None]:
        """What a build tells."""
        async with contextlib.aclosing(follow(await self.builder.build(request))) as items:
            async for item in items:
                yield item

    async def build(self, text: str, files: Files = NO_FILES, /, **fields: Any) -> Built:
        """A build to its end."""
        built = Built()
        async for item in self.told(await self.request(text, files, **fields)):
            built.items.append(item)
        built.image = await self.images.inspect(ImageRef(reference=built.id))
        return built

    async def refused(self, text: str, files: Files = NO_FILES, /, **fields: Any) -> SagongError:
        """The error that a build ends with."""
        try:
            await self.build(text, files, **fields)
        except SagongError as error:
            return error
        raise AssertionError(f"a build that must fail did not:\n{text}")

    async def containers(self) -> list[str]:
        """Containers of builds that there are now."""
        found = await self.node.list(NodeQuery())
        return [s.spec.id for s in found.containers if s.spec.name.startswith("build_")]


@dataclass
class Built:
    """What a build told, and the image."""

    items: list[BuildProgress] = field(default_factory=list)
    image: Image = Image(id="")  # noqa: RUF009

    @property
    def id(self) -> str:
        """The image's id."""
        (found,) = [i.image for i in self.items if i.kind is Happening.BUILT]
        return found

    @property
    def output(self) -> str:
        """What the commands wrote."""
        return b"".join(i.data for i in self.items if i.kind is Happening.OUTPUT).decode()

    def count(self, kind: Happening) -> int:
        """How often something happened."""
        return sum(item.kind is kind for item in self.items)

    @property
    def history(self) -> list[str]:
        """How the image came to be, line by line."""
        entries = msgspec.json.decode(self.image.history, type=list[dict[str, Any]])
        return [str(entry.get("created_by")) for entry in entries]


def context(files: Files) -> bytes:
    """A tar of files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            raw = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(raw), 0o644
            tar.addfile(info, io.BytesIO(raw))
    return buffer.getvalue()


# Instructions.


async def check_a_build_tells_its_steps_and_names_the_image(lab: BuilderLab) -> None:
    name = lab.name()
    built = await lab.build("FROM BASE\nRUN echo hello\nCMD x\n", tags=(name,))
    steps = [(i.number, i.total, i.text) for i in built.items if i.kind is Happening.STEP]
    assert steps == [(1, 3, f"FROM {lab.base}"), (2, 3, "RUN echo hello"), (3, 3, "CMD x")]
    assert built.output == "hello\n"
    assert name in built.image.tags
    assert built.image.config.cmd == ("/bin/sh", "-c", "x")
    kinds = [item.kind for item in built.items]
    assert kinds[-2:] == [Happening.BUILT, Happening.TAGGED]


async def check_the_config_is_what_the_instructions_say(lab: BuilderLab) -> None:
    built = await lab.build(
        'FROM BASE\nENV A=1 B="$A x"\nLABEL l="v w"\nEXPOSE 80 53/udp\nVOLUME /data\nUSER app\n'
        'WORKDIR /w\nWORKDIR sub\nSTOPSIGNAL SIGINT\nENTRYPOINT ["e"]\nCMD ["c"]\n'
        "ONBUILD RUN true\nHEALTHCHECK --interval=5s CMD ok\n"
    )
    config = built.image.config
    assert {"A=1", "B= x"} <= set(config.env)
    assert ("l", "v w") in config.labels
    assert config.exposed_ports == ("53/udp", "80/tcp")
    assert "/data" in config.volumes
    assert (config.user, config.working_dir, config.stop_signal) == ("app", "/w/sub", "SIGINT")
    assert (config.entrypoint, config.cmd) == (("e",), ("c",))
    assert config.onbuild == ("RUN true",)
    assert '"ok"' in config.healthcheck


async def check_commands_run_as_the_config_says(lab: BuilderLab) -> None:
    built = await lab.build(
        "FROM BASE\nENV X=from-env\nARG Y=from-arg\nWORKDIR /made\nUSER app\n"
        "RUN echo $X $Y $(id -u) $(pwd)\n",
        arguments=(("Y", "given"),),
    )
    assert built.output == "from-env given 1000 /made\n"


async def check_files_are_copied_with_owner_and_mode(lab: BuilderLab) -> None:
    built = await lab.build(
        "FROM BASE\nCOPY a.txt d /to/\nCOPY --chown=app:0 --chmod=0600 a.txt /own/er/b\n"
        "RUN cat /to/a.txt /to/e.txt; stat -c '%u:%g %a' /own/er/b\n",
        {"a.txt": "A\n", "d/e.txt": "E\n"},
    )
    assert built.output == "A\nE\n1000:0 600\n"


async def check_stages_give_files_and_all_before_the_target_are_built(lab: BuilderLab) -> None:
    built = await lab.build(
        "FROM BASE AS one\nRUN echo x > /x\nFROM BASE AS tried\nRUN echo tried\n"
        "FROM scratch AS last\nCOPY --from=one /x /y\nFROM BASE AS never\nRUN exit 1\n",
        target="last",
    )
    assert built.output == "tried\n"
    assert len(built.image.layers) == 1
    assert "COPY file:" in built.history[-1]


async def check_an_archive_is_unpacked_by_add_and_not_by_copy(lab: BuilderLab) -> None:
    archive = context({"in/side": "packed\n"})
    built = await lab.build(
        "FROM BASE\nADD a.tar /add/\nCOPY a.tar /copy/\nRUN cat /add/in/side; ls /copy\n",
        {"a.tar": archive},
    )
    assert built.output == "packed\na.tar\n"


async def check_here_documents_are_scripts_and_files(lab: BuilderLab) -> None:
    built = await lab.build(
        'FROM BASE\nENV X=v\nRUN <<EOF\necho one\necho two\nEOF\nCOPY <<a <<"b" /h/\n$X\na\n$X\nb\n'
        "RUN cat /h/a /h/b\n"
    )
    assert built.output == "one\ntwo\nv\n$X\n"


async def check_triggers_of_the_base_run_first(lab: BuilderLab) -> None:
    name = lab.name()
    await lab.build("FROM BASE\nONBUILD RUN echo triggered\n", tags=(name,))
    built = await lab.build(f"FROM {name}\nRUN echo own\n")
    assert built.output == "triggered\nown\n"
    assert built.image.config.onbuild == ()


async def check_labels_target_and_platform_of_the_request(lab: BuilderLab) -> None:
    built = await lab.build(
        "FROM BASE AS a\nLABEL own=1\nFROM a\nLABEL last=1\n", target="a", labels=(("k", "v $x"),)
    )
    labels = dict(built.image.config.labels)
    assert (labels["own"], labels["k"]) == ("1", "v $x")
    assert "last" not in labels


# Mounts.


async def check_mounts_of_a_command(lab: BuilderLab) -> None:
    mark = secrets.token_hex(4)
    built = await lab.build(
        f"FROM BASE\nRUN --mount=type=cache,id={mark},target=/c echo kept > /c/f\n"
        f"RUN --mount=type=cache,id={mark},target=/c --mount=type=bind,target=/ctx "
        "cat /c/f /ctx/a.txt; touch /ctx/x 2>/dev/null || echo read-only\n",
        {"a.txt": "A\n"},
        cache=False,
    )
    assert built.output == "kept\nA\nread-only\n"


# The cache.


async def check_a_step_done_before_is_not_done_again(lab: BuilderLab) -> None:
    mark = secrets.token_hex(8)
    text = f"FROM BASE\nRUN echo {mark}\nCOPY a.txt /\nENV x=1\nRUN cat /a.txt\n"
    first = await lab.build(text, {"a.txt": "1"})
    again = await lab.build(text, {"a.txt": "1"})
    assert first.count(Happening.CACHED) == 0
    assert again.count(Happening.CACHED) == 4
    assert first.id == again.id
    other = await lab.build(text, {"a.txt": "2"})
    assert other.count(Happening.CACHED) == 1
    assert other.output == "2"


async def check_arguments_count_for_commands_that_see_them(lab: BuilderLab) -> None:
    mark = secrets.token_hex(8)
    text = f"FROM BASE\nRUN echo {mark}\nARG v\nRUN echo $v\n"
    assert (await lab.build(text, arguments=(("v", "1"),))).output == f"{mark}\n1\n"
    assert (await lab.build(text, arguments=(("v", "2"),))).output == "2\n"
    assert (await lab.build(text, arguments=(("v", "1"),))).output == ""


async def check_no_cache_does_all_again(lab: BuilderLab) -> None:
    text = f"FROM BASE\nRUN echo {secrets.token_hex(8)}\n"
    await lab.build(text)
    assert (await lab.build(text, cache=False)).count(Happening.CACHED) == 0


# What is refused.


async def check_a_failing_command_ends_the_build_with_its_code(lab: BuilderLab) -> None:
    error = await lab.refused("FROM BASE\nRUN exit 9\n", force_remove=True)
    assert isinstance(error, Aborted)
    assert error.message == "The command '/bin/sh -c exit 9' returned a non-zero code: 9"
    assert error.detail["code"] == "9"
    assert await lab.containers() == []


async def check_bad_dockerfiles_and_sources_are_said(lab: BuilderLab) -> None:
    error = await lab.refused("FROM BASE\nFOO x\n")
    assert isinstance(error, InvalidArgument)
    assert "dockerfile parse error on line 2: unknown instruction: FOO" in error.message
    error = await lab.refused("FROM BASE\nCOPY nope /x\n")
    assert isinstance(error, NotFound)
    assert "COPY failed: file not found in build context" in error.message
    error = await lab.refused("FROM BASE\n", dockerfile="Other")
    assert "Cannot locate specified Dockerfile: Other" in error.message


async def check_a_context_can_not_lead_out_of_itself(lab: BuilderLab) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, target in (("up", "../../../../etc/passwd"), ("root", "/etc")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
        raw = f"FROM {lab.base}\nCOPY up /x\n".encode()
        info = tarfile.TarInfo("Dockerfile")
        info.size = len(raw)
        tar.addfile(info, io.BytesIO(raw))
    address = await lab.builder.upload()
    await send_file(address, io.BytesIO(buffer.getvalue()))
    request = BuildRequest(id=secrets.token_hex(16), context=address.token)
    try:
        async for _ in lab.told(request):
            pass
    except NotFound as error:
        assert "file not found in build context" in error.message
    else:
        raise AssertionError("a link has led out of the context")


async def check_a_stages_links_do_not_lead_out_of_the_image(lab: BuilderLab) -> None:
    built = await lab.build(
        "FROM BASE AS s\nRUN ln -s ../../../../../etc /up && echo inner > /etc/mine\n"
        "FROM BASE\nRUN ln -s /up-is-not-here /broken && ln -s /tmp /l\n"
        "COPY --from=s /up/mine /l/copied\nRUN cat /tmp/copied\n"
    )
    assert built.output == "inner\n"


# Ends.


@contextlib.asynccontextmanager
async def running(
    lab: BuilderLab,
) -> AsyncIterator[tuple[str, AsyncGenerator[BuildProgress, None]]]:
    """A build whose command runs, its id, and its stream."""
    request = await lab.request("FROM BASE\nRUN echo begun; sleep 600\n", cache=False)
    items = lab.told(request)
    async for item in items:
        if item.kind is Happening.OUTPUT:
            break
    try:
        yield request.id, items
    finally:
        await items.aclose()


async def wait_gone(lab: BuilderLab) -> None:
    """Wait until no container of a build is left."""
    for _ in range(1200):
        if not await lab.containers():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"containers are left: {await lab.containers()}")


async def check_nothing_stays_of_a_build_that_nobody_listens_to(lab: BuilderLab) -> None:
    async with running(lab) as (_, items):
        assert await lab.containers()
        await items.aclose()
    await wait_gone(lab)


async def check_a_build_can_be_cancelled_by_its_id(lab: BuilderLab) -> None:
    async with running(lab) as (id_, items):
        await lab.builder.cancel(BuildRef(id=id_))
        try:
            async for _ in items:
                pass
        except Cancelled:
            pass
        else:
            raise AssertionError("a cancelled build ended well")
    await wait_gone(lab)
    await lab.builder.cancel(BuildRef(id="unknown"))


async def check_an_upload_is_good_once(lab: BuilderLab) -> None:
    request = await lab.request("FROM BASE\n")
    async for _ in lab.told(request):
        pass
    try:
        async for _ in lab.told(msgspec.structs.replace(request, id="other")):
            pass
    except InvalidArgument as error:
        assert "no such upload" in error.message
    else:
        raise AssertionError("an upload was built twice")


async def check_intermediate_images_are_hidden_and_go_with_the_last(lab: BuilderLab) -> None:
    name = lab.name()
    built = await lab.build(f"FROM BASE\nENV a={secrets.token_hex(4)}\nENV b=2\n", tags=(name,))
    parent = built.image.parent
    listed = {image.id for image in (await lab.images.list(ImageQuery())).images}
    assert built.id in listed
    assert parent not in listed
    await lab.images.remove(RemoveRequest(reference=name))
    try:
        await lab.images.inspect(ImageRef(reference=parent))
    except NotFound:
        return
    raise AssertionError("the image of a step outlived the image made of it")
