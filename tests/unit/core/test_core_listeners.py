"""Which listeners are open while a unit moves elsewhere, by its plugin or its configuration."""

from __future__ import annotations

import grp
import os
import socket
from pathlib import Path

import pytest

from sagong.config import Paths
from sagong.errors import InvalidArgument
from sagong.kernel.life import Coming, Life, Member
from sagong.kernel.listeners import Listeners, listen
from sagong.kernel.units import Unit
from sagong.manifest import Listener, parse


def unit(plugin: str, **listens: str) -> Unit:
    """A unit whose plugin has these listeners, by name: where."""
    text = f'''
    [plugin]
    name = "{plugin}"
    version = "1"
    summary = "of a test"
    class = "m:M"
    kind = "service"
    '''
    for name, path in listens.items():
        text += f'\n[listens.{name}]\naddress = "unix:{{run}}/{path}"\nwhy = "to be met"\n'
    return Unit("door", "", parse(text, where=plugin), plugin, {}, {})


OWNED = """
[plugin]
name = "owned"
version = "1"
summary = "of a test"
class = "m:M"
kind = "service"
[listens.front]
address = "unix:{{run}}/a"
mode = "0660"
group = "{group}"
why = "to be met"
"""
OLD, NEW = unit("old", front="a"), unit("new", front="b", back="c")
SERVES = Life(OLD, (Member(1, OLD, "serving"),), serving=1)
COMES = Life(
    OLD,
    (Member(1, OLD, "serving"), Member(2, NEW, "waiting")),
    serving=1,
    coming=Coming(2, NEW, 1, back=OLD),
)
FOLLOWED = Life(NEW, (Member(1, OLD, "draining"), Member(2, NEW, "serving")), serving=2)
ILL = Life(
    OLD,
    (Member(2, NEW, "serving"), Member(3, OLD, "waiting")),
    serving=2,
    coming=Coming(3, OLD, 2, apology="ill"),
)
BACK = Life(OLD, (Member(2, NEW, "draining"), Member(3, OLD, "serving")), serving=3)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """Of an instance that has a directory for its sockets."""
    found = Paths.below(tmp_path)
    found.run.mkdir(parents=True)
    return found


def met(paths: Paths) -> str:
    """Where somebody can connect."""
    found = ""
    for path in sorted(paths.run.iterdir()):
        with socket.socket(socket.AF_UNIX) as client:
            found += path.name if client.connect_ex(str(path)) == 0 else ""
    return found


def moving(paths: Paths, keeper: socket.socket | None = None) -> Listeners:
    """The newcomer has its listeners, and does not serve yet."""
    listeners = Listeners(paths, {}, keeper)
    for life, newcomer in ((SERVES, OLD), (COMES, NEW)):
        listeners.of(newcomer)
        listeners.follow(Life(OLD), life)
    assert met(paths) == "abc", "nobody is refused meanwhile"
    return listeners


def test_who_serves_at_last_has_his_own_alone(paths: Paths) -> None:
    listeners = moving(paths)
    listeners.follow(COMES, FOLLOWED)
    assert met(paths) == "bc"


def test_who_never_came_leaves_none(paths: Paths) -> None:
    listeners = moving(paths)
    listeners.follow(COMES, SERVES)
    assert met(paths) == "a"


def test_who_goes_back_within_the_trial_has_his_own_alone(paths: Paths) -> None:
    """Names that only the newcomer had stayed open until the kernel was started anew."""
    listeners = moving(paths)
    listeners.follow(COMES, FOLLOWED)
    listeners.of(OLD)
    listeners.follow(FOLLOWED, ILL)
    assert met(paths) == "abc"
    listeners.follow(ILL, BACK)
    assert met(paths) == "a"


def test_a_kernel_that_follows_knows_which_was_first(paths: Paths) -> None:
    """A keeper gives them back in the order in which they were opened."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kept = {}
    with ours, theirs:
        moving(paths, ours)
        for _ in range(3):
            word, descriptors, _, _ = socket.recv_fds(theirs, 4096, 1)
            kept[word.decode().removeprefix("keep ")] = descriptors[0]
    following = Listeners(paths, {name: os.dup(fd) for name, fd in kept.items()}, None)
    following.withdraw(OLD)
    assert len(list(paths.run.iterdir())) == 1
    for descriptor in kept.values():
        os.close(descriptor)
    assert met(paths) == "a"


@pytest.mark.root
def test_a_group_that_comes_later_gets_the_socket_with_the_next_process(paths: Paths) -> None:
    """As with the group that the client's package makes, on a machine where the platform runs."""
    wanted = grp.getgrnam("daemon").gr_gid
    text = OWNED.format(group="daemon")
    owned = Unit("door", "", parse(text, where="owned"), "owned", {}, {})
    listeners, path = Listeners(paths, {}, None), paths.run / "a"
    listeners.of(owned)
    assert (path.stat().st_gid, path.stat().st_mode & 0o777) == (wanted, 0o660)
    os.chown(path, 0, 0)  # as if there had been no such group
    listeners.of(owned)
    assert path.stat().st_gid == wanted
    os.chown(path, 0, 4321)  # somebody meant another one
    listeners.of(owned)
    assert path.stat().st_gid == 4321
    listeners.drop(owned)


@pytest.mark.parametrize("port", ["http", "65536", "-1"])
def test_what_is_no_port_is_told_in_one_line(port: str) -> None:
    """A number beyond all ports was an internal error, with a traceback in the kernel's log."""
    address = f"tcp:127.0.0.1:{port}"
    with pytest.raises(InvalidArgument, match="with numbers for ports"):
        listen(address, Listener(address, "to be met"))
