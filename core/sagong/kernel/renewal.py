"""Renews what is no unit: the kernel itself, the zygote, companions. Containers and plugins go on.

The kernel ends and is started anew by its keeper, after the installed code has been tried in a
process of its own: it must be importable and understand the configuration. The new one adopts
everything. Its zygote ends with it, as they speak to each other in pickles of one version.
"""

from __future__ import annotations

import asyncio
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Sequence

from sagong.errors import FailedPrecondition, NotFound
from sagong.kernel.supervisor import Supervisor

__all__ = ["RENEWED", "Renewal"]

# The exit status that makes a keeper start the kernel anew: any but 0 and its configuration error.
RENEWED = 75
_CHECK_SECONDS = 20.0


class Renewal:
    """`leave` ends this kernel so that its keeper starts another; None where there is no keeper."""

    def __init__(
        self, supervisor: Supervisor, check: Sequence[str], leave: Callable[[], None] | None
    ) -> None:
        self._supervisor = supervisor
        self._check = check
        self._leave = leave

    async def renew(self, part: str) -> None:
        """Renew one part."""
        if part == "kernel":
            await self._renew_kernel()
        elif part == "zygote":
            self._supervisor.spawner.close()
        elif not self._supervisor.companions.renew(part.removesuffix("-companion")):
            raise NotFound(f"no part {part}; there are kernel, zygote and UNIT-companion")

    async def _renew_kernel(self) -> None:
        if self._leave is None:
            raise FailedPrecondition("this kernel has no keeper that would start it anew")
        busy = [n for n, one in self._supervisor.lives.items() if one.coming is not None]
        if busy:
            raise FailedPrecondition(f"{busy[0]} is starting or being swapped; wait for it")
        problem = await self._problem()
        if problem:
            raise FailedPrecondition(f"the installed code can't be the kernel: {problem}")
        # After this call has been answered.
        asyncio.get_running_loop().call_later(0.05, self._leave)

    async def _problem(self) -> str:
        child = await asyncio.create_subprocess_exec(
            *self._check, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE
        )
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                _, errors = await child.communicate()
        except TimeoutError:
            child.kill()
            await child.wait()
            return f"its check does not end in {_CHECK_SECONDS:.0f} s"
        lines = errors.decode(errors="replace").strip().splitlines()
        return (lines or ["it fails without a word"])[-1] if child.returncode else ""
