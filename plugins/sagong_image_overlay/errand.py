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
    identity: str = ""


class Errand(msgspec.Struct, kw_only=True):
    """What is to be done, by `task`: "pull"; "push" of `manifest`, where `sources` are repositories
    that have a blob already; "fetch" of the URL `reference` into the file `content`; or a question
    ("describe", "tags", "search" for `term`, "login")."""

    task: str
    reference: str = ""
    content: str = ""
    parallel: int = 1
    reserve: int = 0
    term: str = ""
    limit: int = 0
    login: Login = Login()
    settings: Registries = Registries()
    platform: oci.Platform = oci.Platform()
    manifest: str = ""
    media_type: str = ""
    sources: dict[str, list[str]] = {}
