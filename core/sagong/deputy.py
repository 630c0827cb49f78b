"""Deputies: a part of a plugin in a process of its own, which holds rights instead of the plugin.

What parses requests and talks to everybody need not hold what only a few system calls need. A
manifest's `[deputy]` names a function; each right in it says who holds it. The function runs in a
fork of the plugin's process, in the same sandbox, before that has threads; then each gives up what
is the other's, for ever. They talk over a socket of whole messages, by a protocol of their own. It
ends when the plugin does; if it dies, so does the plugin, and both are started anew.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec

from sagong.linux import capabilities, process, seccomp, syscalls
from sagong.manifest import Manifest, Rights
from sagong.sandbox.syscall_groups import compiled_policy

__all__ = ["Appointed", "Deputation", "Holding", "Post", "appoint", "deputation", "hire"]


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """Capabilities of one of the two, and its filter of system calls (empty: the sandbox's)."""

    capabilities: tuple[str, ...] = ()
    filter: bytes = b""


class Deputation(msgspec.Struct, frozen=True, kw_only=True):
    """Which function (`module:name`), and who holds what; None where sandboxes are switched off."""

    function: str
    plugin: Holding | None = None
    deputy: Holding | None = None


def deputation(manifest: Manifest, *, confined: bool) -> Deputation | None:
    """What a manifest says of its deputy; `confined`: there is a sandbox, so rights are parted."""
    if manifest.deputy is None:
        return None
    function = manifest.deputy.function
    if not confined:
        return Deputation(function=function)
    plugin, deputy = (_holding(manifest.rights, holder) for holder in ("plugin", "deputy"))
    return Deputation(function=function, plugin=plugin, deputy=deputy)


def _holding(rights: Rights, holder: str) -> Holding:
    holders = (holder, "both")
    return Holding(
        capabilities=tuple(c.name for c in rights.capabilities if c.holder in holders),
        filter=compiled_policy([s.group for s in rights.seccomp if s.holder in holders]),
    )


class Post(NamedTuple):
    """What a deputy knows of its plugin's `Host`: the places and the settings."""

    data: Path
    run: Path
    root: Path
    settings: dict[str, Any]


class Appointed(NamedTuple):
    """The plugin's end of the socket, and the deputy's process."""

    channel: socket.socket
    pid: int


def appoint(deputation: Deputation, post: Post, title: str) -> Appointed:
    """Fork the deputy off this process, which has no threads yet, and part the rights."""
    ours, theirs = _channel()
    pid = os.fork()
    if pid == 0:
        try:
            process.set_title(title)
            _close_all_but(theirs.fileno())
            _hold(deputation.deputy)
            _function(deputation.function)(theirs, post)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(0)
    theirs.close()
    _hold(deputation.plugin)
    return Appointed(ours, pid)


def hire(function: str, post: Post) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """A deputy of a process that has threads already, with the same rights: for tests."""
    ours, theirs = _channel()
    places = [str(post.data), str(post.run), str(post.root)]
    with theirs:
        child = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(sys.path), function, *places],
            stdin=theirs.fileno(),
            env={**os.environ, "SAGONG_DEPUTY": json.dumps(post.settings)},
        )
    return ours, child


_START = (
    "import json,sys;sys.path[:]=json.loads(sys.argv[1]);"
    "from sagong.deputy import main;main(*sys.argv[2:])"
)


def main(function: str, *places: str) -> None:
    """Be a hired deputy; the socket is standard input."""
    settings = json.loads(os.environ.pop("SAGONG_DEPUTY"))
    channel = socket.socket(fileno=os.dup(0))
    _function(function)(channel, Post(*(Path(place) for place in places), settings))


def _channel() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _function(text: str) -> Callable[[socket.socket, Post], None]:
    module, _, name = text.partition(":")
    return cast(
        Callable[[socket.socket, Post], None], getattr(importlib.import_module(module), name)
    )


def _close_all_but(kept: int) -> None:
    """What the plugin was given, listeners among it, is not the deputy's."""
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))


def _hold(holding: Holding | None) -> None:
    """Exactly these, in every set that can be reduced without CAP_SETPCAP."""
    if holding is None:
        return
    # Without root there are none to part.
    mask = capabilities.mask_of(holding.capabilities) & syscalls.capget()[1]
    with contextlib.suppress(PermissionError):
        capabilities.drop_bounding(mask)
    capabilities.apply(capabilities.CapabilitySets(mask, mask, mask, mask, mask))
    if holding.filter:
        seccomp.load(holding.filter)
