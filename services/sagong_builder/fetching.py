"""What is fetched by HTTP: ADD's URLs, contexts from URLs.

Everything ends in files of the spool; sizes and silence are bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import http.client
import posixpath
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from sagong.errors import InvalidArgument, ResourceExhausted
from sagong.model.numbers import natural

__all__ = ["Download", "download", "is_url"]

_PIECE = 1 << 18


def is_url(text: str) -> bool:
    """Whether it is fetched by HTTP."""
    return text.lower().startswith(("http://", "https://"))


@dataclass(frozen=True)
class Download:
    """A fetched file: where it lies, its name on the server, and when that changed it."""

    path: Path
    name: str
    mtime: float
    content_type: str


async def download(url: str, path: Path, *, limit: int, seconds: float) -> Download:
    """Fetch a URL into a file."""
    return await asyncio.to_thread(_download, url, path, limit, seconds)


def _download(url: str, path: Path, limit: int, seconds: float) -> Download:
    request = urllib.request.Request(url, headers={"User-Agent": "sagong-builder"})
    try:
        # Redirects stay within HTTP: urllib follows those to http, https and ftp only.
        with urllib.request.urlopen(request, timeout=seconds) as answer, path.open("wb") as file:
            size = 0
            while piece := answer.read(_PIECE):
                size += len(piece)
                if size > limit:
                    raise ResourceExhausted(f"{url} has more than {limit} bytes")
                file.write(piece)
            if size < (natural(answer.headers.get("Content-Length", "")) or 0):
                raise InvalidArgument(f'Get "{url}": unexpected EOF')
            final = urllib.parse.urlsplit(answer.url).path
            name = posixpath.basename(final) or posixpath.basename(urllib.parse.urlsplit(url).path)
            return Download(path, name, _moment(answer), answer.headers.get_content_type())
    except urllib.error.HTTPError as error:
        raise InvalidArgument(
            f"failed to GET {url} with status {error.code} {error.reason}: "
        ) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise InvalidArgument(f'Get "{url}": {_reason(error)}') from None


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", None)
    if isinstance(inner, OSError):
        error = inner
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(inner or error)


def _moment(answer: http.client.HTTPResponse) -> float:
    with contextlib.suppress(TypeError, ValueError):
        return email.utils.parsedate_to_datetime(answer.headers["Last-Modified"]).timestamp()
    return 0.0
