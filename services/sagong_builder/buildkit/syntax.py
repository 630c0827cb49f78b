"""Frontends that Dockerfiles and clients ask for by an image's name. Pure.

Docker's own, `docker/dockerfile:1.x`, is what this builder is: it reads such a Dockerfile itself and
fetches nothing. What a later one knows and this does not is refused by its name where it stands.

Source: Docker's documentation, "Custom Dockerfile syntax".
"""

from __future__ import annotations

import re

from sagong.errors import InvalidArgument, Unimplemented
from sagong.model import references

__all__ = ["check_frontend"]

# Of Docker Hub or of a mirror of it.
_REPOSITORY = re.compile(r"(.*/)?docker/dockerfile(-upstream)?\Z")
_TAG = re.compile(r"(latest|master|labs|experimental|1(\.\d+){0,2}(-labs|-experimental)?)\Z")


def check_frontend(text: str) -> None:
    """Unimplemented for a frontend that is not Docker's of version 1; `text` is its image, "": none."""
    name = text.partition(" ")[0]
    if not name:
        return
    try:
        reference = references.parse(name)
    except InvalidArgument as error:
        raise InvalidArgument(f"# syntax={name[:200]}: {error.message}") from None
    tag = reference.tag or ("latest" if not reference.digest else "")
    if not _REPOSITORY.match(reference.path) or (tag and not _TAG.match(tag)):
        raise Unimplemented(
            f"frontend {name[:200]} is not known: this builder reads the Dockerfiles of "
            "docker/dockerfile:1 itself, and runs no frontends of images"
        )
