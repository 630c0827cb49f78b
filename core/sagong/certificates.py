"""Certificates that a service makes for itself, their keys, and both as files.

Import it where one is made: it brings `cryptography` along.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["BACKDATE", "alternative", "key_pem", "new_key", "self_signed", "write"]

# Clocks of others may be a little late.
BACKDATE = datetime.timedelta(minutes=5)
_LIFE = datetime.timedelta(days=3650)


def new_key() -> ec.EllipticCurvePrivateKey:
    """ECDSA P-256: fast to shake hands with."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The key as PEM, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def self_signed(
    key: ec.EllipticCurvePrivateKey,
    subject: str,
    names: Iterable[str] = (),
    *,
    path_length: int | None = None,
) -> bytes:
    """An authority's certificate for ten years, as PEM; `names` (DNS or IP) are those it serves.

    `path_length` bounds the authorities below it (RFC 5280, 4.2.1.9).
    """
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    now = datetime.datetime.now(datetime.UTC)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + _LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identifier, critical=False)
    )
    served = [alternative(one) for one in names]
    if served:
        builder = builder.add_extension(x509.SubjectAlternativeName(served), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def alternative(name: str) -> x509.GeneralName:
    """A name that a certificate serves: an address, or else one of DNS."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def write(path: Path, content: bytes) -> None:
    """A file for its owner alone, whole or not at all, and durable."""
    fresh = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
