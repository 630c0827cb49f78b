"""The server's certificate: files of the configuration, or one of this registry's own making.

Its own is signed by itself, lasts, and is what clients are given to trust (`registry.crt` in its data).
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

from sagong.errors import InvalidArgument
from sagong.http import ServerTls

__all__ = ["of_files", "of_its_own"]

_REST = datetime.timedelta(days=30)


def of_files(certificate: str, key: str) -> ServerTls:
    """TLS by files, read again when they change; InvalidArgument names what is missing."""
    if not (certificate and key):
        raise InvalidArgument("give both settings, certificate and key, or neither with tls = true")
    try:
        return ServerTls.from_files(Path(certificate), Path(key))
    except OSError as error:
        raise InvalidArgument(
            f"{error.filename}: {error.strerror}; certificate and key must lie in a directory "
            "that the registry may read, {etc}/registry, and be its own or everybody's: "
            "chown --reference=/var/lib/sagong/plugins/registry FILE"
        ) from None


def of_its_own(directory: Path, names: Sequence[str]) -> ServerTls:
    """TLS by a certificate for these names, made if there is none that is good for them."""
    from sagong import certificates

    certificate, key = directory / "registry.crt", directory / "registry.key"
    if not _is_good(certificate, key, names):
        secret = certificates.new_key()
        certificates.write(key, certificates.key_pem(secret))
        made = certificates.self_signed(secret, "sagong registry", names, path_length=0)
        certificates.write(certificate, made)
    return ServerTls.from_files(certificate, key)


def _is_good(certificate: Path, key: Path, names: Sequence[str]) -> bool:
    from cryptography import x509

    from sagong.certificates import alternative

    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        listed = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    lasts = found.not_valid_after_utc - _REST > datetime.datetime.now(datetime.UTC)
    return key.exists() and lasts and set(listed) == {alternative(name) for name in names}
