"""The registries that are held against the specification, and where Debian's is known to deviate."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.conformance.image_registry_server import running_registry
from tests.ports import free_port
from tests.system.instance import Instance, instance

__all__ = ["DEVIATIONS", "PEERS", "docker_registry", "sagong"]

_PAGES = "lists tags unsorted and whole, whatever n and last say"
_REFERRERS = "is older than specification 1.1: it has no referrers"
_OFFSETS = "ignores Content-Range of uploads: chunks are put one behind the other as they come"
_SHORT = "answers 416 with the length of the whole blob and less"
_ANY_REQUEST = "answers any method at /v2/"

# Test, or test with its parameters → why docker-registry 2.8 (Debian 12) does not hold it. Strict: what
# holds must not stand here.
DEVIATIONS: dict[str, str] = {
    "test_tags_are_listed_in_order": _PAGES,
    "test_tags_come_in_pages": _PAGES,
    "test_tags_behind_another": _PAGES,
    "test_no_tags_are_an_empty_list_without_a_link": _PAGES,
    "test_a_page_of_no_number_is_refused": _PAGES,
    "test_a_repository_without_tags_has_an_empty_list": "knows no repository without a tag",
    "test_referrers_are_listed_with_type_and_annotations": _REFERRERS,
    "test_referrers_of_one_type": _REFERRERS,
    "test_no_referrers_are_an_empty_index": _REFERRERS,
    "test_referrers_that_come_before_their_subject": _REFERRERS,
    "test_a_referrer_that_is_deleted_is_not_listed": _REFERRERS,
    "test_referrers_of_what_is_no_digest_are_refused": _REFERRERS,
    "test_more_referrers_than_an_index_holds_come_in_pages": _REFERRERS,
    "test_a_subject_is_acknowledged_though_it_is_missing": _REFERRERS,
    "test_many_tags_at_once": "takes one tag at a time",
    "test_a_tag_is_deleted_and_its_manifest_stays": "deletes manifests by digest only",
    "test_what_is_not_there_can_not_be_deleted[manifests/v9]": "deletes manifests by digest only",
    "test_a_part_outside_of_a_blob_is_416[500-0]": _SHORT,
    "test_a_part_outside_of_a_blob_is_416[5000-10000]": _SHORT,
    "test_a_chunk_out_of_order_is_416_and_the_upload_goes_on": _OFFSETS,
    "test_a_final_chunk_out_of_order_is_416": _OFFSETS,
    "test_chunks_of_no_range": _OFFSETS,
    "test_a_chunk_that_is_not_as_long_as_its_range": _OFFSETS,
    "test_sha512": "fails with 500 at a manifest by its sha512 digest",
    "test_layers_that_are_never_pushed_need_not_be_there": "fails with 500: it wants them",
    "test_what_is_no_manifest_is_refused[null]": "fails with 500",
    'test_what_is_no_manifest_is_refused[{"schemaVersion": 2}]': "says DIGEST_INVALID",
    "test_a_manifest_above_the_limit_is_413": "says 400",
    "test_names_that_are_none[long]": "fails with 500",
    "test_tags_that_are_none[sha256:1]": "fails with 500",
    "test_methods_that_are_not_served[PATCH-/v2/]": _ANY_REQUEST,
}


def configuration(port: int, settings: str = "") -> str:
    """sagong.toml of an engine with a registry on a port."""
    return (
        'profile = "docker"\n[units.registry]\nenabled = true\n'
        f'listens = {{ api = "tcp:127.0.0.1:{port}" }}\n[units.registry.settings]\n{settings}\n'
    )


@contextlib.contextmanager
def platform(settings: str = "") -> Iterator[tuple[Instance, str]]:
    """An instance, and where its registry is."""
    port = free_port()
    with instance(configuration(port, settings)) as running:
        yield running, f"127.0.0.1:{port}"


@contextlib.contextmanager
def sagong(directory: Path) -> Iterator[str]:
    """Ours."""
    with platform() as (_, host):
        yield host


@contextlib.contextmanager
def docker_registry(directory: Path) -> Iterator[str]:
    """Debian's."""
    with running_registry(directory) as host:
        yield host


PEERS = {"sagong": sagong, "docker-registry": docker_registry}
