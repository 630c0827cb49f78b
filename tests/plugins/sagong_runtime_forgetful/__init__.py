"""A runtime that starts programs without their environment, for tests of rehearsals."""

from __future__ import annotations

from msgspec.structs import replace

from sagong.contracts.runtime import Container, RunSpec
from sagong_runtime_linux import RuntimeLinux

__all__ = ["Forgetful"]


class Forgetful(RuntimeLinux):
    """All else is right."""

    async def run(self, spec: RunSpec) -> Container:
        """Keep the first variable alone."""
        process = replace(spec.process, env=spec.process.env[:1])
        return await super().run(replace(spec, process=process))
