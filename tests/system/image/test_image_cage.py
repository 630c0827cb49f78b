"""Hostile archives in a cage: what they do stays in their directory, however they are unpacked."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import stat
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from sagong.conformance.image_lab import entry, layer
from sagong.errors import InvalidArgument, ResourceExhausted
from sagong_image_overlay.workshop import Workshop

pytestmark = pytest.mark.root
# Few names, so that entries meet: links are swapped for directories, files for links, and back.
NAMES = (
    "a", "a/b", "a/b/c", "l", "l/b", "l/b/c", "l/l", "l/l/b", "h", "..", "../canary", "a/../../canary",
    "/canary", "./a", "a//b", "canary", "l/canary", "../../deep/canary", "a/b/", "l/", ".", "a/.wh.b",
    ".wh.a", ".wh.l", "a/.wh..wh..opq", ".wh..wh..opq", "l/.wh.b", "l/b/.wh..wh..opq", ".wh.h",
)  # fmt: skip
TARGETS = (
    "/", "..", "../..", "../../..", "a", "a/b", "l", "/l/b", "/canary", "../canary", "b", "h", "../l",
    "./", ".wh.a",
)  # fmt: skip
KINDS = (b"0", b"0", b"0", b"1", b"1", b"2", b"2", b"2", b"3", b"5", b"5", b"5", b"6")
TIMES = (0, 1_600_000_000, -5)
Made = dict[str, tuple[object, ...]]
KEYS = ("user.kept", "user.overlay.opaque", "trusted.overlay.redirect", "security.selinux")


def archive(chance: random.Random) -> bytes:
    """A few entries that contradict each other."""
    members: list[tuple[tarfile.TarInfo, bytes]] = []
    for _ in range(chance.randrange(2, 9)):
        kind = chance.choice(KINDS)
        info = entry(
            chance.choice(NAMES),
            chance.choice((0o644, 0o4755, 0o1777, 0o700, 0)),
            kind,
            linkname=chance.choice(TARGETS),
            uid=chance.choice((0, 1000)),
            gid=chance.choice((0, 5)),
            mtime=chance.choice(TIMES),
            devmajor=1,
            devminor=chance.choice((3, 5)),
        )
        if chance.random() < 0.15:
            info.pax_headers = {f"SCHILY.xattr.{key}": "y" for key in KEYS}
        members.append((info, b"hostile" if kind == b"0" else b""))
    return layer(*members)


def listing(root: Path, *, spare: Path | None = None) -> Made:
    """All that stat tells of everything below a directory, but for one below it."""
    found: Made = {}
    for directory, below, files in os.walk(root):
        if Path(directory) == spare:
            below.clear()
            continue
        for name in (*below, *files, "."):
            path = Path(directory, name)
            facts = path.lstat()
            if path != spare:
                found[str(path)] = (
                    *(facts.st_ino, facts.st_mode, facts.st_nlink, facts.st_uid, facts.st_size),
                    *(facts.st_mtime_ns, facts.st_ctime_ns),
                )
    return found


def unpacked(root: Path) -> Made:
    """What was made: kind, mode, owner, content or target, attributes, and which names are one file."""
    found: Made = {}
    files: dict[int, str] = {}
    for directory, below, names in os.walk(root):
        for name in sorted((*below, *names)):
            path = Path(directory, name)
            facts = path.lstat()
            own: tuple[object, ...] = (facts.st_mode, facts.st_uid, facts.st_gid, facts.st_rdev)
            own = (*own, facts.st_mtime if facts.st_mtime in TIMES else None)
            if stat.S_ISLNK(facts.st_mode):
                own = (*own, os.readlink(path))
            else:
                keys = os.listxattr(path, follow_symlinks=False)
                assert set(keys) <= {"user.kept", "user.overlay.opaque"}
                own = (*own, *sorted(keys))
            if stat.S_ISREG(facts.st_mode):
                own = (*own, path.read_bytes())
            found[str(path.relative_to(root))] = (
                *own,
                files.setdefault(facts.st_ino, str(path.name)),
            )
    return found


class Cage:
    """A directory for archives in one that has something of every name that leads out."""

    def __init__(self, top: Path, workshop: Workshop) -> None:
        self.top = top
        self.workshop = workshop
        self.jail = top / "jail"
        self.jail.mkdir()
        for path in ("canary", "deep/canary", "deep/deeper/canary", "deep/a", "deep/l", "deep/h"):
            (top / path).parent.mkdir(exist_ok=True)
            (top / path).write_text("outside")

    async def run(
        self, job: str, raw: bytes, facts: Callable[[Path], dict[str, Any]]
    ) -> Made | None:
        """What a job makes in a new directory; None if it is refused. Nothing else is touched."""
        root = self.top / "deep/deeper/root"
        root.mkdir()
        source = self.top / "archive"
        source.write_bytes(raw)
        before = listing(self.top, spare=root)
        bounds = {"max_entries": 1000, "max_size": 1 << 20, "jail": str(self.jail)}
        opened = os.open(source, os.O_RDONLY)
        done = None
        try:
            arguments = {"whiteouts": True, **bounds, **facts(root)}
            done = await self.workshop.run(job, arguments, [opened])
        except (InvalidArgument, ResourceExhausted) as error:
            assert error.message and "Traceback" not in error.message
        finally:
            os.close(opened)
        assert listing(self.top, spare=root) == before
        made = unpacked(root)
        shutil.rmtree(root)
        return made if done is not None and not done["foreign"] else None


@contextlib.asynccontextmanager
async def cage(top: Path) -> AsyncIterator[Cage]:
    """One with a workshop."""
    workshop = Workshop()
    try:
        yield Cage(top, workshop)
    finally:
        workshop.close()


async def test_archives_stay_in_their_cage_and_mean_one_thing(tmp_path: Path) -> None:
    """By itself and over nothing a layer is the same; extracted or loaded, it leads nowhere either."""
    seed = int(os.environ.get("SAGONG_FUZZ_SEED", "1"))
    async with cage(tmp_path) as place:
        same = 0
        for number in range(int(os.environ.get("SAGONG_FUZZ_ROUNDS", "120"))):
            raw = archive(random.Random(f"{seed}/{number}"))
            alone = await place.run("unpack", raw, lambda root: {"root": str(root)})
            over = await place.run("merge", raw, lambda root: {"layers": [str(root)]})
            if alone is not None:
                assert over is not None, number
                assert alone == over, number
                same += 1
            await place.run("unpack", raw, lambda root: {"root": str(root), "own": True})
            await place.run(
                "extract", raw, lambda root: {"layers": [str(root)], "writable": True, "path": "/"}
            )
        assert same > number // 8, "hardly any archive is accepted: nothing is tried"
