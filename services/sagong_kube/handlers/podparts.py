"""Binding and eviction of pods, and tokens of service accounts."""

from __future__ import annotations

import time

import msgspec

from sagong.contracts.auth import Auth, TokenRequest
from sagong.model.objects import GroupVersionKind
from sagong_kube import refusal
from sagong_kube.handlers.body import check_kind, read_document
from sagong_kube.handlers.exchange import Answer, Ask, Reply, json_answer
from sagong_kube.handlers.objects import Objects
from sagong_kube.handlers.parameters import write_options
from sagong_kube.refusal import Cause
from sagong_kube.registry import document as documents
from sagong_kube.registry.actor import DeleteOptions
from sagong_kube.registry.binding import bind
from sagong_kube.registry.builtin import BuiltinShapes
from sagong_kube.registry.deletion import plan_deletion, preconditions
from sagong_kube.registry.document import Document
from sagong_kube.registry.eviction import mark_disrupted, spend_budget
from sagong_kube.registry.planner import Subject
from sagong_kube.registry.resource import Catalogue, Resource
from sagong_kube.registry.review import CREATE, Review
from sagong_kube.registry.view import View

__all__ = ["PodParts", "Tokens"]

_BINDING = GroupVersionKind("", "v1", "Binding")
_EVICTION = GroupVersionKind("policy", "v1", "Eviction")
_TOKEN = GroupVersionKind("authentication.k8s.io", "v1", "TokenRequest")
_TRIES = 8
_SHORTEST = 600
_LONGEST = 1 << 32


def _created() -> Answer:
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "code": 201,
    }
    return json_answer(status, 201)


class PodParts:
    """Handlers of pods/binding, bindings and pods/eviction."""

    def __init__(self, objects: Objects, catalogue: Catalogue) -> None:
        self._objects = objects
        self._catalogue = catalogue

    async def bind(self, ask: Ask, resource: Resource) -> Reply:
        """POST pods/NAME/binding, or to bindings."""
        document, body = read_document(ask)
        check_kind(document, _BINDING)
        BuiltinShapes.read(_BINDING, document, body, write_options(ask).validation)
        metadata, target = document.get("metadata") or {}, document.get("target") or {}
        name = ask.target.name or metadata.get("name") or ""
        if ask.target.name and metadata.get("name") not in (None, "", ask.target.name):
            raise refusal.bad_request("name in URL does not match name in Binding object")
        if target.get("kind") not in (None, "", "Node") or not target.get("name"):
            cause = Cause("FieldValueRequired", "Required value", "target.name")
            raise refusal.invalid("Binding", "", name, (cause,))
        pods = self._catalogue.find("", "v1", "pods")
        subject = Subject(
            pods, ask.target.namespace, name, ask.actor, write_options(ask), "binding"
        )
        await self._objects.writer.edit(
            subject,
            lambda pod: bind(
                pod,
                target["name"],
                uid=metadata.get("uid") or "",
                labels=metadata.get("labels"),
                annotations=metadata.get("annotations"),
            ),
        )
        return _created()

    async def evict(self, ask: Ask, resource: Resource) -> Reply:
        """POST pods/NAME/eviction."""
        document, body = read_document(ask)
        check_kind(document, _EVICTION)
        BuiltinShapes.read(_EVICTION, document, body, write_options(ask).validation)
        options = _eviction_options(document, dry_run=write_options(ask).dry_run)
        store = self._objects.store
        await store.settle()
        for _ in range(_TRIES):
            view = View(store)
            record = await self._objects.record(ask, resource)
            preconditions(resource, record, options)
            spend_budget(view, record, dry_run=options.dry_run)
            planned = plan_deletion(view, resource, record, options)
            if not planned.gone:
                mark_disrupted(planned.document)
                view.plan(resource.storage, record.key, documents.encode(planned.document))
            if options.dry_run or (await store.write(view.changes)).done:
                return _created()
        raise refusal.too_many("Cannot evict pod now: it changes too fast; try again", 1)


def _eviction_options(eviction: Document, *, dry_run: bool) -> DeleteOptions:
    options = eviction.get("deleteOptions") or {}
    asked = options.get("preconditions") or {}
    return DeleteOptions(
        dry_run=dry_run or bool(options.get("dryRun")),
        grace_seconds=options.get("gracePeriodSeconds"),
        uid=asked.get("uid") or "",
        resource_version=asked.get("resourceVersion") or "",
    )


class Tokens:
    """Handler of serviceaccounts/token."""

    def __init__(self, objects: Objects, auth: Auth) -> None:
        self._objects = objects
        self._auth = auth

    async def create(self, ask: Ask, resource: Resource) -> Reply:
        """POST serviceaccounts/NAME/token."""
        document, body = read_document(ask)
        check_kind(document, _TOKEN)
        BuiltinShapes.read(_TOKEN, document, body, write_options(ask).validation)
        account = await self._objects.record(ask, resource)
        await self._review(ask, resource, document)
        spec = document.get("spec") or {}
        seconds = int(spec.get("expirationSeconds") or 3600)
        self._check_seconds(seconds)
        bound = spec.get("boundObjectRef") or {}
        token = await self._auth.issue_token(
            TokenRequest(
                namespace=ask.target.namespace,
                service_account=ask.target.name,
                uid=account.uid,
                audiences=tuple(spec.get("audiences") or ()),
                seconds=seconds,
                bound_kind=bound.get("kind") or "",
                bound_name=bound.get("name") or "",
                bound_uid=self._bound_uid(ask, bound),
            )
        )
        stamp = documents.timestamp(token.expires or time.time() + seconds)
        answer = {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {
                "name": ask.target.name,
                "namespace": ask.target.namespace,
                "creationTimestamp": documents.now(),
            },
            "spec": {
                "audiences": list(spec.get("audiences") or ()),
                "expirationSeconds": seconds,
                "boundObjectRef": bound or None,
            },
            "status": {"token": token.token, "expirationTimestamp": stamp},
        }
        return json_answer(answer, 201)

    async def _review(self, ask: Ask, resource: Resource, document: Document) -> None:
        review = Review(
            view=View(self._objects.store),
            resource=resource,
            operation=CREATE,
            namespace=ask.target.namespace,
            name=ask.target.name,
            actor=ask.actor,
            new=document,
            subresource="token",
        )
        await self._objects.writer.planner.admission.validate(review)

    @staticmethod
    def _check_seconds(seconds: int) -> None:
        field = "spec.expirationSeconds"
        if seconds < _SHORTEST:
            said = f"Invalid value: {seconds}: may not specify a duration less than 10 minutes"
        elif seconds > _LONGEST:
            said = f"Invalid value: {seconds}: may not specify a duration larger than 2^32 seconds"
        else:
            return
        cause = Cause("FieldValueInvalid", said, field)
        raise refusal.invalid("TokenRequest", "authentication.k8s.io", "", (cause,))

    def _bound_uid(self, ask: Ask, bound: Document) -> str:
        kind, name = bound.get("kind"), bound.get("name") or ""
        storages = {"Pod": "core/pods", "Secret": "core/secrets", "Node": "core/nodes"}
        if not bound:
            return ""
        if kind not in storages:
            raise refusal.bad_request(f"cannot bind token to object of type {kind}")
        storage = storages[kind]
        key = name if storage == "core/nodes" else f"{ask.target.namespace}/{name}"
        record = self._objects.store.get(storage, key)
        if record is None:
            raise refusal.not_found(storage.partition("/")[2], "", name)
        if bound.get("uid") and bound["uid"] != record.uid:
            why = (
                f"the UID in the bound object reference ({bound['uid']}) does not match the UID "
                f"in record. The object might have been deleted and then recreated"
            )
            raise refusal.conflict(storage.partition("/")[2], "", name, why)
        self._uses_account(ask, storage, record.body)
        return record.uid

    @staticmethod
    def _uses_account(ask: Ask, storage: str, body: bytes) -> None:
        if storage != "core/pods":
            return
        account = msgspec.json.decode(body)["spec"].get("serviceAccountName") or "default"
        if account != ask.target.name:
            raise refusal.bad_request(
                f'cannot bind token for serviceaccount "{ask.target.name}" to pod running with '
                "different serviceaccount name."
            )
