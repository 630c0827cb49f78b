"""Answers as plain values that two engines can be compared by, and their differences.

What no two engines can have in common (ids, times, sizes, addresses) becomes a word for its kind:
`<id>`, `<time>`, `<size>`, `<address>`; a missing, empty or zero value stays what it is.
"""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.compat.docker.compare.dialogue import Answer, Step

__all__ = ["Difference", "compared", "shape"]

_HEADERS = (
    "content-type",
    "docker-experimental",
    "ostype",
    "builder-version",
    "swarm",
    "cache-control",
    "pragma",
    "upgrade",
    "connection",
    "x-docker-container-path-stat",
    "trailer",
)
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"0001-01-01T00:00:00Z"), "<never>"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?"), "<time>"),
    (re.compile(r"(?<![0-9a-f])[0-9a-f]{64}"), "<id>"),
    (re.compile(r"(?<![0-9a-f])[0-9a-f]{12}(?![0-9a-f])"), "<id12>"),
    (re.compile(r"\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b"), "<mac>"),
    (re.compile(r"\b1(72\.\d+|92\.168|0\.\d+)\.\d+\.\d+(/\d+)?\b"), "<address>"),
    (re.compile(r"(Up|Exited \(\d+\)|Restarting \(\d+\)) .*?(seconds?|minutes?)( ago)?"), r"\1 <ago>"),
    (re.compile(r"/tmp/[^ :\"]*/(containers|volumes|overlay2|image|exec|run)/[^ :\"]*"), "<place>"),
    (re.compile(r"/var/run/docker/[^ \"]*|/run/docker/[^ \"]*"), "<place>"),
)  # fmt: skip
# Numbers and texts that are of the engine or the moment, by the name of their key.
_KINDS: Mapping[str, str] = {
    **dict.fromkeys(("Size", "SizeRw", "SizeRootFs", "VirtualSize", "SharedSize"), "<size>"),
    **dict.fromkeys(("LayersSize", "SpaceReclaimed"), "<size>"),
    **dict.fromkeys(("Pid", "PID", "PublicPort", "HostPort"), "<number>"),
    **dict.fromkeys(("Created", "time", "timeNano", "CreatedAt", "mtime"), "<time>"),
    **dict.fromkeys(("ResolvConfPath", "HostnamePath", "HostsPath", "LogPath"), "<place>"),
    **dict.fromkeys(("LowerDir", "UpperDir", "MergedDir", "WorkDir", "Mountpoint"), "<place>"),
    **dict.fromkeys(("SandboxKey", "SandboxID", "EndpointID"), "<place>"),
    **dict.fromkeys(("execDuration",), "<time>"),
}  # fmt: skip
# Lists whose order means nothing, and by what their items are put in one.
_ORDER: Mapping[str, str] = {"Mounts": "Destination", "Ports": "PrivatePort", "Volumes": "Name"}
# The same for lists of plain texts: Docker walks a map to make them.
_SETS = frozenset({"ExecIDs", "ContainersDeleted", "NetworksDeleted", "VolumesDeleted"})
_EMPTY: tuple[object, ...] = (None, "", 0, -1, "0001-01-01T00:00:00Z")


@dataclass(frozen=True)
class Difference:
    """Where two engines differ, and what they say."""

    step: str
    path: str
    theirs: object
    ours: object

    def __str__(self) -> str:
        return (
            f"{self.step} | {self.path}\n      docker: {self.theirs!r}\n      sagong: {self.ours!r}"
        )


def shape(step: Step, answer: Answer) -> dict[str, object]:
    """Status, headers and body, flat: paths to values."""
    names = sorted(answer.values.items(), key=lambda item: -len(item[1]))
    headers: dict[str, object] = {h: answer.headers[h] for h in _HEADERS if h in answer.headers}
    if stat := headers.pop("x-docker-container-path-stat", None):
        headers["path-stat"] = json.loads(base64.b64decode(str(stat)))
    body = _body(answer)
    if step.sorted and isinstance(body, list):
        body = sorted(body, key=lambda item: _sort_key(item, "Name", names))
    whole = {"status": answer.status, "header": headers, "body": body}
    return dict(_flat(whole, "", names))


def _sort_key(item: Any, key: str, names: list[tuple[str, str]]) -> str:
    name = str(item.get(key, "")) if isinstance(item, dict) else ""
    return _named(name, names) + json.dumps(
        [[path, repr(v)] for path, v in sorted(_flat(item, "", names))]
    )


def compared(
    step: Step, theirs: dict[str, object], ours: dict[str, object]
) -> Iterator[Difference]:
    """All paths whose values differ."""
    missing = "(missing)"
    for path in sorted({*theirs, *ours}):
        left, right = theirs.get(path, missing), ours.get(path, missing)
        if left != right or type(left) is not type(right):
            yield Difference(step.label, path, left, right)


def _body(answer: Answer) -> Any:
    kind = answer.headers.get("content-type", "")
    if not answer.body:
        return None
    if kind.startswith("application/json"):
        return _json(answer.body)
    if (frames := _frames(answer.body)) is not None:
        return frames
    if kind.startswith("application/x-tar") or answer.body[257:262] == b"ustar":
        return _members(answer.body)
    return answer.body.decode(errors="replace").replace("\r\n", "\n").splitlines()


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return [json.loads(line) for line in body.splitlines() if line.strip()]


def _frames(body: bytes) -> list[Any] | None:
    """Output of several streams: what each got, in lines."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(body):
        if len(body) - at < 8 or body[at] > 3 or body[at + 1 : at + 4] != b"\0\0\0":
            return None
        (size,) = struct.unpack(">I", body[at + 4 : at + 8])
        found[body[at]] = found.get(body[at], b"") + body[at + 8 : at + 8 + size]
        at += 8 + size
    return [
        {"stream": s, "lines": d.decode(errors="replace").splitlines()}
        for s, d in sorted(found.items())
    ]


def _members(body: bytes) -> list[Any]:
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        return [
            {
                "name": m.name,
                "type": m.type.decode(),
                "mode": oct(m.mode & 0o7777),
                "owner": f"{m.uid}:{m.gid}",
                "bytes": m.size,
                "link": m.linkname,
            }
            for m in sorted(archive, key=lambda m: m.name)
        ]


def _flat(value: Any, path: str, names: list[tuple[str, str]]) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        if not value:
            yield path, "{}"
        for key, inner in value.items():
            kept = _named(str(key), names)
            if (kind := _KINDS.get(kept)) and not isinstance(inner, dict | list):
                inner = kind if inner not in _EMPTY else inner
            yield from _flat(inner, f"{path}.{kept}", names)
    elif isinstance(value, list):
        if not value:
            yield path, "[]"
        last = path.rpartition(".")[2]
        key = _ORDER.get(last, "")
        if key and all(isinstance(item, dict) for item in value):
            value = sorted(value, key=lambda item: _sort_key(item, key, names))
        elif last in _SETS:
            value = sorted(value, key=lambda item: _named(str(item), names))
        for at, inner in enumerate(value):
            yield from _flat(inner, f"{path}.{at}", names)
    elif isinstance(value, str):
        yield path, _named(value, names)
    elif isinstance(value, int) and not isinstance(value, bool) and value > 10**9:
        yield path, "<time>" if 1.6e9 < value < 2.2e9 or value > 10**18 else value
    else:
        yield path, value


def _named(text: str, names: list[tuple[str, str]]) -> str:
    """A text without what only one engine can say."""
    for name, value in names:
        if len(value) >= 12:
            text = text.replace(value, f"<{name}>")
            if len(value) == 64:
                text = text.replace(value[:12], f"<{name}12>")
    for pattern, word in _PATTERNS:
        text = pattern.sub(word, text)
    return text
