"""Image references in Docker's grammar (distribution/reference): parse, full and familiar forms."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from sagong.errors import InvalidArgument

__all__ = ["Reference", "is_id", "is_name", "parse", "short_id"]

DEFAULT_DOMAIN = "docker.io"
_DOMAIN_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(
    rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?", re.ASCII
)
_PATH = re.compile(
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
)
_TAG = re.compile(r"[\w][\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")
_HEX = re.compile(r"[0-9a-f]{64}")
_PREFIX = re.compile(r"(?:sha256:)?[0-9a-f]{1,64}")


@dataclass(frozen=True)
class Reference:
    """A repository of a registry, with a tag, a digest, both or neither."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        """The full repository: `docker.io/library/busybox`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_repository(self) -> str:
        """The repository as users write it: `busybox`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.repository
        return self.path.removeprefix("library/") if self.path.count("/") == 1 else self.path

    @property
    def full(self) -> str:
        """`docker.io/library/busybox:latest`, with the digest where there is one."""
        return self.repository + self._suffix()

    @property
    def familiar(self) -> str:
        """`busybox:latest`."""
        return self.familiar_repository + self._suffix()

    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return tag + (f"@{self.digest}" if self.digest else "")

    def tagged(self) -> Reference:
        """With the tag "latest" if it has neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag="latest")


def is_id(text: str) -> bool:
    """Whether the text can be an image's id or the beginning of one."""
    return bool(_PREFIX.fullmatch(text))


def is_name(text: str) -> bool:
    """Whether the text can be a name at all: a whole id can't."""
    return not (text.startswith("sha256:") or _HEX.fullmatch(text))


def short_id(identity: str) -> str:
    """The twelve digits that Docker shows."""
    return identity.removeprefix("sha256:")[:12]


def parse(text: str) -> Reference:
    """The reference; InvalidArgument in Docker's words."""
    if _HEX.fullmatch(text):
        raise InvalidArgument(
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        )
    rest, _, digest = text.partition("@")
    if "@" in text and not _DIGEST.fullmatch(digest):
        raise InvalidArgument(f"invalid reference format: {text!r} has no usable digest")
    domain, rest = _split_domain(rest)
    path, colon, tag = rest.rpartition(":") if ":" in rest else (rest, "", "")
    if path.lower() != path and _PATH.fullmatch(path.lower()):
        raise InvalidArgument(
            f"invalid reference format: repository name ({path}) must be lowercase"
        )
    valid = _PATH.fullmatch(path) and _DOMAIN.fullmatch(domain) and len(path) <= 255
    if not valid or (colon and not _TAG.fullmatch(tag)):
        raise InvalidArgument("invalid reference format")
    return Reference(domain, path, tag, digest)


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    local = "." not in first and ":" not in first and first != "localhost"
    if not slash or (local and first.lower() == first):
        domain, rest = DEFAULT_DOMAIN, text
    else:
        domain = first
    if domain in ("index.docker.io", "registry-1.docker.io"):
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in rest:
        rest = f"library/{rest}"
    return domain, rest
