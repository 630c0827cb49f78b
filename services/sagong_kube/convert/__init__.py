"""Other forms of objects: protobuf bodies, tables as kubectl shows them, OpenAPI documents.

`protobuf.decode(body, kind=None) -> (GroupVersionKind, document)`: a request body of the media
    type application/vnd.kubernetes.protobuf; `protobuf.is_protobuf(body)`. Give the document to
    `schema.decoding.conform`, which drops the zero values that Go sends.

`table.columns(kind, custom=None) -> list[dict]`: columnDefinitions of a Table (`custom`: a custom
    kind's additionalPrinterColumns);
`table.cells(kind, document, now, custom=None) -> list`: one row's cells (`now`: epoch seconds).

`openapi.v3(group, version, custom=()) -> bytes`, `openapi.v2(custom=()) -> bytes`: documents as
    JSON; `custom` is a sequence of `openapi.CustomKind(resource: ResourceSpec, schema)`.
"""
