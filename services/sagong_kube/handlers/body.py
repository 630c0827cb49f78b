"""Bodies of writes: JSON, YAML and protobuf, as documents of the kind that is expected."""

from __future__ import annotations

from typing import Any

import msgspec

from sagong.model.objects import GroupVersionKind
from sagong_kube import refusal
from sagong_kube.handlers.exchange import Ask
from sagong_kube.registry.document import Document
from sagong_kube.schema.decoding import parsed_yaml

__all__ = ["MEDIA", "check_kind", "media_of", "parsed", "read_document"]

MEDIA = (
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
)
_PROTOBUF = "application/vnd.kubernetes.protobuf"


def media_of(ask: Ask) -> str:
    """The media type of the body; JSON when the client says none."""
    return ask.headers.get("content-type", "application/json").partition(";")[0].strip().lower()


def read_document(ask: Ask, *, custom: bool = False) -> tuple[Document, bytes]:
    """The body as a document, and its JSON text ("" if it came in another form).

    The text is for finding fields that stand twice, which a document can't show.
    """
    media = media_of(ask)
    if media not in MEDIA or (custom and media == _PROTOBUF):
        raise refusal.unsupported(MEDIA[:2] if custom else MEDIA)
    if media == _PROTOBUF:
        from sagong_kube.convert import protobuf

        kind, document = protobuf.decode(ask.body)
        return {**document, "apiVersion": kind.api_version, "kind": kind.kind}, b""
    document = parsed(ask.body, media)
    if not isinstance(document, dict):
        raise refusal.bad_request(
            "couldn't get version/kind; json parse error: the body is not an object"
        )
    return document, ask.body if media == "application/json" else b""


def parsed(body: bytes, media: str) -> Any:
    """What a body of JSON or YAML says."""
    if "yaml" in media:
        return parsed_yaml(body)[0]
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise refusal.bad_request(f"couldn't get version/kind; json parse error: {error}") from None


def check_kind(
    document: Document, expected: GroupVersionKind, others: tuple[GroupVersionKind, ...] = ()
) -> None:
    """Fill in the kind if it is missing; refuse another one than the request is for."""
    said = (document.get("apiVersion") or "", document.get("kind") or "")
    if said == ("", ""):
        document["apiVersion"], document["kind"] = expected.api_version, expected.kind
        return
    for kind in (expected, *others):
        if said == (kind.api_version, kind.kind):
            return
    if said[1] and said[1] != expected.kind:
        raise refusal.bad_request(
            f'{said[1]} in version "{said[0].rpartition("/")[2]}" cannot be handled as a '
            f"{expected.kind}: converting to {expected.api_version}.{expected.kind} is not possible"
        )
    if said[0] != expected.api_version:
        raise refusal.bad_request(
            f"the API version in the data ({said[0]}) does not match the expected API version "
            f"({expected.api_version})"
        )
    raise refusal.bad_request("Object 'Kind' is missing in the body")
