"""Where Docker's two builders read the same Dockerfile differently; each client gets its own's."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BUILDKIT", "CLASSIC", "Dialect"]


@dataclass(frozen=True)
class Dialect:
    """What differs.

    `inherit`: the arguments of a stage are those of the stages that begin from it, too.
    `own_group`: --chown=USER means the group that passwd gives the user, not the group of its name.
    `own_directories`: WORKDIR makes directories for the user of the stage, COPY --chown for that one;
    not for root. What ADD --chown unpacks is that one's, too.
    `dated_directories`: directories that COPY and ADD copy others into are as old as those.
    `empty_lines`: CMD and ENTRYPOINT that say nothing are an empty line for the shell, not no command.
    `arguments_win`: an ARG hides the variable that an ENV before it has set, until the next ENV.
    `authors`: who made the base image is said to have made this one.
    `buildkit_words`: the history has BuildKit's words, and CMD is marked as escaped, as there.
    `inside`: `../` that leads out of the context is left away, not refused.
    `all_stages`: stages before the target are made though it does not need them.
    `beside`: stages are made beside each other, as far as they don't need each other.
    `empty_images`: a last stage that is nothing is an image, not an error.
    `empty_wildcards`: COPY and ADD may name nothing by a wildcard, and copy nothing then.
    `empty_commands`: `RUN []` runs what the image says.
    `merge_directories`: several directories may be copied into one whose name has no slash at its end.
    `tells_gaps`: statements that go on over empty lines are warned of; else a check does that.
    `unnamed` is the name of what ADD fetches from a URL without one; "" if there is none.
    `volumes`: what RUN writes into a VOLUME is dropped.
    `scratch_directory` is the working directory of an image made from nothing.
    `hostname` is what commands see as the machine's name; "": each container's own.
    """

    inherit: bool
    arguments_win: bool
    own_group: bool
    own_directories: bool
    dated_directories: bool
    empty_lines: bool
    authors: bool
    buildkit_words: bool
    inside: bool
    all_stages: bool
    beside: bool
    empty_images: bool
    empty_wildcards: bool
    empty_commands: bool
    merge_directories: bool
    tells_gaps: bool
    unnamed: str
    volumes: bool
    scratch_directory: str
    hostname: str


CLASSIC = Dialect(
    inherit=False,
    arguments_win=False,
    own_group=False,
    own_directories=False,
    dated_directories=False,
    empty_lines=False,
    authors=False,
    buildkit_words=False,
    inside=False,
    all_stages=True,
    beside=False,
    empty_images=False,
    empty_wildcards=False,
    empty_commands=True,
    merge_directories=False,
    tells_gaps=True,
    unnamed="",
    volumes=True,
    scratch_directory="",
    hostname="",
)
BUILDKIT = Dialect(
    inherit=True,
    arguments_win=True,
    own_group=True,
    own_directories=True,
    dated_directories=True,
    empty_lines=True,
    authors=True,
    buildkit_words=True,
    inside=True,
    all_stages=False,
    beside=True,
    empty_images=True,
    empty_wildcards=True,
    empty_commands=False,
    merge_directories=True,
    tells_gaps=False,
    unnamed="__unnamed__",
    volumes=False,
    scratch_directory="/",
    hostname="buildkitsandbox",
)
