"""All providers of slot `volume` as one: a volume's driver says which instance has it.

Who has a volume is asked. What drivers beside the default one were seen to have is remembered, in the
local state, for when they are away: their volumes are not to be taken for missing then, and made anew.
"""

from __future__ import annotations

import asyncio

from sagong.contracts.state import (
    Operation,
    OperationKind,
    RangeRequest,
    State,
    Transaction,
    transaction_id,
)
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
from sagong.errors import AlreadyExists, FailedPrecondition, NotFound
from sagong.host import Host

__all__ = ["EveryVolume"]

_PLACES = "/volumes/"


class _Places:
    """Names of volumes, and the drivers beside the default one that have them."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._noted: dict[str, str] = {}

    async def driver(self, volume: str) -> str:
        """Who had it last; "" if none is known."""
        found = await self._state.range(RangeRequest(start=_PLACES + volume))
        return found.entries[0].value.decode() if found.entries else ""

    async def note(self, volume: str, driver: str) -> None:
        """It is there."""
        if self._noted.get(volume) != driver:
            await self._write(
                Operation(kind=OperationKind.PUT, key=_PLACES + volume, value=driver.encode())
            )
            self._noted[volume] = driver

    async def forget(self, volume: str) -> None:
        """It is nowhere."""
        self._noted.pop(volume, None)
        await self._write(Operation(kind=OperationKind.DELETE, key=_PLACES + volume, quiet=True))

    async def _write(self, operation: Operation) -> None:
        await self._state.commit(Transaction(id=transaction_id(), success=(operation,)))


class EveryVolume:
    """The contract of slot `volume`."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._providers = host.providers(Volumes)
        self._places = _Places(host.use(State, "local"))

    @property
    def drivers(self) -> tuple[str, ...]:
        """Names that a volume's driver may have."""
        return ("local", *filter(None, self._providers.names))

    async def create(self, volume: Volume) -> Volume:
        """Where its driver is; AlreadyExists if another driver has one of the name."""
        chosen = self._driver(volume.driver)
        holder = None if self._is_alone else await self._holder(volume.name)
        if holder is None:
            await self._check_away(volume.name)
        elif holder != chosen:
            raise AlreadyExists(
                f"volume {volume.name} exists with another driver; remove it or choose another name"
            )
        if chosen:
            await self._places.note(volume.name, chosen)
        return await self._named(chosen).create(volume)

    async def delete(self, volume: VolumeRef) -> None:
        """From whoever has it; unknown is no error."""
        holder = "" if self._is_alone else await self._holder(volume.name)
        await self._named(holder or "").delete(volume)
        if holder:
            await self._places.forget(volume.name)

    async def inspect(self, volume: VolumeRef) -> Volume:
        """One volume; FailedPrecondition if it is of a driver that is away."""
        try:
            return await (await self._of(volume.name)).inspect(volume)
        except NotFound:
            await self._check_away(volume.name)
            raise

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
    def _is_alone(self) -> bool:
        """With one provider, as nearly always, nobody need be asked who has what."""
        return self._instances == ("",)

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
        raise NotFound(_looked_up_in_vain(driver))

    async def _check_away(self, volume: str) -> None:
        """Nobody who is here has it; whoever had it last must be."""
        driver = await self._places.driver(volume)
        if driver and driver not in self._providers.names:
            raise FailedPrecondition(f"volume {volume}: {_looked_up_in_vain(driver)}")

    async def _of(self, volume: str) -> Volumes:
        return self._named("" if self._is_alone else await self._holder(volume) or "")

    async def _holder(self, volume: str) -> str | None:
        """The instance that has a volume of that name."""
        for instance in self._instances:
            try:
                await self._named(instance).inspect(VolumeRef(name=volume))
            except NotFound:
                continue
            if instance:
                await self._places.note(volume, instance)
            return instance
        return None


def _looked_up_in_vain(driver: str) -> str:
    return f'error looking up volume plugin {driver}: plugin "{driver}" not found'
