"""What a network refuses at a start, in the words of Docker 28 that programs look for. Pure."""

from __future__ import annotations

import re

from sagong.errors import Conflict, FailedPrecondition, InvalidArgument, SagongError

__all__ = ["network_error"]

_PORT = re.compile(r"Bind for \S+ failed: |failed to bind host port for \S+: ")
# Docker says so of a port that no container has.
_OF_A_PROGRAM, _IN_USE = "by a program of this machine", "address already in use"
_SETTING = re.compile(r"sandbox \w+: \[Errno \d+\] (/proc/sys/\S+): (.+)")


def network_error(error: SagongError, name: str, endpoint: str) -> SagongError:
    """The error of a container's start; `endpoint` is the id of its place on its network."""
    if not isinstance(error, Conflict | FailedPrecondition):
        return error
    if setting := _SETTING.search(error.message):
        path, why = setting.groups()
        return InvalidArgument(
            "OCI runtime create failed: unable to start container process: "
            f"open {path}: {_lowered(why)}: unknown"
        )
    if port := _PORT.match(error.message):
        said = port[0] + _lowered(error.message[port.end() :])
        more = f": {_IN_USE}" if said.endswith(_OF_A_PROGRAM) else ""
        # Docker calls it an error of the engine: the same request is good when the port is free.
        return SagongError(
            "failed to set up container networking: driver failed programming external "
            f"connectivity on endpoint {name} ({endpoint}): {said}{more}"
        )
    return error


def _lowered(words: str) -> str:
    return words[:1].lower() + words[1:]
