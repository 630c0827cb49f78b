"""Every right of every manifest is needed: without it, something fails.

Rights of the machine are left out one by one in real sandboxes, in which the plugin's story is played
(`tests.system.kernel.confined`). Rights of the bus are held against the source: what nobody calls,
hears or accepts is no right to ask for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from sagong import manifest
from sagong.contract import slot_of
from sagong.contracts import find
from sagong.manifest import Manifest
from tests.system.instance import REPOSITORY
from tests.system.kernel.confined import STORIES, drops, run

NAMES = sorted(
    path.parent.name.removeprefix("sagong_") for path in REPOSITORY.glob("*/sagong_*/plugin.toml")
)

# What a story can't show on any machine, and why it is needed nevertheless.
UNSEEN = {
    (
        "volume_local",
        "network host",
    ): "NFS servers are reached from there; no machine of tests has one",
    (
        "volume_local",
        "group quota of the deputy",
    ): "it sets project quotas, which no file system of a story has",
    (
        "image_overlay",
        "group quota",
    ): "it asks for project quotas, which no file system of a story keeps",
    **{
        ("node", f"path {{etc}}/{name}"): "tests/system/appliance reads files there"
        for name in ("manifests", "containers", "images")
    },
}
# For the program that makes [::1] work, which hangs on a hierarchy of control groups.
LOOPBACK = ("group bpf", "capability CAP_BPF", "path /sys/fs/cgroup")
# Services that go out into the network: where in their source they do.
GOES_OUT = {
    "builder": r"urlopen",
    "dns": r"create_datagram_endpoint|sock_sendto|\.sendto\(|open_connection",
    "kube": r"open_connection",
}


@cache
def read(name: str) -> Manifest:
    return manifest.load(f"sagong_{name}")


@cache
def source(name: str) -> str:
    """The package's source, with that of the platform's libraries that it builds upon."""
    package = next(REPOSITORY.glob(f"*/sagong_{name}"))
    text = "\n".join(path.read_text() for path in sorted(package.rglob("*.py")))
    found: set[Path] = set()
    while more := set(_libraries(text)) - found:
        found |= more
        text += "\n".join(path.read_text() for path in sorted(more))
    return text


def _libraries(text: str) -> Iterator[Path]:
    """Files of the platform's libraries for plugins that a text imports."""
    for name in re.findall(r"from sagong\.(following|keyspace|scheduling|streams)\b", text):
        place = REPOSITORY / "core/sagong" / name
        yield from place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")]


def machine_rights() -> list[tuple[str, str]]:
    return [(name, right) for name in STORIES for right in drops(name)]


@pytest.mark.root
@pytest.mark.parametrize("name", STORIES)
def test_the_rights_of_the_manifest_are_enough(name: str) -> None:
    assert run(name) == ""


@pytest.mark.root
@pytest.mark.parametrize(("name", "right"), machine_rights())
def test_without_a_right_of_the_machine_something_fails(name: str, right: str) -> None:
    if (name, right) in UNSEEN:
        pytest.skip(UNSEEN[name, right])
    if right in LOOPBACK and "cgroup2" not in mounted():
        pytest.skip("no cgroup2 is mounted here, so there is nothing to attach to")
    assert run(name, right), f"{name} does without {right}: take it out of plugin.toml"


def mounted() -> str:
    return Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_rights_of_the_machine_have_a_story(name: str) -> None:
    """Whoever has more than the network must show what for."""
    rights = read(name).rights
    if rights.capabilities or rights.paths or rights.devices or rights.seccomp:
        assert name in STORIES
    elif rights.network.mode == "host":
        assert re.search(GOES_OUT[name], source(name)), f"{name} goes nowhere"


def granted_methods() -> list[tuple[str, str, str]]:
    found = []
    for name in NAMES:
        for slot, use in read(name).used_slots():
            spec = slot_of(find(slot, use.version))
            found += [(name, slot, m) for m in use.methods or tuple(spec.methods)]
    return found


@pytest.mark.parametrize(("name", "slot", "method"), granted_methods())
def test_granted_methods_are_called(name: str, slot: str, method: str) -> None:
    assert re.search(rf"\.{method}\(", source(name)), f"{name} never calls {slot}.{method}"


def _without_imports(text: str) -> str:
    return re.sub(r"^from \S+ import (\([^)]*\)|.*)$", "", text, flags=re.M)


@pytest.mark.parametrize("name", NAMES)
def test_slots_that_are_used_and_heard_are_asked_for(name: str) -> None:
    text, found = _without_imports(source(name)), read(name)
    for slot, use in found.used_slots():
        protocol = find(slot, use.version).__name__
        every = f"Every{protocol.removesuffix('s')}"  # of sagong.drivers: all instances as one
        assert re.search(rf"\b({protocol}|{every})\b", text), f"{name} never uses {slot}"
    for slot, hears in found.hears.items():
        protocol = find(slot, hears.version).__name__
        assert re.search(rf"\b{protocol}\b", text), f"{name} never hears {slot}"
        assert re.search(r"\bhear\b", text), f"{name} never hears anybody"


@pytest.mark.parametrize("name", NAMES)
def test_listeners_are_taken(name: str) -> None:
    for listener in read(name).listens:
        assert re.search(rf"""listener\(\s*["']{listener}["']""", source(name)), listener


@pytest.mark.parametrize("name", NAMES)
def test_streams_are_connected_to(name: str) -> None:
    if read(name).streams:
        assert re.search(r"open_unix_connection|AF_UNIX|create_unix_connection", source(name))
