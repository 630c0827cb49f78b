"""The cluster's certificate authority: its key and certificate on disk, and what it signs."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sagong.certificates import BACKDATE, alternative, key_pem, new_key, self_signed, write
from sagong.contracts.auth import Certificate, CertificateRequest, Identity
from sagong.errors import InvalidArgument, Unauthenticated

__all__ = ["CertificateAuthority", "load_key"]

_USAGES = {
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
}


class CertificateAuthority:
    """Signs and recognizes certificates. Keys are ECDSA P-256: fast to shake hands with."""

    def __init__(self, directory: Path) -> None:
        self._key = load_key(directory / "ca.key")
        path = directory / "ca.crt"
        if not path.exists():
            write(path, self_signed(self._key, "sagong-ca"))
        self.pem = path.read_text()
        self._certificate = x509.load_pem_x509_certificate(self.pem.encode())

    def issue(self, request: CertificateRequest) -> Certificate:
        """Sign a request, or make a key and sign that."""
        unknown = [usage for usage in request.usages if usage not in _USAGES]
        if unknown:
            raise InvalidArgument(f"certificate usage {unknown[0]!r}: say client or server")
        if request.seconds < 60:
            raise InvalidArgument("a certificate must last at least 60 seconds")
        key = None if request.request else new_key()
        public = _public_key(request.request) if key is None else key.public_key()
        now = datetime.datetime.now(datetime.UTC)
        end = min(
            now + datetime.timedelta(seconds=request.seconds),
            self._certificate.not_valid_after_utc,
        )
        signed = self._build(request, public, now - BACKDATE, end).sign(self._key, hashes.SHA256())
        return Certificate(
            certificate=signed.public_bytes(serialization.Encoding.PEM).decode(),
            key="" if key is None else key_pem(key).decode(),
            expires=end.timestamp(),
        )

    def identify(self, der: bytes) -> Identity:
        """Who a client certificate of ours names; Unauthenticated says what is wrong with it."""
        try:
            found = x509.load_der_x509_certificate(der)
            found.verify_directly_issued_by(self._certificate)
        except (ValueError, TypeError, InvalidSignature):
            raise Unauthenticated("the certificate is not of this cluster's authority") from None
        now = datetime.datetime.now(datetime.UTC)
        if not found.not_valid_before_utc <= now <= found.not_valid_after_utc:
            raise Unauthenticated(f"the certificate ended on {found.not_valid_after_utc:%F %T} UTC")
        names = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        if not names or not str(names[0].value):
            raise Unauthenticated("the certificate has no common name")
        teams = found.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        return Identity(
            username=str(names[0].value),
            groups=tuple(str(team.value) for team in teams),
            expires=found.not_valid_after_utc.timestamp(),
        )

    def _build(
        self,
        request: CertificateRequest,
        public: CertificateIssuerPublicKeyTypes,
        begin: datetime.datetime,
        end: datetime.datetime,
    ) -> x509.CertificateBuilder:
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, request.subject)]
        attributes += [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, team) for team in request.organizations
        ]
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(attributes))
            .issuer_name(self._certificate.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            # Strict clients, Python 3.13's among them, take none without (RFC 5280, 4.2.1.1).
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.ExtendedKeyUsage([_USAGES[usage] for usage in request.usages]),
                critical=False,
            )
        )
        if request.names:
            names = [alternative(name) for name in request.names]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The private key of a file, made at the first time."""
    if not path.exists():
        write(path, key_pem(new_key()))
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidArgument(f"{path} is no ECDSA key; put the cluster's own back")
    return key


def _public_key(pem: str) -> CertificateIssuerPublicKeyTypes:
    try:
        request = x509.load_pem_x509_csr(pem.encode())
    except ValueError as error:
        raise InvalidArgument(f"not a PEM certificate request: {error}") from None
    if not request.is_signature_valid:
        raise InvalidArgument("the certificate request is not signed with its own key")
    return request.public_key()  # type: ignore[return-value]
