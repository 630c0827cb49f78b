"""What every provider of slot `auth` must do; the lab's objects can be changed by the checks."""

from __future__ import annotations

import contextlib
import ssl
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sagong.contracts.auth import (
    Auth,
    CertificateRequest,
    Credential,
    Identity,
    Question,
    TokenRequest,
)
from sagong.errors import InvalidArgument, Unauthenticated

__all__ = ["AuthLab"]


@dataclass(frozen=True)
class AuthLab:
    """The candidate; `put(resource, object)` makes or changes an API object and waits until it is
    seen, `drop(resource, namespace, name)` deletes it; `der(pem)` turns a certificate into bytes."""

    auth: Auth
    put: Callable[[str, dict[str, Any]], Awaitable[None]]
    drop: Callable[[str, str, str], Awaitable[None]]
    der: Callable[[str], bytes]


_ROLES = "rbac.authorization.k8s.io/v1/"
ACCOUNT = {"metadata": {"name": "builder", "namespace": "shop", "uid": "u-1"}}
ASK = TokenRequest(namespace="shop", service_account="builder", uid="u-1")


async def refused(work: Awaitable[Any], kind: type[Exception] = Unauthenticated) -> str:
    """The message of the expected error."""
    try:
        await work
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


async def _grant(lab: AuthLab, rules: list[dict[str, Any]], *, namespace: str = "") -> None:
    cluster = "" if namespace else "Cluster"
    meta = {"name": "r", **({"namespace": namespace} if namespace else {})}
    await lab.put(f"{_ROLES}{cluster.lower()}roles", {"metadata": meta, "rules": rules})
    await lab.put(
        f"{_ROLES}{cluster.lower()}rolebindings",
        {
            "metadata": meta,
            "roleRef": {"kind": f"{cluster}Role", "name": "r"},
            "subjects": [{"kind": "User", "name": "ann"}, {"kind": "Group", "name": "devs"}],
        },
    )


async def _may(lab: AuthLab, **facts: Any) -> bool:
    facts = {"username": "ann", "verb": "get", **facts}
    return (await lab.auth.authorize(Question(**facts))).allowed


async def _client(lab: AuthLab, **facts: Any) -> Identity:
    facts = {"subject": "ann", "organizations": ("devs",), **facts}
    made = await lab.auth.issue_certificate(CertificateRequest(**facts))
    return await lab.auth.authenticate(Credential(certificate=lab.der(made.certificate)))


async def check_nobody_is_not_known(lab: AuthLab) -> None:
    assert await refused(lab.auth.authenticate(Credential()))


async def check_a_certificate_names_user_and_groups(lab: AuthLab) -> None:
    found = await _client(lab)
    assert found.username == "ann"
    assert set(found.groups) == {"devs", "system:authenticated"}
    assert found.expires > time.time()


async def check_a_new_key_comes_with_its_certificate(lab: AuthLab) -> None:
    made = await lab.auth.issue_certificate(CertificateRequest(subject="x"))
    assert "PRIVATE KEY" in made.key
    assert "BEGIN CERTIFICATE" in made.certificate


async def check_strict_clients_take_a_servers_certificate(lab: AuthLab) -> None:
    """By RFC 5280 with all its identifiers, as OpenSSL's strict clients want it: Python 3.13's do."""
    request = CertificateRequest(subject="kube", names=("localhost",), usages=("server",))
    made = await lab.auth.issue_certificate(request)
    client = ssl.create_default_context(cadata=(await lab.auth.authority()).certificate)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(made.certificate + made.key)
        file.flush()
        server.load_cert_chain(file.name)
    _shake_hands(client, server)


def _shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """TLS between two contexts, with no socket between them."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(back, there, server_hostname="localhost"),
        server.wrap_bio(there, back, server_side=True),
    ]
    for _ in range(4):
        for side in sides:
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    assert sides[0].cipher() is not None, "no handshake"


async def check_a_strange_certificate_is_refused(lab: AuthLab) -> None:
    assert await refused(lab.auth.authenticate(Credential(certificate=b"\x30\x00garbage")))


async def check_unknown_usages_are_refused(lab: AuthLab) -> None:
    request = CertificateRequest(subject="x", usages=("nonsense",))
    assert "nonsense" in await refused(lab.auth.issue_certificate(request), InvalidArgument)


async def check_a_token_names_its_account(lab: AuthLab) -> None:
    await lab.put("v1/serviceaccounts", ACCOUNT)
    token = await lab.auth.issue_token(ASK)
    assert 3500 < token.expires - time.time() <= 3601
    found = await lab.auth.authenticate(Credential(bearer=token.token))
    assert found.username == "system:serviceaccount:shop:builder"
    assert found.uid == "u-1"
    assert "system:serviceaccounts:shop" in found.groups
    assert "system:authenticated" in found.groups


async def check_a_changed_token_is_refused(lab: AuthLab) -> None:
    await lab.put("v1/serviceaccounts", ACCOUNT)
    token = (await lab.auth.issue_token(ASK)).token
    head, body, signature = token.split(".")
    swapped = ("A" if signature[5] != "A" else "B").join((signature[:5], signature[6:]))
    assert await refused(lab.auth.authenticate(Credential(bearer=f"{head}.{body}.{swapped}")))
    assert await refused(lab.auth.authenticate(Credential(bearer="nonsense")))


async def check_a_token_ends_with_its_account(lab: AuthLab) -> None:
    await lab.put("v1/serviceaccounts", ACCOUNT)
    token = await lab.auth.issue_token(ASK)
    await lab.drop("v1/serviceaccounts", "shop", "builder")
    assert await refused(lab.auth.authenticate(Credential(bearer=token.token)))
    again = {"metadata": {"name": "builder", "namespace": "shop", "uid": "u-2"}}
    await lab.put("v1/serviceaccounts", again)
    assert await refused(lab.auth.authenticate(Credential(bearer=token.token)))


async def check_a_token_is_for_its_audience_only(lab: AuthLab) -> None:
    await lab.put("v1/serviceaccounts", ACCOUNT)
    request = TokenRequest(
        namespace="shop", service_account="builder", uid="u-1", audiences=("vault",)
    )
    token = (await lab.auth.issue_token(request)).token
    assert await refused(lab.auth.authenticate(Credential(bearer=token)))
    meant = Credential(bearer=token, audiences=("vault",))
    assert (await lab.auth.authenticate(meant)).audiences == ("vault",)


async def check_a_bound_token_ends_with_its_pod(lab: AuthLab) -> None:
    await lab.put("v1/serviceaccounts", ACCOUNT)
    request = TokenRequest(
        namespace="shop",
        service_account="builder",
        uid="u-1",
        bound_kind="Pod",
        bound_name="p",
        bound_uid="p-1",
    )
    token = (await lab.auth.issue_token(request)).token
    assert await refused(lab.auth.authenticate(Credential(bearer=token)))
    await lab.put("v1/pods", {"metadata": {"name": "p", "namespace": "shop", "uid": "p-1"}})
    found = await lab.auth.authenticate(Credential(bearer=token))
    assert ("authentication.kubernetes.io/pod-name", ("p",)) in found.extra


async def check_too_short_a_token_is_refused(lab: AuthLab) -> None:
    request = TokenRequest(namespace="shop", service_account="b", uid="u", seconds=5)
    await refused(lab.auth.issue_token(request), InvalidArgument)


async def check_keys_are_published(lab: AuthLab) -> None:
    keys = await lab.auth.keys()
    assert b'"kty"' in keys.jwks
    assert keys.issuer.startswith("https://")
    assert "BEGIN CERTIFICATE" in (await lab.auth.authority()).certificate


async def check_nothing_is_allowed_by_itself(lab: AuthLab) -> None:
    assert not await _may(lab, resource="pods", namespace="shop")
    assert not await _may(lab, path="/metrics")


async def check_masters_may_everything(lab: AuthLab) -> None:
    assert await _may(lab, groups=("system:masters",), verb="delete", resource="nodes")


async def check_a_cluster_role_holds_everywhere(lab: AuthLab) -> None:
    await _grant(lab, [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}])
    assert await _may(lab, resource="pods", namespace="shop")
    assert await _may(lab, resource="pods")
    assert not await _may(lab, resource="pods", verb="delete")
    assert not await _may(lab, resource="secrets")
    assert not await _may(lab, resource="pods", group="apps")
    assert not await _may(lab, username="bob", resource="pods")
    assert await _may(lab, username="bob", groups=("devs",), resource="pods")


async def check_a_role_holds_in_its_namespace(lab: AuthLab) -> None:
    rules = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
    await _grant(lab, rules, namespace="shop")
    assert await _may(lab, resource="pods", namespace="shop", verb="delete")
    assert not await _may(lab, resource="pods", namespace="bank")
    assert not await _may(lab, resource="nodes")


async def check_subresources_and_names_are_held_apart(lab: AuthLab) -> None:
    rules = [
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"]},
        {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]},
    ]
    await _grant(lab, rules)
    assert await _may(lab, resource="pods", subresource="log")
    assert not await _may(lab, resource="pods")
    assert await _may(lab, resource="secrets", name="a")
    assert not await _may(lab, resource="secrets", name="b")


async def check_paths_have_rules_of_their_own(lab: AuthLab) -> None:
    await _grant(lab, [{"verbs": ["get"], "nonResourceURLs": ["/metrics", "/debug/*"]}])
    assert await _may(lab, path="/metrics")
    assert await _may(lab, path="/debug/pprof")
    assert not await _may(lab, path="/metrics/more")


async def check_what_is_taken_back_is_gone(lab: AuthLab) -> None:
    await _grant(lab, [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}])
    assert await _may(lab, resource="pods")
    await lab.drop(f"{_ROLES}clusterrolebindings", "", "r")
    assert not await _may(lab, resource="pods")


async def check_roles_can_be_put_together(lab: AuthLab) -> None:
    await _grant(lab, [])
    selector = {"clusterRoleSelectors": [{"matchLabels": {"to": "r"}}]}
    await lab.put(f"{_ROLES}clusterroles", {"metadata": {"name": "r"}, "aggregationRule": selector})
    part = {
        "metadata": {"name": "part", "labels": {"to": "r"}},
        "rules": [{"verbs": ["list"], "apiGroups": [""], "resources": ["nodes"]}],
    }
    await lab.put(f"{_ROLES}clusterroles", part)
    assert await _may(lab, verb="list", resource="nodes")


async def check_roles_are_put_together_of_such_as_are_so_themselves(lab: AuthLab) -> None:
    def joined(of: str) -> dict[str, Any]:
        return {"clusterRoleSelectors": [{"matchLabels": {"to": of}}]}

    await _grant(lab, [])
    for name, labels, of in (("r", {"to": "middle"}, "r"), ("middle", {"to": "r"}, "middle")):
        role = {"metadata": {"name": name, "labels": labels}, "aggregationRule": joined(of)}
        await lab.put(f"{_ROLES}clusterroles", role)
    part = {
        "metadata": {"name": "part", "labels": {"to": "middle"}},
        "rules": [{"verbs": ["list"], "apiGroups": [""], "resources": ["nodes"]}],
    }
    await lab.put(f"{_ROLES}clusterroles", part)
    assert await _may(lab, verb="list", resource="nodes")
    assert not await _may(lab, verb="list", resource="pods")


async def check_a_user_can_ask_what_he_may(lab: AuthLab) -> None:
    await _grant(lab, [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}])
    found = await lab.auth.rules(Question(username="ann", verb="*", namespace="shop"))
    assert len(found.rules) == 1
    assert b"pods" in found.rules[0]
    none = await lab.auth.rules(Question(username="bob", verb="*", namespace="shop"))
    assert none.rules == ()
