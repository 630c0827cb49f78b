"""The table of error codes, and errors as the distribution specification has them.

Source: OCI distribution specification 1.1, "Error Codes".
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import msgspec

from sagong import errors
from sagong.http import Request, Response

__all__ = ["CODES", "Fault", "Refused", "answer", "refusal", "refused"]

# code → (status, what it says if nothing better is known)
CODES: dict[str, tuple[int, str]] = {
    "BLOB_UNKNOWN": (404, "blob unknown to registry"),
    "BLOB_UPLOAD_INVALID": (400, "blob upload invalid"),
    "BLOB_UPLOAD_UNKNOWN": (404, "blob upload unknown to registry"),
    "DIGEST_INVALID": (400, "provided digest did not match uploaded content"),
    "MANIFEST_BLOB_UNKNOWN": (404, "manifest references a manifest or blob unknown to registry"),
    "MANIFEST_INVALID": (400, "manifest invalid"),
    "MANIFEST_UNKNOWN": (404, "manifest unknown"),
    "NAME_INVALID": (400, "invalid repository name"),
    "NAME_UNKNOWN": (404, "repository name not known to registry"),
    "SIZE_INVALID": (400, "provided length did not match content length"),
    "UNAUTHORIZED": (401, "authentication required"),
    "DENIED": (403, "requested access to the resource is denied"),
    "UNSUPPORTED": (405, "the operation is unsupported"),
    "TOOMANYREQUESTS": (429, "too many requests"),
    # Of docker's registry, for what is the server's own fault: the specification names none.
    "UNKNOWN": (500, "unknown error"),
    "UNAVAILABLE": (503, "service unavailable"),
}

# What a slot below raised and no handler has given a meaning of its own.
_STATUS: tuple[tuple[type[errors.SagongError], str, int], ...] = (
    (errors.ResourceExhausted, "UNKNOWN", 507),
    (errors.Unavailable, "UNAVAILABLE", 503),
    (errors.DeadlineExceeded, "UNAVAILABLE", 503),
    (errors.Aborted, "UNAVAILABLE", 503),
    (errors.Cancelled, "BLOB_UPLOAD_INVALID", 400),
    (errors.InvalidArgument, "UNSUPPORTED", 400),
)


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """One error of an answer."""

    code: str
    message: str
    detail: Any = None


class Refused(Exception):
    """A request is refused; `status` is that of the first fault unless another is given."""

    def __init__(
        self,
        faults: Iterable[Fault],
        *,
        status: int = 0,
        headers: Iterable[tuple[str, str]] = (),
    ) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(fault.message for fault in self.faults))
        self.status = status or CODES[self.faults[0].code][0]
        self.headers = tuple(headers)


def refused(
    code: str,
    message: str = "",
    *,
    status: int = 0,
    detail: Any = None,
    headers: Iterable[tuple[str, str]] = (),
) -> Refused:
    """A refusal of one fault, to be raised."""
    fault = Fault(code, message or CODES[code][1], detail)
    return Refused((fault,), status=status, headers=headers)


def answer(document: Any, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Response:
    """A JSON answer."""
    items = [("Content-Type", "application/json"), *headers]
    return Response(status, msgspec.json.encode(document), items)


def refusal(request: Request, error: Exception) -> Response:
    """What a handler raised, as an answer."""
    if isinstance(error, Refused):
        return answer({"errors": error.faults}, error.status, error.headers)
    for kind, code, status in _STATUS:
        if isinstance(error, kind):
            again = (("Retry-After", "1"),) if status == 503 else ()
            return answer({"errors": [Fault(code, error.message)]}, status, again)
    logging.getLogger("sagong.registry").error(
        "request failed",
        exc_info=error,
        extra={"request": request.id, "method": request.method, "path": request.path},
    )
    text = f"internal error in request {request.id}; `sagong logs registry` says more"
    return answer({"errors": [Fault("UNKNOWN", text)]}, 500)
