"""Versions of the Docker API: what is advertised, what is accepted, what a path asks for. Pure."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from sagong.errors import InvalidArgument
from sagong.model.numbers import natural

__all__ = ["API", "ENGINE", "MINIMUM", "Versioned", "reads_json", "text_of", "versioned"]

API = (1, 51)
MINIMUM = (1, 24)
# What skopeo 1.9, as Debian 12 has it, asks for archives of images by.
_ARCHIVES = (1, 22)
ENGINE = "28.5.2"
KERNEL = platform.release()


@dataclass(frozen=True, slots=True)
class Versioned:
    """A path without its version, and the version asked for."""

    version: tuple[int, int]
    segments: tuple[str, ...]


def text_of(version: tuple[int, int]) -> str:
    """`1.51`."""
    return f"{version[0]}.{version[1]}"


def versioned(segments: tuple[str, ...]) -> Versioned:
    """Split the path; without a version the newest is meant."""
    version = _version(segments[0]) if segments else None
    if version is None:
        return Versioned(API, segments)
    if version > API:
        raise InvalidArgument(
            f"client version {text_of(version)} is too new. "
            f"Maximum supported API version is {text_of(API)}"
        )
    if version < (_ARCHIVES if _is_archive(segments[1:]) else MINIMUM):
        raise InvalidArgument(
            f"client version {text_of(version)} is too old. Minimum supported API version is "
            f"{text_of(MINIMUM)}, please upgrade your client to a newer version"
        )
    return Versioned(version, segments[1:])


def reads_json(segments: tuple[str, ...]) -> bool:
    """Whether a client reads errors as JSON: before 1.24 they were text."""
    version = _version(segments[0]) if segments else None
    return version is None or version >= MINIMUM


def _is_archive(path: tuple[str, ...]) -> bool:
    return path in (("images", "load"), ("images", "get"))


def _version(segment: str) -> tuple[int, int] | None:
    if not segment.startswith("v"):
        return None
    major, dot, minor = segment[1:].partition(".")
    first, second = natural(major), natural(minor if dot else "0")
    return None if first is None or second is None else (first, second)
