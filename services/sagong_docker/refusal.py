"""The table of errors: classes of `sagong.errors` to statuses, and answers in Docker's form."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from sagong import errors
from sagong.http import Request, Response
from sagong.http.head import HeaderItems
from sagong_docker.version import reads_json

__all__ = ["answer", "empty", "error_document", "refusal", "refuse", "refused_as_text"]

_STATUS: tuple[tuple[type[errors.SagongError], int], ...] = (
    (errors.InvalidArgument, 400),
    (errors.Unauthenticated, 401),
    (errors.PermissionDenied, 403),
    (errors.NotFound, 404),
    (errors.AlreadyExists, 409),
    (errors.Conflict, 409),
    (errors.FailedPrecondition, 409),
    (errors.Aborted, 409),
    (errors.Unimplemented, 501),
    (errors.Unavailable, 503),
)


def answer(document: Any, status: int = 200, headers: HeaderItems = ()) -> Response:
    """A JSON answer."""
    items = [("Content-Type", "application/json")]
    items.extend(headers.items() if isinstance(headers, dict) else headers)  # type: ignore[arg-type]
    return Response(status, msgspec.json.encode(document) + b"\n", items)


def empty(status: int = 204) -> Response:
    """An answer without a body."""
    return Response(status, b"", ())


def refuse(status: int, message: str) -> Response:
    """An error in Docker's form."""
    return answer({"message": message}, status)


def error_document(error: errors.SagongError) -> dict[str, Any]:
    """An error within a stream that began with 200."""
    return {"errorDetail": {"message": error.message}, "error": error.message}


def _refused(request: Request, status: int, message: str) -> Response:
    if reads_json(request.segments):
        return refuse(status, message)
    return Response(
        status, message.encode() + b"\n", [("Content-Type", "text/plain; charset=utf-8")]
    )


def refused_as_text(error: errors.SagongError) -> Response:
    """Of an attachment: Docker has taken the connection over by then, and writes what it would say."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    kind = [("Content-Type", "application/vnd.docker.raw-stream")]
    return Response(status, f"{error.message}\r\n".encode(), kind)


def refusal(request: Request, error: Exception) -> Response:
    """What a handler raised, as an answer."""
    if isinstance(error, errors.SagongError):
        for kind, status in _STATUS:
            if isinstance(error, kind):
                return _refused(request, status, error.message)
        return refuse(500, error.message)
    logging.getLogger("sagong.docker").error(
        "request failed",
        exc_info=error,
        extra={"request": request.id, "method": request.method, "path": request.path},
    )
    return refuse(500, f"internal error in request {request.id}; the engine's log says more")
