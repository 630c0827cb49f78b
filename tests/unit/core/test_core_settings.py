"""Settings of a unit: decoded strictly, with the instance's places in what is told and in defaults."""

from __future__ import annotations

import msgspec
import pytest

from sagong.errors import InvalidArgument
from sagong.settings import decoded


class Registries(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of them."""

    certificates: tuple[str, ...] = ("{etc}/certs.d", "/etc/docker/certs.d")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a plugin may be told."""

    root: str = "{data}"
    registries: Registries = Registries()
    words: dict[str, int] = {}


PLACES = {"etc": "/x/etc", "data": "/x/lib"}


def test_defaults_name_places_of_the_instance() -> None:
    """Those below another root read what was the machine's own."""
    found = decoded(Settings, {}, "image", PLACES)
    assert found.registries.certificates == ("/x/etc/certs.d", "/etc/docker/certs.d")
    assert found.root == "/x/lib"


def test_what_is_told_goes_before() -> None:
    told = {"root": "/here", "registries": {"certificates": ["{etc}/other"]}, "words": {"{a}": 1}}
    found = decoded(Settings, told, "image", PLACES)
    assert found.registries.certificates == ("/x/etc/other",)
    assert (found.root, found.words) == ("/here", {"{a}": 1})


def test_mistakes_are_told_by_their_keys() -> None:
    with pytest.raises(InvalidArgument, match=r"units\.image\.settings\.registries\.nothing"):
        decoded(Settings, {"registries": {"nothing": 1}}, "image", PLACES)
