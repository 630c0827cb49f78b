"""The kernel's side of the zygote: what is told when one dies, and what becomes of one that hangs."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from pathlib import Path

import pytest

from sagong.errors import Unavailable
from sagong.kernel import spawner
from sagong.kernel.zygote import SpawnRequest, Zygote
from sagong.linux.process import status_facts


@pytest.mark.parametrize(("changed", "told"), [(False, "zygote died$"), (True, "sagong upgrade")])
async def test_a_zygote_that_dies_of_other_code_than_the_kernels_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, changed: bool, told: str
) -> None:
    source = tmp_path / "module.py"
    source.write_text("")
    monkeypatch.setattr(spawner, "_sources", lambda: [str(source)])
    made = spawner.Spawner((), lambda pid, code: None)
    if changed:
        os.utime(source, ns=(1, 1))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = subprocess.Popen(["sleep", "60"])
    made.adopt(Zygote(child.pid, ours))
    spawning = asyncio.create_task(made.spawn(SpawnRequest(0, b"", "one", None), ()))
    await asyncio.to_thread(theirs.recv, 1 << 16)
    theirs.close()
    with pytest.raises(Unavailable, match=told):
        await spawning


async def test_a_zygote_that_is_stopped_is_followed_by_another(tmp_path: Path) -> None:
    """Nothing could be started any more until somebody let it go on."""
    made = spawner.Spawner((), lambda pid, code: None, patience=0.3)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, subprocess.Popen(["sleep", "60"]) as child:
        async with asyncio.timeout(60):
            while status_facts(child.pid).state != "S":  # its start is work, and may wait for cores
                await asyncio.sleep(0.01)
        made.adopt(Zygote(child.pid, ours))
        with pytest.raises(Unavailable, match="forks nothing"):
            await made.spawn(SpawnRequest(0, b"", "one", None), ())
        assert made.pid == 0


async def test_a_zygote_that_has_much_to_do_is_waited_for(tmp_path: Path) -> None:
    made = spawner.Spawner((), lambda pid, code: None, patience=0.3)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, subprocess.Popen(["sh", "-c", "while :; do :; done"]) as child:
        made.adopt(Zygote(child.pid, ours))
        with pytest.raises(Unavailable, match="forks nothing"):
            await made.spawn(SpawnRequest(0, b"", "one", None), ())
        assert made.pid == child.pid
        child.kill()
    made.close()
