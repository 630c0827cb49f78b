"""Images for pods: pull policies, credentials from secrets, back-off, few pulls at a time."""

from __future__ import annotations

import asyncio
import base64
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from sagong.contracts.image import Credentials, Image, ImageRef, Images, PullRequest
from sagong.errors import NotFound, PermissionDenied, SagongError, Unauthenticated
from sagong.model.k8s.core_v1 import Secret

__all__ = ["Missing", "Pulled", "Puller", "credentials_for", "effective_policy"]

FIRST_PAUSE, LONGEST_PAUSE = 10.0, 300.0
_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")


class Missing(Exception):
    """No image: upstream's reason, the message, and when to try again."""

    def __init__(self, reason: str, message: str, until: float) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.until = until


class Pulled(msgspec.Struct, frozen=True):
    """The image; `seconds` is how long it took, None if it was there already."""

    image: Image
    seconds: float | None = None
    waited: float = 0.0


class _Failing(msgspec.Struct):
    pause: float
    until: float
    error: str


def effective_policy(policy: str, image: str) -> str:
    """The container's, else Always for :latest or no tag, IfNotPresent otherwise."""
    if policy:
        return policy
    name = image.rpartition("/")[2]
    tag = name.partition("@")[0].partition(":")[2]
    if "@" in name or (tag and tag != "latest"):
        return "IfNotPresent"
    return "Always"


class Puller:
    """Shared by all pods; the same pull asked for twice is done once."""

    def __init__(self, images: Images, *, parallel: int) -> None:
        self._images = images
        self._slots = asyncio.Semaphore(max(parallel, 1))
        self._failing: dict[tuple[str, str], _Failing] = {}
        self._pulls: dict[tuple[str, str, str], asyncio.Task[Image]] = {}

    async def present(self, reference: str) -> Image | None:
        """The image if it is here."""
        try:
            return await self._images.inspect(ImageRef(reference=reference))
        except NotFound:
            return None

    def check_pause(self, user: str, reference: str) -> None:
        """Raise Missing ImagePullBackOff while it is too early to try again."""
        failing = self._failing.get((user, reference))
        if failing is not None and time.time() < failing.until:
            message = f'Back-off pulling image "{reference}": ErrImagePull: {failing.error}'
            raise Missing("ImagePullBackOff", message, failing.until)

    async def pull(self, user: str, reference: str, secrets: Iterable[Secret]) -> Pulled:
        """Pull for a pod (`user`), trying each credential that fits; Missing tells why it failed."""
        key = (user, reference)
        began = time.monotonic()
        try:
            async with self._slots:
                start = time.monotonic()
                image = await self._try_all(reference, list(credentials_for(reference, secrets)))
        except SagongError as error:
            failing = self._failing.get(key)
            pause = min(failing.pause * 2, LONGEST_PAUSE) if failing else FIRST_PAUSE
            until = time.time() + pause
            self._failing[key] = _Failing(pause, until, error.message)
            raise Missing("ErrImagePull", error.message, until) from None
        self._failing.pop(key, None)
        end = time.monotonic()
        return Pulled(image, end - start, end - began)

    def forget(self, user: str) -> None:
        """A pod is gone."""
        for key in [key for key in self._failing if key[0] == user]:
            del self._failing[key]

    async def _try_all(self, reference: str, credentials: list[Credentials]) -> Image:
        error: SagongError | None = None
        for offered in credentials or [Credentials()]:
            try:
                return await self._shared(reference, offered)
            except (Unauthenticated, PermissionDenied, NotFound) as refused:
                error = refused
        assert error is not None
        raise error

    async def _shared(self, reference: str, credentials: Credentials) -> Image:
        key = (reference, credentials.username, credentials.password + credentials.token)
        task = self._pulls.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._pull(reference, credentials))
            self._pulls[key] = task
            task.add_done_callback(lambda done: self._pulled(key, done))
        # One pod that is deleted meanwhile does not take the pull from the others.
        return await asyncio.shield(task)

    def _pulled(self, key: tuple[str, str, str], done: asyncio.Task[Image]) -> None:
        self._pulls.pop(key, None)
        if not done.cancelled():
            done.exception()  # nobody may wait for it any more

    async def _pull(self, reference: str, credentials: Credentials) -> Image:
        request = PullRequest(id=uuid.uuid4().hex, reference=reference, credentials=credentials)
        async for _ in self._images.pull(request):
            pass
        return await self._images.inspect(ImageRef(reference=reference))


def registry_of(reference: str) -> str:
    """The registry's host of a reference, docker.io if it names none."""
    head, slash, _ = reference.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost"):
        return head
    return "docker.io"


def credentials_for(reference: str, secrets: Iterable[Secret]) -> Iterator[Credentials]:
    """Credentials of dockerconfigjson and dockercfg secrets that fit the image, best match first."""
    path = reference if registry_of(reference) != "docker.io" else _hub_path(reference)
    found = []
    for secret in secrets:
        for server, entry in _entries(secret).items():
            place = _place(server)
            if _fits(place, path):
                found.append((len(place), entry, server))
    for _, entry, server in sorted(found, key=lambda item: -item[0]):
        yield _credentials(entry, server)


def _hub_path(reference: str) -> str:
    rest = reference
    for host in _HUB:
        rest = rest.removeprefix(f"{host}/")
    return f"docker.io/{rest if '/' in rest else f'library/{rest}'}"


def _entries(secret: Secret) -> Mapping[str, dict[str, str]]:
    for key in (".dockerconfigjson", ".dockercfg"):
        if key not in secret.data:
            continue
        try:
            document = msgspec.json.decode(base64.b64decode(secret.data[key]))
        except (ValueError, msgspec.DecodeError):
            return {}
        entries = document.get("auths", {}) if key == ".dockerconfigjson" else document
        return {k: v for k, v in entries.items() if isinstance(v, dict)}
    return {}


def _place(server: str) -> str:
    place = server.removeprefix("https://").removeprefix("http://").rstrip("/")
    for suffix in ("/v1", "/v2"):
        place = place.removesuffix(suffix)
    host, slash, rest = place.partition("/")
    return f"docker.io{slash}{rest}" if host in _HUB else place


def _fits(place: str, path: str) -> bool:
    """Whether the image is below the place; `*.example.com` stands for one label of the host."""
    host, _, rest = place.partition("/")
    image_host, _, image_rest = path.partition("/")
    labels, image_labels = host.split("."), image_host.split(".")
    if len(labels) != len(image_labels):
        return False
    same = all(a in ("*", b) for a, b in zip(labels, image_labels))
    return same and (not rest or image_rest.startswith(rest))


def _credentials(entry: Mapping[str, str], server: str) -> Credentials:
    username, password = entry.get("username", ""), entry.get("password", "")
    if entry.get("auth"):
        try:
            text = base64.b64decode(entry["auth"]).decode()
        except ValueError:
            text = ""
        username, _, password = text.partition(":")
    return Credentials(
        username=username,
        password=password.rstrip("\0"),
        identity=entry.get("identitytoken", ""),
        server=server,
    )
