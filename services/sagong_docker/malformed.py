"""What is wrong with a text that is no JSON, or no query, in the words of Go. Pure.

Programs for Docker's API match these words (https://pkg.go.dev/encoding/json#SyntaxError).
"""

from __future__ import annotations

import re

__all__ = ["complaint", "query_complaint", "whole"]

_SPACE = re.compile(rb"[ \t\r\n]*")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_LITERALS = {b"t": b"true", b"f": b"false", b"n": b"null"}
_ESCAPE = re.compile(r"%(?![0-9a-fA-F]{2}).{0,2}", re.DOTALL)
_DEEPEST = 10000
_EOF = "unexpected EOF"


class _Wrong(Exception):
    """Carries the words."""


def complaint(text: bytes) -> str:
    """The first thing that is wrong with the first value; "" if that is JSON."""
    try:
        whole(text)
    except ValueError as error:
        return str(error)
    return ""


def query_complaint(text: str) -> str:
    """What is wrong with a query; "" if it is one (https://pkg.go.dev/net/url#ParseQuery)."""
    if ";" in text:
        return "invalid semicolon separator in query"
    wrong = _ESCAPE.search(text) if "%" in text else None
    return f'invalid URL escape "{wrong[0]}"' if wrong else ""


def whole(text: bytes) -> int:
    """Where the first value ends; ValueError in Go's words if it is none."""
    try:
        return _value(text, _skip(text, 0), 0)
    except _Wrong as error:
        raise ValueError(str(error)) from None


def _skip(text: bytes, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _refuse(text: bytes, at: int, where: str) -> _Wrong:
    if at >= len(text):
        return _Wrong(_EOF)
    letter = chr(text[at])
    shown = {"'": r"'\''", '"': "'\"'"}.get(letter) or repr(letter)
    return _Wrong(f"invalid character {shown} {where}")


def _value(text: bytes, at: int, depth: int) -> int:
    if depth > _DEEPEST:
        raise _Wrong("exceeded max depth")
    first = text[at : at + 1]
    if first == b"{":
        return _object(text, _skip(text, at + 1), depth)
    if first == b"[":
        return _array(text, _skip(text, at + 1), depth)
    if first == b'"':
        return _string(text, at + 1)
    if first in _LITERALS:
        return _literal(text, at, _LITERALS[first])
    if first == b"-" or first.isdigit():
        found = _NUMBER.match(text, at)
        if found is None:
            raise _refuse(text, at + 1, "in numeric literal")
        return found.end()
    raise _refuse(text, at, "looking for beginning of value")


def _object(text: bytes, at: int, depth: int) -> int:
    if text[at : at + 1] == b"}":
        return at + 1
    while True:
        if text[at : at + 1] != b'"':
            raise _refuse(text, at, "looking for beginning of object key string")
        at = _skip(text, _string(text, at + 1))
        if text[at : at + 1] != b":":
            raise _refuse(text, at, "after object key")
        at = _skip(text, _value(text, _skip(text, at + 1), depth + 1))
        if text[at : at + 1] == b"}":
            return at + 1
        if text[at : at + 1] != b",":
            raise _refuse(text, at, "after object key:value pair")
        at = _skip(text, at + 1)


def _array(text: bytes, at: int, depth: int) -> int:
    if text[at : at + 1] == b"]":
        return at + 1
    while True:
        at = _skip(text, _value(text, at, depth + 1))
        if text[at : at + 1] == b"]":
            return at + 1
        if text[at : at + 1] != b",":
            raise _refuse(text, at, "after array element")
        at = _skip(text, at + 1)


def _string(text: bytes, at: int) -> int:
    while True:
        found = _PLAIN.match(text, at)
        at = found.end() if found else at
        if text[at : at + 1] == b'"':
            return at + 1
        if text[at : at + 1] != b"\\":
            raise _refuse(text, at, "in string literal")
        escape = text[at + 1 : at + 2]
        if escape == b"u":
            for place in range(at + 2, at + 6):
                if not re.match(rb"[0-9a-fA-F]", text[place : place + 1]):
                    raise _refuse(text, place, "in \\u hexadecimal character escape")
            at += 6
        elif escape and escape in b'bfnrt\\/"':
            at += 2
        else:
            raise _refuse(text, at + 1, "in string escape code")


def _literal(text: bytes, at: int, word: bytes) -> int:
    for place, letter in enumerate(word[1:], at + 1):
        if text[place : place + 1] != bytes([letter]):
            name = word.decode()
            raise _refuse(text, place, f"in literal {name} (expecting {chr(letter)!r})")
    return at + len(word)
