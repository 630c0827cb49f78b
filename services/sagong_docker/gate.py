"""Who comes in over the network, and what hooks let them do: TLS, clients' names, refusals."""

from __future__ import annotations

import pwd
from pathlib import Path

from sagong.errors import InvalidArgument, PermissionDenied
from sagong.host import Host
from sagong.http import Request, ServerTls
from sagong.http.request import Peer
from sagong.model.authorization import ApiRequest, AuthorizationHooks
from sagong_docker.settings import Settings

__all__ = ["Gate", "common_name", "network_tls"]


class Gate:
    """Asks hooks about each request; where there are none it costs nothing."""

    def __init__(self, host: Host) -> None:
        self._asks = host.has_hooks
        self._hooks = host.hooks(AuthorizationHooks)

    def check(self, request: Request, segments: tuple[str, ...]) -> None:
        """PermissionDenied in Docker's words with the first reason that a hook gives."""
        if not self._asks:
            return
        user, method = who(request.peer)
        asked = ApiRequest(
            user=user,
            method=method,
            uid=request.peer.uid,
            verb=request.method,
            path="/" + "/".join(segments),
            query=tuple(request.query.items),
        )
        for reason in self._hooks.deny(request=asked):
            if reason:
                raise PermissionDenied(f"authorization denied by plugin hook: {reason}")


def who(peer: Peer) -> tuple[str, str]:
    """A client's name and how it is known."""
    if peer.certificate:
        return common_name(peer.certificate), "TLS"
    if peer.uid < 0:
        return "", ""
    try:
        return pwd.getpwuid(peer.uid).pw_name, "socket"
    except KeyError:
        return str(peer.uid), "socket"


def common_name(certificate: bytes) -> str:
    """Of a client's certificate (DER)."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    subject = x509.load_der_x509_certificate(certificate).subject
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def network_tls(settings: Settings) -> ServerTls | None:
    """How the listener over TCP is secured; None if the configuration wants it open."""
    given = (settings.certificate, settings.key, settings.client_ca)
    if settings.insecure and not any(given):
        return None
    if not all(given):
        raise InvalidArgument(
            "the listener over TCP needs the settings certificate, key and client_ca: whoever "
            "reaches the Docker API is root on this machine (insecure = true opens it all the same)"
        )
    certificate, key, authority = (Path(path) for path in given)
    try:
        return ServerTls.from_files(certificate, key, authority, required=True, half_closes=True)
    except OSError as error:
        raise InvalidArgument(
            f"{error.filename}: {error.strerror}; the files must be readable by the unit's user, "
            "below the configuration's directory docker"
        ) from None
