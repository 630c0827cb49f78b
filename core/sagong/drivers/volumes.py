"""All providers of slot `volume` as one: a volume's driver says which instance has it."""

from __future__ import annotations

import asyncio

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
from sagong.errors import AlreadyExists, NotFound
from sagong.host import Host

__all__ = ["EveryVolume"]


class EveryVolume:
    """The contract of slot `volume`."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._providers = host.providers(Volumes)

    @property
    def drivers(self) -> tuple[str, ...]:
        """Names that a volume's driver may have."""
        return ("local", *filter(None, self._providers.names))

    async def create(self, volume: Volume) -> Volume:
        """Where its driver is; AlreadyExists if another driver has one of the name."""
        chosen = self._driver(volume.driver)
        holder = await self._holder(volume.name)
        if holder not in (None, chosen):
            raise AlreadyExists(
                f"volume {volume.name} exists with another driver; remove it or choose another name"
            )
        return await self._named(chosen).create(volume)

    async def delete(self, volume: VolumeRef) -> None:
        """From whoever has it; unknown is no error."""
        await (await self._of(volume.name)).delete(volume)

    async def inspect(self, volume: VolumeRef) -> Volume:
        """One volume."""
        return await (await self._of(volume.name)).inspect(volume)

    async def list(self) -> VolumeList:
        """All volumes, by name."""
        lists = await asyncio.gather(*(self._named(name).list() for name in self._instances))
        found = (volume for one in lists for volume in one.volumes)
        return VolumeList(volumes=tuple(sorted(found, key=lambda volume: volume.name)))

    async def publish(self, request: PublishRequest) -> Published:
        """By whoever has it."""
        return await (await self._of(request.name)).publish(request)

    async def unpublish(self, request: UnpublishRequest) -> None:
        """Of one volume, or all that the owner has anywhere."""
        if request.name:
            await (await self._of(request.name)).unpublish(request)
            return
        await asyncio.gather(*(self._named(name).unpublish(request) for name in self._instances))

    async def usage(self, volume: VolumeRef) -> VolumeUsage:
        """Count its bytes."""
        return await (await self._of(volume.name)).usage(volume)

    @property
    def _instances(self) -> tuple[str, ...]:
        return self._providers.names or ("",)

    def _named(self, instance: str) -> Volumes:
        return self._host.use(Volumes, instance)

    def _driver(self, driver: str) -> str:
        """The instance behind a driver's name; NotFound in Docker's words."""
        if driver in ("", "local"):
            return ""
        if driver in self._providers.names:
            return driver
        raise NotFound(f'error looking up volume plugin {driver}: plugin "{driver}" not found')

    async def _of(self, volume: str) -> Volumes:
        return self._named(await self._holder(volume) or "")

    async def _holder(self, volume: str) -> str | None:
        """The instance that has a volume of that name. With one provider nobody need be asked."""
        if self._instances == ("",):
            return ""
        for instance in self._instances:
            try:
                await self._named(instance).inspect(VolumeRef(name=volume))
            except NotFound:
                continue
            return instance
        return None
