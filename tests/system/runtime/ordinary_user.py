"""Run by a test that gives up root first: one container from start to end through the plugin."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from sagong.conformance.runtime_lab import Stream, standard_mounts
from sagong.contracts.runtime import AttachRequest, ContainerRef, LogSpec, Mount, Process, RunSpec
from sagong.testing import local
from sagong_runtime_linux import RuntimeLinux


async def main(run: Path, rootfs: str, parent: str) -> None:
    """Start, attach, wait, remove."""
    root = Mount(target="/", kind="bind", source=rootfs, options=("rbind",))
    process = Process(args=("/bin/sh", "-c", "echo hello; exit 3"))
    spec = RunSpec(
        id="ordinary",
        mounts=standard_mounts(root),
        process=process,
        log=LogSpec(driver="none"),
        expect_attach=True,
        cgroup_parent=parent,
    )
    async with local(RuntimeLinux, run=run, data=run) as runtime:
        await runtime.run(spec)
        stream = await Stream.open(await runtime.attach(AttachRequest(id=spec.id)))
        found = await stream.rest()
        await runtime.remove(ContainerRef(id=spec.id))
        print(found.stdout, found.code)


os.setgroups([])
os.setgid(65534)
os.setuid(65534)
asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
