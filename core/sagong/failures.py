"""What failures come to: a refusal or a full disk is a line of the log, a defect its traceback."""

from __future__ import annotations

import errno
import logging

from sagong.errors import ResourceExhausted, SagongError

__all__ = ["FULL", "no_room", "tell"]

# A disk without blocks or inodes; one whose quota is used up.
FULL = frozenset((errno.ENOSPC, errno.EDQUOT))


def no_room(where: str, error: BaseException) -> ResourceExhausted | None:
    """What to say of an error that tells of a full disk; None of others.

    Of a group, if all that it holds are such errors.
    """
    if isinstance(error, BaseExceptionGroup):
        found = [no_room(where, each) for each in error.exceptions]
        return found[0] if all(found) else None
    if not isinstance(error, OSError) or error.errno not in FULL:
        return None
    place = f" of {error.filename}" if isinstance(error.filename, str) else ""
    return ResourceExhausted(f"{where}: the disk{place} is full: free space there")


def tell(log: logging.Logger, what: str, where: str, error: BaseException) -> BaseException:
    """Log that `what` failed, and give what the error of `where` comes to."""
    told = no_room(where, error) or error
    if isinstance(told, SagongError):
        log.error("%s failed: %s", what, told.message)
    else:
        log.error("%s failed", what, exc_info=error)
    return told
