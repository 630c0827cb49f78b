"""What instructions read files of, and which of them: told before a step begins, or a build. Pure."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from sagong_builder.dockerfile import Expander, Instruction
from sagong_builder.fetching import is_url
from sagong_builder.repositories import git_source

__all__ = ["ALL", "Paths", "Reading", "covers", "grouped", "readings"]

Paths = frozenset[str]
"""Paths of a directory, whose content belongs to them; "" is the directory itself."""

Reading = tuple[str, str]
"""What is read of (a stage, an image, a further context; "" is the context), and the path in it."""

ALL: Paths = frozenset(("",))
# Names with these are not passed on: they mean something to a shell, or to who sends files.
_STRANGE = re.compile(r"""[$\\'"\[\]!]|\*\*""")


def readings(instruction: Instruction, expander: Expander | None = None) -> list[Reading]:
    """All of an instruction. Without an expander variables may be anything: what is above is meant."""
    if instruction.keyword == "RUN":
        texts = instruction.flags.get("mount", ())
        mounts = [_fields(text if expander is None else expander.word(text)) for text in texts]
        return [
            (mount.get("from", ""), _known(mount.get("source") or mount.get("src", "")))
            for mount in mounts
            if mount.get("type", "bind") == "bind" or "from" in mount
        ]
    if instruction.keyword not in ("COPY", "ADD"):
        return []
    documents = {document.word for document in instruction.heredocs}
    words = [word for word in instruction.words[:-1] if word not in documents]
    words = words if expander is None else [expander.word(word) for word in words]
    fetched = instruction.keyword == "ADD"
    origin = instruction.flag("from")
    return [
        (origin, _known(word))
        for word in words
        if not (fetched and (is_url(word) or git_source(word)))
    ]


def _fields(text: str) -> dict[str, str]:
    return dict(part.partition("=")[::2] for part in text.split(","))


def _known(word: str) -> str:
    """The path as far as its names are known."""
    known = []
    for name in posixpath.normpath(f"/{word}").strip("/").split("/"):
        if _STRANGE.search(name):
            break
        known.append(name)
    return "/".join(known)


def covers(have: Paths, wanted: Paths) -> bool:
    """Whether all that is wanted is in what there is."""
    return all(any(not h or f"{path}/".startswith(f"{h}/") for h in have) for path in wanted)


def grouped(found: Iterable[Reading]) -> Mapping[str, Paths]:
    """The paths of each origin."""
    paths: defaultdict[str, set[str]] = defaultdict(set)
    for origin, path in found:
        paths[origin].add(path)
    return {origin: ALL if "" in some else frozenset(some) for origin, some in paths.items()}
