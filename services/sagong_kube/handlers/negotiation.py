"""Content negotiation: which form of an object a client wants, of those that can be made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from sagong_kube import refusal

__all__ = ["Form", "negotiate", "ranges"]

_META = "meta.k8s.io"
_VERSIONS = ("v1", "v1beta1")
_OBJECT = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")


class Form(msgspec.Struct, frozen=True):
    """The form of an answer: media type, "" or Table or PartialObjectMetadata(List), and version."""

    media: str = "application/json"
    kind: str = ""
    version: str = "v1"
    pretty: bool = False

    @property
    def content_type(self) -> str:
        """The Content-Type that names the form."""
        return self.media


class Range(msgspec.Struct, frozen=True):
    """One media range of an Accept header."""

    media: str
    parameters: tuple[tuple[str, str], ...]
    quality: float

    def parameter(self, name: str) -> str:
        """A parameter's value, "" if it is not given."""
        return dict(self.parameters).get(name, "")


def ranges(accept: str) -> list[Range]:
    """The ranges of an Accept header, best first, in the client's order among equals."""
    found = list(_parse(accept))
    found.sort(key=lambda range_: -range_.quality)
    return found


def _parse(accept: str) -> Iterator[Range]:
    for clause in accept.split(","):
        media, *rest = [part.strip() for part in clause.split(";")]
        if not media:
            continue
        parameters = [tuple(part.partition("=")[::2]) for part in rest if part]
        quality = 1.0
        for name, value in parameters:
            if name == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 0.0
        kept = tuple((n, v.strip('"')) for n, v in parameters if n != "q")
        if quality > 0:
            yield Range(media.lower(), kept, quality)


def negotiate(accept: str, *, listed: bool, transforms: bool = True) -> Form:
    """The best form that can be made; refuses with 406 when there is none.

    Protobuf answers are never made: clients that ask for it also accept JSON.
    """
    if not accept.strip():
        return Form()
    for range_ in ranges(accept):
        form = _form(range_, listed=listed, transforms=transforms)
        if form is not None:
            return form
    raise refusal.not_acceptable(_OBJECT)


def _form(range_: Range, *, listed: bool, transforms: bool) -> Form | None:
    pretty = range_.parameter("pretty") in ("1", "true")
    wanted = range_.parameter("as")
    if range_.media in ("*/*", "application/*"):
        return Form(pretty=pretty)
    if range_.media not in ("application/json", "application/yaml"):
        return None
    if not wanted:
        return Form(range_.media, pretty=pretty)
    if not transforms or range_.parameter("g") != _META or range_.parameter("v") not in _VERSIONS:
        return None
    kinds: Sequence[str] = (
        "Table",
        "PartialObjectMetadataList" if listed else "PartialObjectMetadata",
    )
    if wanted not in kinds:
        return None
    return Form(range_.media, wanted, range_.parameter("v"), pretty)
