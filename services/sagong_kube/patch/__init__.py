"""Patches: JSON patch, JSON merge patch, strategic merge patch, and server-side apply.

All functions are pure, take documents as JSON gives them and return new ones. The public names:

`jsonpatch.apply(document, operations) -> document` (operations: the decoded array; RFC 6902)
`mergepatch.apply(document, patch) -> document` (RFC 7386)
`strategic.apply(document, patch, kind) -> document` (`kind`: GroupVersionKind of a built-in)

`managed.after_update(new, old, kind, *, manager, now, operation="Update", subresource="",
    schema=None) -> list` : the managedFields of `new`, written by create, update or patch by
    `manager` over `old` (None at creation).
`apply.apply(live, applied, kind, *, manager, now, force=False, subresource="", schema=None)
    -> Applied(document, conflicts)`: server-side apply; `live` None creates. The document carries
    its new managedFields. Without force a conflict raises `ApplyConflict` (its `message` is
    upstream's 409 text, its `causes` are (reason, field, message)).
`schema` is a custom resource's `openAPIV3Schema`.

Errors are `sagong.errors.InvalidArgument` with upstream's texts.
"""
