"""Monitor and plugin die when a first process is known and not yet let go: it never was."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from pathlib import Path
from shutil import which

import pytest
from tests.conformance.runtime_rig import BUSYBOX, Rig, directories

from sagong.conformance.runtime_lab import PATIENCE, RuntimeLab, wait_until
from sagong.contracts.runtime import RunSpec
from sagong.errors import SagongError
from sagong.shim.runtime import MonitoredRuntime
from sagong_runtime_linux import RuntimeLinux
from sagong_runtime_oci import RuntimeOci

needs_runc = pytest.mark.skipif(which("runc") is None, reason="needs runc (package runc)")
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox (package busybox-static)"),
]

_DIES = """
import os, signal, time
from sagong.shim.container import Container
write = Container.write_state
def written(*given):
    write(*given)
    if os.path.exists(f"{sys.argv[1]}/mortal"):
        while os.path.exists(f"{sys.argv[1]}/mortal"):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
Container.write_state = written
"""


class Mortal(Rig):
    """Its monitors die right after they have written down a process, when the file `mortal` goes."""

    def launcher_text(self) -> str:
        return _DIES + super().launcher_text()


async def _killed_at_its_start(made: Mortal, lab: RuntimeLab, spec: RunSpec) -> None:
    """A binary's process waits on; ours ends."""
    mortal, state = made.run / "mortal", made.run / "containers" / spec.id / "state.json"
    mortal.touch()
    begun = asyncio.create_task(lab.runtime.run(spec))
    await wait_until(state.exists, "the record of the process")
    found = json.loads(state.read_text())
    await made.drop_plugin()
    mortal.unlink()
    left = found["monitor"] if found.get("engine") else found["pid"]
    await wait_until(lambda: not Path(f"/proc/{left}").exists(), "the end of the process")
    begun.cancel()
    with contextlib.suppress(SagongError, asyncio.CancelledError):
        await begun


@pytest.mark.parametrize("make", [RuntimeLinux, pytest.param(RuntimeOci, marks=needs_runc)])
async def test_a_start_that_was_never_let_go_is_made_anew(make: type[MonitoredRuntime]) -> None:
    """`docker run` ended with 127, the code of a child that is left before its program; or hung."""
    with directories() as base:
        made = Mortal(base, make)
        try:
            made.start_launcher()
            await made.start_plugin()
            lab = made.lab()
            spec = lab.spec("echo $$ > /began; exit 4")
            await _killed_at_its_start(made, lab, spec)
            lab.runtime = await made.start_plugin()
            await lab.runtime.run(spec)
            async with asyncio.timeout(PATIENCE):
                assert (await lab.ended(spec.id)).code == 4
            await lab.clean()
        finally:
            await made.drop_plugin()
            made.sweep()


async def test_a_program_that_ended_with_that_code_was_begun() -> None:
    """It does not run twice, whoever died meanwhile."""
    with directories() as base:
        made = Mortal(base)
        try:
            made.start_launcher()
            await made.start_plugin()
            lab = made.lab()
            spec = lab.spec("while [ ! -e /stop ]; do sleep 0.02; done; exit 127")
            container = await lab.runtime.run(spec)
            await made.drop_plugin()
            for pid in made.monitors():
                os.kill(pid, 9)
            (Path(f"/proc/{container.pid}/root") / "stop").touch()
            await wait_until(lambda: not Path(f"/proc/{container.pid}").exists(), "its end")
            lab.runtime = await made.start_plugin()
            assert (await lab.ended(spec.id)).code == 127
            assert (await lab.runtime.run(spec)).code == 127
            await lab.clean()
        finally:
            await made.drop_plugin()
            made.sweep()
