"""TLS of servers: certificate, optional client certificates, and both renewed without a restart."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sagong.errors import InvalidArgument

if TYPE_CHECKING:
    import ssl

__all__ = ["ServerTls"]

_CHECK_SECONDS = 1.0


class ServerTls:
    """Makes the TLS context of new connections; those that stand keep theirs.

    Give PEM texts (`replace` renews them) or files (`from_files`, looked at once a second while
    connections come). With `client_ca` a client may show a certificate, which must then be of it;
    with `required` it must show one.
    """

    def __init__(
        self, certificate: str, key: str, client_ca: str = "", *, required: bool = False
    ) -> None:
        self._files: tuple[Path, Path, Path | None] | None = None
        self._stamp: tuple[object, ...] = ()
        self._checked = 0.0
        self._required = required
        self._context = _context(certificate, key, client_ca, required=required)

    @classmethod
    def from_files(
        cls, certificate: Path, key: Path, client_ca: Path | None = None, *, required: bool = False
    ) -> ServerTls:
        """Read files, and read them again when they change."""
        ca = client_ca.read_text() if client_ca else ""
        files = (certificate, key, client_ca)
        stamp = _stamp(files)
        made = cls(certificate.read_text(), key.read_text(), ca, required=required)
        made._files, made._stamp = files, stamp
        return made

    def replace(self, certificate: str, key: str, client_ca: str = "") -> None:
        """Use these from the next connection on; InvalidArgument leaves the old ones."""
        self._context = _context(certificate, key, client_ca, required=self._required)

    def context(self) -> ssl.SSLContext:
        """The context for a connection that comes now."""
        now = time.monotonic()
        if self._files is not None and now - self._checked > _CHECK_SECONDS:
            self._checked = now
            self._reread(self._files)
        return self._context

    def _reread(self, files: tuple[Path, Path, Path | None]) -> None:
        """A half-written or mismatched pair is tried again at the next look; the old one serves."""
        try:
            stamp = _stamp(files)
            if stamp == self._stamp:
                return
            certificate, key, ca = files
            self.replace(certificate.read_text(), key.read_text(), ca.read_text() if ca else "")
            self._stamp = stamp
        except (OSError, InvalidArgument) as error:
            logging.getLogger(__name__).warning(
                "TLS files are not usable yet", extra={"error": str(error)}
            )


def _stamp(files: tuple[Path | None, ...]) -> tuple[object, ...]:
    stats = [os.stat(path) for path in files if path is not None]
    return tuple((s.st_mtime_ns, s.st_ino, s.st_size) for s in stats)


def _context(certificate: str, key: str, client_ca: str, *, required: bool) -> ssl.SSLContext:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        with _memory(certificate) as certificate_path, _memory(key) as key_path:
            context.load_cert_chain(certificate_path, key_path)
        if client_ca:
            context.load_verify_locations(cadata=client_ca)
            context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    except (ssl.SSLError, ValueError) as error:
        raise InvalidArgument(
            f"server certificate, key or client CA is not usable: {error}"
        ) from None
    return context


@contextlib.contextmanager
def _memory(text: str) -> Iterator[str]:
    """A path to a text that never touches the disk: OpenSSL reads keys from files only."""
    fd = os.memfd_create("sagong-tls", os.MFD_CLOEXEC)
    try:
        os.write(fd, text.encode())
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
