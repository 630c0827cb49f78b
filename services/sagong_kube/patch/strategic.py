"""Strategic merge patch: lists merge by the keys that the types declare.

Directives: `$patch` (replace, delete, merge), `$deleteFromPrimitiveList/x`, `$setElementOrder/x`,
`$retainKeys`. Source: kubernetes/community, strategic-merge-patch.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sagong.errors import InvalidArgument
from sagong.model.objects import GroupVersionKind
from sagong_kube.patch.document import copied, without_nulls
from sagong_kube.schema.types import FieldSpec, fields_of, type_of

__all__ = ["apply"]

Document = dict[str, Any]

PATCH: Final = "$patch"
RETAIN: Final = "$retainKeys"
_DELETE_FROM: Final = "$deleteFromPrimitiveList/"
_ORDER: Final = "$setElementOrder/"
_NO_FIELD: Final = FieldSpec("", "raw")


def apply(document: Document, patch: Document, kind: GroupVersionKind) -> Document:
    """The patched document of a built-in kind; the arguments are not changed."""
    if not isinstance(patch, dict):
        raise InvalidArgument(
            "error decoding patch: json: cannot unmarshal into Go value of type map"
        )
    merged = _merge(copied(document), copied(patch), type_of(kind) or "raw")
    return merged


def _merge(original: Document, patch: Document, kind: str) -> Document:
    directive = patch.pop(PATCH, None)
    if directive == "replace":
        return patch
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise InvalidArgument(f"Unknown patch directive type: {directive}")
    _retain(original, patch)
    fields = fields_of(kind)
    _merge_ordered(original, patch, kind)
    for key, value in patch.items():
        name = key.removeprefix(_DELETE_FROM)
        if name != key:
            _delete_from(original, name, value)
        elif value is None:
            original.pop(key, None)
        else:
            original[key] = _merged(original.get(key), value, _field(fields, key, kind))
    return original


def _field(fields: Mapping[str, FieldSpec], name: str, kind: str) -> FieldSpec:
    """A field of a type, or the element of a map type."""
    if kind.startswith("{}"):
        return FieldSpec(name, kind[2:])
    return fields.get(name, _NO_FIELD)


def _strategies(field: FieldSpec) -> list[str]:
    return field.patch.split(",") if field.patch else []


def _merged(known: Any, value: Any, field: FieldSpec) -> Any:
    if isinstance(value, dict) and isinstance(known, dict):
        if "replace" in _strategies(field):
            return _plain(value)
        return _merge(known, value, field.type)
    if isinstance(value, list) and isinstance(known, list) and "merge" in _strategies(field):
        return _merge_lists(known, value, field)
    return _plain(value)


def _plain(value: Any) -> Any:
    """A patch's value as it enters a document: no nulls, no directives."""
    if isinstance(value, dict):
        if value.get(PATCH) == "delete":
            return {}
        return {
            key: _plain(item)
            for key, item in value.items()
            if item is not None and not _is_directive(key)
        }
    if isinstance(value, list):
        kept = (item for item in value if not (isinstance(item, dict) and _gone(item)))
        return [_plain(item) for item in kept]
    return without_nulls(value)


def _gone(item: Document) -> bool:
    return item.get(PATCH) == "delete" or set(item) == {PATCH}


def _is_directive(key: str) -> bool:
    return key in (PATCH, RETAIN) or key.startswith((_DELETE_FROM, _ORDER))


def _retain(original: Document, patch: Document) -> None:
    kept = patch.pop(RETAIN, None)
    if kept is None:
        return
    if not isinstance(kept, list):
        raise InvalidArgument("$retainKeys must be a list")
    extra = [key for key in patch if not _is_directive(key) and key not in kept]
    if any(patch[key] is not None for key in extra):
        raise InvalidArgument(
            "the items in $retainKeys list should be a superset of the fields in the patch"
        )
    for key in [key for key in original if key not in kept]:
        del original[key]


def _delete_from(original: Document, name: str, gone: Any) -> None:
    known = original.get(name)
    if isinstance(known, list) and isinstance(gone, list):
        original[name] = [item for item in known if item not in gone]


# Lists


def _merge_ordered(original: Document, patch: Document, kind: str) -> None:
    """Fields with an explicit order of their elements."""
    fields = fields_of(kind)
    for directive in [key for key in patch if key.startswith(_ORDER)]:
        order = patch.pop(directive)
        name = directive.removeprefix(_ORDER)
        field = _field(fields, name, kind)
        known, wanted = original.get(name), patch.pop(name, None)
        deleted = patch.pop(f"{_DELETE_FROM}{name}", None)
        if not isinstance(order, list):
            raise InvalidArgument(f"{directive} must be a list")
        _check_order(wanted, order, field.merge)
        if deleted is not None:
            _delete_from(original, name, deleted)
            known = original.get(name)
        if known is None and wanted is None:
            continue
        if wanted is None:
            merged = known
        elif isinstance(known, list):
            merged = _merge_lists(known, wanted, field)
        else:
            merged = _plain(wanted)
        original[name] = _arranged(merged or [], order, known or [], field.merge)


def _check_order(wanted: Any, order: list[Any], key: str) -> None:
    """The patch's own elements must stand in the order that it demands."""
    if not isinstance(wanted, list):
        return
    places = [_place(item, order, key) for item in wanted if not _special(item)]
    if -1 in places or places != sorted(places):
        raise InvalidArgument(
            f"The order in patch:\n{wanted}\n doesn't match $setElementOrder list:\n{order}\n"
        )


def _special(item: Any) -> bool:
    return isinstance(item, dict) and PATCH in item


def _place(item: Any, order: Sequence[Any], key: str) -> int:
    """Where an element stands in a list, by its merge key; -1 if nowhere."""
    wanted = _identity(item, key)
    return next((at for at, each in enumerate(order) if _identity(each, key) == wanted), -1)


def _identity(item: Any, key: str) -> Any:
    return item.get(key) if key and isinstance(item, dict) else item


def _arranged(merged: list[Any], order: list[Any], server: list[Any], key: str) -> list[Any]:
    """The elements of the patch in its order, the server's own between them as they stood."""
    named = [item for item in merged if _place(item, order, key) >= 0]
    named.sort(key=lambda item: _place(item, order, key))
    others = [item for item in merged if _place(item, order, key) < 0]
    others.sort(key=lambda item: _place(item, server, key))
    result: list[Any] = []
    while named and others:
        left, right = _place(others[0], server, key), _place(named[0], server, key)
        first = others if 0 <= left < right else named
        result.append(first.pop(0))
    return result + named + others


def _merge_lists(known: list[Any], wanted: list[Any], field: FieldSpec) -> list[Any]:
    if not any(isinstance(item, dict) for item in (*known, *wanted)):
        merged = list(dict.fromkeys((*known, *wanted)))
        return _arranged(merged, wanted, known, "")
    if not field.merge:
        raise InvalidArgument(f"cannot merge lists without merge key for {field.name}")
    remaining, plain, replaced = _directed(known, wanted, field.merge)
    if replaced:
        return [_plain(item) for item in plain]
    merged = list(remaining)
    for item in plain:
        if field.merge not in item:
            raise InvalidArgument(f"map: {item} does not contain declared merge key: {field.merge}")
        at = _place(item, merged, field.merge)
        if at < 0:
            merged.append(_plain(item))
        else:
            merged[at] = _merge(merged[at], item, field.type[2:])
    return _arranged(merged, plain, known, field.merge)


def _directed(known: list[Any], wanted: list[Any], key: str) -> tuple[list[Any], list[Any], bool]:
    """What remains of the known elements, the patch's plain elements, and if it replaces all."""
    plain: list[Any] = []
    replaced = False
    for item in wanted:
        if not isinstance(item, dict):
            raise InvalidArgument("invalid element in a list of objects of the patch")
        directive = item.get(PATCH)
        if directive == "delete":
            if key not in item:
                raise InvalidArgument(f"delete patch type with no merge key defined: {item}")
            known = [each for each in known if _identity(each, key) != item[key]]
        elif directive == "replace":
            replaced = True
            rest = {name: value for name, value in item.items() if name != PATCH}
            if rest:
                plain.append(rest)
        elif directive in (None, "merge"):
            plain.append({name: value for name, value in item.items() if name != PATCH})
        else:
            raise InvalidArgument(f"Unknown patch directive type: {directive}")
    return known, plain, replaced
