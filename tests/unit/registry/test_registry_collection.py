"""What a collection takes, as pictures of repositories."""

from __future__ import annotations

from sagong_registry.collection import Grace, Taken, plan
from sagong_registry.record import BlobRecord, ManifestRecord, RepositoryRecord, TagRecord
from sagong_registry.repository import Repository

NOW = 1_000_000.0
GRACE = Grace(manifests=1000.0, blobs=100.0)


class Picture:
    """A repository drawn in a few words."""

    def __init__(self) -> None:
        self.drawn = Repository("r")
        self.drawn.record = RepositoryRecord(created=0.0)

    def manifest(self, name: str, *blobs: str, age: float = 5000.0, **more: object) -> Picture:
        record = ManifestRecord(
            media_type="m", size=1, hold="h", pushed=NOW - age, blobs=blobs, **more  # type: ignore[arg-type]
        )  # fmt: skip
        self.drawn.put_manifest(name, record)
        return self

    def blob(self, *names: str, age: float = 5000.0) -> Picture:
        for name in names:
            self.drawn.blobs[name] = BlobRecord(size=1, hold="h", added=NOW - age)
        return self

    def tag(self, tag: str, manifest: str) -> Picture:
        self.drawn.tags[tag] = TagRecord(digest=manifest, pushed=0.0)
        return self

    def taken(self, grace: Grace = GRACE) -> Taken:
        return plan(self.drawn, NOW, grace)


def test_what_a_tag_means_stays() -> None:
    assert Picture().manifest("m", "b").blob("b").tag("t", "m").taken().nothing


def test_what_no_tag_means_goes_with_its_blobs() -> None:
    drawn = Picture().manifest("m", "b").manifest("n", "b", "c").blob("b", "c").tag("t", "m")
    assert drawn.taken() == Taken(manifests=("n",), blobs=("c",))


def test_the_young_stay() -> None:
    drawn = Picture().manifest("m", "b", age=999.0).blob("b").blob("c", age=99.0)
    assert drawn.taken().nothing


def test_what_lost_its_tag_lately_stays() -> None:
    drawn = Picture().manifest("m", released=NOW - 10)
    assert drawn.taken().nothing


def test_what_a_client_was_told_of_lately_stays() -> None:
    drawn = Picture().manifest("m").tag("t", "m").blob("b")
    drawn.drawn.seen["b"] = NOW - 10
    assert drawn.taken().nothing


def test_an_index_keeps_what_it_lists_and_so_on() -> None:
    drawn = Picture().manifest("i", manifests=("j",)).manifest("j", manifests=("m",))
    drawn.manifest("m", "b").blob("b").tag("t", "i")
    assert drawn.taken().nothing


def test_an_index_that_lists_itself_or_nothing_known_ends() -> None:
    drawn = Picture().manifest("i", manifests=("j", "unknown"))
    drawn.manifest("j", manifests=("i",))
    assert drawn.taken().manifests == ("i", "j")


def test_what_speaks_of_one_that_stays_stays() -> None:
    drawn = Picture().manifest("m").tag("t", "m").manifest("signature", "b", subject="m").blob("b")
    drawn.manifest("counter-signature", subject="signature")
    assert drawn.taken().nothing


def test_what_speaks_of_nothing_goes() -> None:
    drawn = Picture().manifest("m").tag("t", "m").manifest("signature", subject="gone")
    assert drawn.taken() == Taken(manifests=("signature",))


def test_for_ever_is_for_ever() -> None:
    drawn = Picture().manifest("m", "b").blob("b", "c")
    assert drawn.taken(Grace(-1.0, -1.0)).nothing


def test_an_empty_repository_goes_unless_somebody_said_who_sees_it() -> None:
    assert Picture().taken() == Taken(repository=True)
    drawn = Picture()
    drawn.drawn.record = RepositoryRecord(created=0.0, visibility="public")
    assert drawn.taken().nothing
    young = Picture()
    young.drawn.record = RepositoryRecord(created=NOW - 10)
    assert young.taken().nothing
