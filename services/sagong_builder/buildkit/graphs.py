"""Graphs of operations that do nothing but name an image: a build's result for another build. Pure.

A client gives a result back as an input of its next build (`contexts = {x = "target:y"}` of bake).
Source: BuildKit's solver/pb/ops.proto.
"""

from __future__ import annotations

import hashlib

from sagong.errors import Unimplemented
from sagong_builder.buildkit.messages import Definition, Input, Op, OpMetadata, SourceOp
from sagong_builder.buildkit.protobuf import decode, encode

__all__ = ["image_of", "naming"]

_IMAGE = "docker-image://"


def naming(image: str) -> Definition:
    """A graph whose result is this image."""
    source = encode(Op(source=SourceOp(_IMAGE + image)))
    digest = "sha256:" + hashlib.sha256(source).hexdigest()
    return Definition(
        ops=[source, encode(Op(inputs=[Input(digest)]))], metadata={digest: OpMetadata(True)}
    )


def image_of(definition: Definition) -> str:
    """The image that a graph names; Unimplemented if it does more."""
    ops = {"sha256:" + hashlib.sha256(raw).hexdigest(): raw for raw in definition.ops}
    if definition.ops:
        last = decode(Op, definition.ops[-1])
        named = ops.get(last.inputs[0].digest) if len(last.inputs) == 1 else None
        source = decode(Op, named).source if named is not None else None
        if source is not None and source.identifier.startswith(_IMAGE):
            return source.identifier.removeprefix(_IMAGE)
    raise Unimplemented(
        "graphs of a client's own making (LLB) are not solved here: send a Dockerfile, or run BuildKit "
        "beside it (docker buildx create --driver docker-container)"
    )
