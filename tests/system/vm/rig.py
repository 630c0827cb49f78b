"""The disk of the machine that the tests here share, and how long each part of them took."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.system.vm import debian

__all__ = ["CLIENTS", "clients", "lay_out", "told"]

CLIENTS = ("docker", "kubectl")


def clients() -> dict[str, Path]:
    """The static clients of this machine, to be used inside as well."""
    found = {name: shutil.which(name) for name in CLIENTS}
    return {name: Path(path).resolve() for name, path in found.items() if path}


def lay_out(place: Path) -> None:
    """The repository as it is now, compiled, and the clients in `clients`."""
    listed = ["git", "-C", str(debian.REPOSITORY), "ls-files", "-z", "--cached", "--others"]
    names = subprocess.run([*listed, "--exclude-standard"], check=True, capture_output=True).stdout
    for name in names.decode().split("\0"):
        source = debian.REPOSITORY / name
        if name and source.is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place / name)
    if sys.version_info[:2] == (3, 11):
        # As the Python of Debian 12: what takes three seconds here takes a minute there.
        trees = [str(place / tree) for tree in ("core", "plugins", "services")]
        command = [sys.executable, "-m", "compileall", "-q", "-s", str(place)]
        subprocess.run([*command, "-p", f"/{debian.PLACE}", *trees], check=True)
    (place / "clients").mkdir()
    for name, path in clients().items():
        shutil.copy(path, place / "clients" / name)


def told(what: str, since: float) -> float:
    """Print how long it took; the time now."""
    now = time.monotonic()
    print(f"vm: {what} {now - since:.1f} s", file=sys.stderr)
    return now
