"""Grammar of what clients send: names, tags, digests, ranges, page limits. Pure.

Sources: OCI distribution specification 1.1, RFC 9110 section 14 (Range).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sagong.errors import InvalidArgument
from sagong.model.oci import check_digest
from sagong_registry.refusal import refused

__all__ = [
    "Span",
    "is_digest",
    "is_name",
    "is_tag",
    "known_digest",
    "page_limit",
    "repository_name",
    "requested_span",
    "sent_span",
    "tag_name",
]

_LONGEST_NAME = 255
_PART = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(f"{_PART}(?:/{_PART})*")
_TAG = re.compile("[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_DIGEST = re.compile("[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")
_CONTENT_RANGE = re.compile("(?:bytes[ =])?([0-9]{1,18})-([0-9]{1,18})(?:/(?:[0-9]{1,18}|\\*))?")
_RANGE = re.compile("bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*")
_LARGEST_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes from `start` up to, not including, `end`."""

    start: int
    end: int

    @property
    def length(self) -> int:
        """How many bytes."""
        return self.end - self.start


def is_name(text: str) -> bool:
    """Whether it can be a repository's name."""
    return len(text) <= _LONGEST_NAME and _NAME.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    """Whether it can be a tag."""
    return _TAG.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    """Whether it has the form of a digest, of whatever algorithm."""
    return len(text) <= _LONGEST_NAME and _DIGEST.fullmatch(text) is not None


def repository_name(text: str) -> str:
    """The name itself; NAME_INVALID says what is allowed."""
    if not is_name(text):
        raise refused(
            "NAME_INVALID",
            f"repository name {text[:_LONGEST_NAME]!r}: lower-case letters and digits, separated "
            f"by one of . _ __ or dashes, in parts separated by /, at most {_LONGEST_NAME} characters",
        )
    return text


def tag_name(text: str) -> str:
    """The tag itself; MANIFEST_INVALID says what is allowed."""
    if not is_tag(text):
        raise refused(
            "MANIFEST_INVALID",
            f"tag {text[:128]!r}: letters, digits, _ . and -, not beginning with . or -, "
            "at most 128 characters",
        )
    return text


def known_digest(text: str) -> str:
    """The digest itself, if it is of an algorithm that content is kept by; else DIGEST_INVALID."""
    try:
        return check_digest(text)
    except InvalidArgument as error:
        raise refused("DIGEST_INVALID", error.message) from None


def sent_span(text: str) -> Span | None:
    """What a Content-Range of an upload says: `first-last`; None without one."""
    if not text:
        return None
    found = _CONTENT_RANGE.fullmatch(text)
    if found is None or int(found[2]) < int(found[1]):
        raise refused(
            "BLOB_UPLOAD_INVALID",
            f"Content-Range {text[:80]!r} is not FIRST-LAST in bytes, both included",
            status=416,
        )
    return Span(int(found[1]), int(found[2]) + 1)


def requested_span(text: str, size: int) -> Span | None:
    """The part that a Range header asks for; None for the whole.

    What is not one range of bytes is ignored, as RFC 9110 allows; what lies outside is 416.
    """
    found = _RANGE.fullmatch(text)
    if found is None or found[1] == found[2] == "":
        return None
    if found[1] == "":
        span = Span(max(0, size - int(found[2])), size)
    else:
        last = int(found[2]) + 1 if found[2] else size
        span = Span(int(found[1]), min(last, size))
    if span.length <= 0:
        raise refused(
            "UNSUPPORTED",
            f"range {text[:80]!r} is outside of the {size} bytes of the blob",
            status=416,
            headers=(("Content-Range", f"bytes */{size}"),),
        )
    return span


def page_limit(text: str) -> int:
    """How many entries a client wants at once: -1 for all; more than a page is a page."""
    if not text:
        return -1
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise refused("UNSUPPORTED", f"n={text[:40]!r} is no number of entries", status=400)
    return min(int(text), _LARGEST_PAGE)
