"""What is fetched from outside: ADD's URLs, contexts from URLs and from git repositories.

Everything ends in files of the spool; sizes and silence are bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import http.client
import os
import posixpath
import re
import shutil
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sagong.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from sagong.model.numbers import natural

__all__ = ["Download", "GitSource", "clone", "download", "git_source", "is_url"]

_PIECE = 1 << 18
_HASH = re.compile(r"[0-9a-f]{7,64}\Z")
_LONG_HASH = re.compile(r"[0-9a-f]{64}\Z")
_GIT_SECONDS = 600.0


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


@dataclass(frozen=True)
class GitSource:
    """A repository, the branch, tag or commit ("": its own choice), and the directory in it."""

    url: str
    reference: str = ""
    directory: str = ""


def git_source(text: str) -> GitSource | None:
    """A git context's parts; None if it is none. `github.com/…` is one without a scheme."""
    address, _, fragment = text.partition("#")
    path = urllib.parse.urlsplit(address).path if "://" in address else address
    if address.startswith(("git://", "ssh://", "git@")) or (
        is_url(address) and path.endswith(".git")
    ):
        url = address
    elif address.startswith("github.com/"):
        url = f"https://{address}"
    else:
        return None
    reference, _, directory = fragment.partition(":")
    if reference.startswith("-") or url.startswith("-") or "::" in url:
        raise InvalidArgument(f"invalid git context: {text[:200]}")
    return GitSource(url, reference, directory.strip("/"))


async def clone(source: GitSource, target: Path, *, keep: bool = False) -> str:
    """Write a tar of the repository's directory at the reference; the commit that it names."""
    return await asyncio.to_thread(_clone, source, target, keep)


def _clone(source: GitSource, target: Path, keep: bool) -> str:
    if shutil.which("git") is None:
        raise FailedPrecondition(
            "unable to prepare context: git is not installed on this machine; install it, or send "
            "the context as a tar"
        )
    with _workplace(target.parent) as place:
        words = ("--object-format=sha256",) if _LONG_HASH.match(source.reference) else ()
        _git(place, "init", "-q", *words, "--", "tree")
        tree = place / "tree"
        _git(tree, "remote", "add", "origin", source.url)
        _git(tree, "checkout", "-q", "--detach", _fetched(tree, source))
        _git(tree, "submodule", "update", "-q", "--init", "--recursive", "--depth=1")
        root = Path(os.path.realpath(tree / source.directory))
        if not root.is_relative_to(os.path.realpath(tree)) or not root.is_dir():
            raise InvalidArgument(
                f"error setting subdir {source.directory}: it is no directory of the repository"
            )
        _pack(root, target, keep=keep)
        return (tree / ".git" / "HEAD").read_text().strip()


def _fetched(tree: Path, source: GitSource) -> str:
    """Fetch the reference alone if the server can do that, else everything; what to check out."""
    try:
        _git(tree, "fetch", "-q", "--depth", "1", "origin", source.reference or "HEAD")
        return "FETCH_HEAD"
    except InvalidArgument as error:
        refused = error
    heads, tags = "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"
    _git(tree, "fetch", "-q", "origin", *(() if source.reference else ("HEAD",)), heads, tags)
    if not source.reference:
        return "FETCH_HEAD"
    for form in (f"refs/remotes/origin/{source.reference}", f"refs/tags/{source.reference}"):
        with contextlib.suppress(InvalidArgument):
            _git(tree, "rev-parse", "-q", "--verify", f"{form}^{{commit}}")
            return form
    if _HASH.match(source.reference):
        return source.reference
    raise refused


@contextlib.contextmanager
def _workplace(directory: Path) -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="git-", dir=directory))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _git(place: Path, *words: str) -> None:
    environment = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": str(place),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_NOSYSTEM": "1",
        # Repositories name others as their submodules: none of this machine's.
        "GIT_ALLOW_PROTOCOL": "https:http:git:ssh",
    }
    try:
        done = subprocess.run(
            ["git", *words],
            check=False,
            cwd=place,
            env=environment,
            capture_output=True,
            timeout=_GIT_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise InvalidArgument(f"git {words[0]} took more than {_GIT_SECONDS:.0f} seconds") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()[-500:]
        raise InvalidArgument(f"failed to fetch the git context: git {words[0]}: {said}")


def _pack(root: Path, target: Path, *, keep: bool) -> None:
    def cleaned(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if not keep and member.name.split("/")[-1] == ".git":
            return None
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        # git keeps only whether a file can be executed.
        member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        return member

    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(root, "", filter=cleaned)
