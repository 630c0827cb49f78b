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

__all__ = ["ServerTls", "handshake_failure"]

_CHECK_SECONDS = 1.0


class ServerTls:
    """Makes the TLS context of new connections; those that stand keep theirs.

    Give PEM texts (`replace` renews them) or files (`from_files`, looked at once a second while
    connections come). With `client_ca` a client may show a certificate, which must then be of it;
    with `required` it must show one. `half_closes`: a client may end its side and read on, as
    streams of Docker's do; that layer is Python's (`sagong.http.secured`), and slower than uvloop's.
    """

    def __init__(
        self,
        certificate: str,
        key: str,
        client_ca: str = "",
        *,
        required: bool = False,
        half_closes: bool = False,
    ) -> None:
        self.half_closes = half_closes
        self._files: tuple[Path, Path, Path | None] | None = None
        self._stamp: tuple[object, ...] = ()
        self._checked = 0.0
        self._required = required
        self._context = _context(certificate, key, client_ca, required=required)

    @classmethod
    def from_files(
        cls,
        certificate: Path,
        key: Path,
        client_ca: Path | None = None,
        *,
        required: bool = False,
        half_closes: bool = False,
    ) -> ServerTls:
        """Read files, and read them again when they change."""
        ca = client_ca.read_text() if client_ca else ""
        files = (certificate, key, client_ca)
        stamp = _stamp(files)
        texts = (certificate.read_text(), key.read_text(), ca)
        made = cls(*texts, required=required, half_closes=half_closes)
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


def handshake_failure(error: OSError) -> str:
    """Why a client and a server did not agree, in OpenSSL's words; "" if one of them was just gone.

    Tells `ssl.SSLError` by what it has, since only a TLS listener's process loads that module.
    """
    if verdict := getattr(error, "verify_message", ""):
        return f"the client's certificate is refused: {verdict}"
    reason = getattr(error, "reason", None)
    if not isinstance(reason, str):
        return ""
    _, alert, said = reason.partition("_ALERT_")
    words = (said if alert else reason).replace("_", " ").lower()
    return f"the client refuses the server: {words}" if alert else words


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
