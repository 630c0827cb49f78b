"""The fake image store broken in one way each: the image suite must catch every one."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from typing import Any

from msgspec.structs import replace
from tests.conformance.fake_image import FakeImages, Lease, Stored
from tests.conformance.fake_image_files import Files, apply_layer, members_of

from sagong.contracts.image import (
    ArchiveRequest,
    ChangeList,
    CommitRequest,
    DeriveRequest,
    Image,
    ImageList,
    ImageQuery,
    ImageRef,
    LoadRequest,
    PathStat,
    Prepared,
    PrepareRequest,
    Progress,
    Removed,
    RemoveRequest,
    RootRef,
    SaveRequest,
    TagRequest,
)
from sagong.contracts.streams import Address
from sagong.errors import InvalidArgument, NotFound

__all__ = ["MUTATIONS"]


class TrustsLayers(FakeImages):
    """Does not hold layers against the config."""

    def keep(self, image: Stored, names: list[str]) -> Stored:
        self.images[image.id] = image
        return image if not names else super_names(self, image, names)


def super_names(store: FakeImages, image: Stored, names: list[str]) -> Stored:
    """Name an image without looking at it."""
    from tests.conformance.fake_image import full

    store.names |= {full(name): image.id for name in names}
    return image


class KeepsUploads(FakeImages):
    """An upload can be taken again."""

    async def taken(self, token: str) -> bytes:
        if token not in self.uploads:
            raise InvalidArgument("no such upload")
        return await self.uploads[token]


class WantsAllLayers(FakeImages):
    """Takes no layer from images that are here."""

    def layers_here(self) -> dict[str, bytes]:
        return {}


class ForgetsCommandIsUnset(FakeImages):
    """Tells an unset command as an empty one."""

    def describe(self, image: Stored) -> Image:
        found = super().describe(image)
        return replace(found, config=replace(found.config, cmd=found.config.cmd or ()))


class GuessesPrefixes(FakeImages):
    """Takes the first of several images that a prefix means."""

    def find(self, text: str) -> Stored:
        for identity, image in self.images.items():
            if text.startswith("sha256:") and identity.startswith(text):
                return image
        return super().find(text)


class SaysLittle(FakeImages):
    """Does not name what it did not find."""

    async def inspect(self, image: ImageRef) -> Image:
        try:
            return await super().inspect(image)
        except NotFound:
            raise NotFound("no image") from None


class ListsOldestFirst(FakeImages):
    """The wrong way round."""

    async def list(self, query: ImageQuery) -> ImageList:
        return ImageList(images=(await super().list(query)).images[::-1])


class ListsAtLength(FakeImages):
    """Tells everything, though little was asked for."""

    async def list(self, query: ImageQuery) -> ImageList:
        return await super().list(replace(query, brief=False))


class ListsEverything(FakeImages):
    """Ignores the filter for images without a name."""

    async def list(self, query: ImageQuery) -> ImageList:
        return await super().list(replace(query, dangling=None))


class KeepsOldTags(FakeImages):
    """A name in use does not move."""

    async def tag(self, request: TagRequest) -> None:
        before = dict(self.names)
        await super().tag(request)
        self.names.update(before)


class RemovesUsedImages(FakeImages):
    """Takes an image away from under its containers."""

    async def remove(self, request: RemoveRequest) -> Removed:
        return await super().remove(replace(request, force=True))


class PrunesUsedImages(FakeImages):
    """Prunes what containers use."""

    async def prune(self, query: ImageQuery) -> Removed:
        leases, self.leases = self.leases, {}
        try:
            return await super().prune(query)
        finally:
            self.leases = leases


class DeletesOnUntag(FakeImages):
    """Deletes the image with the first of its names."""

    async def remove(self, request: RemoveRequest) -> Removed:
        image = self.find(request.reference)
        removed = await super().remove(request)
        self.images.pop(image.id, None)
        return removed


class SavesAllNames(FakeImages):
    """Saves names that nobody asked for."""

    async def save(self, request: SaveRequest) -> Address:
        image = self.find(request.references[0])
        return await super().save(SaveRequest(references=self.tags(image.id)))


class LendsAnew(FakeImages):
    """The same id gets a fresh layer."""

    async def prepare(self, request: PrepareRequest) -> Prepared:
        await self.release(RootRef(id=request.id))
        return await super().prepare(request)


class SharesLayers(FakeImages):
    """Lends one writable layer to all containers of an image."""

    async def prepare(self, request: PrepareRequest) -> Prepared:
        prepared = await super().prepare(request)
        shared = self.top / "shared"
        shared.mkdir(exist_ok=True)
        return replace(prepared, upper=str(shared) if prepared.upper else "")


class IgnoresPlatforms(FakeImages):
    """Lends another platform's image."""

    async def prepare(self, request: PrepareRequest) -> Prepared:
        return await super().prepare(replace(request, platform=""))


class IgnoresSizes(FakeImages):
    """Takes a limit and sets none."""

    async def prepare(self, request: PrepareRequest) -> Prepared:
        return await super().prepare(replace(request, storage_size=0))


class LendsTheWhole(FakeImages):
    """Lends all of an image though a part was asked for."""

    async def prepare(self, request: PrepareRequest) -> Prepared:
        return await super().prepare(replace(request, subpath=""))


class KeepsReleasedLayers(FakeImages):
    """Leaves the writable layer behind."""

    async def release(self, root: RootRef) -> None:
        lease = self.leases.get(root.id)
        if lease is not None:
            shutil.copytree(lease.root, f"{lease.root}-copy")
            await super().release(root)
            os.rename(f"{lease.root}-copy", lease.root)


class IgnoresWhiteouts(FakeImages):
    """Takes whiteouts for files."""

    def lend(self, request: PrepareRequest) -> Lease:
        lease = super().lend(request)
        files = Files()
        for raw in lease.image.layers:
            for member in members_of(raw):
                if ".wh." not in member.info.name:
                    name = member.info.name
                    parent, _, base = name.rpartition("/")
                    files.put(f"{files.resolve(parent)}/{base}".lstrip("/"), member)
        lease.files = files
        return lease


class TellsDeletionsAsChanges(FakeImages):
    """Does not tell deleted from modified."""

    async def changes(self, root: RootRef) -> ChangeList:
        found = await super().changes(root)
        changes = tuple(replace(c, kind=0 if c.kind == 2 else c.kind) for c in found.changes)
        return ChangeList(changes=changes)


class CommitsWithoutParent(FakeImages):
    """Forgets what an image was made of."""

    async def commit(self, request: CommitRequest) -> Image:
        made = await super().commit(request)
        self.images[made.id].parent = ""
        return replace(made, parent="")


class FollowsLinksInStat(FakeImages):
    """Tells of a link's end instead of the link."""

    async def stat(self, request: ArchiveRequest) -> PathStat:
        return await super().stat(replace(request, path=request.path + "/"))


class TellsNoOwners(FakeImages):
    """All is root's."""

    async def stat(self, request: ArchiveRequest) -> PathStat:
        return replace(await super().stat(request), uid=0, gid=0)


class OffersAgain(FakeImages):
    """An address serves more than once."""

    def offer(self, raw: bytes) -> Address:
        address = super().offer(raw)
        self.offers = Endless(self.offers)
        return address


class Endless(dict[str, bytes]):
    """Nothing can be taken out."""

    def pop(self, key: str, *default: object) -> bytes:
        return self[key]


class LetsKindsChange(FakeImages):
    """Replaces directories by files although told not to."""

    async def write_archive(self, request: ArchiveRequest) -> None:
        await super().write_archive(replace(request, no_overwrite_dir_non_dir=False))


class IgnoresMounts(FakeImages):
    """Looks below volumes."""

    def mounted(self, request: ArchiveRequest) -> None:
        return None


class ReadsAnyUrl(FakeImages):
    """Files of the machine are URLs, too."""

    async def fetched(self, url: str) -> bytes:
        return bytes(1024) if url.startswith("file:") else await super().fetched(url)


class TakesPartsForTheWhole(FakeImages):
    """What had come of an upload when it ended is all of it."""

    async def start(self) -> None:
        self.whole |= set(self.spool)
        await super().start()


class ForgetsAddresses(FakeImages):
    """Knows nothing of uploads that had not begun."""

    async def start(self) -> None:
        for token in [token for token, raw in self.spool.items() if not raw]:
            del self.spool[token]
        await super().start()


class ForgetsUploads(FakeImages):
    """Knows nothing of what a predecessor was sent."""

    async def start(self) -> None:
        self.spool.clear()
        await super().start()


class ForgetsAnswers(FakeImages):
    """Knows nothing of what a predecessor has done with an upload."""

    async def start(self) -> None:
        self.answers.clear()
        await super().start()


class ForgetsRemovals(FakeImages):
    """Knows nothing of what a predecessor has removed."""

    async def start(self) -> None:
        self.removals.clear()
        await super().start()


class WaitsForAllBytes(FakeImages):
    """Takes no upload that has not come yet."""

    async def load(self, request: LoadRequest) -> AsyncIterator[Progress]:
        if request.upload in self.uploads and not self.uploads[request.upload].done():
            raise InvalidArgument("nothing was uploaded")
        async for progress in super().load(request):
            yield progress


class FollowsNoLinks(FakeImages):
    """Puts entries below links beside what the links lead to."""

    def lend(self, request: PrepareRequest) -> Lease:
        lease = super().lend(request)
        files = Files()
        for raw in lease.image.layers:
            single = Files()
            apply_layer(single, raw) if raw is lease.image.layers[0] else single.table.update(
                {member.info.name: member for member in members_of(raw)}
            )
            for name, member in single.table.items():
                files.put(name, member)
        lease.files = files
        return lease


class DerivesOrphans(FakeImages):
    """Forgets what a derived image was made of."""

    async def derive(self, request: DeriveRequest) -> Image:
        made = await super().derive(request)
        self.images[made.id].parent = ""
        return replace(made, parent="")


class KnowsItsKeysOnly(FakeImages):
    """Drops what it does not know of a config."""

    def documented(self, document: bytes, base: bytes, layers: list[bytes]) -> dict[str, Any]:
        config = super().documented(document, base, layers)
        return {key: value for key, value in config.items() if key != "container_config"}


class KeepsConsumedLeases(FakeImages):
    """Consumes nothing."""

    async def commit(self, request: CommitRequest) -> Image:
        return await super().commit(replace(request, consume=False))


class CommitsEmptyLayers(FakeImages):
    """Makes a layer of nothing."""

    async def commit(self, request: CommitRequest) -> Image:
        diff = self.lease(request.container).root / "diff"
        (diff / "nothing").touch()
        return await super().commit(request)


class ListsAllAsChildren(FakeImages):
    """Does not look at parents."""

    async def list(self, query: ImageQuery) -> ImageList:
        return await super().list(replace(query, parent="", all=True))


class PrunesWithoutConditions(FakeImages):
    """Ignores labels and age."""

    def has_facts(self, image: Image, query: ImageQuery) -> bool:
        return True


class MakesEveryPath(FakeImages):
    """Makes directories that nobody asked for."""

    async def write_archive(self, request: ArchiveRequest) -> None:
        await super().write_archive(replace(request, make_path=True))


# Each mutation names the check of the suite that must catch it.
MUTATIONS: dict[type[FakeImages], str] = {
    TrustsLayers: "a_damaged_layer_is_refused",
    WantsAllLayers: "layers_that_are_here_need_not_be_in_the_archive",
    KeepsUploads: "an_upload_is_taken_once",
    ReadsAnyUrl: "import_gets_a_url",
    TakesPartsForTheWhole: "an_upload_goes_on_at_a_successor",
    ForgetsAddresses: "an_upload_begins_at_a_successor",
    ForgetsUploads: "an_upload_waits_for_a_successor",
    ForgetsAnswers: "what_was_answered_is_answered_by_a_successor",
    ForgetsRemovals: "what_was_removed_is_told_by_a_successor",
    ForgetsCommandIsUnset: "an_unset_command_is_none",
    GuessesPrefixes: "an_ambiguous_prefix_is_invalid",
    SaysLittle: "unknown_images_are_not_found",
    ListsOldestFirst: "images_are_listed_newest_first",
    ListsAtLength: "lists_can_be_brief",
    ListsEverything: "lists_can_be_narrowed",
    KeepsOldTags: "a_tag_moves",
    RemovesUsedImages: "used_images_stay",
    PrunesUsedImages: "prune_takes_only_what_nothing_uses",
    DeletesOnUntag: "removing_one_of_two_names_keeps_the_image",
    SavesAllNames: "saved_images_can_be_loaded",
    LendsAnew: "the_same_id_is_lent_the_same",
    SharesLayers: "two_containers_share_only_the_image",
    IgnoresPlatforms: "another_platform_is_not_found",
    IgnoresSizes: "a_size_is_kept_or_refused",
    LendsTheWhole: "a_part_of_an_image_is_lent",
    KeepsReleasedLayers: "release_forgets",
    IgnoresWhiteouts: "whiteouts_hide",
    TellsDeletionsAsChanges: "changes_are_told",
    CommitsWithoutParent: "commit_makes_an_image",
    FollowsLinksInStat: "stat_tells_a_path",
    TellsNoOwners: "stat_tells_a_path",
    OffersAgain: "an_address_is_good_once",
    LetsKindsChange: "kinds_are_not_exchanged_if_so_asked",
    IgnoresMounts: "mounts_are_seen",
    WaitsForAllBytes: "load_may_come_before_the_bytes",
    DerivesOrphans: "a_derived_image_has_the_layers_of_its_parent",
    KnowsItsKeysOnly: "a_derived_config_is_kept_as_it_stands",
    KeepsConsumedLeases: "a_commit_can_consume_the_lease",
    CommitsEmptyLayers: "a_commit_of_nothing_has_no_layer",
    ListsAllAsChildren: "children_are_told_after_a_restart",
    PrunesWithoutConditions: "prune_can_be_narrowed",
    MakesEveryPath: "extraction_makes_directories_if_so_asked",
    FollowsNoLinks: "directories_without_an_entry_keep_what_they_are",
}
