"""Files of volumes: content, atomic change, subPaths that can't escape, removal."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.node_pods.test_node_pods_decision import pod

from sagong.errors import FailedPrecondition, InvalidArgument
from sagong.model.k8s.core_v1 import (
    ConfigMap,
    Container,
    HostPathVolumeSource,
    PersistentVolume,
    PersistentVolumeClaim,
    Volume,
)
from sagong_node.pods.claims import Lent, check_type, lent_persistent
from sagong_node.pods.mounting import Source, lent_parts, mounts_of
from sagong_node.pods.payload import Downward, Entry, TokenWish, checked_path, content_of
from sagong_node.pods.projection import write_content
from sagong_node.pods.subpath import held_subpath
from sagong_node.pods.volumes import remove_tree


def content(volume: dict[str, Any], found: Any = None, **fields: Any) -> Any:
    whole = {"tokens": {}, "downward": Downward(address="10.0.0.1")}
    return content_of(
        pod(metadata={"labels": {"a": "b"}}),
        msgspec.convert({"name": "v", **volume}, Volume),
        find=lambda resource, name: found,
        **{**whole, **fields},
    )


def test_a_config_map_gives_all_its_keys_or_the_named_ones() -> None:
    known = ConfigMap(data={"a": "1", "b": "2"}, binary_data={"c": "AAE="})
    whole = content({"configMap": {"name": "m"}}, known)
    assert {k: e.data for k, e in whole.items()} == {"a": b"1", "b": b"2", "c": b"\0\1"}
    items = [{"key": "a", "path": "x/y", "mode": 0o400}]
    assert content({"configMap": {"name": "m", "items": items}}, known) == {
        "x/y": Entry(b"1", 0o400)
    }


def test_what_is_missing_is_told_unless_optional() -> None:
    with pytest.raises(FailedPrecondition, match='configmap "m" not found'):
        content({"configMap": {"name": "m"}})
    assert content({"configMap": {"name": "m", "optional": True}}) == {}
    items = [{"key": "z", "path": "z"}]
    with pytest.raises(FailedPrecondition, match="references non-existent configmap key: z"):
        content({"configMap": {"name": "m", "items": items}}, ConfigMap(data={"a": "1"}))
    assert content({"emptyDir": {}}) is None


def test_a_projected_volume_joins_its_sources() -> None:
    sources = [
        {"configMap": {"name": "m"}},
        {
            "downwardAPI": {
                "items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
            }
        },
        {"serviceAccountToken": {"path": "token", "audience": "x"}},
    ]
    tokens = {TokenWish("x", 3600): "secret"}
    found = content({"projected": {"sources": sources}}, ConfigMap(data={"k": "v"}), tokens=tokens)
    assert {k: e.data for k, e in found.items()} == {
        "k": b"v",
        "labels": b'a="b"',
        "token": b"secret",
    }


@pytest.mark.parametrize("path", ["/a", "../a", "a/../../b", "..data", "", "..x/y"])
def test_paths_must_stay_inside(path: str) -> None:
    with pytest.raises(InvalidArgument):
        checked_path(path)


def test_a_change_is_seen_as_a_whole_and_unchanged_content_is_left_alone(tmp_path: Path) -> None:
    volume = tmp_path / "v"
    assert write_content(volume, {"a/b": Entry(b"1"), "c": Entry(b"2", 0o400)})
    assert (volume / "a" / "b").read_bytes() == b"1"
    assert stat.S_IMODE((volume / "c").stat().st_mode) == 0o400
    held = os.open(volume / "..data", os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert not write_content(volume, {"a/b": Entry(b"1"), "c": Entry(b"2", 0o400)})
        assert write_content(volume, {"c": Entry(b"3")})
        assert [p.name for p in volume.iterdir() if not p.name.startswith("..")] == ["c"]
        assert (volume / "c").read_bytes() == b"3"
        assert len(list(volume.glob("..[0-9]*"))) == 1
    finally:
        os.close(held)


def test_subpaths_are_made_and_followed_only_inside(tmp_path: Path) -> None:
    root = tmp_path / "v"
    root.mkdir(mode=0o777)
    (root / "data").mkdir()
    (root / "inner").symlink_to("data")
    (root / "outer").symlink_to("/etc")
    (root / "up").symlink_to("../..")
    assert held_subpath(root, "new/deep", create=True) == root / "new" / "deep"
    assert (root / "new" / "deep").is_dir()
    assert held_subpath(root, "inner", create=True) == root / "data"
    for bad in ("outer", "outer/passwd", "up", "up/x"):
        with pytest.raises(FailedPrecondition, match="leads out of its volume"):
            held_subpath(root, bad, create=True)
    for bad in ("/etc", "../x", "a/../../b"):
        with pytest.raises(InvalidArgument):
            held_subpath(root, bad, create=True)
    with pytest.raises(FailedPrecondition, match="does not exist"):
        held_subpath(root, "missing", create=False)


def test_a_subpath_of_what_can_t_be_seen_is_held_or_refused() -> None:
    mount = {"name": "v", "mountPath": "/m", "subPathExpr": "$(A)"}
    container = msgspec.convert({"name": "c", "volumeMounts": [mount]}, Container)
    values = {"A": "x"}
    with pytest.raises(FailedPrecondition, match="nobody can make sure"):
        mounts_of(container, {"v": Source("/srv/pv")}, values, {})
    own = {"v": Source("/srv/pv", privileged=True)}
    assert mounts_of(container, own, values, {})[0].source == "/srv/pv/x"
    lent = Lent("pv-1")
    sources = {"v": Source("/srv/pv", lent=lent)}
    assert lent_parts(container, sources, values) == [("v", "x", lent)]
    (held,) = mounts_of(container, sources, values, {("v", "x"): "/pins/1"})
    assert held.source == "/pins/1" and not held.create
    with pytest.raises(FailedPrecondition, match="volume v is not there"):
        mounts_of(container, {}, {}, {})


def test_propagation_and_images(tmp_path: Path) -> None:
    mounts = [
        {"name": "v", "mountPath": "/m", "mountPropagation": "Bidirectional"},
        {"name": "i", "mountPath": "image/"},
    ]
    container = msgspec.convert({"name": "c", "volumeMounts": mounts}, Container)
    sources = {"v": Source(str(tmp_path)), "i": Source(image="busybox")}
    bind, image = mounts_of(container, sources, {}, {})
    assert (bind.propagation, bind.kind) == ("rshared", "bind")
    assert (image.kind, image.source, image.target) == ("image", "busybox", "/image")


def test_claims_lead_to_what_backs_them() -> None:
    claim = PersistentVolumeClaim()
    with pytest.raises(FailedPrecondition, match="is not bound"):
        lent_persistent(claim, None)
    claim.spec.volume_name, claim.status.phase = "pv", "Bound"
    with pytest.raises(FailedPrecondition, match='persistentvolume "pv" not found'):
        lent_persistent(claim, None)
    local = msgspec.convert({"spec": {"local": {"path": "/x"}}}, PersistentVolume)
    assert lent_persistent(claim, local) == HostPathVolumeSource(path="/x", type="Directory")
    csi = {"spec": {"csi": {"driver": "d", "volumeHandle": "h"}}}
    lent = lent_persistent(claim, msgspec.convert(csi, PersistentVolume))
    assert (getattr(lent, "name", ""), getattr(lent, "driver", "")) == ("h", "d")
    with pytest.raises(InvalidArgument, match="unsupported type"):
        lent_persistent(claim, PersistentVolume())


def test_types_of_host_paths() -> None:
    known = {"/x": stat.S_IFDIR | 0o755, "/s": stat.S_IFSOCK | 0o600}
    check_type(HostPathVolumeSource(path="/x", type="Directory"), found=known)
    check_type(HostPathVolumeSource(path="/s", type="Socket"), found=known)
    check_type(HostPathVolumeSource(path="/unseen", type="Directory"), found=known)
    with pytest.raises(FailedPrecondition, match="/x is not a File"):
        check_type(HostPathVolumeSource(path="/x", type="FileOrCreate"), found=known)
    with pytest.raises(InvalidArgument, match="is unknown"):
        check_type(HostPathVolumeSource(path="/x", type="Odd"), found=known)


def test_what_containers_left_is_removed_whatever_its_modes(tmp_path: Path) -> None:
    deep = tmp_path / "v" / "locked" / "deep"
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    deep.chmod(0)
    deep.parent.chmod(0o500)
    remove_tree(tmp_path / "v")
    assert not (tmp_path / "v").exists()
