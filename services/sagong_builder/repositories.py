"""Git repositories as contexts and as sources of ADD: how they are written, and how they are fetched.

Source: the package frontend/dockerfile/dfgitutil of BuildKit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from sagong.errors import FailedPrecondition, InvalidArgument
from sagong_builder.fetching import is_url

__all__ = ["GitSource", "clone", "git_source"]

_HASH = re.compile(r"[0-9a-f]{7,64}\Z")
_WHOLE_HASH = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})\Z")
_LONG_HASH = re.compile(r"[0-9a-f]{64}\Z")
_HEADS, _TAGS = "refs/heads/", "refs/tags/"
_GIT_SECONDS = 600.0
_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")


@dataclass(frozen=True)
class GitSource:
    """A repository, the branch, tag or commit ("": its own choice), and the directory in it.

    `commit` is how the commit must begin; `keep` whether the history comes along (None: not said),
    `submodules` whether these do.
    """

    url: str
    reference: str = ""
    directory: str = ""
    commit: str = ""
    keep: bool | None = None
    submodules: bool = True


def git_source(text: str) -> GitSource | None:
    """A git context's parts; None if it is none. `github.com/…` is one without a scheme."""
    address, _, fragment = text.partition("#")
    url, _, query = address.partition("?")
    path = urllib.parse.urlsplit(url).path if "://" in url else url
    if not url.startswith(("git://", "ssh://", "git@")) and not (
        is_url(url) and path.endswith(".git")
    ):
        if not url.startswith("github.com/"):
            return None
        url = f"https://{url}"
    reference, _, directory = fragment.partition(":")
    found = _asked(GitSource(url, reference, directory.strip("/")), query)
    if found.reference.startswith("-") or url.startswith("-") or "::" in url:
        raise InvalidArgument(f"invalid git context: {text[:200]}")
    return found


def _asked(source: GitSource, query: str) -> GitSource:
    """What stands behind the question mark of a URL."""
    fields = urllib.parse.parse_qs(query, keep_blank_values=True)
    for name, values in fields.items():
        if name not in _ASKED:
            raise InvalidArgument(f'unexpected query "{name[:50]}" of a git URL')
        if len(values) > 1:
            raise InvalidArgument(f'query "{name}" of a git URL has multiple values')
        if not values[0] and name not in _SWITCHES:
            raise InvalidArgument(f'query "{name}" of a git URL has no value')
    if {"tag", "branch"} <= fields.keys():
        raise InvalidArgument("branch conflicts with tag in a git URL")
    given = {name: values[0] for name, values in fields.items()}
    reference = _one("ref", source.reference, given.get("ref", ""))
    for name, prefix in (("tag", _TAGS), ("branch", _HEADS)):
        if name in given:
            full = prefix + given[name].removeprefix(prefix)
            reference = _one("ref", reference, full)
    return replace(
        source,
        reference=reference,
        directory=_one("subdir", source.directory, given.get("subdir", "").strip("/")),
        commit=given.get("commit") or given.get("checksum", ""),
        keep=_switch(given, "keep-git-dir"),
        submodules=_switch(given, "submodules") is not False,
    )


_HEX = re.compile(r"[0-9a-fA-F]+")
_SWITCHES = frozenset(("keep-git-dir", "submodules"))
_ASKED = _SWITCHES | {"branch", "checksum", "commit", "ref", "subdir", "tag"}


def _one(name: str, one: str, other: str) -> str:
    """The value that is given, once or twice the same."""
    if one and other and one != other:
        raise InvalidArgument(f'{name} conflicts: "{one[:100]}" vs "{other[:100]}"')
    return one or other


def _switch(given: dict[str, str], name: str) -> bool | None:
    if name not in given:
        return None
    value = given[name].lower() or "true"
    if value not in (*_TRUE, *_FALSE):
        raise InvalidArgument(f'invalid {name} value: "{value[:50]}"')
    return value in _TRUE


async def clone(source: GitSource, target: Path) -> str:
    """Write a tar of the repository's directory at the reference; the commit that it names."""
    return await asyncio.to_thread(_clone, source, target)


def _clone(source: GitSource, target: Path) -> str:
    if shutil.which("git") is None:
        raise FailedPrecondition(
            "unable to prepare context: git is not installed on this machine; install it, or send "
            "the context as a tar"
        )
    if source.commit and not _HEX.fullmatch(source.commit):
        raise InvalidArgument(
            f"invalid checksum {source.commit[:100]} for Git URL, expected hex commit hash"
        )
    if not source.reference and _WHOLE_HASH.match(source.commit):
        source = replace(source, reference=source.commit)
    with _workplace(target.parent) as place:
        words = ("--object-format=sha256",) if _LONG_HASH.match(source.reference) else ()
        _git(place, "init", "-q", *words, "--", "tree")
        tree = place / "tree"
        _git(tree, "remote", "add", "origin", source.url)
        _git(tree, "checkout", "-q", "--detach", _fetched(tree, source))
        commit = (tree / ".git" / "HEAD").read_text().strip()
        if not commit.startswith(source.commit):
            raise InvalidArgument(f"expected checksum to match {source.commit}, got {commit}")
        if source.submodules:
            _fetch_submodules(tree)
        root = Path(os.path.realpath(tree / source.directory))
        if not root.is_relative_to(os.path.realpath(tree)) or not root.is_dir():
            raise InvalidArgument(
                f"error setting subdir {source.directory}: it is no directory of the repository"
            )
        _pack(root, target, keep=bool(source.keep))
        return commit


def _fetched(tree: Path, source: GitSource) -> str:
    """Fetch the reference alone if the server can do that, else everything; what to check out."""
    try:
        _git(tree, "fetch", "-q", "--depth", "1", "origin", source.reference or "HEAD")
        return "FETCH_HEAD"
    except InvalidArgument as error:
        refused = error
    heads, tags = f"+{_HEADS}*:refs/remotes/origin/*", f"+{_TAGS}*:{_TAGS}*"
    _git(tree, "fetch", "-q", "origin", *(() if source.reference else ("HEAD",)), heads, tags)
    if not source.reference:
        return "FETCH_HEAD"
    for form in _forms(source.reference):
        with contextlib.suppress(InvalidArgument):
            _git(tree, "rev-parse", "-q", "--verify", f"{form}^{{commit}}")
            return form
    if _HASH.match(source.reference):
        return source.reference
    raise InvalidArgument(
        f"repository does not contain ref {source.reference[:200]}: {refused.message}"
    )


def _fetch_submodules(tree: Path) -> None:
    """Without their history, from servers that can do that."""
    words = ("submodule", "update", "-q", "--init", "--recursive")
    try:
        _git(tree, *words, "--depth=1")
    except InvalidArgument:
        _git(tree, *words)


def _forms(reference: str) -> Iterator[str]:
    """What a reference may be called where everything was fetched: a branch, else a tag."""
    if not reference.startswith(_TAGS):
        yield f"refs/remotes/origin/{reference.removeprefix(_HEADS)}"
    if not reference.startswith(_HEADS):
        yield f"{_TAGS}{reference.removeprefix(_TAGS)}"


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
        # Who writes the log of references; else git asks DNS for the machine's whole name, and waits.
        "GIT_COMMITTER_NAME": "builder",
        "GIT_COMMITTER_EMAIL": "builder@localhost",
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
