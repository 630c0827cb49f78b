"""The server's certificate: issued by slot `auth`, renewed at half of its life, without a restart."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from sagong import call
from sagong.contracts.auth import Auth, Certificate, CertificateRequest
from sagong.errors import SagongError
from sagong.http import ServerTls
from sagong_kube.settings import Settings

__all__ = ["ServerCertificate"]

_SECONDS = 365 * 86400
_RETRY_SECONDS = 1.0
_RETRY_LIMIT = 30.0


class ServerCertificate:
    """Gets the TLS of the listener and keeps it fresh."""

    def __init__(
        self, auth: Auth, settings: Settings, names: Sequence[str], log: logging.Logger
    ) -> None:
        self._auth = auth
        self._settings = settings
        self._names = tuple(dict.fromkeys((*names, *settings.names)))
        self._log = log
        self._tls: ServerTls | None = None
        self._expires = 0.0

    async def wait_tls(self) -> ServerTls:
        """The TLS to serve with, once the authority has issued it."""
        settings = self._settings
        if settings.certificate:
            ca = Path(settings.client_ca) if settings.client_ca else None
            self._tls = ServerTls.from_files(Path(settings.certificate), Path(settings.key), ca)
            return self._tls
        certificate, authority = await self._until_issued()
        self._tls = ServerTls(certificate.certificate, certificate.key, authority)
        return self._tls

    async def _until_issued(self) -> tuple[Certificate, str]:
        pause = _RETRY_SECONDS / 4
        while True:
            try:
                return await self._issue()
            except SagongError as error:
                self._log.warning("no server certificate yet", extra={"error": error.message})
            await asyncio.sleep(pause)
            pause = min(pause * 2, _RETRY_LIMIT)

    async def _issue(self) -> tuple[Certificate, str]:
        with call.detached():
            authority = await self._auth.authority()
            certificate = await self._auth.issue_certificate(
                CertificateRequest(
                    subject="kube-apiserver",
                    names=self._names,
                    usages=("server",),
                    seconds=_SECONDS,
                )
            )
        self._expires = certificate.expires
        return certificate, authority.certificate

    async def renew(self) -> None:
        """Renew for ever; connections that stand keep the certificate they began with."""
        while self._tls is not None and not self._settings.certificate:
            await asyncio.sleep(max(_RETRY_LIMIT, (self._expires - time.time()) / 2))
            certificate, authority = await self._until_issued()
            self._tls.replace(certificate.certificate, certificate.key, authority)
            self._log.info("server certificate renewed", extra={"names": list(self._names)})
