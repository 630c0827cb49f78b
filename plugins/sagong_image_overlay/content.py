"""The content store: blobs by digest, verified while written, durable before they have a name."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sagong.errors import InvalidArgument, NotFound
from sagong.model.oci import check_digest, digest_of

__all__ = ["Content", "Session", "sync_directory"]

_CHUNK = 1 << 20
_DOCUMENT_LIMIT = 8 << 20


def sync_directory(path: Path | str) -> None:
    """Make names in a directory durable."""
    opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _settle(path: Path) -> None:
    """Make a file durable, and nobody else's."""
    with path.open("rb") as file:
        os.fchmod(file.fileno(), 0o600)
        os.fsync(file.fileno())


def _drop_unlocked(path: Path, before: float) -> int:
    """Delete a file that nobody has locked and that was not written since; its size."""
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(opened)
        if status.st_mtime > before:
            return 0
        path.unlink()
        return status.st_size
    finally:
        os.close(opened)


class Content:
    """Blobs below a directory; `pinned` ones survive garbage collection while work goes on."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.partial = root / "partial"
        self._pins: dict[str, int] = {}
        self._sessions: list[Session] = []
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Make the directories."""
        for name in ("sha256", "sha512", "partial"):
            (self.root / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where the blob of a digest is or would be."""
        algorithm, _, value = check_digest(digest).partition(":")
        return self.root / algorithm / value

    def has(self, digest: str) -> bool:
        """Whether the blob is here."""
        return self.path(digest).is_file()

    def size(self, digest: str) -> int:
        """Bytes of a blob that is here."""
        return self.path(digest).stat().st_size

    def read(self, digest: str) -> bytes:
        """A document (not a layer) as bytes; NotFound if it is not here."""
        try:
            with self.path(digest).open("rb") as file:
                return file.read(_DOCUMENT_LIMIT)
        except FileNotFoundError:
            raise NotFound(f"content {digest} is not in the store") from None

    def digest_of(self, data: bytes, expected: str = "") -> str:
        """The digest of bytes; InvalidArgument if they are not the `expected` ones."""
        algorithm = check_digest(expected).partition(":")[0] if expected else "sha256"
        digest = digest_of(data, algorithm)
        if expected and digest != expected:
            raise InvalidArgument(f"content is {digest}, not {expected}")
        return digest

    def put(self, data: bytes, digest: str = "") -> str:
        """Keep bytes, whose digest is known or not; their digest."""
        digest = digest or self.digest_of(data)
        target = self.path(digest)
        if not target.exists():
            handle, name = tempfile.mkstemp(dir=self.partial, prefix="put-")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                self._rename(Path(name), target)
            except OSError:
                os.unlink(name)
                raise
        return digest

    def publish(self, source: Path, digest: str) -> None:
        """Take over a file of this filesystem that has that digest."""
        _settle(source)
        self._rename(source, self.path(digest))

    def link(self, source: Path, digest: str) -> None:
        """Keep a file of this filesystem that has that digest; it is where it was, too."""
        _settle(source)
        with contextlib.suppress(FileExistsError):
            os.link(source, self.path(digest), follow_symlinks=False)
        sync_directory(self.path(digest).parent)

    def _rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)
        sync_directory(target.parent)

    def drop_partials(self, older: float = 0.0) -> int:
        """Forget interrupted downloads that nobody goes on with, of `older` seconds; bytes freed."""
        freed = 0
        for path in self.partial.glob("sha*-*"):
            with contextlib.suppress(FileNotFoundError, BlockingIOError):
                freed += _drop_unlocked(path, time.time() - older)
        return freed

    def digests(self) -> Iterator[str]:
        """All blobs."""
        for algorithm in ("sha256", "sha512"):
            for name in os.listdir(self.root / algorithm):
                yield f"{algorithm}:{name}"

    @contextlib.contextmanager
    def pinned(self, *digests: str) -> Iterator[None]:
        """Keep these from the garbage collector while the block runs."""
        for digest in digests:
            self._pins[digest] = self._pins.get(digest, 0) + 1
        try:
            yield
        finally:
            for digest in digests:
                self._pins[digest] -= 1
                if not self._pins[digest]:
                    del self._pins[digest]

    def is_pinned(self, digest: str) -> bool:
        """Whether work in progress needs the blob."""
        return digest in self._pins or any(digest in one.kept for one in self._sessions)

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """Work whose blobs survive garbage collection until it ends, from before they are here."""
        made = Session(self, self._lock)
        self._sessions.append(made)
        try:
            yield made
        finally:
            self._sessions.remove(made)

    def give_up(self, digest: str, discard: Callable[[Path], None]) -> int | None:
        """Discard a blob that no work in progress needs; its size, None if it stays."""
        with self._lock:
            if self.is_pinned(digest):
                return None
            with contextlib.suppress(FileNotFoundError):
                size = self.size(digest)
                discard(self.path(digest))
                return size
        return None


class Session:
    """Adds blobs, perhaps in threads, and keeps those that it relies on."""

    def __init__(self, content: Content, lock: threading.Lock) -> None:
        self._content = content
        self._lock = lock
        self.kept: set[str] = set()

    def keep(self, *digests: str) -> None:
        """Keep these: who looks for them afterwards sees them until the end, or not at all."""
        with self._lock:
            self.kept.update(digests)

    def put(self, data: bytes) -> str:
        """Keep bytes; their digest."""
        digest = self._content.digest_of(data)
        self.keep(digest)
        return self._content.put(data, digest)

    def has(self, digest: str) -> bool:
        """Whether the blob is here, to stay."""
        self.keep(digest)
        return self._content.has(digest)

    def adopt(self, source: Path, expected: str = "") -> str:
        """Keep a file of this filesystem; InvalidArgument if it is not the `expected` one.

        It stays where it is as well, for who has to begin anew.
        """
        algorithm = expected.partition(":")[0] or "sha256"
        with source.open("rb") as file:
            digest = f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"
        if expected and digest != expected:
            raise InvalidArgument(f"content is {digest}, wanted {expected}: it is damaged")
        self.keep(digest)
        self._content.link(source, digest)
        return digest

    def publish(self, source: Path, digest: str) -> None:
        """Take over a file of this filesystem that has that digest."""
        self.keep(digest)
        self._content.publish(source, digest)
