"""How a build is begun at a builder that may be replaced at any moment."""

from __future__ import annotations

from typing import Any

from sagong.contracts.builder import BuildRequest
from sagong.contracts.streams import Address
from sagong_docker.build import begun


class Builders:
    """Generations of a builder: `swaps` tells which answers their call after a swap."""

    def __init__(self, *swaps: int) -> None:
        self._swaps = set(swaps)
        self._calls = 0
        self._generation = 1
        self.built: list[tuple[int, str]] = []

    def _next(self) -> str:
        self._calls += 1
        self._generation += self._calls in self._swaps
        return f"/run/streams-{self._generation}.sock"

    async def upload(self) -> Address:
        path = self._next()
        return Address(path=path, token=f"upload of {self._generation}")

    async def build(self, request: BuildRequest) -> Address:
        path = self._next()
        self.built.append((self._generation, request.context))
        return Address(path=path, token="build")


async def begin(builders: Any, **fields: Any) -> tuple[Address | None, Address]:
    return await begun(builders, BuildRequest(id="b", **fields))


async def test_an_upload_and_its_build_are_of_one_builder() -> None:
    """A swap between the two calls cost the build: there was no such upload."""
    builders = Builders(2)
    up, told = await begin(builders)
    assert up is not None and up.path == told.path
    assert builders.built == [(2, "upload of 1"), (2, "upload of 2")]


async def test_without_a_swap_both_are_made_once() -> None:
    builders = Builders()
    assert await begin(builders) is not None
    assert builders.built == [(1, "upload of 1")]


async def test_a_remote_context_is_not_uploaded() -> None:
    builders = Builders()
    up, _ = await begin(builders, remote="https://example.test/context.tar")
    assert up is None and builders.built == [(1, "")]
