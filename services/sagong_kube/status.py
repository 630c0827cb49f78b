"""Status objects: the one table from errors to HTTP codes and reasons."""

from __future__ import annotations

from typing import Any

import msgspec

from sagong.errors import SagongError

__all__ = ["failure", "http_code", "success"]

# code of the error class: (HTTP status, reason)
_STATUS: dict[str, tuple[int, str]] = {
    "invalid_argument": (400, "BadRequest"),
    "unauthenticated": (401, "Unauthorized"),
    "permission_denied": (403, "Forbidden"),
    "not_found": (404, "NotFound"),
    "unimplemented": (405, "MethodNotAllowed"),
    "already_exists": (409, "AlreadyExists"),
    "conflict": (409, "Conflict"),
    "aborted": (409, "Conflict"),
    "failed_precondition": (409, "Conflict"),
    "gone": (410, "Expired"),
    "resource_exhausted": (429, "TooManyRequests"),
    "internal": (500, "InternalError"),
    "cancelled": (500, "InternalError"),
    "unavailable": (503, "ServiceUnavailable"),
    "deadline_exceeded": (504, "Timeout"),
}


def http_code(error: SagongError) -> int:
    """The HTTP status that an error is answered with."""
    code = error.detail.get("code", "")
    return int(code) if code else _STATUS.get(error.code, (500, ""))[0]


def failure(error: SagongError) -> dict[str, Any]:
    """The Status object of an error."""
    detail = error.detail
    reason = detail.get("reason") or _STATUS.get(error.code, (500, "InternalError"))[1]
    details: dict[str, Any] = {
        key: detail[key] for key in ("name", "group", "kind", "uid") if key in detail
    }
    if "causes" in detail:
        details["causes"] = msgspec.json.decode(detail["causes"])
    if "retry" in detail:
        details["retryAfterSeconds"] = int(detail["retry"])
    status: dict[str, Any] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": _metadata(detail),
        "status": "Failure",
        "message": error.message,
        "reason": reason,
    }
    if details:
        status["details"] = details
    status["code"] = http_code(error)
    return status


def _metadata(detail: dict[str, str]) -> dict[str, Any]:
    return {"continue": detail["continue"]} if "continue" in detail else {}


def success(*, name: str, group: str, kind: str, uid: str) -> dict[str, Any]:
    """The Status object that a completed deletion answers."""
    details = {"name": name, "group": group, "kind": kind, "uid": uid}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {key: value for key, value in details.items() if value},
    }
