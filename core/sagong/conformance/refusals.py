"""What a candidate must refuse: by an error of the contract that says something."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sagong.errors import SagongError

__all__ = ["raises"]


@contextmanager
def raises(kind: type[SagongError], why: str) -> Iterator[list[SagongError]]:
    """The block must fail with this error, which the list has then; `why` names what is tried."""
    found: list[SagongError] = []
    try:
        yield found
    except kind as error:
        assert error.message, f"{why}: the error says nothing"
        found.append(error)
        return
    except SagongError as error:
        raise AssertionError(f"{why}: expected {kind.__name__}, got {error!r}") from error
    raise AssertionError(f"{why}: expected {kind.__name__}, nothing was raised")
