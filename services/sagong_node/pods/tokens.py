"""Tokens of service accounts for pods: issued when first needed, renewed before they end."""

from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec

from sagong.contracts.auth import Auth, TokenRequest
from sagong.model.k8s.core_v1 import Pod, ServiceAccount
from sagong_node.pods.payload import TokenWish

__all__ = ["Tokens", "renewal"]

_SHARE = 0.8
_LONGEST = 86400.0


class _Held(msgspec.Struct, frozen=True):
    text: str
    renew: float


def renewal(now: float, expires: float) -> float:
    """When a token is renewed: after 80 % of its time, and after a day."""
    return min(now + (expires - now) * _SHARE, now + _LONGEST)


class Tokens:
    """Tokens by pod."""

    def __init__(self, auth: Auth) -> None:
        self._auth = auth
        self._held: dict[str, dict[TokenWish, _Held]] = {}

    async def issue(self, pod: Pod, account: ServiceAccount, wishes: Iterable[TokenWish]) -> None:
        """Have a token for each wish that is good for a while."""
        held = self._held.setdefault(pod.metadata.uid, {})
        now = time.time()
        for wish in wishes:
            if wish in held and held[wish].renew > now:
                continue
            token = await self._auth.issue_token(
                TokenRequest(
                    namespace=pod.metadata.namespace,
                    service_account=account.metadata.name,
                    uid=account.metadata.uid,
                    audiences=(wish.audience,) if wish.audience else (),
                    seconds=wish.seconds,
                    bound_kind="Pod",
                    bound_name=pod.metadata.name,
                    bound_uid=pod.metadata.uid,
                )
            )
            held[wish] = _Held(token.token, renewal(now, token.expires))

    def texts(self, uid: str) -> dict[TokenWish, str]:
        """What the pod has."""
        return {wish: held.text for wish, held in self._held.get(uid, {}).items()}

    def next_renewal(self, uid: str) -> float:
        """When the first of the pod's tokens must be renewed; 0 if it has none."""
        return min((held.renew for held in self._held.get(uid, {}).values()), default=0.0)

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        self._held.pop(uid, None)
