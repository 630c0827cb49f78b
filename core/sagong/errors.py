"""The error tree: every failure that another process should act on, by class and code.

The class carries the code that travels on the bus; HTTP statuses are decided at the edge, in one
table of each API. A message says what failed, with which name, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "Aborted",
    "AlreadyExists",
    "Cancelled",
    "Conflict",
    "DeadlineExceeded",
    "FailedPrecondition",
    "Gone",
    "Internal",
    "InvalidArgument",
    "NotFound",
    "PermissionDenied",
    "ResourceExhausted",
    "SagongError",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "from_code",
]


class SagongError(Exception):
    """Base of all errors that travel; `detail` holds machine-readable facts beside the message."""

    code = "internal"

    def __init__(self, message: str, *, detail: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail: dict[str, str] = dict(detail or {})


class Internal(SagongError):
    """A defect of the provider: it raised something that its contract does not name."""

    code = "internal"


class InvalidArgument(SagongError):
    """The request itself is wrong; sending it again cannot help."""

    code = "invalid_argument"


class NotFound(SagongError):
    """The named thing does not exist."""

    code = "not_found"


class AlreadyExists(SagongError):
    """A different thing with this name or id exists already."""

    code = "already_exists"


class Conflict(SagongError):
    """The thing changed since the caller read it, or is in use; read again and decide anew."""

    code = "conflict"


class FailedPrecondition(SagongError):
    """The request is right but the system's state does not allow it now."""

    code = "failed_precondition"


class PermissionDenied(SagongError):
    """The caller is known and may not do this."""

    code = "permission_denied"


class Unauthenticated(SagongError):
    """The caller's credentials are missing, wrong or expired."""

    code = "unauthenticated"


class ResourceExhausted(SagongError):
    """A limit is reached: disk, memory, quota, addresses, calls in flight."""

    code = "resource_exhausted"


class DeadlineExceeded(SagongError):
    """The deadline passed before the answer; the work may have been done."""

    code = "deadline_exceeded"


class Cancelled(SagongError):
    """The caller withdrew the call."""

    code = "cancelled"


class Aborted(SagongError):
    """The operation lost a race and left nothing behind; it may be tried again as it is."""

    code = "aborted"


class Gone(SagongError):
    """The asked-for history is no longer kept (compacted, rotated, or events were missed)."""

    code = "gone"


class Unimplemented(SagongError):
    """The provider does not know this method or contract version."""

    code = "unimplemented"


class Unavailable(SagongError):
    """The provider can't be reached now; `maybe_executed` tells if the call may have been done."""

    code = "unavailable"

    def __init__(
        self,
        message: str,
        *,
        detail: Mapping[str, str] | None = None,
        maybe_executed: bool = False,
    ) -> None:
        super().__init__(message, detail=detail)
        if maybe_executed:
            self.detail["maybe_executed"] = "true"

    @property
    def maybe_executed(self) -> bool:
        """Whether the lost call may have had its effect."""
        return self.detail.get("maybe_executed") == "true"


_CLASSES: dict[str, type[SagongError]] = {
    cls.code: cls
    for cls in (
        Aborted,
        AlreadyExists,
        Cancelled,
        Conflict,
        DeadlineExceeded,
        FailedPrecondition,
        Gone,
        Internal,
        InvalidArgument,
        NotFound,
        PermissionDenied,
        ResourceExhausted,
        Unauthenticated,
        Unavailable,
        Unimplemented,
    )
}


def from_code(code: str, message: str, detail: Mapping[str, str] | None = None) -> SagongError:
    """The error a peer sent, as an exception of the class its code names (`Internal` if unknown)."""
    return _CLASSES.get(code, Internal)(message, detail=detail)
