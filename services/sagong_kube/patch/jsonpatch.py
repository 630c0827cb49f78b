"""JSON patch, RFC 6902, with the limits and messages of upstream's library."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from sagong.errors import InvalidArgument
from sagong_kube.patch.document import copied, unprocessable

__all__ = ["MOST_COPIED", "MOST_OPERATIONS", "apply"]

MOST_OPERATIONS: Final = 10_000
# Bytes: copies of copies would grow without end. As much as a request's body.
MOST_COPIED: Final = 3 << 20
_INDEX = re.compile(r"(0|-?[1-9]\d*)\Z", re.ASCII)
_NOTHING: Final = object()


def apply(document: Any, operations: Any) -> Any:
    """The patched document; the arguments are not changed.

    InvalidArgument: the patch is malformed (400), or (its detail has code 422) does not apply.
    """
    if not isinstance(operations, list) or not all(isinstance(o, dict) for o in operations):
        raise InvalidArgument(
            "error decoding patch: json: cannot unmarshal into Go value of type jsonpatch.Patch"
        )
    if len(operations) > MOST_OPERATIONS:
        raise InvalidArgument(
            f"The allowed maximum operations in a JSON patch is {MOST_OPERATIONS}, "
            f"got {len(operations)}"
        )
    root, copies = [copied(document)], 0
    for operation in operations:
        kind = operation.get("op", "")
        handler = _HANDLERS.get(kind) if isinstance(kind, str) else None
        if handler is None:
            raise unprocessable(f"Unexpected kind: {kind}")
        if kind == "copy":
            copies += _size(root, operation)
        if copies > MOST_COPIED:
            raise InvalidArgument(
                f"Unable to complete the copy, the accumulated size increase of copy is {copies}, "
                f"exceeding the limit {MOST_COPIED}",
                detail={"reason": "RequestEntityTooLarge", "code": "413"},
            )
        handler(root, operation)
    return root[0]


def _size(root: list[Any], operation: Mapping[str, Any]) -> int:
    return len(msgspec.json.encode(_taken(root, operation, "copy")[2]))


def _steps(pointer: Any, what: str) -> list[str]:
    if not isinstance(pointer, str) or (pointer and not pointer.startswith("/")):
        raise unprocessable(
            f'{what} operation does not apply: doc is missing path: "{pointer}": missing value'
        )
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def _find(root: list[Any], pointer: str, what: str) -> tuple[Any, str]:
    """The container that holds what the pointer names, and the last step to it."""
    steps = _steps(pointer, what)
    if not steps:
        return root, "0"
    at: Any = root[0]
    for step in steps[:-1]:
        at = _get(at, step)
        if at is _NOTHING or not isinstance(at, dict | list):
            raise unprocessable(
                f'{what} operation does not apply: doc is missing path: "{pointer}": missing value'
            )
    return at, steps[-1]


def _get(container: Any, step: str) -> Any:
    if isinstance(container, dict):
        return container.get(step, _NOTHING)
    if isinstance(container, list) and _INDEX.match(step):
        index = int(step)
        inside = -len(container) <= index < len(container)
        return container[index] if inside else _NOTHING
    return _NOTHING


def _needed(container: Any, step: str, pointer: str, what: str) -> Any:
    found = _get(container, step)
    if found is _NOTHING:
        if isinstance(container, list):
            raise unprocessable(
                f"{what} operation does not apply: doc is missing key: {pointer}: "
                f"Unable to access invalid index: {step}: invalid index referenced"
            )
        raise unprocessable(
            f"{what} operation does not apply: doc is missing key: {pointer}: missing value"
        )
    return found


def _value(operation: Mapping[str, Any], what: str) -> Any:
    if "value" not in operation:
        raise unprocessable(
            f"error in {what} for path: '{operation.get('path', '')}': missing value"
        )
    return copied(operation["value"])


def _put(container: Any, step: str, value: Any, pointer: str, what: str) -> None:
    if isinstance(container, dict):
        container[step] = value
        return
    if step == "-":
        container.append(value)
        return
    index = int(step) if _INDEX.match(step) else None
    if index is None:
        raise unprocessable(
            f"error in {what} for path: '{pointer}': value was not a proper array index: '{step}'"
        )
    if index < 0:
        index += len(container) + 1
    if not 0 <= index <= len(container):
        raise unprocessable(
            f"error in {what} for path: '{pointer}': Unable to access invalid index: {step}: "
            "invalid index referenced"
        )
    container.insert(index, value)


def _add(root: list[Any], operation: Mapping[str, Any]) -> None:
    pointer, value = operation.get("path", ""), _value(operation, "add")
    container, step = _find(root, pointer, "add")
    if container is root:
        root[0] = value
    else:
        _put(container, step, value, pointer, "add")


def _remove(root: list[Any], operation: Mapping[str, Any]) -> None:
    pointer = operation.get("path", "")
    container, step = _find(root, pointer, "remove")
    _needed(container, step, pointer, "remove")
    _delete(container, step)


def _delete(container: Any, step: str) -> None:
    if isinstance(container, list):
        del container[int(step)]
    else:
        del container[step]


def _replace(root: list[Any], operation: Mapping[str, Any]) -> None:
    pointer, value = operation.get("path", ""), _value(operation, "replace")
    container, step = _find(root, pointer, "replace")
    _needed(container, step, pointer, "replace")
    if isinstance(container, list):
        container[int(step)] = value
    else:
        container[step] = value


def _taken(root: list[Any], operation: Mapping[str, Any], what: str) -> tuple[Any, str, Any]:
    pointer = operation.get("from", "")
    container, step = _find(root, pointer, what)
    return container, step, _needed(container, step, pointer, what)


def _move(root: list[Any], operation: Mapping[str, Any]) -> None:
    source, target = operation.get("from", ""), operation.get("path", "")
    if isinstance(target, str) and target.startswith(f"{source}/"):
        raise unprocessable(f"error in move for path: '{target}': can not move into itself")
    container, step, value = _taken(root, operation, "move")
    _delete(container, step)
    _add(root, {"path": target, "value": value})


def _copy(root: list[Any], operation: Mapping[str, Any]) -> None:
    value = _taken(root, operation, "copy")[2]
    _add(root, {"path": operation.get("path", ""), "value": value})


def _test(root: list[Any], operation: Mapping[str, Any]) -> None:
    pointer, wanted = operation.get("path", ""), operation.get("value")
    container, step = _find(root, pointer, "test")
    found = _get(container, step)
    if found is _NOTHING:
        if wanted is None:
            return
        raise unprocessable(
            f"testing value {pointer} failed: test failed"
            if isinstance(container, dict)
            else f"error in test for path: '{pointer}': missing value"
        )
    if not _equal(found, wanted):
        raise unprocessable(f"testing value {pointer} failed: test failed")


def _equal(left: Any, right: Any) -> bool:
    """JSON equality: true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(left[k], right[k]) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    return bool(left == right)


_HANDLERS: Final[Mapping[str, Callable[[list[Any], Mapping[str, Any]], None]]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "copy": _copy,
    "test": _test,
}
