"""Meters: how often each method was called, how it went, and how long it took."""

from __future__ import annotations

from sagong.contracts.kernel import MethodCount

__all__ = ["BUCKETS", "Meter", "bucket_seconds", "quantile"]

_FIRST_NS = 16_384
BUCKETS = 24


class Meter:
    """Counts the calls of one method."""

    __slots__ = ("buckets", "calls", "errors", "method", "nanoseconds")

    def __init__(self, method: str) -> None:
        self.method = method
        self.calls = 0
        self.errors = 0
        self.nanoseconds = 0
        self.buckets = [0] * BUCKETS

    def add(self, nanoseconds: int, *, failed: bool) -> None:
        """A call ended."""
        self.calls += 1
        self.nanoseconds += nanoseconds
        if failed:
            self.errors += 1
        number = (nanoseconds // _FIRST_NS).bit_length()
        self.buckets[number if number < BUCKETS else BUCKETS - 1] += 1

    def count(self) -> MethodCount:
        """What was counted, without empty buckets at the end."""
        last = max((n for n, found in enumerate(self.buckets, 1) if found), default=0)
        return MethodCount(
            method=self.method,
            calls=self.calls,
            errors=self.errors,
            seconds=self.nanoseconds / 1e9,
            buckets=tuple(self.buckets[:last]),
        )


def bucket_seconds(number: int) -> float:
    """The upper bound of a bucket, in seconds; infinite for the last."""
    return float("inf") if number >= BUCKETS - 1 else _FIRST_NS * 2**number / 1e9


def quantile(buckets: tuple[int, ...], share: float) -> float:
    """The bound, in seconds, below which `share` of the calls stayed; 0 without calls."""
    wanted = share * sum(buckets)
    seen = 0
    for number, found in enumerate(buckets):
        seen += found
        if found and seen >= wanted:
            return bucket_seconds(number)
    return 0.0
