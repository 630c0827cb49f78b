"""Runs image_overlay in the sandbox of its manifest and tells what it did: for a test beside it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import uvloop

from sagong.conformance.image_lab import Archive, docker_archive, entry, fetch, layer, send
from sagong.contracts.image import (
    ArchiveRequest,
    CommitRequest,
    ImageRef,
    LoadRequest,
    PrepareRequest,
    PullRequest,
    PushRequest,
    RootRef,
    TagRequest,
)
from sagong.errors import SagongError
from sagong.linux import capabilities
from sagong.manifest import parse, size_bytes
from sagong.sandbox import Rights, plan, probe
from sagong.sandbox.rights import ProcessLimits
from sagong.testing import local
from sagong_image_overlay import ImageOverlay

UID = 58933
# Version 2 of vfs_cap_data: effective CAP_NET_RAW.
CAPABLE = "\x01\0\0\2" + "\0\x20\0\0" + "\0" * 12


def rights(data: str, run: str) -> Rights:
    """The rights that the manifest grants."""
    import sagong_image_overlay

    text = Path(sagong_image_overlay.__path__[0], "plugin.toml").read_text()
    manifest = parse(text, where="image_overlay")
    return Rights(
        name="image-cage",
        uid=UID,
        gid=UID,
        capabilities=tuple(one.name for one in manifest.rights.capabilities),
        data=data,
        run=run,
        network=manifest.rights.network.mode,
        seccomp=tuple(one.group for one in manifest.rights.seccomp),
        limits=ProcessLimits(
            memory=size_bytes(manifest.limits.memory),
            pids=manifest.limits.pids,
            files=manifest.limits.files,
        ),
    )


async def story(data: Path, run: Path, registry: str) -> dict[str, Any]:
    """What a plugin must be able to do."""
    raw = layer(
        "bin/",
        (entry("bin/setuid", 0o4755, uid=0, gid=0), b"text"),
        (entry("bin/wall", 0o2755, uid=0, gid=5), b"text"),
        (entry("bin/ping", 0o755, pax_headers={"SCHILY.xattr.security.capability": CAPABLE}), b"x"),
        (entry("secret", 0o700, b"5"), b""),
        (entry("secret/file", 0o000, uid=12, gid=13), b"secret"),
        (entry("dev-null", 0o666, b"3", devmajor=1, devminor=3), b""),
    )
    image = Archive(layers=[raw, layer(("secret/.wh.gone", ""))], names=["caged.test/a:v1"])
    told: dict[str, Any] = {}
    async with local(ImageOverlay, data=data, run=run) as images:
        told["effective"] = capabilities.names_of(capabilities.sets_of().effective)
        upload = await images.upload()
        await send(upload, docker_archive(image))
        async for item in images.load(LoadRequest(upload=upload.token)):
            told["image"] = item.image
        prepared = await images.prepare(PrepareRequest(id="caged", image=image.id))
        told["lower"], told["upper"] = prepared.lower, prepared.upper
        upload = await images.upload()
        await send(upload, layer((entry("secret/new", 0o600, uid=7, gid=8), b"new")))
        request = ArchiveRequest(id="caged", path="/", upload=upload.token)
        await images.write_archive(request)
        changes = await images.changes(RootRef(id="caged"))
        told["changes"] = [[change.path, change.kind] for change in changes.changes]
        made = await images.commit(
            CommitRequest(id="c", container="caged", reference="caged.test/b:v1")
        )
        told["committed"] = len(made.layers)
        told["export"] = len(await fetch(await images.export(RootRef(id="caged"))))
        if registry:
            await transfer(images, registry)
        await images.release(RootRef(id="caged"))
        for _ in range(3000):
            await asyncio.sleep(0.02)
            if not os.listdir(data / "trash"):
                break
        told["trash"] = os.listdir(data / "trash")
    return told


async def transfer(images: ImageOverlay, registry: str) -> None:
    """Push and pull."""
    name = f"{registry}/caged/b:v1"
    await images.tag(TagRequest(source="caged.test/b:v1", target=name))
    async for _ in images.push(PushRequest(id="p", reference=name)):
        pass
    async for _ in images.pull(PullRequest(id="q", reference=name)):
        pass
    await images.inspect(ImageRef(reference=name))


def main() -> None:
    """Enter the sandbox, do it, print what came out."""
    stage, data, run, registry = sys.argv[1:5]
    notes = plan(rights(data, run), probe(stage=stage)).apply()
    answer: dict[str, Any] = {"notes": notes, "uid": os.getuid()}
    with contextlib.suppress(BrokenPipeError):
        try:
            answer |= uvloop.run(story(Path(data), Path(run), registry))
        except SagongError as error:
            answer["error"] = f"{error.code}: {error.message}"
        print(json.dumps(answer))


if __name__ == "__main__":
    main()
