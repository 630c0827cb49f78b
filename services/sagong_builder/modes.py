"""--chmod: an octal number, or changes as chmod(1) reads them (`u=rwX,go-w`). Pure.

Source: POSIX, chmod, "Extended description".
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sagong.errors import InvalidArgument

__all__ = ["Change", "read_mode"]

# From the mode that something has, and whether it is a directory, to the one that it gets.
Change = Callable[[int, bool], int]
_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)\Z")
_ACTION = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_OCTAL = re.compile(r"[0-7]+\Z")
# Of each class: its bits, and where the lowest of them is.
_CLASSES = {"u": (0o4700, 6), "g": (0o2070, 3), "o": (0o1007, 0)}
_ALL = 0o7777


def read_mode(text: str) -> Change:
    """What is to be done to modes."""
    if _OCTAL.match(text) and (bits := int(text[:8], 8)) <= _ALL:
        return lambda mode, directory: bits
    clauses = [_CLAUSE.match(part) for part in text.split(",")]
    if _OCTAL.match(text) or len(text) > 100 or None in clauses:
        raise InvalidArgument(
            f"invalid chmod parameter: '{text[:50]}'. it should be octal string and between 0 and "
            "07777"
        )
    actions = [
        (found[1] or "a", sign, what)
        for found in clauses
        if found is not None
        for sign, what in _ACTION.findall(found[2])
    ]

    def change(mode: int, directory: bool) -> int:
        for classes, sign, what in actions:
            mode = _changed(mode, classes, sign, what, directory)
        return mode

    return change


def _changed(mode: int, classes: str, sign: str, what: str, directory: bool) -> int:
    names = "ugo" if "a" in classes else classes
    mask = bits = 0
    for name in names:
        mask |= _CLASSES[name][0]
        bits |= _bits(mode, name, what, directory)
    if sign == "+":
        return mode | bits
    if sign == "-":
        return mode & ~bits
    # A directory keeps whose it makes what is in it, as with GNU's chmod.
    return mode & ~(mask & 0o1777 if directory else mask) | bits


def _bits(mode: int, name: str, what: str, directory: bool) -> int:
    """What the letters mean for one class."""
    _, shift = _CLASSES[name]
    if what in _CLASSES:
        return (mode >> _CLASSES[what][1] & 0o7) << shift
    found = sum({"r": 4, "w": 2, "x": 1}.get(letter, 0) for letter in set(what))
    if "X" in what and (directory or mode & 0o111):
        found |= 1
    special = {"u": 0o4000, "g": 0o2000}.get(name, 0) if "s" in what else 0
    sticky = 0o1000 if "t" in what and name == "o" else 0
    return found << shift | special | sticky
