"""Errors of builds as BuildKit's clients know them: their words, and the lines they point to. Pure.

Source: the packages solver/errdefs and util/grpcerrors of BuildKit.
"""

from __future__ import annotations

import base64
import json

import msgspec

from sagong.errors import Aborted, Cancelled, SagongError
from sagong_builder.buildkit.messages import Anything
from sagong_builder.buildkit.rpc import RpcError

__all__ = ["CANCELLED", "failed", "failure"]

# Clients take a step that ends with these words for one that was cancelled.
CANCELLED = "context canceled"
_SOURCE = "github.com/moby/buildkit/errdefs.Source+json"
_CANCELLED_STATUS = 1
_AROUND, _WIDTH, _WHOLE = 8, 400, 2000


def failed(error: SagongError) -> str:
    """What is told of an error; a command's is BuildKit's."""
    code = error.detail.get("code", "")
    if isinstance(error, Cancelled):
        return CANCELLED
    if missing := error.detail.get("missing", ""):
        where = error.detail.get("origin", "")
        return (
            "failed to compute cache key: failed to calculate checksum of ref "
            f'{where}: "{missing}": not found'
        )
    if not isinstance(error, Aborted) or not code:
        return error.message
    command = error.message.removeprefix("The command '").rpartition("' returned")[0]
    shown = json.dumps(command, ensure_ascii=False)
    return f"process {shown} did not complete successfully: exit code: {code}"


def failure(error: SagongError, name: str, dockerfile: bytes) -> RpcError:
    """The error as it travels; clients show the Dockerfile's lines that it points to."""
    if isinstance(error, RpcError):
        return error
    if isinstance(error, Cancelled):
        return RpcError(CANCELLED, status=_CANCELLED_STATUS)
    first, _, last = error.detail.get("lines", "").partition("-")
    details = [_source(name, dockerfile, int(first), int(last))] if first and dockerfile else []
    return RpcError(failed(error), details=details)


def _source(name: str, dockerfile: bytes, first: int, last: int) -> Anything:
    info = {
        "filename": name,
        "data": base64.b64encode(_around(dockerfile, first, last)).decode(),
        "language": "Dockerfile",
        "definition": {},
    }
    ranges = [
        {"start": {"line": line, "character": 0}, "end": {"line": line, "character": 0}}
        for line in range(first, min(last, first + _AROUND) + 1)
    ]
    return Anything(type_url=_SOURCE, value=msgspec.json.encode({"info": info, "ranges": ranges}))


def _around(dockerfile: bytes, first: int, last: int) -> bytes:
    """The lines around the place, for a status is a header; those before are empty: numbers hold."""
    if len(dockerfile) <= _WHOLE:
        return dockerfile
    lines = dockerfile.split(b"\n")
    begin = max(0, first - 1 - _AROUND)
    kept = lines[begin : last + _AROUND]
    return b"\n" * begin + b"\n".join(line[:_WIDTH] for line in kept)
