"""The codec of BuildKit's messages against the protobuf package, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from sagong.errors import InvalidArgument
from sagong_builder.buildkit import messages as m
from sagong_builder.buildkit.protobuf import decode, encode

TYPES = descriptor_pb2.FieldDescriptorProto


def stat_class() -> Any:
    """fsutil's Stat, made by the package itself."""
    file = descriptor_pb2.FileDescriptorProto(name="s.proto", package="t", syntax="proto3")
    stat = file.message_type.add(name="Stat")
    entry = stat.nested_type.add(name="XattrsEntry")
    entry.options.map_entry = True
    for number, (name, kind) in enumerate((("key", "STRING"), ("value", "BYTES")), 1):
        entry.field.add(name=name, number=number, type=getattr(TYPES, f"TYPE_{kind}"), label=1)
    kinds = ("STRING", "UINT32", "UINT32", "UINT32", "INT64", "INT64", "STRING", "INT64", "INT64")
    for number, kind in enumerate(kinds, 1):
        stat.field.add(
            name=f"f{number}", number=number, type=getattr(TYPES, f"TYPE_{kind}"), label=1
        )
    stat.field.add(
        name="xattrs", number=10, type=TYPES.TYPE_MESSAGE, label=3, type_name=".t.Stat.XattrsEntry"
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Stat"))


def test_both_read_what_the_other_writes() -> None:
    kind = stat_class()
    theirs = kind(f1="ä/b", f2=1 << 31, f5=1 << 40, f6=-5, xattrs={"user.x": b"\0\xff"})
    ours = m.Stat(path="ä/b", mode=1 << 31, size=1 << 40, mod_time=-5, xattrs={"user.x": b"\0\xff"})
    assert decode(m.Stat, theirs.SerializeToString()) == ours
    assert kind.FromString(encode(ours)) == theirs


def test_defaults_are_not_sent_and_unknown_fields_are_skipped() -> None:
    assert encode(m.SolveRequest()) == b""
    unknown = b"\x9a\x06\x03abc" + encode(m.StatusRequest(ref="r")) + b"\xa5\x06\0\0\0\0"
    assert decode(m.StatusRequest, unknown) == m.StatusRequest(ref="r")


@pytest.mark.parametrize(
    "raw", [b"\x0a\x05ab", b"\x0a", b"\xff" * 12, b"\x0a\x01\xff", b"\x08\x01", b"\x0b"]
)
def test_bytes_that_are_no_message_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidArgument, match="malformed StatusRequest"):
        decode(m.StatusRequest, raw)
