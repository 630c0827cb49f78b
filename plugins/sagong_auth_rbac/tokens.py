"""Service-account tokens: JSON Web Tokens (RFC 7519) with the claims that Kubernetes gives them."""

from __future__ import annotations

import base64
import hashlib
import json
import time
import uuid
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization

from sagong.contracts.auth import Identity, KeySet, Token, TokenRequest
from sagong.errors import InvalidArgument, Unauthenticated
from sagong_auth_rbac.authority import load_key

__all__ = ["TokenAuthority", "account_of"]

_SHORTEST, _LONGEST = 600, 2**32
_CLAIM = "kubernetes.io"


class TokenAuthority:
    """Signs and verifies tokens with one ES256 key."""

    def __init__(self, directory: Path, issuer: str, audiences: tuple[str, ...]) -> None:
        key = load_key(directory / "token.key")
        self._issuer = issuer
        self._audiences = audiences
        self._private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self._public = key.public_key()
        numbers = self._public.public_numbers()
        coordinates = {"x": _base64(numbers.x), "y": _base64(numbers.y)}
        self._id = hashlib.sha256(json.dumps(coordinates).encode()).hexdigest()[:32]
        self._jwk = {
            "kty": "EC",
            "crv": "P-256",
            "alg": "ES256",
            "use": "sig",
            "kid": self._id,
            **coordinates,
        }

    def issue(self, request: TokenRequest) -> Token:
        """Sign a token of at least ten minutes; an API audience is the default."""
        if not _SHORTEST <= request.seconds <= _LONGEST:
            raise InvalidArgument(
                "spec.expirationSeconds: Invalid value: "
                f"{request.seconds}: may not specify a duration less than 10 minutes"
            )
        now = int(time.time())
        expires = now + request.seconds
        claims = {
            "iss": self._issuer,
            "sub": f"system:serviceaccount:{request.namespace}:{request.service_account}",
            "aud": list(request.audiences or self._audiences),
            "iat": now,
            "nbf": now,
            "exp": expires,
            "jti": str(uuid.uuid4()),
            _CLAIM: _bound(request),
        }
        token = jwt.encode(claims, self._private, algorithm="ES256", headers={"kid": self._id})
        return Token(token=token, expires=float(expires))

    def identify(self, bearer: str, audiences: tuple[str, ...]) -> tuple[Identity, dict[str, Any]]:
        """Whose token this is, and its bound objects; Unauthenticated says what is wrong."""
        try:
            claims = jwt.decode(
                bearer,
                self._public,
                algorithms=["ES256"],
                audience=list(audiences or self._audiences),
                issuer=self._issuer,
                options={"require": ["exp", "sub", "aud"]},
            )
        except jwt.PyJWTError as error:
            raise Unauthenticated(f"invalid bearer token: {error}") from None
        bound = claims.get(_CLAIM, {})
        namespace = bound.get("namespace", "")
        account = bound.get("serviceaccount", {})
        extra = [("authentication.kubernetes.io/credential-id", (f"JTI={claims.get('jti')}",))]
        if pod := bound.get("pod"):
            extra.append(("authentication.kubernetes.io/pod-name", (pod["name"],)))
            extra.append(("authentication.kubernetes.io/pod-uid", (pod["uid"],)))
        identity = Identity(
            username=claims["sub"],
            uid=account.get("uid", ""),
            groups=("system:serviceaccounts", f"system:serviceaccounts:{namespace}"),
            extra=tuple(extra),
            audiences=tuple(a for a in claims["aud"] if a in (audiences or self._audiences)),
            expires=float(claims["exp"]),
        )
        return identity, bound

    def keys(self) -> KeySet:
        """What others verify our tokens with."""
        return KeySet(jwks=json.dumps({"keys": [self._jwk]}).encode(), issuer=self._issuer)


def account_of(bound: dict[str, Any]) -> tuple[str, str, str]:
    """Namespace, name and uid of the service account in a token's claims."""
    account = bound.get("serviceaccount", {})
    return bound.get("namespace", ""), account.get("name", ""), account.get("uid", "")


def _bound(request: TokenRequest) -> dict[str, Any]:
    claims: dict[str, Any] = {
        "namespace": request.namespace,
        "serviceaccount": {"name": request.service_account, "uid": request.uid},
    }
    if request.bound_kind:
        claims[request.bound_kind.lower()] = {
            "name": request.bound_name,
            "uid": request.bound_uid,
        }
    return claims


def _base64(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()
