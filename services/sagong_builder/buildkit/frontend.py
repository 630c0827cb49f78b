"""What clients of BuildKit say of a build, as a request of ours. Pure.

Source: the options of BuildKit's `dockerfile.v0` frontend.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import msgspec

from sagong.contracts.builder import BuildRequest, Surroundings
from sagong.contracts.runtime import Rlimit
from sagong.errors import InvalidArgument
from sagong.model import oci
from sagong.model.numbers import natural
from sagong_builder.buildkit.provenance import Attesting, read_attesting

__all__ = ["EPOCH", "CacheFrom", "Wish", "read_epoch", "read_options"]

_INPUT = "input:"
EPOCH = "SOURCE_DATE_EPOCH"
# The year 10000: dates of images have four digits.
_LAST = 253402300800
_HOSTNAME = "build-arg:BUILDKIT_SANDBOX_HOSTNAME"
_IMAGES = ("docker-image", "oci-layout")
_NAMES = {"dockerfile.v0", "gateway.v0", ""}


@dataclass(frozen=True)
class CacheFrom:
    """A cache of the client's: of a registry (`ref`), of a directory (`src`, `digest`), or else."""

    kind: str
    attributes: Mapping[str, str]

    @property
    def title(self) -> str:
        """What it is called in the progress."""
        return self.attributes.get("ref") or f"{self.kind}:{self.attributes.get('src', '')}"


@dataclass(frozen=True)
class Wish:
    """The request, and where its files come from.

    `context` is a URL, of whose files those in `directory` are meant, or "" for the client's directory
    `context_name`. With `own_dockerfile` the Dockerfile is in the client's directory `dockerfile_name`,
    else in the context. `named` are further contexts: name, platform that it is for ("": any), source.
    `caches` are asked what they have. Stages named in `anew` are made without the cache. With a
    `question` nothing is built: it is about the Dockerfile. With `several` there is an image for each
    of `platforms`, though that may be one. With `attesting` it is told how they were made, by `options`
    among others, which are as they came. Commands see the machine as `hostname`, if that is given. What
    is made is dated to `epoch`, if that is given (seconds since 1970).
    """

    request: BuildRequest
    context: str = ""
    context_name: str = "context"
    dockerfile_name: str = "dockerfile"
    directory: str = ""
    own_dockerfile: bool = True
    named: tuple[tuple[str, str, str], ...] = ()
    caches: tuple[CacheFrom, ...] = ()
    platforms: tuple[str, ...] = ()
    several: bool = False
    anew: frozenset[str] = frozenset()
    question: str = ""
    attesting: Attesting | None = None
    hostname: str = ""
    epoch: int | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    def at(self, platform: str) -> Wish:
        """The same for one platform alone."""
        request = msgspec.structs.replace(self.request, platform=platform)
        wanted = _platform(platform)
        named = tuple(one for one in self.named if not one[1] or _platform(one[1]) == wanted)
        return replace(self, request=request, named=named)


def read_options(
    frontend: str,
    options: Mapping[str, str],
    surroundings: Surroundings,
    id_: str,
    inputs: Mapping[str, str] | None = None,
) -> Wish:
    """The options of `dockerfile.v0`; of `gateway.v0` those of a Dockerfile's `# syntax`.

    `inputs` are images that earlier builds of the client made, by the names that it gives them.
    """
    if frontend not in _NAMES:
        raise InvalidArgument(f"frontend {frontend[:80]!r} is not known here: use dockerfile.v0")
    wanted = filter(None, options.get("platform", "").split(","))
    platforms = tuple(dict.fromkeys(oci.platform_text(_platform(text)) for text in wanted))
    request = BuildRequest(
        id=id_,
        dockerfile=options.get("filename") or "Dockerfile",
        arguments=tuple(_prefixed(options, "build-arg:")),
        labels=tuple(_prefixed(options, "label:")),
        target=options.get("target", ""),
        cache=options.get("no-cache") != "",
        pull=options.get("image-resolve-mode") == "pull",
        force_remove=True,
        surroundings=_surroundings(options, surroundings),
    )
    return Wish(
        request,
        context=options.get("context", ""),
        context_name=options.get("contextkey") or "context",
        dockerfile_name=options.get("dockerfilekey") or "dockerfile",
        directory=options.get("contextsubdir", ""),
        own_dockerfile=not options.get("context") or bool(options.get("dockerfilekey")),
        named=_named(options, inputs or {}),
        caches=_caches(options) if request.cache else (),
        platforms=platforms or ("",),
        several=len(platforms) > 1 or _is_true(options.get("multi-platform", "")),
        anew=frozenset(name for name in options.get("no-cache", "").lower().split(",") if name),
        question=options.get("requestid", ""),
        attesting=read_attesting(options),
        hostname=options.get(_HOSTNAME) or options.get("hostname", ""),
        epoch=read_epoch(options.get(f"build-arg:{EPOCH}", "")),
        options=options,
    )


def read_epoch(text: str) -> int | None:
    """Seconds since 1970; None if none are given."""
    seconds = natural(text)
    if text and (seconds is None or seconds >= _LAST):
        raise InvalidArgument(f"invalid SOURCE_DATE_EPOCH: {text[:50]}")
    return seconds


def _platform(text: str) -> oci.Platform:
    return oci.parse_platform(text, os.uname().machine)


def _is_true(text: str) -> bool:
    return text.lower() in ("1", "t", "true")


def _named(
    options: Mapping[str, str], inputs: Mapping[str, str]
) -> tuple[tuple[str, str, str], ...]:
    """Further contexts; a name may carry the platform that it is for."""
    found = []
    for name, source in _prefixed(options, "context:"):
        if source.startswith(_INPUT):
            image = inputs.get(source.removeprefix(_INPUT))
            if image is None:
                raise InvalidArgument(f"invalid input {source[len(_INPUT) :][:80]} for {name[:80]}")
            source = f"docker-image://{image}"
        kind, _, rest = source.partition(":")
        if kind in _IMAGES:
            # The slashes may be left away.
            source = f"{kind}://{rest.removeprefix('//')}"
        plain, _, platform = name.partition("::")
        found.append((plain, platform, source))
    return tuple(found)


def _prefixed(options: Mapping[str, str], prefix: str) -> list[tuple[str, str]]:
    return sorted((k[len(prefix) :], v) for k, v in options.items() if k.startswith(prefix))


def _caches(options: Mapping[str, str]) -> tuple[CacheFrom, ...]:
    found = [
        CacheFrom("registry", {"ref": name})
        for name in options.get("cache-from", "").split(",")
        if name
    ]
    if raw := options.get("cache-imports"):
        try:
            entries = msgspec.json.decode(raw, type=list[_CacheImport])
        except msgspec.DecodeError:
            raise InvalidArgument("cache-imports is no list of cache options") from None
        found += [CacheFrom(entry.type, entry.attrs) for entry in entries]
    unlike = {(cache.kind, *sorted(cache.attributes.items())): cache for cache in found}
    return tuple(unlike.values())


class _CacheImport(msgspec.Struct, rename="pascal"):
    type: str = ""
    attrs: dict[str, str] = {}


def _surroundings(options: Mapping[str, str], given: Surroundings) -> Surroundings:
    network = given.network
    mode = options.get("force-network-mode", "")
    if mode in ("host", "none"):
        network = msgspec.structs.replace(network, mode=mode, attachments=())
    elif mode not in ("", "sandbox", "default"):
        raise InvalidArgument(f"network mode {mode[:80]!r} is not supported: default, host or none")
    return msgspec.structs.replace(
        given,
        network=network,
        hosts=(*given.hosts, *_hosts(options.get("add-hosts", ""))),
        rlimits=tuple(_ulimits(options.get("ulimit", ""))),
        shm_size=_count(options.get("shm-size", ""), "shm-size"),
        cgroup_parent=options.get("cgroup-parent") or given.cgroup_parent,
    )


def _hosts(text: str) -> list[tuple[str, str]]:
    found = []
    for part in _fields(text):
        name, equals, address = part.partition("=")
        if not equals:
            raise InvalidArgument(f"invalid add-hosts: {part[:80]!r}")
        found.append((address, name))
    return found


def _ulimits(text: str) -> list[Rlimit]:
    found = []
    for part in _fields(text):
        name, _, values = part.partition("=")
        soft, _, hard = values.partition(":")
        bounds = [_count(soft, "ulimit"), _count(hard or soft, "ulimit")]
        found.append(Rlimit(name=name.lower(), soft=bounds[0], hard=bounds[1]))
    return found


def _fields(text: str) -> list[str]:
    try:
        rows = list(csv.reader([text])) if text else []
    except csv.Error as error:
        raise InvalidArgument(f"{text[:80]!r}: {error}") from None
    return [field for row in rows for field in row if field]


def _count(text: str, name: str) -> int:
    if not text:
        return 0
    try:
        return int(text)
    except ValueError:
        raise InvalidArgument(f"{name}: {text[:50]!r} is not a number") from None
