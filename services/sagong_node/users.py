"""Users and groups of an image: names to numbers, by its own /etc/passwd and /etc/group. Pure."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import msgspec

from sagong.contracts.runtime import User
from sagong.errors import InvalidArgument
from sagong.model.numbers import natural

__all__ = ["Account", "resolve"]

# What runtimes take, whatever the kernel could.
_LAST = 2**31 - 1
# Bytes of files whose answers are remembered: containers of an image ask the same.
_REMEMBERED = 64 << 10


class Account(msgspec.Struct, frozen=True):
    """Who a process is, and its home directory."""

    user: User
    home: str


def resolve(wanted: str, groups: Iterable[str], passwd: bytes, group: bytes) -> Account:
    """`USER[:GROUP]`, each a name or a number, and further groups.

    Unknown names are refused in Docker's words; unknown numbers are taken as they are.
    """
    small = len(passwd) + len(group) < _REMEMBERED
    return (_known if small else _resolved)(wanted, tuple(groups), passwd, group)


def _resolved(wanted: str, groups: tuple[str, ...], passwd: bytes, group: bytes) -> Account:
    name, _, group_name = wanted.partition(":")
    accounts = [fields for fields in _lines(passwd) if len(fields) >= 6]
    teams = [fields for fields in _lines(group) if len(fields) >= 4]
    uid, gid, login, home = _user(name or "0", accounts)
    if group_name:
        gid = _group(group_name, teams)
    extra = {_group(entry, teams, "Unable") for entry in groups}
    if login and not group_name:
        own = (natural(t[2]) for t in teams if login in t[3].split(","))
        extra |= {number for number in own if number is not None}
    if max(uid, gid, *extra) > _LAST:
        raise InvalidArgument(f"uids and gids must be in range 0-{_LAST}")
    # The primary one, too: who drops it must not gain what others may (CVE-2022-36109).
    return Account(User(uid=uid, gid=gid, groups=tuple(sorted({gid, *extra}))), home)


_known = functools.lru_cache(64)(_resolved)


def _user(name: str, accounts: list[list[str]]) -> tuple[int, int, str, str]:
    for fields in accounts:
        uid, gid = natural(fields[2]), natural(fields[3])
        if name in (fields[0], fields[2]) and uid is not None and gid is not None:
            return uid, gid, fields[0], fields[5] or "/"
    if natural(name.removeprefix("-")) is not None:
        return _number(name), 0, "", "/"
    raise InvalidArgument(f"unable to find user {name}: no matching entries in passwd file")


def _group(name: str, teams: list[list[str]], unable: str = "unable") -> int:
    for fields in teams:
        number = natural(fields[2])
        if fields[0] == name and number is not None:
            return number
    if natural(name.removeprefix("-")) is not None:
        return _number(name)
    raise InvalidArgument(f"{unable} to find group {name}: no matching entries in group file")


def _number(text: str) -> int:
    number = int(text)
    return number if number >= 0 else _LAST + 1


def _lines(content: bytes) -> list[list[str]]:
    return [line.split(":") for line in content.decode(errors="replace").splitlines() if line]
