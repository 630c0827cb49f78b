"""Settings of the registry: the unit's section of the configuration."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Rule", "Settings", "Upstream"]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the tables."""


class Rule(_Table, frozen=True):
    """Accounts that may do something with repositories.

    `accounts` are names, `*` for all that have logged in, "" for everybody. `repositories` are
    patterns: `*` stands for any characters, `{account}` for the account's name (`{account}/*`).
    `actions` is what they may.
    """

    accounts: tuple[str, ...] = ("*",)
    repositories: tuple[str, ...] = ("*",)
    actions: tuple[Literal["pull", "push", "delete"], ...] = ("pull", "push", "delete")


class Upstream(_Table, frozen=True):
    """Another registry, of which repositories below `prefix` ("" for all) are copies made on demand.

    `url` is its address, `username` who we are there; `verify` false believes any certificate. A
    tag is looked up there again after `tag_seconds`. `password_file` is better than `password`: it
    lies in the directory of the accounts. `authority` is a file with certificates to trust;
    `certificate` and `key` are files of what we are known by there.
    """

    url: str
    prefix: str = ""
    username: str = ""
    password: str = ""
    password_file: str = ""
    authority: str = ""
    certificate: str = ""
    key: str = ""
    verify: bool = True
    tag_seconds: float = 300.0


class Settings(_Table, frozen=True):
    """`accounts` is a file as `htpasswd -B` writes it, beside those of `sagong registry passwd`.

    Without any account everybody may everything, if it listens on the loopback only.

    `rules` say who may what; without any, every account may everything. Repositories that match
    `public` can be pulled without an account, others are private, unless `sagong registry show` or
    `hide` said otherwise of one. `url` is how clients reach the token service, "" for the address
    they asked at. `tls` serves TLS, with `certificate` and `key`, or with a certificate of its own
    for `names`. Tokens are good for `token_seconds`. `upstreams` are registries that it has copies
    of. Manifests without a tag are collected after `untagged_seconds` (-1: never), blobs
    that no manifest needs after `blob_seconds`, uploads that nobody goes on with after
    `upload_seconds`; it looks every `collect_seconds` (0: only by `sagong registry gc`).
    """

    accounts: str = ""
    rules: tuple[Rule, ...] = ()
    public: tuple[str, ...] = ()
    token_seconds: int = 300
    url: str = ""
    tls: bool = False
    certificate: str = ""
    key: str = ""
    names: tuple[str, ...] = ()
    upstreams: tuple[Upstream, ...] = ()
    untagged_seconds: float = 7 * 86400.0
    blob_seconds: float = 86400.0
    upload_seconds: float = 86400.0
    collect_seconds: float = 3600.0
