"""Content of volumes that come from the API: config maps, secrets, tokens, downward files. Pure."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from sagong.errors import FailedPrecondition, InvalidArgument
from sagong.model.k8s.core_v1 import (
    ConfigMap,
    DownwardAPIVolumeFile,
    KeyToPath,
    Pod,
    ProjectedVolumeSource,
    Secret,
    ServiceAccountTokenProjection,
    Volume,
    VolumeProjection,
)
from sagong_node.pods.environment import field_value
from sagong_node.pods.resources import amount

__all__ = ["Content", "Downward", "Entry", "TokenWish", "content_of", "token_wishes", "wants"]

DEFAULT_MODE = 0o644
DEFAULT_TOKEN_SECONDS = 3600
_LEAST_TOKEN_SECONDS = 600


class Entry(msgspec.Struct, frozen=True):
    """One file of a volume."""

    data: bytes
    mode: int = DEFAULT_MODE


Content = dict[str, Entry]
Find = Callable[[str, str], ConfigMap | Secret | None]


class TokenWish(msgspec.Struct, frozen=True):
    """A service account token that a pod's volume asks for."""

    audience: str = ""
    seconds: int = DEFAULT_TOKEN_SECONDS


class Downward(msgspec.Struct, frozen=True):
    """What downward files tell beside the pod itself."""

    address: str = ""
    node: str = ""
    host: str = ""
    capacity: Mapping[str, int] | None = None


def wants(volume: Volume) -> set[tuple[str, str]]:
    """(resource, name) of what the content of a volume is made of."""
    if volume.config_map:
        return {("configmaps", volume.config_map.name)}
    if volume.secret:
        return {("secrets", volume.secret.secret_name)}
    found = set()
    for source in volume.projected.sources if volume.projected else ():
        if source.config_map:
            found.add(("configmaps", source.config_map.name))
        if source.secret:
            found.add(("secrets", source.secret.name))
    return found


def token_wishes(volume: Volume) -> set[TokenWish]:
    """Tokens that a projected volume needs."""
    sources = volume.projected.sources if volume.projected else ()
    tokens = [s.service_account_token for s in sources if s.service_account_token]
    return {_wish(token) for token in tokens}


def _wish(token: ServiceAccountTokenProjection) -> TokenWish:
    seconds = token.expiration_seconds or DEFAULT_TOKEN_SECONDS
    return TokenWish(token.audience, max(seconds, _LEAST_TOKEN_SECONDS))


def content_of(
    pod: Pod,
    volume: Volume,
    *,
    find: Find,
    tokens: Mapping[TokenWish, str],
    downward: Downward,
) -> Content | None:
    """Files by path; None if the volume's content does not come from the API.

    FailedPrecondition says which object or key is missing, in upstream's words.
    """
    if volume.config_map:
        source = volume.config_map
        found = find("configmaps", source.name)
        mode = _mode(source.default_mode)
        return _of_object(
            "configmap", source.name, found, source.items, mode, optional=bool(source.optional)
        )
    if volume.secret:
        secret = volume.secret
        found = find("secrets", secret.secret_name)
        mode = _mode(secret.default_mode)
        return _of_object(
            "secret", secret.secret_name, found, secret.items, mode, optional=bool(secret.optional)
        )
    if volume.downward_api:
        mode = _mode(volume.downward_api.default_mode)
        return _of_downward(pod, volume.downward_api.items, mode, downward)
    if volume.projected:
        return _of_projection(pod, volume.projected, find, tokens, downward)
    return None


def _mode(mode: int | None) -> int:
    return DEFAULT_MODE if mode is None else mode


def _of_projection(
    pod: Pod,
    volume: ProjectedVolumeSource,
    find: Find,
    tokens: Mapping[TokenWish, str],
    downward: Downward,
) -> Content:
    mode = _mode(volume.default_mode)
    content: Content = {}
    for source in volume.sources:
        content |= _of_source(pod, source, mode, find, tokens, downward)
    return content


def _of_source(
    pod: Pod,
    source: VolumeProjection,
    mode: int,
    find: Find,
    tokens: Mapping[TokenWish, str],
    downward: Downward,
) -> Content:
    if source.config_map:
        part = source.config_map
        found = find("configmaps", part.name)
        return _of_object(
            "configmap", part.name, found, part.items, mode, optional=bool(part.optional)
        )
    if source.secret:
        secret = source.secret
        found = find("secrets", secret.name)
        return _of_object(
            "secret", secret.name, found, secret.items, mode, optional=bool(secret.optional)
        )
    if source.downward_api:
        return _of_downward(pod, source.downward_api.items, mode, downward)
    if source.service_account_token:
        token = source.service_account_token
        text = tokens.get(_wish(token))
        if text is None:
            raise FailedPrecondition("the service account's token has not been issued yet")
        return {checked_path(token.path): Entry(text.encode(), mode)}
    raise InvalidArgument("projected volume source of an unsupported type")


def _of_object(
    kind: str,
    name: str,
    found: ConfigMap | Secret | None,
    items: Sequence[KeyToPath],
    mode: int,
    *,
    optional: bool,
) -> Content:
    if found is None:
        if optional:
            return {}
        raise FailedPrecondition(f'{kind} "{name}" not found')
    data = _bytes_of(found)
    if not items:
        return {checked_path(key): Entry(value, mode) for key, value in data.items()}
    content: Content = {}
    for item in items:
        if item.key in data:
            item_mode = mode if item.mode is None else item.mode
            content[checked_path(item.path)] = Entry(data[item.key], item_mode)
        elif not optional:
            raise FailedPrecondition(f"{kind} references non-existent {kind} key: {item.key}")
    return content


def _bytes_of(found: ConfigMap | Secret) -> dict[str, bytes]:
    if isinstance(found, Secret):
        return {key: base64.b64decode(value) for key, value in found.data.items()}
    texts = {key: value.encode() for key, value in found.data.items()}
    return texts | {key: base64.b64decode(value) for key, value in found.binary_data.items()}


def _of_downward(
    pod: Pod, items: Iterable[DownwardAPIVolumeFile], mode: int, downward: Downward
) -> Content:
    content: Content = {}
    for item in items:
        text = ""
        if item.field_ref:
            text = field_value(
                pod,
                item.field_ref.field_path,
                address=downward.address,
                node=downward.node,
                host=downward.host,
            )
        elif item.resource_field_ref:
            ref = item.resource_field_ref
            every = (*pod.spec.init_containers, *pod.spec.containers)
            try:
                text = amount(
                    every, ref.resource, ref.container_name, ref.divisor, downward.capacity or {}
                )
            except ValueError as error:
                raise InvalidArgument(str(error)) from None
        item_mode = mode if item.mode is None else item.mode
        content[checked_path(item.path)] = Entry(text.encode(), item_mode)
    return content


def checked_path(path: str) -> str:
    """A path that stays inside its volume and doesn't collide with the writer's own names."""
    parts = path.split("/")
    if not path or path.startswith("/") or ".." in parts or parts[0].startswith(".."):
        raise InvalidArgument(f"invalid path {path!r} in a volume: it must stay inside")
    return "/".join(part for part in parts if part not in ("", "."))
