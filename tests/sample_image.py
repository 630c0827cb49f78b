"""Builds a small busybox image from Debian's busybox-static, as an OCI layout and as docker save.

Everybody's tests use it::

    sample = sample_image.build(tmp_path)
    sample.docker_archive   # a tar as of `docker save`, named sagong.test/busybox:latest
    sample.oci_layout       # a directory, an OCI image layout with the same image
    sample.image_id         # the digest of its config

The image has two layers: busybox with its links and a skeleton, then a file that both adds and
deletes. `python -m tests.sample_image DIRECTORY` writes it by hand.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["NAME", "Sample", "build", "layer", "write_docker_archive", "write_oci_layout"]

NAME = "sagong.test/busybox:latest"
_TIME = 1_700_000_000
_DIRECTORIES = {
    "bin": 0o755,
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "proc": 0o755,
    "root": 0o700,
    "sys": 0o755,
    "tmp": 0o1777,
    "usr": 0o755,
    "usr/bin": 0o755,
    "usr/sbin": 0o755,
    "var": 0o755,
    "var/www": 0o755,
}
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
    "app:x:1000:1000:app:/home:/bin/sh\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\napp:x:1000:\nextra:x:2000:app\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\n",
    "etc/deleted-by-the-next-layer": "gone\n",
    "var/www/index.html": "hello from sagong\n",
}


@dataclass(frozen=True)
class Sample:
    """Where the image was written and what it is called."""

    docker_archive: Path
    oci_layout: Path
    name: str
    image_id: str
    manifest_digest: str
    diff_ids: tuple[str, ...]


def entry(name: str, mode: int, kind: bytes = tarfile.REGTYPE, size: int = 0) -> tarfile.TarInfo:
    """A tar header with the sample's fixed time and owner."""
    info = tarfile.TarInfo(name)
    info.mode, info.type, info.mtime, info.size = mode, kind, _TIME, size
    info.uname = info.gname = "root"
    return info


def layer(files: dict[str, str], directories: dict[str, int] | None = None) -> bytes:
    """A layer tar of directories and text files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, mode in (directories or {}).items():
            tar.addfile(entry(name, mode, tarfile.DIRTYPE))
        for name, text in files.items():
            raw = text.encode()
            tar.addfile(entry(name, 0o644, size=len(raw)), io.BytesIO(raw))
    return buffer.getvalue()


def _busybox() -> Path:
    for path in ("/bin/busybox", "/usr/bin/busybox"):
        if os.path.exists(path) and stat.S_ISREG(os.stat(path).st_mode):
            return Path(path)
    raise FileNotFoundError("no /bin/busybox; install the package busybox-static")


def _base_layer() -> bytes:
    binary = _busybox()
    listed = subprocess.run(
        [str(binary), "--list"], check=True, capture_output=True, text=True, timeout=10
    )
    buffer = io.BytesIO(layer(_FILES, _DIRECTORIES))
    with tarfile.open(fileobj=buffer, mode="a", format=tarfile.PAX_FORMAT) as tar:
        info = entry("bin/busybox", 0o755, size=binary.stat().st_size)
        with binary.open("rb") as file:
            tar.addfile(info, file)
        for applet in sorted(set(listed.stdout.split()) - {"busybox"}):
            link = entry(f"bin/{applet}", 0o755, tarfile.LNKTYPE)
            link.linkname = "bin/busybox"
            tar.addfile(link)
    return buffer.getvalue()


def _config(diff_ids: list[str]) -> bytes:
    history = [
        {"created": "2023-11-14T22:13:20Z", "created_by": "busybox and a skeleton"},
        {"created": "2023-11-14T22:13:20Z", "created_by": "CMD", "empty_layer": True},
        {"created": "2023-11-14T22:13:20Z", "created_by": "one file more, one less"},
    ]
    machine = os.uname().machine
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine),
        "os": "linux",
        "created": "2023-11-14T22:13:20Z",
        "author": "sagong",
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["sh"],
            "Labels": {"org.opencontainers.image.title": "sample"},
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": history,
    }
    return json.dumps(config).encode()


def _digest(raw: bytes) -> str:
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def write_docker_archive(path: Path, config: bytes, layers: list[bytes], names: list[str]) -> None:
    """A `docker save` archive of one image."""
    members = {f"{_digest(config)[7:]}.json": config}
    files = [f"{_digest(raw)[7:]}/layer.tar" for raw in layers]
    members |= dict(zip(files, layers))
    manifest = [
        {"Config": f"{_digest(config)[7:]}.json", "RepoTags": names or None, "Layers": files}
    ]
    members["manifest.json"] = json.dumps(manifest).encode()
    with tarfile.open(path, "w") as tar:
        for name, raw in members.items():
            tar.addfile(entry(name, 0o644, size=len(raw)), io.BytesIO(raw))


def write_oci_layout(directory: Path, config: bytes, layers: list[bytes], name: str) -> str:
    """An OCI layout of one image with gzip layers; the manifest's digest."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def put(raw: bytes, media_type: str) -> dict[str, object]:
        (blobs / _digest(raw)[7:]).write_bytes(raw)
        return {"mediaType": media_type, "digest": _digest(raw), "size": len(raw)}

    oci = "application/vnd.oci.image."
    packed = [gzip.compress(raw, compresslevel=1, mtime=0) for raw in layers]
    manifest = {
        "schemaVersion": 2,
        "mediaType": oci + "manifest.v1+json",
        "config": put(config, oci + "config.v1+json"),
        "layers": [put(raw, oci + "layer.v1.tar+gzip") for raw in packed],
    }
    descriptor = put(json.dumps(manifest).encode(), oci + "manifest.v1+json")
    described = {**descriptor, "annotations": {"org.opencontainers.image.ref.name": name}}
    index = {"schemaVersion": 2, "manifests": [described]}
    (directory / "index.json").write_text(json.dumps(index))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return str(descriptor["digest"])


def build(directory: Path, name: str = NAME) -> Sample:
    """Write the sample image below `directory` in both forms."""
    second = layer(
        {"etc/sample-release": "second layer\n", "etc/.wh.deleted-by-the-next-layer": ""}
    )
    layers = [_base_layer(), second]
    diff_ids = [_digest(raw) for raw in layers]
    config = _config(diff_ids)
    archive, layout = directory / "sample.tar", directory / "sample-oci"
    directory.mkdir(parents=True, exist_ok=True)
    write_docker_archive(archive, config, layers, [name])
    digest = write_oci_layout(layout, config, layers, name)
    return Sample(archive, layout, name, _digest(config), digest, tuple(diff_ids))


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
