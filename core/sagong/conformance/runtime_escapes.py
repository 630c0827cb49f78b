"""Checks of the runtime suite: what images try in order to reach the host while they are started."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from sagong.conformance.runtime_lab import DOCKER_CAPABILITIES, RuntimeLab, standard_mounts
from sagong.contracts.runtime import Device, Mount
from sagong.errors import SagongError

__all__ = [
    "check_links_to_descriptors_make_nothing_on_the_host",
    "check_no_program_begins_outside",
    "check_who_may_trace_finds_no_stranger",
]

# Numbers of descriptors that may be the host's root, or any directory of it, during a start.
_NUMBERS = range(3, 16)
_EXECS = 25


def _root(lab: RuntimeLab, number: int) -> Mount:
    """One whose `/trap` leads to what who builds the container has open."""
    root = lab.root()
    upper = next(o for o in root.options if o.startswith("upperdir=")).partition("=")[2]
    os.symlink(f"/proc/self/fd/{number}", f"{upper}/trap")
    return root


def _outside(lab: RuntimeLab) -> Path:
    found = lab.scratch / f"outside-{next(lab.numbers)}"
    found.mkdir()
    return found


async def check_links_to_descriptors_make_nothing_on_the_host(lab: RuntimeLab) -> None:
    """`/proc/self/fd/N` as a directory of the image: nothing is made or mounted where it leads."""
    outside = _outside(lab)
    source = _outside(lab)
    for number in _NUMBERS:
        mounts = standard_mounts(_root(lab, number))
        place = f"/trap{outside}/{number}"
        tries = (
            lab.spec("true", mounts=(*mounts, Mount(target=f"{place}-t", kind="tmpfs"))),
            lab.spec(
                "true",
                mounts=(*mounts, Mount(target=f"{place}-b", kind="bind", source=str(source))),
            ),
            lab.spec(
                "true", mounts=mounts, devices=(Device(source="/dev/null", target=f"{place}-d"),)
            ),
        )
        for spec in tries:
            # To refuse is as good as to take the link by its text.
            with contextlib.suppress(SagongError):
                await lab.output(spec)
            assert not list(outside.iterdir()), (number, list(outside.iterdir()))


async def check_no_program_begins_outside(lab: RuntimeLab) -> None:
    """Working directory and program by `/proc/self/fd/N` (CVE-2024-21626), at first and by exec."""
    outside = _outside(lab)
    (outside / "secret").write_text("told")
    script = f"cat ../../../../../../../../../..{outside}/secret"
    container = await lab.running()
    for number in _NUMBERS:
        link = f"/proc/self/fd/{number}"
        process = lab.process(script, cwd=link)
        program = lab.process(
            f"{link}/../../../../../../../../bin/sh", "-c", f"cat {outside}/secret"
        )
        for what in (process, program):
            with contextlib.suppress(SagongError):
                assert "told" not in (await lab.output(lab.spec(what))).text, number
            with contextlib.suppress(SagongError):
                assert "told" not in (await lab.exec_output(container.id, what)).text, number


async def check_who_may_trace_finds_no_stranger(lab: RuntimeLab) -> None:
    """With CAP_SYS_PTRACE the root of any process inside is in reach: of none is it the host's."""
    outside = _outside(lab)
    (outside / "secret").write_text("told")
    script = f"for p in /proc/[0-9]*; do [ -e $p/root{outside}/secret ] && echo $p >> /told; done"
    capabilities = (*DOCKER_CAPABILITIES, "CAP_SYS_PTRACE")
    looking = lab.process(f"while :; do {script}; done", capabilities=capabilities)
    container = await lab.running(process=looking)
    for _ in range(_EXECS):
        found = await lab.exec_output(container.id, lab.process("echo in; cat /told; exit 3"))
        assert (found.text, found.code) == ("in", 3), found
