"""Images: list, inspect, history, tag, remove, prune, commit, search."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from sagong.contracts.image import (
    CommitRequest,
    Image,
    ImageQuery,
    ImageRef,
    Removed,
    RemoveRequest,
    TagRequest,
)
from sagong.contracts.node import Ref, StatusState
from sagong.errors import Conflict, InvalidArgument, NotFound, SagongError
from sagong.http import Response
from sagong.model import patterns, references
from sagong_docker.ask import Ask
from sagong_docker.body import ImageBody
from sagong_docker.container_view import merged_config
from sagong_docker.engine import Engine
from sagong_docker.filters import Filters
from sagong_docker.image_view import (
    created_at,
    created_seconds,
    history_view,
    image_line,
    image_view,
    manifest_view,
)
from sagong_docker.moment import parse_until
from sagong_docker.naming import new_id
from sagong_docker.platforms import check_platforms, wanted_platform
from sagong_docker.record import ContainerRecord
from sagong_docker.refusal import answer, empty

__all__ = [
    "commit",
    "history",
    "inspect",
    "known",
    "list_all",
    "named",
    "prune",
    "remove",
    "tag",
]

_LIST_FILTERS = ("before", "dangling", "label", "label!", "reference", "since", "until")


def named(repository: str, tag: str) -> str:
    """`repo` and `tag` parameters as one reference; a digest in place of the tag too."""
    if not repository:
        return ""
    reference = references.parse(repository)
    if tag.startswith("sha256:"):
        return reference.with_digest(tag).familiar
    if tag:
        return reference.with_tag(tag).familiar
    return reference.tagged.familiar


async def list_all(engine: Engine, ask: Ask) -> Response:
    """`docker images`."""
    filters = ask.filters()
    filters.check(_LIST_FILTERS)
    names = [*filters["reference"]]
    if ask.version < (1, 41) and ask.text("filter"):
        names.append(ask.text("filter"))
    for name in names:
        patterns.translated(name)
    dangling = filters.boolean("dangling")
    found: dict[str, Image] = {}
    for name in names or [""]:
        query = ImageQuery(
            reference=name,
            dangling=dangling,
            all=ask.flag("all"),
            brief=not ask.flag("manifests"),
        )
        found.update({i.id: i for i in (await engine.images.list(query)).images})
    images = [i for i in found.values() if _matches(i, filters)]
    images = await _around(engine, images, filters)
    images.sort(key=lambda i: (created_seconds(i), i.tagged_at), reverse=True)
    shared = _shared(images) if ask.flag("shared-size") else {}
    counted = ask.version >= (1, 51)
    users = await _users(engine) if counted or ask.flag("manifests") else {}
    return answer(
        [
            image_line(
                _only_named(image, names),
                containers=len(users.get(image.id, ())) if counted else -1,
                shared=shared.get(image.id, -1),
                version=ask.version,
                manifests=users if ask.flag("manifests") else None,
            )
            for image in images
        ]
    )


def _only_named(image: Image, names: list[str]) -> Image:
    """The image with those of its names that were asked for; all, if it was asked for by its id."""
    tags = tuple(t for t in image.tags if any(_fits(t, pattern) for pattern in names))
    return msgspec.structs.replace(image, tags=tags) if tags else image


def _fits(tag: str, pattern: str) -> bool:
    """Whether a name, with or without its tag, is like a pattern, part by part."""
    name = tag.rpartition(":")[0] if ":" in tag.rpartition("/")[2] else tag
    wanted = patterns.translated(pattern)
    return any(map(wanted.fullmatch, (tag, name)))


def _matches(image: Image, filters: Filters) -> bool:
    labels = dict(image.config.labels)
    until = [parse_until(text, time.time()) for text in filters["until"]]
    return (
        filters.labels(labels)
        and filters.without_labels(labels)
        and all(created_at(image) < moment for moment in until)
    )


async def _around(engine: Engine, images: list[Image], filters: Filters) -> list[Image]:
    for name, newer in (("before", False), ("since", True)):
        for reference in filters[name]:
            at = created_at(await engine.images.inspect(ImageRef(reference=reference)))
            images = [i for i in images if (created_at(i) > at if newer else created_at(i) < at)]
    return images


def _shared(images: list[Image]) -> dict[str, int]:
    """Bytes of layers that more than one image has."""
    uses = Counter(layer.diff_id for image in images for layer in image.layers)
    return {
        image.id: sum(layer.size for layer in image.layers if uses[layer.diff_id] > 1)
        for image in images
    }


async def inspect(engine: Engine, ask: Ask) -> Response:
    """`docker image inspect`."""
    manifests = ask.flag("manifests") and ask.version >= (1, 48)
    platform = wanted_platform(ask.text("platform")) if ask.version >= (1, 49) else None
    if manifests and platform is not None:
        raise InvalidArgument(
            "conflicting options: manifests and platform options cannot both be set"
        )
    image = await known(engine, ask["name"])
    check_platforms(image, ask["name"], [platform])
    view = image_view(image, ask.version)
    if manifests:
        view["Manifests"] = [manifest_view(image, (await _users(engine)).get(image.id, []))]
    return answer(view)


async def _users(engine: Engine) -> dict[str, list[str]]:
    """Ids of containers by their images'."""
    found: dict[str, list[str]] = {}
    for status in await engine.statuses(foreign_too=True):
        if status.image is not None:
            found.setdefault(status.image.id, []).append(status.spec.id)
    return found


async def known(engine: Engine, name: str) -> Image:
    """An image by any of its names; NotFound and InvalidArgument in Docker's words."""
    try:
        return await engine.images.inspect(ImageRef(reference=name))
    except InvalidArgument as error:
        if "invalid reference" in error.message.lower() or "ambiguous" in error.message.lower():
            raise
        raise InvalidArgument(f"invalid reference format: {error.message}") from None


async def history(engine: Engine, ask: Ask) -> Response:
    """`docker history`."""
    image = await known(engine, ask["name"])
    if ask.version >= (1, 48):
        check_platforms(image, ask["name"], [wanted_platform(ask.text("platform"))])
    return answer(history_view(image, [parent async for parent in _parents(engine, image)]))


async def _parents(engine: Engine, image: Image) -> AsyncIterator[Image]:
    """What it was built of, step by step, as far as that is here."""
    seen = {image.id}
    while image.parent and image.parent not in seen:
        seen.add(image.parent)
        try:
            image = await engine.images.inspect(ImageRef(reference=image.parent))
        except NotFound:
            return
        yield image


async def tag(engine: Engine, ask: Ask) -> Response:
    """`docker tag`."""
    image = await known(engine, ask["name"])
    target = named(ask.text("repo"), ask.text("tag"))
    if not target:
        raise InvalidArgument("invalid reference format")
    await engine.images.tag(TagRequest(source=image.id, target=target))
    return empty(201)


async def remove(engine: Engine, ask: Ask) -> Response:
    """`docker rmi`."""
    name = ask["name"]
    if not name.strip():
        raise InvalidArgument("image name cannot be blank")
    given = ask.request.query.all("platforms") if ask.version >= (1, 50) else []
    platforms = [wanted_platform(text) for text in given]
    image = await known(engine, name)
    check_platforms(image, name, platforms)
    force = ask.flag("force")
    last = len(image.tags) <= 1 or _by_id(image, name)
    used = last and await _used(engine, image, name, force=force)
    request = RemoveRequest(
        reference=name, force=force, prune_parents=not ask.flag("noprune"), keep=used
    )
    removed = await engine.images.remove(request)
    return answer(_deleted(removed))


def _by_id(image: Image, name: str) -> bool:
    return image.id.removeprefix("sha256:").startswith(name.removeprefix("sha256:"))


async def _used(engine: Engine, image: Image, name: str, *, force: bool) -> bool:
    """An image of a running container is never removed, that of a stopped one only by force.

    Whether it stays, and force takes its name alone.
    """
    kept = False
    for status in await engine.statuses(foreign_too=True):
        if status.image is None or status.image.id != image.id:
            continue
        running = status.state in ("running", "paused", "restarting")
        if force and not running:
            continue
        if force and not _by_id(image, name):
            kept = True
            continue
        kind, word = ("cannot be", "running") if running else ("must be", "stopped")
        short, used = image.id.removeprefix("sha256:")[:12], status.spec.id[:12]
        if _by_id(image, name):
            text = (
                f"unable to delete {short} ({kind} forced) - image is being used by {word} "
                f"container {used}"
            )
        else:
            text = (
                f'unable to remove repository reference "{name}" (must force) - container {used} '
                f"is using its referenced image {short}"
            )
        raise Conflict(f"conflict: {text}")
    return kept


def _deleted(removed: Removed) -> list[dict[str, str]]:
    return [{"Untagged": name} for name in removed.untagged] + [
        {"Deleted": id_} for id_ in removed.deleted
    ]


async def prune(engine: Engine, ask: Ask) -> Response:
    """`docker image prune`: dangling ones, or with dangling=false all that no container uses."""
    filters = ask.filters()
    filters.check(("dangling", "label", "label!", "until"))
    now = time.time()
    query = ImageQuery(
        dangling=filters.boolean("dangling") is not False,
        labels=tuple(filters["label"]),
        without_labels=tuple(filters["label!"]),
        until=min((parse_until(text, now) for text in filters["until"]), default=0.0),
    )
    removed = await engine.images.prune(query)
    engine.note_prune("image", removed.reclaimed)
    return answer({"ImagesDeleted": _deleted(removed) or None, "SpaceReclaimed": removed.reclaimed})


async def commit(engine: Engine, ask: Ask) -> Response:
    """`docker commit`: the container's config, changed by a body and by Dockerfile lines."""
    from sagong_docker.changes import apply_changes

    body = await ask.checked(ImageBody)
    record = await engine.container(ask.text("container"))
    status = await engine.status(record)
    config = merged_config(record, status)
    config |= {k: v for k, v in body.items() if v not in (None, "", [], {})}
    config = apply_changes(config, ask.request.query.all("changes"))
    reference = named(ask.text("repo"), ask.text("tag"))
    pausing = ask.flag("pause", True) and status.state is StatusState.RUNNING
    async with _paused(engine, record) if pausing else contextlib.nullcontext():
        image = await engine.images.commit(
            CommitRequest(
                id=new_id(),
                container=record.id,
                command=" ".join(status.args),
                reference=reference,
                author=ask.text("author"),
                comment=ask.text("comment"),
                config=msgspec.json.encode(_runnable(config)),
            )
        )
    facts = {"comment": ask.text("comment"), "imageID": image.id, "imageRef": reference}
    engine.note(record, "commit", **facts)
    return answer({"Id": image.id}, 201)


@contextlib.asynccontextmanager
async def _paused(engine: Engine, record: ContainerRecord) -> AsyncIterator[None]:
    """Nothing in the container changes meanwhile; one that ends before it is frozen changes nothing."""
    try:
        await engine.node.pause(Ref(id=record.id))
    except SagongError:
        if (await engine.status(record)).state is StatusState.RUNNING:
            raise
    try:
        yield
    finally:
        if (await engine.status(record)).state is StatusState.PAUSED:
            await engine.node.resume(Ref(id=record.id))


def _runnable(config: dict[str, Any]) -> dict[str, Any]:
    """Only what an image's config holds."""
    kept = (
        "User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels",
        "StopSignal", "Healthcheck", "OnBuild", "Shell",
    )  # fmt: skip
    return {k: config[k] for k in kept if config.get(k) not in (None, "", [], {})}
