"""A request of the Docker API: path parts, version, and parameters in the shapes clients send."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from sagong.errors import InvalidArgument
from sagong.http import Request
from sagong.model.numbers import natural
from sagong_docker.document import read
from sagong_docker.filters import Filters
from sagong_docker.malformed import complaint, whole

__all__ = ["Ask", "convert", "decoded", "fitted", "whole_number"]

T = TypeVar("T", bound=msgspec.Struct)

_FALSE = frozenset(("", "0", "no", "false", "none"))
_BODY_LIMIT = 8 << 20
_INT64 = range(-(1 << 63), 1 << 63)
_LONG_NUMBER = re.compile(rb"[0-9]{19}")


class Ask:
    """What a handler is given."""

    __slots__ = ("parts", "request", "version")

    def __init__(self, request: Request, parts: dict[str, str], version: tuple[int, int]) -> None:
        self.request = request
        self.parts = parts
        self.version = version

    def __getitem__(self, part: str) -> str:
        return self.parts[part]

    def text(self, name: str, default: str = "") -> str:
        """A query parameter."""
        return self.request.query.get(name, default)

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean as `1`, `true`, `True`, `0`, `false`, `False` or nothing."""
        if name not in self.request.query:
            return default
        return self.request.query.get(name).strip().lower() not in _FALSE

    def number(self, name: str, default: int = 0) -> int:
        """A whole number."""
        text = self.text(name)
        if not text:
            return default
        return whole_number(text)

    def extent(self, name: str, what: str) -> int:
        """One side of a terminal, which must be given."""
        text = self.text(name)
        found = natural(text.removeprefix("-"))
        if found is None:
            raise InvalidArgument(f'invalid resize {what} "{text}": invalid syntax')
        if text.startswith("-") or found >= 1 << 32:
            raise InvalidArgument(f'invalid resize {what} "{text}": value out of range')
        return found

    def filters(self) -> Filters:
        """The `filters` parameter."""
        return Filters.parse(self.text("filters"))

    async def document(self, kind: type[msgspec.Struct], *, typed: bool = True) -> dict[str, Any]:
        """The body as a JSON object with a struct's names; an empty body is an empty one.

        `typed`: a header must say that it is JSON.
        """
        data = await self.request.read(_BODY_LIMIT)
        if typed:
            self._check_type(data)
        document = read(decoded(data), kind)
        if _LONG_NUMBER.search(data):
            _check_numbers(document)
        return document

    def _check_type(self, data: bytes) -> None:
        """Nothing need be said of no body; else what a browser may send of itself is refused."""
        given = self.request.header("content-type")
        kind = given.partition(";")[0].strip().lower()
        if not given and data:
            raise InvalidArgument("malformed Content-Type header (): mime: no media type")
        if given and kind != "application/json":
            raise InvalidArgument(
                f"unsupported Content-Type header ({given}): must be 'application/json'"
            )

    async def checked(self, kind: type[msgspec.Struct], *, typed: bool = True) -> dict[str, Any]:
        """The body as it was given, after it was found to have a struct's shape."""
        document = await self.document(kind, typed=typed)
        fitted(document, kind)
        return document

    async def body(self, kind: type[T]) -> T:
        """The body as a struct; unknown fields are ignored, as Docker does."""
        return fitted(await self.document(kind), kind)


def whole_number(text: str) -> int:
    """A number of 64 bits, or InvalidArgument in Docker's words."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdigit()):
        raise InvalidArgument(f'strconv.Atoi: parsing "{text}": invalid syntax')
    found = natural(digits.lstrip("0") or "0")
    if found is None:
        raise InvalidArgument(f'strconv.Atoi: parsing "{text}": value out of range')
    return -found if text[0] == "-" else found


def _check_numbers(value: Any) -> None:
    """Whole numbers have 64 bits, as Docker's have."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            _check_numbers(inner)
    elif isinstance(value, int) and value not in _INT64:
        raise InvalidArgument(
            f"invalid JSON: json: cannot unmarshal number {value} into Go value of type int64"
        )


def decoded(data: bytes) -> dict[str, Any]:
    """A body's JSON object; none, and null, are an empty one."""
    if not data.strip():
        return {}
    try:
        found = msgspec.json.decode(data)
    except RecursionError:
        raise InvalidArgument("invalid JSON: exceeded max depth") from None
    except msgspec.DecodeError as error:
        raise InvalidArgument(_malformed(data) or f"invalid JSON: {error}") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InvalidArgument("invalid JSON: an object is expected")
    return found


def _malformed(data: bytes) -> str:
    """What Docker says of it."""
    try:
        if said := complaint(data):
            return f"invalid JSON: {said}"
        more = data[whole(data) :].strip()
    except RecursionError:
        return "invalid JSON: exceeded max depth"
    # Go's decoder asks for more values, and an end of an object or array is none.
    return "unexpected content after JSON" if more and more[:1] not in b"}]" else ""


def convert(document: dict[str, Any], kind: type[T]) -> T:
    """A document that is kept as a struct; one of before may have texts for numbers."""
    return _converted(read(document, kind), kind, strict=False)


def fitted(document: dict[str, Any], kind: type[T]) -> T:
    """A document that was read for a struct as that struct; InvalidArgument names the field."""
    return _converted(document, kind, strict=True)


def _converted(document: dict[str, Any], kind: type[T], *, strict: bool) -> T:
    try:
        return msgspec.convert(document, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid JSON: {error}") from None
