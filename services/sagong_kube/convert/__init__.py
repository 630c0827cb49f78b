"""Other forms of objects: protobuf bodies, tables as kubectl shows them, OpenAPI documents.

`protobuf.decode(body, kind=None) -> (GroupVersionKind, document)`: a request body of the media
    type application/vnd.kubernetes.protobuf; `protobuf.is_protobuf(body)`.

`table.columns(kind, *, custom=()) -> list[dict]`: columnDefinitions of a Table;
`table.cells(kind, document, now) -> list`: one row's cells (`now`: seconds since the epoch);
`table.table(kind, documents, *, now, revision="", include="Metadata") -> dict`: a whole Table.

`openapi.index(groups) -> dict`, `openapi.v3(group, version) -> bytes`, `openapi.v2() -> bytes`.
"""
