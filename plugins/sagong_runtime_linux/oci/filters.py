"""Compiled seccomp filters, kept: compiling Docker's policy takes longer than all else of a start."""

from __future__ import annotations

import base64
import json
import os
from typing import Any

from sagong.linux import capabilities
from sagong.linux.files import replace_file
from sagong.shim.failure import StartError

__all__ = ["FLAGS", "filter_code", "flags_of"]

# seccomp(2). There is one thread to synchronise.
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}
_USUAL = ("SECCOMP_FILTER_FLAG_SPEC_ALLOW",)


_WITH_ERRNO = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")


def filter_code(seccomp: dict[str, Any] | None, mask: int, directory: str) -> str:
    """The filter of a `linux.seccomp` as base64, empty for none; `directory` keeps what was made."""
    if not seccomp:
        return ""
    import hashlib  # Only who has a filter pays for it.

    text = json.dumps([seccomp, mask], sort_keys=True)
    path = f"{directory}/{hashlib.sha256(text.encode()).hexdigest()}"
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except FileNotFoundError:
        code = base64.b64encode(_compile(seccomp, mask))
        replace_file(path, code, beside=f"{path}.{os.getpid()}", mode=0o600, durable=False)
        return code.decode()


def flags_of(seccomp: dict[str, Any]) -> int:
    """The flags of a `linux.seccomp`; who names none does not pay for speculation to be forbidden."""
    given = seccomp.get("flags")
    return sum({FLAGS[name] for name in (_USUAL if given is None else given)})


def _check(seccomp: dict[str, Any]) -> None:
    """What the specification forbids, and a filter can't tell."""
    if seccomp.get("listenerMetadata") and not seccomp.get("listenerPath"):
        text = "linux.seccomp.listenerMetadata needs listenerPath"
        raise StartError("invalid_argument", text)
    given = [(seccomp.get("defaultAction"), seccomp.get("defaultErrnoRet"))]
    for entry in seccomp.get("syscalls") or ():
        if not entry.get("names") and not entry.get("name"):
            raise StartError("invalid_argument", "linux.seccomp.syscalls: names is empty")
        given.append((entry.get("action"), entry.get("errnoRet")))
    for action, number in given:
        if number and action not in _WITH_ERRNO:
            text = f"linux.seccomp: {action} takes no errno"
            raise StartError("invalid_argument", text)


def _compile(seccomp: dict[str, Any], mask: int) -> bytes:
    from sagong.linux.seccomp import compile_policy
    from sagong.linux.seccomp_profile import parse_profile

    unknown = set(seccomp.get("flags") or ()) - FLAGS.keys()
    if unknown:
        raise StartError("unimplemented", f"linux.seccomp.flags: {sorted(unknown)} not supported")
    _check(seccomp)
    try:
        names = capabilities.names_of(mask)
        listened = bool(seccomp.get("listenerPath"))
        return compile_policy(parse_profile(json.dumps(seccomp), names, notify=listened))
    except ValueError as error:
        raise StartError("invalid_argument", f"linux.seccomp: {error}") from None
