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
    return _issued(depot.gate, ask.visitor.account, wanted)


async def oauth(depot: Depot, ask: Ask) -> Response:
    """`POST /token`: name and password in a form (RFC 6749 section 4.3)."""
    form = Query((await ask.request.read(_FORM_LIMIT)).decode("utf-8", "replace"))
    if form.get("grant_type") != "password":
        text = f"grant_type {form.get('grant_type')[:40]!r} is not served: password is"
        raise refused("UNSUPPORTED", text, status=400)
    name = form.get("username")
    if not depot.gate.open:
        await depot.gate.check(ask.request, name, form.get("password"))
    return _issued(depot.gate, ANONYMOUS if depot.gate.open else name, form.all("scope"))


def _issued(gate: Gate, account: str, wanted: list[str]) -> Response:
    made, seconds = gate.issue(account, scopes(wanted))
    document = {
        "token": made,
        "access_token": made,
        "expires_in": seconds,
        "issued_at": datetime.fromtimestamp(int(time.time()), UTC).isoformat(),
    }
    return answer(document, 200, [("Cache-Control", "no-store")])
