"""Query parameters of objects' requests, read strictly, as options."""

from __future__ import annotations

from typing import Any

import msgspec

from sagong.errors import InvalidArgument
from sagong.model.numbers import natural
from sagong.model.objects import GroupVersionKind
from sagong.model.selectors import FieldSelector, FieldTerm, parse_fields, parse_labels
from sagong_kube import refusal
from sagong_kube.handlers.body import media_of, parsed
from sagong_kube.handlers.exchange import Ask
from sagong_kube.refusal import Cause
from sagong_kube.registry.actor import DeleteOptions, WriteOptions
from sagong_kube.registry.resource import Resource
from sagong_kube.schema import decoding
from sagong_kube.storage.collection import Collection, Selection

__all__ = ["ListOptions", "delete_options", "list_options", "selection_of", "write_options"]

_VALIDATIONS = ("", "Strict", "Warn", "Ignore")
_MANAGER_LIMIT = 128
_DELETE_OPTIONS = GroupVersionKind("meta.k8s.io", "v1", "DeleteOptions")


class ListOptions(msgspec.Struct, frozen=True):
    """Options of lists and watches; `version` and `match` as the query has them."""

    limit: int = 0
    resume: str = ""
    version: str = ""
    match: str = ""
    initial: bool | None = None
    bookmarks: bool = False
    seconds: float = 0.0


def _number(ask: Ask, name: str) -> int:
    said = ask.first(name)
    if not said:
        return 0
    try:
        return max(0, int(said))
    except ValueError:
        raise refusal.bad_request(f'strconv.ParseInt: parsing "{said}": invalid syntax') from None


def write_options(ask: Ask) -> WriteOptions:
    """Options of create, update and patch."""
    dry_run = ask.query.get("dryRun") or ()
    if any(value != "All" for value in dry_run):
        raise _invalid(
            "dryRun", "NotSupported", f'Unsupported value: "{dry_run[0]}": supported values: "All"'
        )
    validation = ask.first("fieldValidation")
    if validation not in _VALIDATIONS:
        raise _invalid(
            "fieldValidation",
            "FieldValueNotSupported",
            f'Unsupported value: "{validation}": supported values: "", "Ignore", "Strict", "Warn"',
        )
    manager = ask.first("fieldManager") or _agent(ask)
    if len(manager) > _MANAGER_LIMIT:
        raise _invalid(
            "fieldManager",
            "FieldValueTooLong",
            f"Too long: may not be more than {_MANAGER_LIMIT} bytes",
        )
    force = ask.flag("force")
    return WriteOptions(bool(dry_run), manager, validation or "Warn", force)


def _agent(ask: Ask) -> str:
    return ask.headers.get("user-agent", "").partition("/")[0][:_MANAGER_LIMIT] or "unknown"


def _invalid(field: str, reason: str, message: str) -> InvalidArgument:
    return refusal.invalid("WriteOptions", "meta.k8s.io", "", (Cause(reason, message, field),))


def list_options(ask: Ask) -> ListOptions:
    """Options of lists and watches, held against each other."""
    initial = ask.flag("sendInitialEvents") if "sendInitialEvents" in ask.query else None
    options = ListOptions(
        limit=_number(ask, "limit"),
        resume=ask.first("continue"),
        version=ask.first("resourceVersion"),
        match=ask.first("resourceVersionMatch"),
        initial=initial,
        bookmarks=ask.flag("allowWatchBookmarks"),
        seconds=float(_number(ask, "timeoutSeconds")),
    )
    watching = ask.target.verb == "watch"
    problem = _watch_problem(options) if watching else _list_problem(options)
    if problem is not None:
        raise refusal.invalid("ListOptions", "meta.k8s.io", "", (problem,))
    if options.version and natural(options.version) is None:
        cause = Cause("FieldValueInvalid", f'Invalid value: "{options.version}"', "resourceVersion")
        raise refusal.bad_request(f"{cause.field}: {cause.message}")
    return options


def _list_problem(options: ListOptions) -> Cause | None:
    if options.initial is not None:
        text = "Forbidden: sendInitialEvents is forbidden for list"
        return Cause("FieldValueForbidden", text, "sendInitialEvents")
    if not options.match:
        return None
    field = "resourceVersionMatch"
    if not options.version:
        text = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
        return Cause("FieldValueForbidden", text, field)
    if options.resume:
        text = "Forbidden: resourceVersionMatch is forbidden when continue is provided"
        return Cause("FieldValueForbidden", text, field)
    if options.match not in ("Exact", "NotOlderThan"):
        text = (
            f'Unsupported value: "{options.match}": supported values: "Exact", "NotOlderThan", ""'
        )
        return Cause("FieldValueNotSupported", text, field)
    if options.match == "Exact" and options.version == "0":
        text = 'Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
        return Cause("FieldValueForbidden", text, field)
    return None


def _watch_problem(options: ListOptions) -> Cause | None:
    field = "resourceVersionMatch"
    if options.initial is None:
        if options.match:
            text = (
                "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents "
                "is provided"
            )
            return Cause("FieldValueForbidden", text, field)
        return None
    if options.match != "NotOlderThan":
        text = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        return Cause("FieldValueForbidden", text, field)
    return None


def selection_of(ask: Ask, resource: Resource, collection: Collection) -> Selection:
    """The selectors of a request; refuses fields that can't be selected by."""
    labels, fields = ask.first("labelSelector"), ask.first("fieldSelector")
    try:
        selection = Selection(ask.target.namespace, parse_labels(labels), parse_fields(fields))
    except InvalidArgument as error:
        raise refusal.bad_request(_unable(resource, labels, fields, error.message)) from None
    known = {"metadata.name", *collection.field_labels}
    if resource.namespaced:
        known.add("metadata.namespace")
    for term in selection.fields.terms:
        if term.field not in known and _translated(resource, term.field) not in known:
            said = _unknown(resource, term.field)
            raise refusal.bad_request(_unable(resource, labels, fields, said))
    terms = tuple(
        msgspec.structs.replace(term, field=_translated(resource, term.field))
        for term in selection.fields.terms
    )
    if ask.target.name:
        terms += (FieldTerm("metadata.name", ask.target.name),)
    return msgspec.structs.replace(selection, fields=FieldSelector(terms))


_EVENT_FIELDS = {"regarding.": "involvedObject.", "reportingController": "reportingComponent"}


def _translated(resource: Resource, field: str) -> str:
    if resource.storage == "core/events":
        for newer, core in _EVENT_FIELDS.items():
            if field.startswith(newer):
                return core + field[len(newer) :]
    if resource.storage == "core/namespaces" and field == "name":
        return "metadata.name"
    if resource.storage == "core/pods" and field == "spec.host":
        return "spec.nodeName"
    return field


def _unable(resource: Resource, labels: str, fields: str, why: str) -> str:
    named = f"{resource.kind.api_version if resource.group else '/v1'}, Resource={resource.plural}"
    return (
        f'Unable to find "{named}" that match label selector "{labels}", field selector '
        f'"{fields}": {why}'
    )


def _unknown(resource: Resource, field: str) -> str:
    if resource.storage in ("core/pods", "core/nodes", "core/events", "core/secrets"):
        return f"field label not supported: {field}"
    known = '"metadata.name", "metadata.namespace"' if resource.namespaced else '"metadata.name"'
    return f'"{field}" is not a known field selector: only {known}'


def delete_options(ask: Ask) -> DeleteOptions:
    """Options of a deletion: the query's, and over them the body's."""
    body = _delete_body(ask)
    dry_run = body.get("dryRun") or ask.query.get("dryRun") or ()
    grace = body.get("gracePeriodSeconds")
    if grace is None and ask.first("gracePeriodSeconds"):
        grace = _number(ask, "gracePeriodSeconds")
    orphan = body.get("orphanDependents")
    if orphan is None and ask.first("orphanDependents"):
        orphan = ask.flag("orphanDependents")
    propagation = body.get("propagationPolicy") or ask.first("propagationPolicy")
    if orphan is not None and not propagation:
        propagation = "Orphan" if orphan else "Background"
    preconditions = body.get("preconditions") or {}
    return DeleteOptions(
        dry_run=bool(dry_run),
        grace_seconds=None if grace is None else int(grace),
        uid=preconditions.get("uid") or "",
        resource_version=preconditions.get("resourceVersion") or "",
        propagation=propagation,
    )


def _delete_body(ask: Ask) -> dict[str, Any]:
    if not ask.body.strip():
        return {}
    media = media_of(ask)
    if media == "application/vnd.kubernetes.protobuf":
        from sagong_kube.convert import protobuf

        return dict(protobuf.decode(ask.body)[1])
    body = parsed(ask.body, media)
    if not isinstance(body, dict):
        raise refusal.bad_request("the delete options must be an object")
    return decoding.conform(body, _DELETE_OPTIONS, validation="Ignore").document
