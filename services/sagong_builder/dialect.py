"""Where Docker's two builders read the same Dockerfile differently; each client gets its own's."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BUILDKIT", "CLASSIC", "Dialect"]


@dataclass(frozen=True)
class Dialect:
    """What differs.

    `inherit`: the arguments of a stage are those of the stages that begin from it, too.
    `keep_owners`: COPY --from gives files to whom they belonged, not to root.
    `own_group`: --chown=USER means the group that passwd gives the user, not the group of its name.
    `own_directories`: WORKDIR makes directories for the user of the stage, COPY --chown for that one;
    not for root.
    `inside`: `../` that leads out of the context is left away, not refused.
    `beside`: stages are made beside each other, as far as they don't need each other.
    `empty_images`: a last stage that is nothing is an image, not an error.
    `scratch_directory` is the working directory of an image made from nothing.
    """

    inherit: bool
    keep_owners: bool
    own_group: bool
    own_directories: bool
    inside: bool
    beside: bool
    empty_images: bool
    scratch_directory: str


CLASSIC = Dialect(
    inherit=False,
    keep_owners=False,
    own_group=False,
    own_directories=False,
    inside=False,
    beside=False,
    empty_images=False,
    scratch_directory="",
)
BUILDKIT = Dialect(
    inherit=True,
    keep_owners=True,
    own_group=True,
    own_directories=True,
    inside=True,
    beside=True,
    empty_images=True,
    scratch_directory="/",
)
