"""What a courier is sent for: the request on its standard input."""

from __future__ import annotations

import msgspec

from sagong.model import oci
from sagong_image_overlay.settings import Registries

__all__ = ["Errand", "Login"]


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """Credentials for a registry."""

    username: str = ""
    password: str = ""
    token: str = ""


class Errand(msgspec.Struct, kw_only=True):
    """A pull, or the push of `manifest`; `sources` are repositories that have a blob already."""

    reference: str
    content: str
    parallel: int
    login: Login = Login()
    settings: Registries = Registries()
    platform: oci.Platform = oci.Platform()
    manifest: str = ""
    media_type: str = ""
    sources: dict[str, list[str]] = {}
