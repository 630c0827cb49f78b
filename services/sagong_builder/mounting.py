"""RUN --mount: what it says, checked. Pure.

Source: the Dockerfile reference, "RUN --mount".
"""

from __future__ import annotations

import csv
import posixpath
from dataclasses import dataclass

from sagong.errors import InvalidArgument
from sagong.model.numbers import natural
from sagong_builder.dockerfile import Expander, Instruction
from sagong_builder.dockerfile.hints import hint
from sagong_builder.draft import Draft

__all__ = ["MountSpec", "check_mounts", "read_mounts"]

_KINDS = ("bind", "cache", "tmpfs", "secret", "ssh")
_NAMES = {"dst": "target", "destination": "target", "src": "source", "ro": "readonly",
          "readwrite": "rw"}  # fmt: skip
_FLAGS = frozenset(("readonly", "rw", "required"))
# Others may stand with every type; where they mean nothing, they do nothing.
_ONLY = {
    "size": ("tmpfs",),
    "required": ("secret", "ssh"),
    "sharing": ("cache",),
    **dict.fromkeys(("mode", "uid", "gid"), ("secret", "ssh", "cache")),
}
_KEYS = ("type", "from", "source", "target", "readonly", "id", "sharing", "required", "size", "mode",
         "uid", "gid", "rw", "env")  # fmt: skip
_OWNERS = frozenset(("mode", "uid", "gid"))
_SHARING = ("shared", "private", "locked")
_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


@dataclass(frozen=True)
class MountSpec:
    """One mount. `origin` is a stage or image ("" the context); `variable` a secret's.

    A cache that is `made` for its owner or mode begins empty in builds without a cache.
    """

    kind: str
    target: str = ""
    source: str = ""
    origin: str = ""
    id: str = ""
    writable: bool = False
    sharing: str = "shared"
    required: bool = False
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    variable: str = ""
    made: bool = False


def read_mounts(instruction: Instruction, expander: Expander, draft: Draft) -> list[MountSpec]:
    """All mounts of a RUN; InvalidArgument names the field that is wrong."""
    directory = str(draft.config.get("WorkingDir") or "/")
    return [_read(expander.word(text), directory) for text in instruction.flags.get("mount", ())]


def check_mounts(instruction: Instruction) -> None:
    """InvalidArgument for what is wrong whatever its variables are."""
    for text in instruction.flags.get("mount", ()):
        if "$" in _fields(text).get("from", "")[:-1]:
            raise InvalidArgument(
                "'from' doesn't support variable expansion, define alias stage instead"
            )
        if "$" not in text:
            # Where the command will be done is not known yet; without a target that is it.
            _read(text, "/dir")


def _read(text: str, directory: str) -> MountSpec:
    fields = _fields(text)
    kind = fields.pop("type", "bind")
    if kind not in _KINDS:
        raise InvalidArgument(f'unsupported mount type "{kind[:50]}"{hint(kind, _KINDS)}')
    _check_keys(kind, fields)
    target = fields.get("target", "")
    if target or kind in ("bind", "cache", "tmpfs"):
        target = "/" + posixpath.normpath(posixpath.join("/", directory, target)).lstrip("/")
        if target == "/":
            raise InvalidArgument('invalid mount target "/"')
    return MountSpec(
        kind=kind,
        target=target,
        source=fields.get("source", ""),
        origin=fields.get("from", ""),
        id=_identity(kind, fields, target),
        writable=_writable(kind, fields),
        sharing=_sharing(fields),
        required=_true(fields, "required"),
        mode=_octal(fields, kind),
        uid=_count(fields, "uid"),
        gid=_count(fields, "gid"),
        size=_size(fields.get("size", "")),
        variable=fields.get("env", ""),
        made=kind == "cache" and "from" not in fields and not _OWNERS.isdisjoint(fields),
    )


def _check_keys(kind: str, fields: dict[str, str]) -> None:
    for name, value in fields.items():
        if name not in _KEYS:
            raise InvalidArgument(
                f"unexpected key '{name[:50]}' in '{name}={value}'{hint(name, _KEYS)}"
            )
        if kind in _ONLY.get(name, _KINDS):
            continue
        if name in _OWNERS:
            raise InvalidArgument(f'{name} not allowed for "{kind}" type mounts')
        if name == "sharing":
            raise InvalidArgument(f"invalid cache sharing set for {kind} mount")
        raise InvalidArgument(f"unexpected key '{name}' for mount type '{kind}'")
    if kind == "secret" and "from" in fields:
        raise InvalidArgument("secret mount should not have a from")


def _fields(text: str) -> dict[str, str]:
    try:
        (row,) = csv.reader([text], strict=True)
    except (csv.Error, ValueError):
        raise InvalidArgument(f"failed to parse --mount: {text[:200]!r}") from None
    found: dict[str, str] = {}
    for part in row:
        name, equals, value = part.partition("=")
        name = _NAMES.get(name.strip().lower(), name.strip().lower())
        if not equals and name not in _FLAGS and name != "env":
            raise InvalidArgument(
                f"invalid field '{part[:50]}' of --mount must be a key=value pair"
            )
        found[name] = value if equals else "true"
    return found


def _identity(kind: str, fields: dict[str, str], target: str) -> str:
    if kind == "ssh":
        return fields.get("id") or "default"
    if kind == "secret":
        name = fields.get("id") or fields.get("source", "") or posixpath.basename(target)
        if not name:
            raise InvalidArgument("id or target is required for --mount of type secret")
        return name
    return fields.get("id") or target


def _writable(kind: str, fields: dict[str, str]) -> bool:
    if "readonly" in fields:
        return not _true(fields, "readonly")
    return _true(fields, "rw") if "rw" in fields else kind in ("cache", "tmpfs")


def _sharing(fields: dict[str, str]) -> str:
    value = fields.get("sharing", "shared")
    if value not in _SHARING:
        raise InvalidArgument(f"unsupported sharing value {value[:50]!r}: {', '.join(_SHARING)}")
    return value


def _true(fields: dict[str, str], name: str) -> bool:
    value = fields.get(name, "false").lower()
    if value not in ("true", "false", "1", "0"):
        raise InvalidArgument(f"invalid value for {name}: {value[:50]}")
    return value in ("true", "1")


def _octal(fields: dict[str, str], kind: str) -> int:
    text = fields.get("mode", "")
    if not text:
        return {"cache": 0o755, "ssh": 0o600}.get(kind, 0o400)
    try:
        return int(text, 8) & 0o7777
    except ValueError:
        raise InvalidArgument(f"invalid value {text[:50]} for mode") from None


def _count(fields: dict[str, str], name: str) -> int:
    text = fields.get(name, "0")
    number = natural(text)
    if number is None or number >= 10**9:
        raise InvalidArgument(f"invalid value {text[:50]} for {name}")
    return number


def _size(text: str) -> int:
    lowered = text.strip().lower().removesuffix("b") or "0"
    unit = _UNITS.get(lowered[-1], 0)
    digits = lowered[:-1] if unit else lowered
    number = natural(digits)
    if number is None:
        raise InvalidArgument(f"invalid size: {text[:50]}")
    return number * (unit or 1)
