"""One OpenAPI document, made by a process of its own: what that takes, twenty times the document, ends
with it. `main` is its program; it writes the tag of the document, and the document packed by gzip.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from typing import NamedTuple

from sagong.errors import Internal

__all__ = ["Packed", "made", "main"]

_TAG = 64
_SECONDS = 60.0
_START = (
    "import json,sys;sys.path[:]=json.loads(sys.argv[1]);"
    "from sagong_kube.convert.document import main;main(*sys.argv[2:])"
)


class Packed(NamedTuple):
    """A document: `tag` changes with it."""

    tag: str
    content: bytes


async def made(form: str, group: str = "", version: str = "") -> Packed:
    """A document of built-in kinds: `v3` of a group and version, `v2` of all, or that in `protobuf`."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "-c", _START, json.dumps(sys.path), form, group, version),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_SECONDS):
            output, _ = await child.communicate()
    except BaseException:
        child.kill()
        await child.wait()
        raise
    if child.returncode or len(output) <= _TAG:
        raise Internal(f"the OpenAPI document {form} {group}/{version} can't be made; see the log")
    return Packed(output[:_TAG].decode(), output[_TAG:])


def main(form: str, group: str, version: str) -> None:
    """Make it, and write it to standard output."""
    import gzip

    body = _document(form, group, version)
    tag = hashlib.sha512(body).hexdigest()[:_TAG].upper()
    sys.stdout.buffer.write(tag.encode() + gzip.compress(body, mtime=0))


def _document(form: str, group: str, version: str) -> bytes:
    from sagong_kube.convert import gnostic, openapi

    if form == "v3":
        return openapi.v3(group, version)
    return gnostic.encode(openapi.v2()) if form == "protobuf" else openapi.v2()
