"""Images for benchmarks: many small files in some layers, or one large file in one."""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile

from tests.sample_image import entry

__all__ = ["config_of", "large_file", "many_files"]


def many_files(count: int, layers: int, seed: int = 1) -> list[bytes]:
    """Layers of small files of 0.2 to 8 KB, half of it hard to compress."""
    chance = random.Random(seed)
    made = []
    for number in range(layers):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
            tar.addfile(entry(f"data{number}", 0o755, tarfile.DIRTYPE))
            for one in range(count // layers):
                folder = f"data{number}/d{one // 100:03}"
                if one % 100 == 0:
                    tar.addfile(entry(folder, 0o755, tarfile.DIRTYPE))
                size = chance.randint(200, 8000)
                raw = chance.randbytes(size // 2) + b"x" * (size - size // 2)
                tar.addfile(entry(f"{folder}/f{one:05}", 0o644, size=size), io.BytesIO(raw))
        made.append(buffer.getvalue())
    return made


def large_file(megabytes: int, seed: int = 2) -> list[bytes]:
    """One layer of one file, half of it hard to compress."""
    chance = random.Random(seed)
    half, buffer = 1 << 19, io.BytesIO()
    head = entry("large", 0o644, size=megabytes << 20)
    buffer.write(head.tobuf(tarfile.PAX_FORMAT))
    for _ in range(megabytes):
        buffer.write(chance.randbytes(half) + b"x" * half)
    buffer.write(bytes(2 * tarfile.BLOCKSIZE))
    return [buffer.getvalue()]


def config_of(layers: list[bytes]) -> bytes:
    """An image config of the layers."""
    digests = ["sha256:" + hashlib.sha256(raw).hexdigest() for raw in layers]
    rootfs = {"type": "layers", "diff_ids": digests}
    config = {"architecture": "amd64", "os": "linux", "rootfs": rootfs, "config": {"Cmd": ["x"]}}
    return json.dumps(config).encode()
