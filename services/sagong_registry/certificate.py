"""The server's certificate: files of the configuration, or one of this registry's own making.

Its own is signed by itself, lasts, and is what clients are given to trust (`registry.crt` in its data).
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sagong.errors import InvalidArgument
from sagong.http import ServerTls

if TYPE_CHECKING:
    from cryptography import x509

__all__ = ["of_files", "of_its_own"]

_LIFE = datetime.timedelta(days=3650)
_REST = datetime.timedelta(days=30)
_BACKDATE = datetime.timedelta(minutes=5)


def of_files(certificate: str, key: str) -> ServerTls:
    """TLS by files, read again when they change; InvalidArgument names what is missing."""
    if not (certificate and key):
        raise InvalidArgument("give both settings, certificate and key, or neither with tls = true")
    try:
        return ServerTls.from_files(Path(certificate), Path(key))
    except OSError as error:
        raise InvalidArgument(
            f"{error.filename}: {error.strerror}; certificate and key must lie in a directory "
            "that the registry may read: {etc}/registry"
        ) from None


def of_its_own(directory: Path, names: Sequence[str]) -> ServerTls:
    """TLS by a certificate for these names, made if there is none that is good for them."""
    certificate, key = directory / "registry.crt", directory / "registry.key"
    if not _is_good(certificate, key, names):
        made, secret = _make(names)
        _write(key, secret)
        _write(certificate, made)
    return ServerTls.from_files(certificate, key)


def _is_good(certificate: Path, key: Path, names: Sequence[str]) -> bool:
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        listed = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    lasts = found.not_valid_after_utc - _REST > datetime.datetime.now(datetime.UTC)
    return key.exists() and lasts and set(listed) == {_alternative(name) for name in names}


def _make(names: Sequence[str]) -> tuple[bytes, bytes]:
    """Certificate and key, PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sagong registry")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + _LIFE)
        .add_extension(
            x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return certificate.public_bytes(serialization.Encoding.PEM), secret


def _alternative(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    fresh = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
