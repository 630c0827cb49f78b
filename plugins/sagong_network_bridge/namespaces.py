"""Network namespaces: made, pinned as files, entered by a thread that always comes home."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from sagong.linux import mounts, syscalls
from sagong.linux.syscalls import Namespace

__all__ = ["Home", "is_pinned", "unpin", "write_sysctl"]

_THREAD = "/proc/thread-self/ns/net"


class Home:
    """The namespace in which the plugin itself lives; threads leave it only inside a `with`."""

    def __init__(self) -> None:
        self._descriptor = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._away = threading.local()

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)

    @contextlib.contextmanager
    def new(self, pin: Path) -> Iterator[int]:
        """This thread in a new namespace, pinned at `pin`; yields its descriptor."""
        pin.touch(mode=0o600)
        try:
            syscalls.unshare(Namespace.NET)
        except OSError:
            pin.unlink()
            raise
        try:
            mounts.bind(_THREAD, str(pin))
            with _opened(_THREAD) as descriptor:
                yield descriptor
        except BaseException:
            unpin(pin)
            raise
        finally:
            self._return()

    @contextlib.contextmanager
    def inside(self, pin: Path) -> Iterator[int]:
        """This thread in a pinned namespace; yields its descriptor."""
        with _opened(str(pin)) as descriptor:
            syscalls.setns(descriptor, Namespace.NET, path=str(pin))
            try:
                yield descriptor
            finally:
                self._return()

    @contextlib.contextmanager
    def here(self) -> Iterator[None]:
        """Back at home for a while, from within a namespace."""
        with _opened(_THREAD) as descriptor:
            self._return()
            try:
                yield
            finally:
                syscalls.setns(descriptor, Namespace.NET)

    def _return(self) -> None:
        """A thread lost in a container's namespace would configure that one for the machine's."""
        try:
            syscalls.setns(self._descriptor, Namespace.NET)
        except OSError:
            os._exit(70)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def unpin(pin: Path) -> None:
    """Let the namespace go once nobody is in it; a pin that isn't there is no error."""
    try:
        syscalls.umount(str(pin), mounts.MNT_DETACH)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
    pin.unlink(missing_ok=True)


def is_pinned(pin: Path) -> bool:
    """Whether a namespace is mounted on the file, and not only an empty file left by a crash."""
    try:
        return pin.stat().st_dev != pin.parent.stat().st_dev
    except FileNotFoundError:
        return False


def write_sysctl(name: str, value: str) -> None:
    """Set `net.…` in this thread's namespace; OSError names the file."""
    # Interface names may hold dots: they are written as slashes, as sysctl(8) allows.
    path = name if "/" in name else name.replace(".", "/")
    try:
        with open(f"/proc/sys/{path}", "w") as file:
            file.write(value)
    except OSError as error:
        raise OSError(
            error.errno, f"write {value!r}: {error.strerror}", f"/proc/sys/{path}"
        ) from None
