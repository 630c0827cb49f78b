"""Uploads: bytes sent here, spooled to files that outlive this process, so that its successor goes on.

Of an upload there is one of these, named by a digest of its token (who reads the directory learns no
token)::

    NAME.part ──end──► NAME.whole ──an archive of images is unpacked──► NAME.files/
                           └───────────────── used ─────────────────────────┴────► NAME.answer

What nobody takes within a minute of its last byte is dropped; what was taken goes when whoever took it
has ended, unless this process ended before: then a successor is asked the same. What was answered stays
for a minute: a process may end between its work and the answer, and its successor is asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import shutil
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from sagong.contracts.streams import KEPT
from sagong.errors import InvalidArgument, ResourceExhausted, SagongError
from sagong_image_overlay.room import CHECK_EVERY, check_room

__all__ = ["Upload", "Uploads"]

_BEGIN_SECONDS = 30.0
_KEPT_SECONDS = 60.0
_CHUNK = 1 << 18
_MOST = 256


@dataclass(slots=True)
class Upload:
    """Where its bytes are, and what went wrong with it, when `done`.

    Who uses it says by `answer` what is to be told to who asks again. `answered`: a predecessor has
    used it, and there are no bytes any more.
    """

    directory: Path
    name: str
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future(), repr=False
    )
    timer: asyncio.TimerHandle | None = None
    coming: bool = False
    taken: bool = False
    answer: bytes = b""
    answered: bool = False

    @property
    def part(self) -> Path:
        """What has come, while more is to come."""
        return self.directory / f"{self.name}.part"

    @property
    def whole(self) -> Path:
        """All of it."""
        return self.directory / f"{self.name}.whole"

    @property
    def files(self) -> Path:
        """What it was unpacked to, instead of it."""
        return self.directory / f"{self.name}.files"

    @property
    def told(self) -> Path:
        """What was answered to who had it used, instead of either."""
        return self.directory / f"{self.name}.answer"

    def rest(self) -> None:
        """No timer."""
        if self.timer is not None:
            self.timer.cancel()

    def keep_answer(self) -> None:
        """It was used: from now on a successor knows what was answered."""
        new = self.directory / f"{self.name}.answering"
        try:
            new.write_bytes(self.answer)
            new.rename(self.told)
        except OSError:  # a full disk: then a successor does not know it
            new.unlink(missing_ok=True)

    def delete(self) -> None:
        """Nothing of it is left but the answer."""
        self.rest()
        self.done.cancel()
        self.part.unlink(missing_ok=True)
        self.whole.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            # Half of them must be nobody's: a successor would take them for all.
            gone = self.files.rename(self.directory / f"gone-{secrets.token_hex(8)}")
            shutil.rmtree(gone, ignore_errors=True)


class Uploads:
    """Those that come, or wait to be taken."""

    def __init__(self, directory: Path, reserve: int) -> None:
        self._directory = directory
        self._reserve = reserve
        self._known: dict[str, Upload] = {}
        # Of a predecessor, and the files of all: each goes by its timer.
        self._before: dict[str, bytes] = {}
        self._answers: dict[Path, asyncio.TimerHandle] = {}
        self._leaving = False

    def __bool__(self) -> bool:
        return bool(self._known)

    def start(self) -> None:
        """Know what a predecessor had; not what it was about to unpack, or to delete."""
        for path in self._directory.iterdir():
            if path.suffix == ".answer":
                self._before[path.stem] = path.read_bytes()
                self._forget_later(path)
        for path in self._directory.iterdir():
            if path.suffix == ".answer":
                continue
            if path.suffix not in (".part", ".whole", ".files") or path.stem in self._before:
                _remove(path)
                continue
            upload = self._known.setdefault(path.stem, self._made(path.stem))
            upload.begun.set()
            if path.suffix != ".part" and not upload.done.done():
                upload.done.set_result(None)
        for upload in self._known.values():
            self._drop_later(upload)

    def leave(self) -> None:
        """From now on what is cut short is left to a successor."""
        self._leaving = True

    def stop(self) -> None:
        """Drop none any more."""
        for upload in self._known.values():
            upload.rest()
        for timer in self._answers.values():
            timer.cancel()

    def _made(self, name: str) -> Upload:
        upload = Upload(self._directory, name)
        # An error that nobody waits for is no fault.
        upload.done.add_done_callback(lambda future: future.cancelled() or future.exception())
        return upload

    def new(self, token: str) -> None:
        """One that is to come."""
        if len(self._known) >= _MOST:
            raise ResourceExhausted(f"{_MOST} uploads wait to be taken already")
        upload = self._known[_name(token)] = self._made(_name(token))
        with contextlib.suppress(OSError):  # a full disk: who sends is told so
            upload.part.touch()
        self._drop_later(upload)

    def expects(self, token: str) -> bool:
        """Whether bytes of such an upload are waited for, from its beginning or after a break."""
        upload = self._known.get(_name(token))
        return upload is not None and not (upload.done.done() or upload.coming)

    def has(self, token: str) -> bool:
        """Whether all of such an upload has come."""
        upload = self._known.get(_name(token))
        if upload is None:
            return _name(token) in self._before
        return upload.done.done() and not upload.done.cancelled()

    async def receive(self, token: str, peer: socket.socket) -> None:
        """Take what comes until the half-close; who comes again is told what is here already."""
        upload = self._known[_name(token)]
        again = upload.begun.is_set()
        upload.begun.set()
        upload.rest()
        upload.coming = True
        try:
            with upload.part.open("ab", buffering=0) as file:
                if again:
                    await _told(peer, b"%d\n" % os.fstat(file.fileno()).st_size)
                await self._spooled(upload, file.fileno(), peer)
            if not upload.done.cancelled():
                upload.part.rename(upload.whole)
        except (OSError, ResourceExhausted) as error:
            _fail(upload, error)
            await _discarded(peer)
        finally:
            upload.coming = False
        if not upload.done.done():
            upload.done.set_result(None)
        if not upload.done.cancelled():
            await _told(peer, KEPT)  # or discarded, which is told to who asks for its use
        if upload.name in self._known and not upload.taken:
            self._drop_later(upload)

    async def _spooled(self, upload: Upload, target: int, peer: socket.socket) -> None:
        loop, unchecked = asyncio.get_running_loop(), 0
        buffer = bytearray(_CHUNK)
        view = memoryview(buffer)
        while count := await loop.sock_recv_into(peer, buffer):
            if upload.done.cancelled():
                return
            _write_all(target, view[:count])
            unchecked += count
            if unchecked > CHECK_EVERY:
                unchecked = 0
                check_room(target, self._reserve)

    @contextlib.asynccontextmanager
    async def taken(self, token: str) -> AsyncIterator[Upload]:
        """An upload, when it is complete; afterwards its answer is left, or all for a successor."""
        answer = self._before.pop(_name(token), None)
        if answer is not None:
            yield Upload(self._directory, _name(token), answer=answer, answered=True)
            return
        upload = self._known.get(_name(token))
        if upload is None or upload.taken:
            raise InvalidArgument("there is no such upload: it was taken or dropped already")
        upload.taken, cut = True, False
        upload.rest()
        try:
            async with asyncio.timeout(_BEGIN_SECONDS):
                await upload.begun.wait()
            await asyncio.shield(upload.done)
            yield upload
            self._keep_answer(upload)
        except TimeoutError:
            raise InvalidArgument("nobody sent the upload's bytes within 30 seconds") from None
        except (asyncio.CancelledError, GeneratorExit):
            cut = True
            raise
        finally:
            if not (cut and self._leaving):
                self._drop(upload.name)

    def _keep_answer(self, upload: Upload) -> None:
        upload.keep_answer()
        while len(self._answers) >= _MOST:
            self._forget(next(iter(self._answers)))
        self._forget_later(upload.told)

    def _forget_later(self, path: Path) -> None:
        loop = asyncio.get_running_loop()
        self._answers[path] = loop.call_later(_KEPT_SECONDS, self._forget, path)

    def _forget(self, path: Path) -> None:
        self._answers.pop(path).cancel()
        self._before.pop(path.stem, None)
        path.unlink(missing_ok=True)

    def _drop_later(self, upload: Upload) -> None:
        loop = asyncio.get_running_loop()
        upload.timer = loop.call_later(_KEPT_SECONDS, self._drop, upload.name)

    def _drop(self, name: str) -> None:
        upload = self._known.pop(name, None)
        if upload is not None:
            upload.delete()

    def new_directory(self) -> Path:
        """Where an archive is unpacked to, until it is whole."""
        path = self._directory / f"unpacking-{secrets.token_hex(8)}"
        path.mkdir(mode=0o700)
        return path


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _name(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()[:32]


def _fail(upload: Upload, error: OSError | ResourceExhausted) -> None:
    """What has come makes room; who sends first and asks then is told when it asks."""
    text = error.message if isinstance(error, SagongError) else error.strerror
    if not upload.done.done():
        upload.done.set_exception(ResourceExhausted(f"the upload can't be kept: {text}"))
    upload.part.unlink(missing_ok=True)


async def _told(peer: socket.socket, line: bytes) -> None:
    """Say something to who sends; some do not listen."""
    with contextlib.suppress(OSError):
        await asyncio.get_running_loop().sock_sendall(peer, line)


async def _discarded(peer: socket.socket) -> None:
    buffer = bytearray(_CHUNK)
    with contextlib.suppress(OSError):
        while await asyncio.get_running_loop().sock_recv_into(peer, buffer):
            continue


def _write_all(target: int, data: memoryview) -> None:
    while data:
        data = data[os.write(target, data) :]
