"""`/v2/`, which says that this is a registry, and `/token`, where clients get tokens.

Source: https://distribution.github.io/distribution/spec/auth/token/ and /oauth/.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

from sagong.http import Response
from sagong.http.request import Query
from sagong_registry.ask import Ask
from sagong_registry.depot import Depot
from sagong_registry.gate import Gate, scopes
from sagong_registry.refusal import answer, refused
from sagong_registry.rights import ANONYMOUS

__all__ = ["oauth", "token", "version"]

_FORM_LIMIT = 64 << 10


async def version(depot: Depot, ask: Ask) -> Response:
    """`GET /v2/`."""
    depot.gate.admit_login(ask.request, ask.visitor)
    return answer({})


async def token(depot: Depot, ask: Ask) -> Response:
    """`GET /token`: for who shows name and password, or for nobody in particular."""
    wanted = ask.request.query.all("scope")
    # A token gets no token that outlives it.
    known = ask.visitor.account if ask.visitor.access is None else ANONYMOUS
    offline = ask.query("offline_token").lower() in ("true", "1")
    return _issued(depot.gate, ask.visitor.account, wanted, known if offline else ANONYMOUS)


async def oauth(depot: Depot, ask: Ask) -> Response:
    """`POST /token`: a form with name and password, or with an identity token (RFC 6749, 4.3 and 6)."""
    form = Query((await ask.request.read(_FORM_LIMIT)).decode("utf-8", "replace"))
    name = await _who(depot.gate, ask, form)
    offline = form.get("access_type") == "offline"
    return _issued(depot.gate, name, form.all("scope"), name if offline else ANONYMOUS)


async def _who(gate: Gate, ask: Ask, form: Query) -> str:
    grant = form.get("grant_type")
    if grant not in ("password", "refresh_token"):
        text = f"grant_type {grant[:40]!r} is not served: password and refresh_token are"
        raise refused("UNSUPPORTED", text, status=400)
    if gate.open:
        return ANONYMOUS
    if grant == "refresh_token":
        return gate.recognize(ask.request, form.get("refresh_token"))
    await gate.check(ask.request, form.get("username"), form.get("password"))
    return form.get("username")


def _issued(gate: Gate, account: str, wanted: list[str], offline: str) -> Response:
    """A token; with one for later, if an account is `offline`."""
    made, seconds = gate.issue(account, scopes(wanted))
    document = {
        "token": made,
        "access_token": made,
        "expires_in": seconds,
        "issued_at": datetime.fromtimestamp(int(time.time()), UTC).isoformat(),
    }
    if identity := gate.identity(offline):
        document["refresh_token"] = identity
    return answer(document, 200, [("Cache-Control", "no-store")])
