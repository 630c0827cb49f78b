"""Images on their way: pull, import, push, save, load; progress as JSON lines."""

from __future__ import annotations

import contextlib

from sagong.contracts.image import (
    Image,
    ImageQuery,
    ImportRequest,
    LoadRequest,
    PullRequest,
    PushRequest,
    SaveRequest,
)
from sagong.errors import InvalidArgument, NotFound, SagongError
from sagong.http import Response
from sagong.model import references
from sagong.uploading import uploading
from sagong_docker.ask import Ask
from sagong_docker.credentials import credentials
from sagong_docker.engine import Engine
from sagong_docker.image_view import progress
from sagong_docker.images import known, named
from sagong_docker.naming import new_id
from sagong_docker.platforms import check_platforms, wanted_platform
from sagong_docker.transport import Lines, stream_down
from sagong_docker.validity import check_platform

__all__ = ["create", "load", "push", "save"]

_OTHER_SYSTEMS = frozenset(("darwin", "freebsd", "macos", "windows"))


async def create(engine: Engine, ask: Ask) -> Response | None:
    """`docker pull` and `docker import` share a path."""
    imports = not ask.text("fromImage")
    if not imports or ask.text("platform").lower() not in _OTHER_SYSTEMS:
        check_platform(ask.text("platform"))
    if not imports:
        await _pull(engine, ask)
    elif ask.text("fromSrc"):
        _check_system(ask.text("platform"))
        await _import(engine, ask)
    else:
        raise InvalidArgument("either fromImage or fromSrc must be given")
    return None


def _check_system(platform: str) -> None:
    """One word may be an architecture; before a slash stands a system."""
    system, slash, _ = platform.lower().partition("/")
    if system in _OTHER_SYSTEMS or (slash and system != "linux"):
        raise InvalidArgument("operating system is not supported")


async def _pull(engine: Engine, ask: Ask) -> None:
    named_only = references.parse(ask.text("fromImage"))
    everything = not (ask.text("tag") or named_only.tag or named_only.digest)
    wanted = _wanted(ask.text("fromImage"), ask.text("tag"))
    reference = named_only if everything else wanted
    request = PullRequest(
        id=new_id(),
        reference=reference.familiar,
        all_tags=everything,
        platform=ask.text("platform"),
        credentials=credentials(ask.request.header("x-registry-auth")),
    )
    out = Lines(ask.request)
    fresh = "Image is up to date"
    try:
        async for item in engine.images.pull(request):
            if item.status.startswith("Pulling from "):
                await out.write({"status": item.status, "id": item.id})
                continue
            if not item.image:
                await out.write(progress(item))
                continue
            if item.digest:
                await out.write({"status": f"Digest: {item.digest}"})
            if "Downloaded newer image" in item.status:
                fresh = "Downloaded newer image"
        await out.write({"status": f"Status: {fresh} for {reference.familiar}"})
    except SagongError as error:
        await out.fail(error)


def _wanted(name: str, tag: str) -> references.Reference:
    reference = references.parse(name)
    if tag.startswith("sha256:"):
        return reference.with_digest(tag)
    return reference.with_tag(tag) if tag else reference.tagged


def _url(source: str) -> str:
    """As Docker has it: what names no protocol is meant to be HTTP's."""
    return source if "://" in source else f"http://{source}"


async def _import(engine: Engine, ask: Ask) -> None:
    source = ask.text("fromSrc")
    repository = ask.text("repo")
    out = Lines(ask.request)
    try:
        async with contextlib.AsyncExitStack() as stack:
            token = ""
            if source == "-":
                sending = uploading(engine.images.upload, ask.request.chunks())
                token = await stack.enter_async_context(sending)
            request = ImportRequest(
                upload=token,
                url="" if source == "-" else _url(source),
                reference=named(repository, ask.text("tag")),
                message=ask.text("message"),
                changes=tuple(ask.request.query.all("changes")),
                platform=ask.text("platform"),
            )
            last = ""
            async for item in engine.images.import_(request):
                last = item.image or last
                if not item.image:
                    await out.write(progress(item))
        await out.write({"status": last})
    except SagongError as error:
        await out.fail(error)


async def push(engine: Engine, ask: Ask) -> None:
    """`docker push`; without a tag all of the repository's, when asked so."""
    tag = ask.text("tag")
    given = credentials(ask.request.header("x-registry-auth"))
    reference = references.parse(ask["name"])
    out = Lines(ask.request)
    await out.write({"status": f"The push refers to repository [{reference.name}]"})
    try:
        names = [named(ask["name"], tag)] if tag else await _all_tags(engine, ask["name"])
        for name in names:
            request = PushRequest(id=new_id(), reference=name, credentials=given)
            async for item in engine.images.push(request):
                if not item.digest:
                    await out.write(progress(item))
                    continue
                pushed = references.parse(name).tag
                text = f"{pushed}: digest: {item.digest} size: {item.size}"
                await out.write({"status": text})
                aux = {"Tag": pushed, "Digest": item.digest, "Size": item.size}
                await out.write({"progressDetail": {}, "aux": aux})
    except SagongError as error:
        await out.fail(error)


async def _all_tags(engine: Engine, name: str) -> list[str]:
    wanted = references.parse(name)
    found = [
        tag
        for image in (await engine.images.list(ImageQuery(brief=True))).images
        for tag in image.tags
        if references.parse(tag).name == wanted.name
    ]
    if not found:
        raise NotFound(f"An image does not exist locally with the tag: {wanted.familiar_name}")
    return sorted(found)


async def save(engine: Engine, ask: Ask) -> None:
    """`docker save` of one name in the path or several in the query."""
    names = [ask.parts["name"]] if "name" in ask.parts else ask.request.query.all("names")
    names = [part for name in names for part in name.split(",") if part]
    if not names:
        raise InvalidArgument("no image is named: give names=")
    if ask.version >= (1, 48) and len(ask.request.query.all("platform")) > 1:
        raise InvalidArgument("multiple platform parameters not supported")
    wanted = wanted_platform(ask.text("platform")) if ask.version >= (1, 48) else None
    images = [image for name in names for image in await _saved(engine, name)]
    for image in images:
        check_platforms(image, image.id, [wanted])
    request = SaveRequest(references=tuple(names))
    headers = {"Content-Type": "application/x-tar"}
    await stream_down(ask.request, lambda: engine.images.save(request), headers)
    for image in images:
        facts = {**dict(image.config.labels), "name": image.id}
        engine.history.note("image", "save", image.id, facts)


async def _saved(engine: Engine, name: str) -> list[Image]:
    """What a name means: a repository alone means all its images."""
    try:
        return [await known(engine, name)]
    except NotFound:
        found = (await engine.images.list(ImageQuery(reference=name, brief=True))).images
        if found and references.parse(name).tag == "":
            return list(found)
        raise NotFound(f"No such image: {name}") from None


async def load(engine: Engine, ask: Ask) -> None:
    """`docker load`."""
    out = Lines(ask.request)
    told: set[tuple[str, str]] = set()
    try:
        async with uploading(engine.images.upload, ask.request.chunks()) as token:
            async for item in engine.images.load(LoadRequest(upload=token)):
                # Whoever goes on with a load tells again what was loaded before.
                if item.image and (item.image, item.reference) in told:
                    continue
                told.add((item.image, item.reference))
                if item.replaced:
                    said = (
                        f"The image {item.reference} already exists, renaming the old one with ID"
                    )
                    await out.write({"stream": f"{said} {item.replaced} to empty string\n"})
                if item.reference:
                    await out.write({"stream": f"Loaded image: {item.reference}\n"})
                elif item.image:
                    await out.write({"stream": f"Loaded image ID: {item.image}\n"})
                elif not ask.flag("quiet"):
                    await out.write(progress(item))
        await out.begin()
    except SagongError as error:
        # What is wrong with an archive is told in the stream, as in Docker. Not before: some clients
        # take the answer's beginning for the end of the loading.
        await out.begin()
        await out.fail(error)
