"""Detach keys: parsing `ctrl-p,ctrl-q`, and finding them in what a user types. Pure."""

from __future__ import annotations

from sagong.errors import InvalidArgument

__all__ = ["DEFAULT_KEYS", "DetachKeys", "parse_keys"]

DEFAULT_KEYS = b"\x10\x11"
_SPECIAL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def parse_keys(text: str, kind: str = "detach") -> bytes:
    """The bytes of a sequence; "" means Docker's ctrl-p,ctrl-q. Wrong ones are told as of a kind."""
    if not text:
        return DEFAULT_KEYS
    keys = [key for part in text.split(",") if (key := _key(part)) is not None]
    if len(keys) <= text.count(","):
        raise InvalidArgument(f"Invalid {kind} keys ({text}) provided")
    return bytes(keys)


def _key(text: str) -> int | None:
    if len(text) == 1 and text.isascii():
        return ord(text)
    head, _, letter = text.partition("-")
    if head == "ctrl" and len(letter) == 1:
        if "a" <= letter <= "z":
            return ord(letter) - ord("a") + 1
        if letter in _SPECIAL:
            return _SPECIAL[letter]
    return None


class DetachKeys:
    """Watches input; what may be the beginning of the sequence is held back until it is clear."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to pass on, and whether the sequence is complete (the rest is dropped)."""
        if self._held == 0 and self._keys[0] not in data:
            return data, False
        passed = bytearray()
        for byte in data:
            if byte == self._keys[self._held]:
                self._held += 1
                if self._held == len(self._keys):
                    self._held = 0
                    return bytes(passed), True
                continue
            passed += self._keys[: self._held]
            self._held = 0
            if byte == self._keys[0]:
                self._held = 1
            else:
                passed.append(byte)
        return bytes(passed), False
