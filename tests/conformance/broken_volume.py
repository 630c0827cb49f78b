"""The fake volumes broken in one way each: the volume suite must catch every one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace
from tests.conformance.fake_volume import FakeVolumes

from sagong.contracts.volume import (
    Published,
    PublishRequest,
    UnpublishRequest,
    Volume,
    VolumeList,
    VolumeRef,
)
from sagong.errors import NotFound

__all__ = ["MUTATIONS"]


class ForgetsLabels(FakeVolumes):
    caught_by = "created_volume_is_told"

    async def create(self, volume: Volume) -> Volume:
        return await super().create(replace(volume, labels=()))


class AgainIsEmpty(FakeVolumes):
    caught_by = "same_volume_again_is_the_one_there_is"

    def same(self, known: Volume, asked: Volume) -> Volume:
        shutil.rmtree(known.mountpoint)
        Path(known.mountpoint).mkdir()
        return known


class OptionsMayChange(FakeVolumes):
    caught_by = "other_options_are_another_volume"

    def same(self, known: Volume, asked: Volume) -> Volume:
        return known


class AnyOptionGoes(FakeVolumes):
    caught_by = "wrong_options_are_refused"

    def check(self, volume: Volume) -> None:
        super().check(replace(volume, options=()))


class ListIsByAge(FakeVolumes):
    caught_by = "list_is_by_name"

    async def list(self) -> VolumeList:
        return VolumeList(volumes=tuple(self.shelf.volumes.values()))


class PublishMakes(FakeVolumes):
    caught_by = "unknown_volume_is_not_found"

    async def publish(self, request: PublishRequest) -> Published:
        await self.create(Volume(name=request.name))
        return await super().publish(request)


class DeleteKeepsContent(FakeVolumes):
    caught_by = "deleted_volume_is_gone_with_its_content"

    def empty(self, volume: Volume) -> None:
        return None


class DeleteWantsIt(FakeVolumes):
    caught_by = "deleted_volume_is_gone_with_its_content"

    async def delete(self, volume: VolumeRef) -> None:
        self.get(volume.name)
        await super().delete(volume)


class ForceDeletesUsed(FakeVolumes):
    caught_by = "published_volume_is_not_deleted"

    async def delete(self, volume: VolumeRef) -> None:
        if volume.force:
            self.owners(volume.name).clear()
        await super().delete(volume)


class OwnersAreAlone(FakeVolumes):
    caught_by = "owners_share_a_volume"

    async def publish(self, request: PublishRequest) -> Published:
        path = Path((await super().publish(request)).path) / request.owner
        path.mkdir(exist_ok=True)
        return Published(path=str(path))


class EverythingIsTakenBack(FakeVolumes):
    caught_by = "owner_gives_back_all_or_one"

    async def unpublish(self, request: UnpublishRequest) -> None:
        await super().unpublish(replace(request, name=""))


class UnknownCantBeTakenBack(FakeVolumes):
    caught_by = "taking_back_the_unknown_is_no_error"

    async def unpublish(self, request: UnpublishRequest) -> None:
        if request.name not in ("", *self.shelf.volumes):
            raise NotFound(f"no volume {request.name}")
        await super().unpublish(request)


class LinksCountTwice(FakeVolumes):
    caught_by = "usage_counts_bytes_and_owners"

    def size(self, place: Path) -> int:
        return sum(path.lstat().st_size for path in place.rglob("*") if path.is_file())


class NeverSeeds(FakeVolumes):
    caught_by = "seed_fills_a_new_volume"

    def seedable(self, fresh: bool, place: Path) -> bool:
        return False


class SeedsTheNewAlone(FakeVolumes):
    caught_by = "seed_fills_whatever_is_empty"

    def seedable(self, fresh: bool, place: Path) -> bool:
        return fresh and not os.listdir(place)


class FollowsNoLinksToTheSeed(FakeVolumes):
    caught_by = "seed_is_found_behind_links"

    def followed(self, layers: Sequence[Path], path: str) -> str:
        return path.strip("/")


class SeedsTheWholeForAPart(FakeVolumes):
    caught_by = "seed_fills_a_part"

    def seeded(self, whole: Path, part: Path) -> Path:
        return whole


class SeedsOverContent(FakeVolumes):
    caught_by = "seed_leaves_content_alone"

    def seedable(self, fresh: bool, place: Path) -> bool:
        return True


class LowerLayersWin(FakeVolumes):
    caught_by = "upper_layers_win"

    def seed(self, layers: Sequence[Path], place: Path) -> None:
        super().seed(layers[::-1], place)


class LinksBecomeCopies(FakeVolumes):
    caught_by = "seed_keeps_modes_and_links"

    def copy(self, source: Path, target: Path, links: dict[int, Path]) -> None:
        super().copy(source, target, {})


class SubpathIsACopy(FakeVolumes):
    caught_by = "subpath_is_a_part"

    def inside(self, place: Path, subpath: str, *, existing: bool) -> Path:
        copy = place.with_name(f"{place.name}.part")
        shutil.copytree(super().inside(place, subpath, existing=existing), copy, dirs_exist_ok=True)
        return copy


class SubpathFollowsLinks(FakeVolumes):
    caught_by = "subpath_stays_inside"

    def inside(self, place: Path, subpath: str, *, existing: bool) -> Path:
        return place / subpath


class PublicationsAreForgotten(FakeVolumes):
    caught_by = "everything_survives_a_crash"

    def kill(self) -> None:
        self.shelf.owners.clear()


class MakesWhatMustBeThere(FakeVolumes):
    caught_by = "subpath_may_have_to_be_there"

    def inside(self, place: Path, subpath: str, *, existing: bool) -> Path:
        return super().inside(place, subpath, existing=False)


MUTATIONS = [kind for kind in FakeVolumes.__subclasses__() if kind.__module__ == __name__]
