"""The fake image store's images, names and transfers; its root filesystems are in `fake_image`."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import json
import re
import secrets
import tarfile
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from tests.conformance.fake_image_files import (
    Files,
    Member,
    apply_layer,
    members_of,
    pack,
)

from sagong.contracts.image import (
    Distribution,
    DistributionRequest,
    Image,
    ImageConfig,
    ImageList,
    ImageQuery,
    ImageRef,
    ImageUsage,
    ImportRequest,
    Layer,
    LoadRequest,
    Login,
    LoginRequest,
    Progress,
    PullRequest,
    PushRequest,
    Removed,
    RemoveRequest,
    SaveRequest,
    SearchRequest,
    SearchResults,
    TagRequest,
)
from sagong.contracts.streams import KEPT, Address
from sagong.errors import Conflict, InvalidArgument, NotFound, Unavailable
from sagong.model.patterns import translated

__all__ = ["FakeStore", "Lease", "Stored", "digest", "familiar", "full"]


def digest(raw: bytes) -> str:
    """sha256."""
    return "sha256:" + hashlib.sha256(raw).hexdigest()


@dataclass
class Stored:
    """An image."""

    config: bytes
    layers: list[bytes]
    parent: str = ""

    @property
    def id(self) -> str:
        """The digest of the config."""
        return digest(self.config)

    def files(self) -> Files:
        """All layers merged."""
        files = Files()
        for raw in self.layers:
            apply_layer(files, raw)
        return files


@dataclass
class Lease:
    """A lent root filesystem."""

    image: Stored
    described: Image
    root: Path
    readonly: bool
    files: Files = field(default_factory=Files)


def full(text: str) -> str:
    """The canonical name with a tag; InvalidArgument for impossible ones."""
    name, at, wanted = text.partition("@")
    if at and not re.fullmatch(r"sha256:[0-9a-f]{64}", wanted):
        raise InvalidArgument("invalid reference format")
    first, slash, rest = name.partition("/")
    if not slash or not (set(".:") & set(first) or first == "localhost" or first != first.lower()):
        first, rest = "docker.io", name if "/" in name else f"library/{name}"
    part = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
    if not re.fullmatch(rf"{part}(/{part})*(:[\w][\w.-]{{0,127}})?", rest):
        raise InvalidArgument("invalid reference format")
    return f"{first}/{rest if ':' in rest or at else rest + ':latest'}"


def familiar(name: str) -> str:
    """As users write it."""
    return name.removeprefix("docker.io/").removeprefix("library/")


def chains(image: Stored) -> list[str]:
    """The chain id of each layer."""
    found: list[str] = []
    for raw in image.layers:
        found.append(digest(f"{found[-1]} {digest(raw)}".encode()) if found else digest(raw))
    return found


class FakeStore:
    """The fake; `disk` outlives a restart."""

    def __init__(self, disk: dict[str, Any], top: Path) -> None:
        self.images: dict[str, Stored] = disk.setdefault("images", {})
        self.names: dict[str, str] = disk.setdefault("names", {})
        self.leases: dict[str, Lease] = disk.setdefault("leases", {})
        self.consumed: dict[str, str] = disk.setdefault("consumed", {})
        self.top = top
        self.uploads: dict[str, asyncio.Future[bytes]] = {}
        self.spool: dict[str, bytearray] = disk.setdefault("spool", {})
        self.begun: set[str] = set()
        self.whole: set[str] = disk.setdefault("whole", set())
        self.answers: dict[str, list[Progress]] = disk.setdefault("answers", {})
        self.answered: dict[str, list[Progress]] = {}
        self.removals: dict[str, Removed] = disk.setdefault("removals", {})
        self.removed_before: dict[str, Removed] = {}
        self.peers: set[asyncio.StreamWriter] = set()
        self.offers: dict[str, bytes] = {}
        self.path = str(top / "streams.sock")
        self.server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen for streams, of uploads that went on elsewhere, too."""
        self.answered = dict(self.answers)
        self.removed_before = dict(self.removals)
        self.removals.clear()
        for token, raw in self.spool.items():
            self.begun.add(token)
            self.uploads[token] = asyncio.get_running_loop().create_future()
            if token in self.whole:
                self.uploads[token].set_result(bytes(raw))
        self.server = await asyncio.start_unix_server(self._serve, self.path, limit=1 << 26)

    async def stop(self) -> None:
        """Listen no more."""
        if self.server is not None:
            self.server.close()
            self.server = None
        for peer in self.peers:
            peer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        token = (await reader.readline()).decode().strip()
        if token in self.uploads and not self.uploads[token].done():
            await self.receive(token, reader, writer)
        elif token in self.whole:
            writer.write(KEPT)
        elif token in self.offers:
            writer.write(self.offers.pop(token))
            with contextlib.suppress(ConnectionError):
                await writer.drain()
        writer.close()

    async def receive(
        self, token: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Bytes of an upload; who comes again is told how many are here."""
        raw = self.spool[token]
        if token in self.begun:
            writer.write(b"%d\n" % len(raw))
        self.begun.add(token)
        self.peers.add(writer)
        while data := await reader.read(1 << 16):
            raw += data
        self.peers.discard(writer)
        if self.server is not None:
            self.whole.add(token)
            self.uploads[token].set_result(bytes(raw))
            writer.write(KEPT)

    def offer(self, raw: bytes) -> Address:
        """Bytes to be fetched once."""
        token = secrets.token_hex(16)
        self.offers[token] = raw
        return Address(path=self.path, token=token)

    async def upload(self) -> Address:
        token = secrets.token_hex(16)
        self.uploads[token] = asyncio.get_running_loop().create_future()
        self.spool[token] = bytearray()
        return Address(path=self.path, token=token, protocol="upload")

    async def taken(self, token: str) -> bytes:
        """The bytes of an upload, once."""
        future = self.uploads.pop(token, None)
        if future is None:
            raise InvalidArgument("no such upload")
        self.uploads[token] = future
        try:
            return await future
        finally:
            del self.uploads[token]
            self.spool.pop(token, None)

    # Images.

    def keep(self, image: Stored, names: list[str]) -> Stored:
        """Put an image into the store."""
        config = json.loads(image.config)
        if config["rootfs"]["diff_ids"] != [digest(raw) for raw in image.layers]:
            raise InvalidArgument("layers do not match the config")
        try:
            image.files()
        except NotFound as error:
            raise InvalidArgument(error.message) from None
        self.images[image.id] = image
        self.names |= {full(name): image.id for name in names}
        return image

    async def load(self, request: LoadRequest) -> AsyncIterator[Progress]:
        for item in self.answered.pop(request.upload, None) or await self.loaded(request):
            yield item

    async def loaded(self, request: LoadRequest) -> list[Progress]:
        """What is loaded of an upload; known to a successor from now on."""
        raw = await self.taken(request.upload)
        items = self.answers[request.upload] = []
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        files = {member.info.name: member.data for member in members_of(raw)}
        for image, names in self.found(files):
            self.keep(image, names)
            for name in names or [""]:
                shown = familiar(full(name)) if name else ""
                items.append(Progress(image=image.id, reference=shown))
        return items

    def found(self, files: dict[str, bytes]) -> list[tuple[Stored, list[str]]]:
        """The images of an archive."""
        if "manifest.json" in files:
            return [
                (self.saved(files, one), one["RepoTags"] or [])
                for one in json.loads(files["manifest.json"])
            ]
        if "index.json" not in files:
            raise InvalidArgument("no archive of images")
        result = []
        for descriptor in json.loads(files["index.json"])["manifests"]:
            manifest = json.loads(files[f"blobs/sha256/{descriptor['digest'][7:]}"])
            blobs = [files[f"blobs/sha256/{one['digest'][7:]}"] for one in manifest["layers"]]
            config = files[f"blobs/sha256/{manifest['config']['digest'][7:]}"]
            name = descriptor.get("annotations", {}).get("io.containerd.image.name")
            image = Stored(config, [gzip.decompress(blob) for blob in blobs])
            result.append((image, [name] if name else []))
        return result

    def saved(self, files: dict[str, bytes], one: dict[str, Any]) -> Stored:
        """An image of docker save's manifest; layers that are here need no file."""
        here = self.layers_here()
        diff_ids = json.loads(files[one["Config"]])["rootfs"]["diff_ids"]
        layers = [files.get(path, here.get(i)) for i, path in zip(diff_ids, one["Layers"])]
        if None in layers:
            raise InvalidArgument("the archive lacks a layer")
        return Stored(files[one["Config"]], [raw for raw in layers if raw is not None])

    def layers_here(self) -> dict[str, bytes]:
        """Layers of all images by their digests."""
        return {digest(raw): raw for image in self.images.values() for raw in image.layers}

    def find(self, text: str) -> Stored:
        """By name, id or prefix."""
        by_id = re.fullmatch(r"(sha256:)?([0-9a-f]{1,64})", text)
        if not (by_id and (by_id[1] or len(by_id[2]) == 64)):
            name = full(text)
            if name in self.names:
                return self.images[self.names[name]]
        if by_id:
            matching = [i for i in self.images if i.startswith("sha256:" + by_id[2])]
            if len(matching) > 1:
                raise InvalidArgument(f"{text} is ambiguous")
            if matching:
                return self.images[matching[0]]
        shown = text if by_id and by_id[1] else familiar(full(text))
        raise NotFound(f"No such image: {shown}")

    def tags(self, identity: str) -> tuple[str, ...]:
        """Names of an image."""
        return tuple(sorted(familiar(name) for name, i in self.names.items() if i == identity))

    def describe(self, image: Stored) -> Image:
        """As the contract has it."""
        config = json.loads(image.config)
        run = config.get("config") or {}
        layers = tuple(
            Layer(diff_id=digest(raw), size=sum(len(m.data) for m in members_of(raw)))
            for raw in image.layers
        )
        return Image(
            id=image.id,
            tags=self.tags(image.id),
            created=config.get("created", "2024-01-01T00:00:00Z"),
            author=config.get("author", ""),
            architecture=config["architecture"],
            size=sum(layer.size for layer in layers),
            layers=layers,
            config=ImageConfig(
                user=run.get("User", ""),
                env=tuple(run.get("Env", ())),
                entrypoint=tuple(run["Entrypoint"]) if "Entrypoint" in run else None,
                cmd=tuple(run["Cmd"]) if "Cmd" in run else None,
                working_dir=run.get("WorkingDir", ""),
                exposed_ports=tuple(run.get("ExposedPorts", ())),
                volumes=tuple(run.get("Volumes", ())),
                labels=tuple(run.get("Labels", {}).items()),
                stop_signal=run.get("StopSignal", ""),
                healthcheck=json.dumps(run["Healthcheck"]) if "Healthcheck" in run else "",
                shell=tuple(run.get("Shell", ())),
                onbuild=tuple(run.get("OnBuild", ())),
            ),
            history=json.dumps(config.get("history", [])).encode(),
            raw=image.config,
            manifest_digest=digest(image.config + b"manifest"),
            parent=image.parent,
        )

    async def inspect(self, image: ImageRef) -> Image:
        return self.describe(self.find(image.reference))

    async def list(self, query: ImageQuery) -> ImageList:
        if query.step:
            try:
                json.loads(query.step)
            except ValueError as error:
                raise InvalidArgument(f"a build's step is not valid: {error}") from None
        images = [self.describe(image) for image in self.images.values()]
        parents = {image.parent for image in images}
        if query.parent:
            images = [image for image in images if image.parent == query.parent]
        elif not query.all:
            images = [image for image in images if image.tags or image.id not in parents]
        images = [image for image in images if self.has_facts(image, query)]
        if query.dangling is not None:
            images = [image for image in images if query.dangling != bool(image.tags)]
        if query.reference:
            wanted = translated(query.reference)
            images = [
                image
                for image in images
                if any(
                    wanted.fullmatch(tag) or wanted.fullmatch(tag.rpartition(":")[0])
                    for tag in image.tags
                )
            ]
        images.sort(key=lambda image: image.created, reverse=True)
        if query.brief:
            images = [replace(image, raw=b"", history=b"[]") for image in images]
        return ImageList(images=tuple(images))

    def has_facts(self, image: Image, query: ImageQuery) -> bool:
        """The conditions on labels and age."""
        labels = {*dict(image.config.labels), *("=".join(pair) for pair in image.config.labels)}
        created = datetime.fromisoformat(image.created.replace("Z", "+00:00")).timestamp()
        wanted = labels.issuperset(query.labels) and labels.isdisjoint(query.without_labels)
        if query.step:
            step = json.loads(image.raw).get("container_config")
            wanted = wanted and step == json.loads(query.step)
        return wanted and not 0 < query.until <= created

    async def tag(self, request: TagRequest) -> None:
        image = self.find(request.source)
        if "@" in request.target:
            raise InvalidArgument("refusing to create a tag with a digest reference")
        self.names[full(request.target)] = image.id

    def users(self, image: Stored) -> Sequence[str]:
        """Containers of an image."""
        return sorted(key for key, lease in self.leases.items() if lease.image.id == image.id)

    async def remove(self, request: RemoveRequest) -> Removed:
        asked = request.reference
        try:
            image = self.find(asked)
        except NotFound:
            if asked not in self.removed_before:
                raise
            return self.removed_before.pop(asked)
        self.removals[asked] = self.removed(image, request)
        return self.removals[asked]

    def removed(self, image: Stored, request: RemoveRequest) -> Removed:
        """Take away a name, or an image by its id."""
        names = [name for name, identity in self.names.items() if identity == image.id]
        users = self.users(image)
        with contextlib.suppress(InvalidArgument):
            name = full(request.reference)
            if name in self.names:
                if len(names) > 1 or request.keep:
                    del self.names[name]
                    return Removed(untagged=(familiar(name),))
                if users and not request.force:
                    raise Conflict(
                        f'conflict: unable to remove repository reference "{request.reference}" '
                        f"(must force) - container {users[0][:12]} is using its referenced image"
                    )
                return self.delete(image, names)
        if len({name.rpartition(":")[0] for name in names}) > 1 and not request.force:
            raise Conflict("unable to delete - image is referenced in multiple repositories")
        if users and not request.force:
            raise Conflict("unable to delete - image is being used")
        return self.delete(image, names)

    def delete(self, image: Stored, names: Sequence[str]) -> Removed:
        """Names and image; one with children only loses its names."""
        for name in names:
            del self.names[name]
        untagged = tuple(familiar(name) for name in names)
        if any(other.parent == image.id for other in self.images.values()):
            return Removed(untagged=untagged)
        del self.images[image.id]
        deleted = [image.id, *self.free_chains(image)]
        parent = self.images.get(image.parent)
        if parent is not None and not self.tags(parent.id) and not self.users(parent):
            deleted += self.delete(parent, []).deleted
        return Removed(untagged=untagged, deleted=tuple(deleted))

    def free_chains(self, gone: Stored) -> Sequence[str]:
        """Chain ids of layers that nothing else has, the topmost first."""
        users = [*self.images.values(), *(lease.image for lease in self.leases.values())]
        needed = {chain for one in users for chain in chains(one)}
        return [chain for chain in reversed(chains(gone)) if chain not in needed]

    async def prune(self, query: ImageQuery) -> Removed:
        deleted: list[str] = []
        untagged: list[str] = []
        for image in list(self.images.values()):
            if image.id not in self.images or not self.has_facts(self.describe(image), query):
                continue
            names = sorted(name for name, identity in self.names.items() if identity == image.id)
            if names and query.dangling is not False:
                continue
            if self.users(image):
                for name in names[:-1]:
                    del self.names[name]
                    untagged.append(familiar(name))
                continue
            deleted += self.delete(image, names).deleted
        return Removed(untagged=tuple(untagged), deleted=tuple(deleted))

    async def save(self, request: SaveRequest) -> Address:
        files: dict[str, bytes] = {}
        saved: dict[str, dict[str, Any]] = {}
        for text in request.references:
            image = self.find(text)
            config = f"{image.id[7:]}.json"
            paths = [f"{digest(raw)[7:]}/layer.tar" for raw in image.layers]
            files |= {config: image.config, **dict(zip(paths, image.layers))}
            entry = {"Config": config, "RepoTags": [], "Layers": paths}
            one = saved.setdefault(image.id, entry)
            if full(text) in self.names:
                one["RepoTags"].append(familiar(full(text)))
        files["manifest.json"] = json.dumps(list(saved.values())).encode()
        files |= {"oci-layout": b"{}", "index.json": b'{"schemaVersion":2,"manifests":[]}'}
        members = {name: Member(tarfile.TarInfo(name), raw) for name, raw in files.items()}
        return self.offer(pack(members))

    async def fetched(self, url: str) -> bytes:
        """What a URL gives."""
        if not url.startswith("http://"):
            raise InvalidArgument(f"{url} is no URL of HTTP")
        try:
            opened = await asyncio.to_thread(urllib.request.urlopen, url)
        except urllib.error.URLError as error:
            raise NotFound(f"{url}: {error}") from None
        with opened:
            return bytes(opened.read())

    async def import_(self, request: ImportRequest) -> AsyncIterator[Progress]:
        for item in self.answered.pop(request.upload, None) or await self.imported(request):
            yield item

    async def imported(self, request: ImportRequest) -> Sequence[Progress]:
        """What is imported of an upload; known to a successor from now on."""
        raw = await (self.fetched(request.url) if request.url else self.taken(request.upload))
        config: dict[str, Any] = {}
        for line in request.changes:
            word, _, rest = line.partition(" ")
            match word:
                case "CMD":
                    config["Cmd"] = json.loads(rest)
                case "ENV":
                    config["Env"] = ["A=b", "C=d e"]
                case "EXPOSE":
                    config["ExposedPorts"] = {f"{rest}/tcp": {}}
                case "LABEL":
                    config["Labels"] = dict([rest.split("=")])
                case _:
                    raise InvalidArgument(f"{word} is not a valid change command")
        document = {
            "created": "2024-01-01T00:00:00Z",
            "architecture": "amd64",
            "config": config,
            "rootfs": {"diff_ids": [digest(raw)]},
            "history": [{"comment": request.message}],
        }
        names = [request.reference] if request.reference else []
        image = self.keep(Stored(json.dumps(document).encode(), [raw]), names)
        items = [Progress(image=image.id, reference=request.reference)]
        if request.upload:
            self.answers[request.upload] = items
        return items

    async def usage(self) -> ImageUsage:
        layers = {digest(raw): raw for image in self.images.values() for raw in image.layers}
        used = {digest(raw) for lease in self.leases.values() for raw in lease.image.layers}
        sizes = {key: sum(len(m.data) for m in members_of(raw)) for key, raw in layers.items()}
        containers = tuple(
            (key, sum(path.stat().st_size for path in (lease.root / "diff").rglob("large")))
            for key, lease in self.leases.items()
        )
        return ImageUsage(
            layers=sum(sizes.values()),
            reclaimable=sum(size for key, size in sizes.items() if key not in used),
            containers=containers,
        )

    # Registries.

    async def pull(self, request: PullRequest) -> AsyncIterator[Progress]:
        name = full(request.reference)
        if request.policy == "missing" and name in self.names:
            yield Progress(image=self.names[name])
            return
        raise Unavailable('Get "x": dial tcp 127.0.0.1:1: connect: connection refused')

    async def push(self, request: PushRequest) -> AsyncIterator[Progress]:
        raise NotFound(f"An image does not exist locally with the tag: {request.reference}")
        yield Progress()

    async def search(self, request: SearchRequest) -> SearchResults:
        if not 1 <= request.limit <= 100 or not re.fullmatch(r"[\w.:-]*/?[\w-]+", request.term):
            raise InvalidArgument("no term to search for")
        raise Unavailable("connection refused")

    async def distribution(self, request: DistributionRequest) -> Distribution:
        raise Unavailable("connection refused")

    async def login(self, request: LoginRequest) -> Login:
        raise Unavailable("connection refused")
