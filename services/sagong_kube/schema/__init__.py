"""What the API server knows of its kinds: resources, types, decoding, defaults, validation.

Documents are plain dictionaries as JSON gives them; all functions are pure. The public names:

`resources.RESOURCES: tuple[ResourceSpec, ...]` and `resources.find(group, version, plural)`: the
    table of served resources: group, version, kind, plural, singular, namespaced, verbs,
    short_names, categories, subresources (name, group, version, kind, verbs), storage
    (`core/pods`), storage_version, virtual.

`decoding.decode(body, kind, *, validation="Strict", media="json") -> Decoded`: parse a request body
    (`media`: json, yaml) as a `GroupVersionKind`; `Decoded(document, problems)`; problems are
    upstream's texts: `unknown field "spec.foo"`, `duplicate field "spec.foo"`. The document comes
    back as Go types would give it: unknown fields and nulls are gone, zero values as upstream.
    InvalidArgument is for what cannot be decoded at all.
`decoding.conform(document, kind, *, validation="Strict") -> Decoded`: the same for a document that
    is decoded already (a patch's result, protobuf).
`decoding.strict_error(kind, problems) -> str`: the text of the 400 in Strict mode;
    `decoding.warnings` are the problems themselves.

`defaults.apply_defaults(document, kind) -> None`: fill in the defaults, in place.

`validation.validate(document, kind, old=None, subresource="") -> list[FieldError]`: everything
    wrong with an object about to be created, or updated from `old`, in upstream's order and words.
    `FieldError(path, reason, message)`: field, `FieldValueRequired` …, `Required value` ….
`ResourceSpec.generation` says if metadata.generation counts changes of anything but metadata and
    status; `fields` what field selectors may name.
"""
