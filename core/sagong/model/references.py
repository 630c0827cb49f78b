"""Image references: `nginx`, `ghcr.io/a/b:1`, `name@sha256:…`; familiar and canonical forms.

Source: the grammar of https://pkg.go.dev/github.com/distribution/reference and the OCI
distribution specification.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from sagong.errors import InvalidArgument

__all__ = ["DEFAULT_DOMAIN", "DEFAULT_TAG", "Reference", "is_digest", "parse", "parse_exact"]

DEFAULT_DOMAIN: Final = "docker.io"
DEFAULT_TAG: Final = "latest"
_LEGACY_DOMAIN: Final = "index.docker.io"
_OFFICIAL: Final = "library/"
_LONGEST_NAME: Final = 255

_ALNUM = "[a-z0-9]+"
_COMPONENT = f"{_ALNUM}(?:(?:\\.|_|__|-+){_ALNUM})*"
_PATH_RE = re.compile(f"{_COMPONENT}(?:/{_COMPONENT})*\\Z", re.ASCII)
_DOMAIN_PART = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN_RE = re.compile(
    f"(?:{_DOMAIN_PART}(?:\\.{_DOMAIN_PART})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?\\Z", re.ASCII
)
_TAG_RE = re.compile(r"[\w][\w.-]{0,127}\Z", re.ASCII)
_DIGEST_RE = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}\Z")
_SHA_RE = re.compile(r"(?:sha256:[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128})\Z")
_IDENTIFIER_RE = re.compile(r"[a-f0-9]{64}\Z")


class Reference(msgspec.Struct, frozen=True, order=True):
    """A normalized reference: `domain` and `path` always, `tag` and `digest` if given."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """The repository: `docker.io/library/nginx`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The repository as people write it: `nginx`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        short = self.path.removeprefix(_OFFICIAL)
        return short if "/" not in short else self.path

    @property
    def familiar(self) -> str:
        """As people write it, with tag and digest: `nginx:1.25`."""
        return self.familiar_name + self._tail

    @property
    def canonical(self) -> str:
        """In full: `docker.io/library/nginx:1.25`."""
        return self.name + self._tail

    @property
    def _tail(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def tagged(self) -> Reference:
        """With the default tag, if it has neither tag nor digest."""
        if self.tag or self.digest:
            return self
        return Reference(self.domain, self.path, DEFAULT_TAG)

    @property
    def target(self) -> str:
        """What a registry is asked for: the digest, else the tag, else `latest`."""
        return self.digest or self.tag or DEFAULT_TAG

    def with_tag(self, tag: str) -> Reference:
        """The same repository with this tag alone."""
        if not _TAG_RE.match(tag):
            raise InvalidArgument("invalid tag format")
        return Reference(self.domain, self.path, tag)

    def with_digest(self, digest: str) -> Reference:
        """The same repository at this digest."""
        if not is_digest(digest):
            raise InvalidArgument("invalid digest format")
        return Reference(self.domain, self.path, "", digest)

    def __str__(self) -> str:
        return self.canonical


def is_digest(text: str) -> bool:
    """Whether it is a digest of a known algorithm."""
    return _SHA_RE.match(text) is not None


def parse(text: str) -> Reference:
    """A reference as people write it, normalized; InvalidArgument in Docker's words."""
    if _IDENTIFIER_RE.match(text):
        raise InvalidArgument(
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        )
    rest, at, digest = text.partition("@")
    if at and not is_digest(digest):
        known = _DIGEST_RE.match(digest) is not None
        raise InvalidArgument(
            "unsupported digest algorithm" if known else "invalid reference format"
        )
    domain, path = _split_domain(rest)
    head, colon, tag = path.rpartition(":")
    path = head if colon else path
    tag = tag if colon else ""
    _check(domain, path, tag, tagged=bool(colon))
    return Reference(domain, path, tag, digest)


def parse_exact(text: str) -> Reference:
    """The same, with tag `latest` if there is neither tag nor digest."""
    return parse(text).tagged


def _split_domain(name: str) -> tuple[str, str]:
    head, slash, rest = name.partition("/")
    if not slash or not ("." in head or ":" in head or head == "localhost" or head.lower() != head):
        domain, path = DEFAULT_DOMAIN, name
    else:
        domain, path = head, rest
    if domain == _LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = _OFFICIAL + path
    return domain, path


def _check(domain: str, path: str, tag: str, *, tagged: bool) -> None:
    if path.lower() != path:
        raise InvalidArgument(
            f"invalid reference format: repository name ({path}) must be lowercase"
        )
    if not _PATH_RE.match(path) or not _DOMAIN_RE.match(domain):
        raise InvalidArgument("invalid reference format")
    if tagged and not _TAG_RE.match(tag):
        raise InvalidArgument("invalid reference format")
    if len(domain) + 1 + len(path) > _LONGEST_NAME:
        raise InvalidArgument(f"repository name must not be more than {_LONGEST_NAME} characters")
