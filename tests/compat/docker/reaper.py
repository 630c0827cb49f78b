"""The image of a reaper for testcontainers: who began containers is gone, what he left goes, too.

Upstream's (ryuk) is an image of Docker Hub's; this one speaks the same protocol, in the Perl that
every Debian has.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from tests.compat.docker.docker_engine import Engine

__all__ = ["NAME", "build"]

NAME = "sagong.test/reaper:1"
_SCRIPT = Path(__file__).with_name("reaper.pl")
_MODULES = ("IO::Socket::INET", "IO::Socket::UNIX", "IO::Select")
_LOADED = r'print "$_\n" for values %INC, @DynaLoader::dl_shared_objects'


def build(engine: Engine) -> str:
    """Make it; its name."""
    if shutil.which("perl") is None:
        pytest.skip("needs perl")
    changes = ("-c", 'ENTRYPOINT ["perl", "/reaper.pl"]', "-c", "ENV PATH=/usr/bin")
    engine.ok("import", *changes, "-", NAME, stdin=_archive())
    return NAME


def _archive() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", dereference=True) as tar:
        for path in sorted(_files()):
            tar.add(path)
        tar.add(_SCRIPT, "reaper.pl")
    return data.getvalue()


def _files() -> set[str]:
    """The interpreter, what it loads for the script, and the libraries of all of it."""
    perl = str(Path(shutil.which("perl") or "").resolve())
    listed = _said("perl", *(f"-M{name}" for name in _MODULES), "-we", _LOADED)
    files = {"/usr/bin/perl", *listed.split()}
    for binary in (perl, *(name for name in files if name.endswith(".so"))):
        files.update(re.findall(r"(/\S+) \(0x", _said("ldd", binary)))
    return files


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
