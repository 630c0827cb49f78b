"""`sagong registry`: repositories that clients pushed, whom they are shown to, accounts, collection."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import json
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec

from sagong.config import Paths
from sagong.contracts.registry import (
    Account,
    AccountRef,
    CollectRequest,
    Registry,
    Repository,
    RepositoryQuery,
    RepositoryRef,
    Visibility,
    VisibilityRequest,
)
from sagong.errors import InvalidArgument
from sagong.operator import connect

__all__ = ["registry_arguments", "run_registry"]

Step = Callable[[Registry, argparse.Namespace], Coroutine[Any, Any, None]]
_PAGE = 1000
_REPOSITORY = "the repository, as `sagong registry list` names it"


def registry_arguments(parser: argparse.ArgumentParser) -> None:
    """Sub-verbs and their options."""
    steps = parser.add_subparsers(dest="step", required=True, metavar="WHAT")
    listed = steps.add_parser("list", help="repositories, their tags and sizes")
    listed.add_argument("prefix", nargs="?", default="", help="only names that begin with this")
    listed.add_argument("--json", action="store_true", help="for programs")
    described = steps.add_parser("describe", help="tags and manifests of a repository")
    described.add_argument("name", help=_REPOSITORY)
    described.add_argument("--json", action="store_true", help="for programs")
    for step, summary in (
        ("show", "let everybody pull a repository"),
        ("hide", "let only accounts pull a repository"),
        ("remove", "remove a repository with all in it"),
    ):
        steps.add_parser(step, help=summary).add_argument("name", help=_REPOSITORY)
    collected = steps.add_parser("gc", help="remove what nobody needs, and free the disk")
    collected.add_argument(
        "--grace",
        type=float,
        default=-1.0,
        metavar="SECONDS",
        help="spare what is younger (default: as configured)",
    )
    collected.add_argument("--dry-run", action="store_true", help="only tell what would go")
    steps.add_parser("accounts", help="who has an account")
    account = steps.add_parser("passwd", help="make an account, or change its password")
    account.add_argument("name", help="the account")
    account.add_argument("--password-stdin", action="store_true", help="read it from stdin")
    account.add_argument("--remove", action="store_true", help="remove the account")


def run_registry(options: argparse.Namespace) -> int:
    """Do what is asked for."""

    async def go() -> None:
        async with connect(Paths.below(options.root)) as operator:
            await _STEPS[options.step](await operator.use(Registry), options)

    asyncio.run(go())
    return 0


async def _list(registry: Registry, options: argparse.Namespace) -> None:
    found: list[Repository] = []
    more = True
    while more:
        after = found[-1].name if found else ""
        query = RepositoryQuery(prefix=options.prefix, after=after, limit=_PAGE)
        page = await registry.repositories(query)
        found += page.repositories
        more = page.more
    if options.json:
        print(json.dumps(msgspec.to_builtins(found), indent=2))
        return
    rows = [
        (
            r.name,
            "everybody" if r.public else "accounts",
            str(r.tags),
            str(r.manifests),
            _size(r.size),
        )
        for r in found
    ]
    _table(("REPOSITORY", "PULLED BY", "TAGS", "MANIFESTS", "SIZE"), rows)


async def _describe(registry: Registry, options: argparse.Namespace) -> None:
    found = await registry.describe(RepositoryRef(name=options.name))
    if options.json:
        print(json.dumps(msgspec.to_builtins(found), indent=2))
        return
    shown = found.repository
    print(
        f"{shown.name}: pulled by {'everybody' if shown.public else 'accounts'}, {_size(shown.size)}"
    )
    if shown.description:
        print(shown.description)
    tags: dict[str, list[str]] = {}
    for tag in found.tags:
        tags.setdefault(tag.digest, []).append(tag.tag)
    rows = [
        (
            m.digest,
            m.artifact_type or m.media_type,
            _size(m.size),
            ", ".join(tags.get(m.digest, ())),
        )
        for m in found.manifests
    ]
    _table(("MANIFEST", "TYPE", "SIZE", "TAGS"), rows)


async def _show(registry: Registry, options: argparse.Namespace) -> None:
    request = VisibilityRequest(name=options.name, visibility=Visibility.PUBLIC)
    await registry.set_visibility(request)


async def _hide(registry: Registry, options: argparse.Namespace) -> None:
    request = VisibilityRequest(name=options.name, visibility=Visibility.PRIVATE)
    await registry.set_visibility(request)


async def _remove(registry: Registry, options: argparse.Namespace) -> None:
    # To remove what is not there is no error of the slot; here it is a mistake in typing.
    await registry.describe(RepositoryRef(name=options.name))
    await registry.remove(RepositoryRef(name=options.name))


async def _gc(registry: Registry, options: argparse.Namespace) -> None:
    request = CollectRequest(grace=options.grace, dry_run=options.dry_run)
    found = await registry.collect(request)
    would = "would remove" if options.dry_run else "removed"
    freed = "" if options.dry_run else f"; {_size(found.bytes)} freed"
    print(
        f"{would} {found.manifests} manifests, {found.blobs} blobs, {found.uploads} uploads, "
        f"{found.repositories} repositories{freed}"
    )


def _size(count: int) -> str:
    """Bytes for people, in powers of a thousand."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


async def _accounts(registry: Registry, options: argparse.Namespace) -> None:
    found = await registry.accounts()
    rows = [(name, "file" if name in found.configured else "passwd") for name in found.names]
    _table(("ACCOUNT", "FROM"), rows)


async def _passwd(registry: Registry, options: argparse.Namespace) -> None:
    if options.remove:
        await registry.remove_account(AccountRef(name=options.name))
        return
    hashed = _hashed(_password(options))
    await registry.set_account(Account(name=options.name, hash=hashed))


def _password(options: argparse.Namespace) -> str:
    if options.password_stdin:
        return sys.stdin.readline().rstrip("\n")
    first = getpass.getpass("Password: ")
    if first != getpass.getpass("Again: "):
        raise InvalidArgument("the passwords differ")
    return first


def _hashed(password: str) -> str:
    import bcrypt

    if not password:
        raise InvalidArgument("an empty password is none")
    return bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(10)).decode()


_STEPS: dict[str, Step] = {
    "list": _list,
    "describe": _describe,
    "show": _show,
    "hide": _hide,
    "remove": _remove,
    "gc": _gc,
    "accounts": _accounts,
    "passwd": _passwd,
}
