"""Slot `volume`: the plugin passes the suite, and a dozen broken ones don't."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sagong.conformance import volume as suite
from sagong.conformance.volume import VolumeLab
from sagong.contracts.volume import (
    Published,
    PublishRequest,
    UnpublishRequest,
    Volume,
    VolumeList,
    VolumeRef,
    Volumes,
    VolumeUsage,
)
from sagong.testing import Check, awaited, check_name, checks, local
from sagong_volume_local import VolumeLocal

pytestmark = pytest.mark.root


@contextlib.asynccontextmanager
async def laboratory(base: Path, plugin: Any = VolumeLocal) -> AsyncIterator[VolumeLab]:
    data, scratch = base / "data", base / "scratch"
    scratch.mkdir()
    async with contextlib.AsyncExitStack() as stack:

        async def start() -> Volumes:
            candidate = await stack.enter_async_context(local(plugin, data=data))
            return awaited(Volumes, candidate)

        yield VolumeLab(await start(), scratch, start)


@pytest.mark.parametrize("check", checks(suite), ids=check_name)
async def test_volume_local(check: Check, tmp_path: Path) -> None:
    async with laboratory(tmp_path) as lab:
        await check(lab)


class Forgetful(VolumeLocal):
    def __init__(self, host: Any) -> None:
        super().__init__(host)
        for name in list(self._records.all):
            self._records.delete(name)


class Eager(VolumeLocal):
    async def delete(self, volume: VolumeRef) -> None:
        for record in self._records.all.values():
            record.owners.clear()
        await super().delete(volume)


class Reluctant(VolumeLocal):
    async def delete(self, volume: VolumeRef) -> None:
        return


class Unordered(VolumeLocal):
    def list(self) -> VolumeList:
        return VolumeList(volumes=tuple(reversed(super().list().volumes)))


class Sticky(VolumeLocal):
    def unpublish(self, request: UnpublishRequest) -> None:
        return


class Careless(VolumeLocal):
    async def publish(self, request: PublishRequest) -> Published:
        path = (await super().publish(msgspec.structs.replace(request, subpath=""))).path
        return Published(path=f"{path}/{request.subpath}".rstrip("/"))


class Barren(VolumeLocal):
    async def publish(self, request: PublishRequest) -> Published:
        return await super().publish(msgspec.structs.replace(request, seed=()))


class Upended(VolumeLocal):
    async def publish(self, request: PublishRequest) -> Published:
        return await super().publish(msgspec.structs.replace(request, seed=request.seed[::-1]))


class Refilling(VolumeLocal):
    async def publish(self, request: PublishRequest) -> Published:
        if request.name in self._records.all:
            self._records.all[request.name].filled = False
        return await super().publish(request)


class Nameless(VolumeLocal):
    def create(self, volume: Volume) -> Volume:
        return msgspec.structs.replace(super().create(volume), labels=())


class Tolerant(VolumeLocal):
    def create(self, volume: Volume) -> Volume:
        return super().create(msgspec.structs.replace(volume, options=()))


class Weightless(VolumeLocal):
    async def usage(self, volume: VolumeRef) -> VolumeUsage:
        return msgspec.structs.replace(await super().usage(volume), size=0)


BROKEN = [
    Forgetful,
    Eager,
    Reluctant,
    Unordered,
    Sticky,
    Careless,
    Barren,
    Upended,
    Refilling,
    Nameless,
    Tolerant,
    Weightless,
]


@pytest.mark.parametrize("broken", BROKEN)
async def test_the_suite_finds_what_is_broken(broken: Any, tmp_path: Path) -> None:
    failed = []
    for number, check in enumerate(checks(suite)):
        base = tmp_path / str(number)
        base.mkdir()
        async with laboratory(base, broken) as lab:
            try:
                await check(lab)
            except Exception:
                failed.append(check_name(check))
    assert failed
