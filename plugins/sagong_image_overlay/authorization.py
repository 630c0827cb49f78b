"""Authorization at a registry: basic, bearer tokens of token servers, refresh of both.

Source: the token authentication that registries share
(https://distribution.github.io/distribution/spec/auth/token/ and …/auth/oauth/).
"""

from __future__ import annotations

import base64
import threading
import urllib.parse
from collections.abc import Callable, Iterable

import msgspec

from sagong.errors import InvalidArgument, SagongError, Unauthenticated
from sagong_image_overlay.challenge import Challenge
from sagong_image_overlay.endpoint import Endpoint
from sagong_image_overlay.errand import Login
from sagong_image_overlay.exchange import Answer, Http, Lost, retry_after

__all__ = ["NO_BASIC", "Authorization"]

_CLIENT = "sagong"
NO_BASIC = "no basic auth credentials"


class _Token(msgspec.Struct):
    token: str | None = None
    access_token: str | None = None
    refresh_token: str | None = None


class Authorization:
    """The value of the header for one endpoint; several threads use it."""

    def __init__(
        self,
        endpoint: Endpoint,
        login: Login,
        http: Http,
        scopes: Iterable[str],
        failure: Callable[[Answer, bytes], SagongError],
    ) -> None:
        self._endpoint = endpoint
        self._login = login
        self._http = http
        self._scopes = list(scopes)
        self._failure = failure
        self._lock = threading.Lock()
        self.header = ""
        self.offline = False
        self.identity = ""

    def allow(self, scopes: Iterable[str]) -> None:
        """Ask for tokens that are good for these, too."""
        self._scopes += [scope for scope in scopes if scope not in self._scopes]

    def show_password(self) -> bool:
        """Begin with user and password, if they are known."""
        if self._login.username and self._login.password:
            self.header = "Basic " + _basic(self._login)
        return bool(self.header)

    def renew(self, used: str, challenges: list[Challenge]) -> bool:
        """Get another header after the registry refused the `used` one, unless it was got already.

        False if there is nothing else to show.
        """
        with self._lock:
            if self.header == used:
                self.header = self._answered(challenges)
            return self.header != used

    def _answered(self, challenges: list[Challenge]) -> str:
        login = self._login
        if login.token and not self.header:
            return "Bearer " + login.token
        for challenge in challenges:
            if challenge.scheme == "bearer" and "realm" in challenge.values:
                return "Bearer " + self._token(challenge)
        basic = any(challenge.scheme == "basic" for challenge in challenges)
        if basic and login.username and not self.header.startswith("Basic "):
            return "Basic " + _basic(login)
        if basic and not login.username:
            raise Unauthenticated(NO_BASIC)
        return self.header

    def _token(self, challenge: Challenge) -> str:
        realm = challenge.values["realm"]
        if not realm.startswith("https:") and not self._endpoint.insecure:
            raise InvalidArgument(
                f"registry {self._endpoint.host} wants a token from {realm}, which is not https"
            )
        # What the registry says it wants for this very request, beside what we know we need.
        self.allow(filter(None, [challenge.values.get("scope", "")]))
        identity = self._login.identity or self._login.token
        answer = self._refresh(realm, challenge, identity) if identity else None
        if answer is None:
            answer = self._ask(realm, challenge)
        raw = answer.body()
        if answer.status != 200:
            raise self._refused(answer, raw)
        try:
            found = msgspec.json.decode(raw, type=_Token)
        except (msgspec.DecodeError, UnicodeDecodeError):
            found = _Token()
        token = found.token or found.access_token
        if not token or not token.isascii() or not token.isprintable():
            text = "authorization server did not include a token in the response"
            raise Unauthenticated(f"{text}: {realm}")
        self.identity = found.refresh_token or ""
        return token

    def _refused(self, answer: Answer, raw: bytes) -> SagongError:
        message = self._failure(answer, raw).message
        if answer.status >= 500 or answer.status == 429:
            return Lost(message, after=retry_after(answer))
        known = message.startswith("unauthorized") or "authentic" in message
        return Unauthenticated(message if known else f"unauthorized: {message}")

    def _ask(self, realm: str, challenge: Challenge) -> Answer:
        query = [("scope", scope) for scope in self._scopes]
        if service := challenge.values.get("service"):
            query.append(("service", service))
        if self.offline:
            query += [("offline_token", "true"), ("client_id", _CLIENT)]
        secrets = {}
        if self._login.username:
            query.append(("account", self._login.username))
            secrets["Authorization"] = "Basic " + _basic(self._login)
        joint = "&" if "?" in realm else "?"
        url = f"{realm}{joint}{urllib.parse.urlencode(query)}"
        answer = self._http.send("GET", url, headers={}, secrets=secrets)
        if answer.status in (404, 405) and self._login.username:
            # A server of the second protocol alone.
            answer.body()
            login = {"username": self._login.username, "password": self._login.password}
            return self._post(realm, challenge, {"grant_type": "password", **login})
        return answer

    def _refresh(self, realm: str, challenge: Challenge, identity: str) -> Answer:
        form = {"grant_type": "refresh_token", "refresh_token": identity}
        return self._post(realm, challenge, form)

    def _post(self, realm: str, challenge: Challenge, form: dict[str, str]) -> Answer:
        facts = {
            **form,
            "service": challenge.values.get("service", ""),
            "scope": " ".join(self._scopes),
            "client_id": _CLIENT,
            **({"access_type": "offline"} if self.offline else {}),
        }
        return self._http.send(
            "POST",
            realm,
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            body=urllib.parse.urlencode(facts).encode(),
        )


def _basic(login: Login) -> str:
    return base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
