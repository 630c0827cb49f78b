"""Refusals in upstream's words: errors of `sagong.errors` that carry what a Status object needs."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sagong.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    Gone,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    SagongError,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)

__all__ = [
    "Cause",
    "already_exists",
    "bad_request",
    "conflict",
    "expired",
    "forbidden",
    "internal",
    "invalid",
    "method_not_allowed",
    "modified",
    "no_such_path",
    "not_acceptable",
    "not_found",
    "qualified",
    "too_large",
    "too_large_revision",
    "too_many",
    "unauthorized",
    "unavailable",
    "unsupported",
]

MODIFIED = (
    "the object has been modified; please apply your changes to the latest version and try again"
)


class Cause(msgspec.Struct, frozen=True, omit_defaults=True):
    """One field that is wrong, as `details.causes` has it."""

    reason: str = ""
    message: str = ""
    field: str = ""


def qualified(resource: str, group: str) -> str:
    """A resource's or kind's name as messages write it: `pods`, `deployments.apps`."""
    return f"{resource}.{group}" if group else resource


def _detail(
    reason: str,
    *,
    group: str = "",
    kind: str = "",
    name: str = "",
    uid: str = "",
    causes: Sequence[Cause] = (),
    code: int = 0,
    retry: int = 0,
) -> dict[str, str]:
    facts = {"reason": reason, "group": group, "kind": kind, "name": name, "uid": uid}
    if causes:
        facts["causes"] = msgspec.json.encode(causes).decode()
    if code:
        facts["code"] = str(code)
    if retry:
        facts["retry"] = str(retry)
    return {key: value for key, value in facts.items() if value}


def not_found(resource: str, group: str, name: str) -> NotFound:
    """No object of this name."""
    detail = _detail("NotFound", group=group, kind=resource, name=name)
    return NotFound(f'{qualified(resource, group)} "{name}" not found', detail=detail)


def no_such_path() -> NotFound:
    """Nothing is served at the path."""
    return NotFound("the server could not find the requested resource", detail=_detail("NotFound"))


def already_exists(resource: str, group: str, name: str) -> AlreadyExists:
    """An object of this name is there."""
    detail = _detail("AlreadyExists", group=group, kind=resource, name=name)
    return AlreadyExists(f'{qualified(resource, group)} "{name}" already exists', detail=detail)


def conflict(
    resource: str, group: str, name: str, why: str, causes: Sequence[Cause] = ()
) -> Conflict:
    """The operation can't be done on the object as it is."""
    detail = _detail("Conflict", group=group, kind=resource, name=name, causes=causes)
    text = f'Operation cannot be fulfilled on {qualified(resource, group)} "{name}": {why}'
    return Conflict(text, detail=detail)


def modified(resource: str, group: str, name: str) -> Conflict:
    """Somebody else wrote the object since the caller read it."""
    return conflict(resource, group, name, MODIFIED)


def forbidden(
    resource: str, group: str, name: str, why: str, causes: Sequence[Cause] = ()
) -> PermissionDenied:
    """Policy or admission forbids it."""
    detail = _detail("Forbidden", group=group, kind=resource, name=name, causes=causes)
    what = qualified(resource, group)
    named = f'{what} "{name}" is forbidden: {why}' if name else f"{what} is forbidden: {why}"
    return PermissionDenied(named if resource else f"forbidden: {why}", detail=detail)


def invalid(kind: str, group: str, name: str, causes: Sequence[Cause]) -> InvalidArgument:
    """Fields of the object are wrong; `causes` say which."""
    detail = _detail("Invalid", group=group, kind=kind, name=name, causes=causes, code=422)
    lines = [f"{cause.field}: {cause.message}" for cause in causes]
    said = lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"
    return InvalidArgument(f'{qualified(kind, group)} "{name}" is invalid: {said}', detail=detail)


def bad_request(message: str) -> InvalidArgument:
    """The request itself is malformed."""
    return InvalidArgument(message, detail=_detail("BadRequest", code=400))


def method_not_allowed() -> Unimplemented:
    """The resource is served, but not with this verb."""
    detail = _detail("MethodNotAllowed", code=405)
    return Unimplemented(
        "the server does not allow this method on the requested resource", detail=detail
    )


def unsupported(media: Sequence[str]) -> InvalidArgument:
    """The body's media type is not understood here."""
    accepted = ", ".join(media)
    return InvalidArgument(
        "the body of the request was in an unknown format - accepted media types include: "
        + accepted,
        detail=_detail("UnsupportedMediaType", code=415),
    )


def not_acceptable(media: Sequence[str]) -> InvalidArgument:
    """None of the media types that the client accepts can be made."""
    return InvalidArgument(
        "only the following media types are accepted: " + ", ".join(media),
        detail=_detail("NotAcceptable", code=406),
    )


def unauthorized() -> Unauthenticated:
    """Who are you?"""
    return Unauthenticated("Unauthorized", detail=_detail("Unauthorized"))


def expired(message: str) -> Gone:
    """History is no longer kept."""
    return Gone(message, detail=_detail("Expired"))


def too_many(message: str, seconds: int, causes: Sequence[Cause] = ()) -> ResourceExhausted:
    """Try again in some seconds."""
    detail = _detail("TooManyRequests", retry=seconds, causes=causes)
    return ResourceExhausted(message, detail=detail)


def too_large(message: str) -> InvalidArgument:
    """The body exceeds the limit."""
    return InvalidArgument(message, detail=_detail("RequestEntityTooLarge", code=413))


def too_large_revision(asked: int, current: int) -> DeadlineExceeded:
    """The asked resourceVersion has not come within the time one waits for it."""
    cause = Cause(reason="ResourceVersionTooLarge", message="Too large resource version")
    return DeadlineExceeded(
        f"Timeout: Too large resource version: {asked}, current: {current}",
        detail=_detail("Timeout", causes=(cause,), retry=1),
    )


def unavailable(message: str) -> Unavailable:
    """Something that this needs is not there now."""
    return Unavailable(message, detail=_detail("ServiceUnavailable"))


def internal(message: str) -> SagongError:
    """A defect, or the outside failed in a way the client can't help."""
    return SagongError(f"Internal error occurred: {message}", detail=_detail("InternalError"))
