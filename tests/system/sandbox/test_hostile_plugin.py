"""A hostile plugin in a running instance: all that it tries is refused or contained, and said once."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import mmap
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from greeting_contract import Desk, Guest, Inquiry
from hostile_contract import Attack, Hostile
from tests.system.instance import Instance, instance

from sagong.bus.unfinished import GROWTH
from sagong.errors import SagongError
from sagong.linux import syscalls
from sagong.linux.cgroup import Cgroup, layout_of_machine
from sagong.linux.cgroup_statistics import statistics
from sagong.operator import connect

pytestmark = pytest.mark.root

CONFIGURATION = """
profile = "bare"
log_limit = 1000000
uid_base = 61700
[units.state-local]
plugin = "state_sqlite"
instance = "local"
[units.greeter]
[units.desk]
[units.hostile]
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    """One instance for all tests of this module."""
    with instance(CONFIGURATION) as found:
        yield found


@pytest.fixture
def calm(running: Instance) -> Iterator[Instance]:
    """It is as if nothing had happened, before and after."""
    running.wait_ready()
    yield running
    data = running.paths.data / "plugins" / "hostile"
    for file in data.glob("*"):
        file.unlink()
    running.run("restart", "hostile", check=False)
    running.wait_ready()


def attack(running: Instance, name: str, **facts: str) -> dict[str, str]:
    """What came of an attack."""

    async def go() -> dict[str, str]:
        async with connect(running.paths) as operator:
            hostile = await operator.use(Hostile)
            return (await hostile.attack(Attack(name=name, facts=facts))).found

    return asyncio.run(go())


def begin(running: Instance, name: str, **facts: str) -> None:
    """Let it try something without end."""

    async def go() -> None:
        async with connect(running.paths) as operator:
            hostile = await operator.use(Hostile)
            await hostile.begin(Attack(name=name, facts=facts))

    asyncio.run(go())


def greets(running: Instance, times: int = 20) -> None:
    """An innocent pair goes on: the desk asks the greeter."""

    async def go() -> None:
        async with connect(running.paths) as operator:
            desk = await operator.use(Desk)
            for _ in range(times):
                words = await desk.ask(Inquiry(guest=Guest(name="Ann")))
                assert words.text == "hello Ann"

    asyncio.run(go())


def log_of(running: Instance, name: str) -> str:
    return (running.paths.run / "log" / f"{name}.log").read_text(errors="replace")


def wait(condition: Callable[[], object], running: Instance, seconds: float = 60.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, running.logs()
        time.sleep(0.1)


def said(running: Instance, log: str, message: str) -> int:
    """How often a log says it at first: what has followed is a number there, now and then."""
    found = re.findall(rf"WARNING \S+ {message}.*", log_of(running, log))
    return sum(not re.search(r" times=\d", line) for line in found)


def test_files_of_others_are_not_there(running: Instance) -> None:
    state = running.paths.data / "plugins" / "state_sqlite@local"
    database = next(state.glob("*.db*"), state / "state.db")
    paths = [
        Path("/etc/shadow"),
        Path("/root/.bashrc"),
        database,
        running.paths.etc / "sagong.toml",
        running.paths.data / "kernel" / "choices.json",
        running.paths.run / "kernel" / "processes.json",
        running.paths.run / "log" / "kernel.log",
        Path("/proc/1/environ"),
        Path("/proc/kcore"),
    ]
    found = attack(running, "read files", **{f"read {p}": str(p) for p in paths})
    assert set(found.values()) <= {"ENOENT", "EACCES", "EPERM"}, found
    assert len(found) == len(paths)


def test_it_sees_only_sockets_that_it_may_call(running: Instance) -> None:
    slots, data = running.paths.run / "slots", running.paths.data / "plugins"
    shown = attack(running, "list places", **{"list 1": str(slots), "list 2": str(data)})
    assert shown[str(slots)] in ("greeter hostile", "EACCES")
    assert shown[str(data)] in ("hostile", "EACCES")


def test_nothing_of_others_can_be_written(running: Instance) -> None:
    slots = running.paths.run / "slots"
    others = {f"write {n}": str(slots / n) for n in ("greeter", "greeter/bus", "state-local")}
    found = attack(running, "write files", **others)
    assert set(found.values()) <= {"EROFS", "EACCES", "ENOENT", "EPERM"}, found


def test_processes_of_others_are_out_of_reach(running: Instance) -> None:
    pid = running.pid("greeter")
    found = attack(running, "touch processes", pid=str(pid))
    assert set(found.values()) <= {"ENOENT", "EPERM", "EACCES", "ESRCH"}, found
    assert running.pid("greeter") == pid


def test_powers_can_not_be_raised(running: Instance) -> None:
    found = attack(running, "raise powers")
    assert set(found.values()) <= {"EPERM", "EACCES"}, found


def test_nobody_outside_is_reached(running: Instance) -> None:
    name = f"sagong-hostile-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as hidden:
        hidden.bind("\0" + name)
        hidden.listen()
        slots = running.paths.run / "slots"
        buses = {f"unix {p}": str(p) for p in slots.glob("state-local/bus/*/s")}
        docker = {"unix docker": "/var/run/docker.sock"}
        port = str(server.getsockname()[1])
        found = attack(running, "connect out", port=port, abstract=name, **buses, **docker)
    assert len(found) == 7 + 2
    refused = {"ENETUNREACH", "EPERM", "ECONNREFUSED", "ENOENT", "EACCES"}
    assert set(found.values()) <= refused, found


def test_identities_can_not_be_forged(running: Instance) -> None:
    state = next(u for u in running.status().units if u.name == "state-local")
    generation = str(state.processes[0].generation)
    found = attack(running, "forge identity", unit="state-local", generation=generation)
    assert found == {
        "another unit": "permission_denied",
        "a generation that is not": "not_found",
        "with another's cause": "permission_denied",
        "with root's routing id": "permission_denied",
        "done for another": "permission_denied",
    }
    assert "uid" in log_of(running, "kernel")
    assert said(running, "kernel", 'call refused .*kernel/1/attend"') == 1


def test_methods_that_are_not_granted_are_refused(running: Instance) -> None:
    found = attack(running, "call ungranted")
    assert found.pop("greeting granted") == "done"
    assert found.pop("greeting unknown") == "unimplemented"
    assert set(found.values()) == {"permission_denied"}, found
    assert said(running, "kernel", 'call refused caller="hostile" method="kernel/1/stop"') == 1
    assert said(running, "greeter", 'call refused caller="hostile" method="greeting/1/events"') == 1


def test_processes_tmp_and_files_are_bounded(running: Instance) -> None:
    bomb = attack(running, "fork bomb")
    assert bomb["fork"] == "EAGAIN"
    assert int(bomb["children"]) < 32
    assert attack(running, "fill tmp") == {"tmp": "ENOSPC"}
    assert attack(running, "big file") == {"file": "EFBIG"}
    wait(lambda: said(running, "kernel", 'forks refused unit="hostile"'), running)


def test_who_eats_memory_is_ended_alone(calm: Instance) -> None:
    before = calm.pid("greeter")
    begin(calm, "eat memory")
    wait(lambda: said(calm, "kernel", 'out of memory unit="hostile"'), calm)
    calm.wait_ready()
    assert calm.pid("greeter") == before
    greets(calm)


def test_who_computes_without_end_has_no_more_than_its_core(calm: Instance) -> None:
    """Thirty processes that spin have one core together, so whoever else there is has the rest."""
    begin(calm, "forks")
    wait(lambda: len(group_of(calm, "hostile").pids()) > 20, calm)
    group = group_of(calm, "hostile")
    began, before = time.monotonic(), statistics(group).cpu_total
    time.sleep(2.0)
    used = (statistics(group).cpu_total - before) / 1e9 / (time.monotonic() - began)
    assert used < 1.2
    greets(calm)


def test_who_computes_gives_way_until_it_ends_that(calm: Instance) -> None:
    group, main = group_of(calm, "hostile"), calm.pid("hostile")
    usual = weight(group)
    begin(calm, "computes")
    wait(lambda: weight(group) < usual / 8, calm)
    if tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 12):
        assert {turns(pid) for pid in group.pids()} == {100_000_000}
    greets(calm)
    assert not is_held(group)
    kill_others(group, main)
    wait(lambda: weight(group) == usual, calm)


def turns(pid: int) -> int:
    """Nanoseconds that a process runs before who wakes goes first."""
    raw = ctypes.create_string_buffer(48)
    syscalls.call("sched_getattr", pid, raw, len(raw), 0)
    return int.from_bytes(raw.raw[24:32], sys.byteorder)


def weight(group: Cgroup) -> int:
    """Of a group beside others, in the words of either version."""
    place = Path(group.directory("cpu") or "")
    found = [place / name for name in ("cpu.shares", "cpu.weight") if (place / name).exists()]
    return int(found[0].read_text())


def group_of(running: Instance, name: str) -> Cgroup:
    """The control group of a unit's process."""
    lines = Path(f"/proc/{running.pid(name)}/cgroup").read_text().splitlines()
    own = running.paths.unit_group(name, "")
    path = next(line.split(":", 2)[2] for line in lines if own in line)
    return Cgroup(layout_of_machine(), path)


def is_held(group: Cgroup) -> bool:
    """Whether a group has next to no processor time: its quota, in the words of either version."""
    place = Path(group.directory("cpu") or "")
    found = [place / name for name in ("cpu.cfs_quota_us", "cpu.max") if (place / name).exists()]
    return found[0].read_text().split()[0] == "1000"


@pytest.mark.parametrize("flood", ["connections", "granted calls", "forks"])
def test_who_floods_is_held_back_and_said_once(calm: Instance, flood: str) -> None:
    """By the kernel, by a provider, and by what its control group refuses."""
    group = group_of(calm, "hostile")
    wait(lambda: not is_held(group), calm)
    before = said(calm, "kernel", 'unit held back for a moment unit="hostile"')
    begin(calm, flood)
    wait(lambda: is_held(group), calm)
    greets(calm)
    assert said(calm, "kernel", 'unit held back for a moment unit="hostile"') <= before + 1
    calm.run("restart", "hostile")
    calm.wait_ready()
    # A child that the last one left behind has the same uid until it is found.
    wait(lambda: not is_held(group_of(calm, "hostile")), calm)


def test_a_hold_ends_and_outlives_no_kernel(calm: Instance) -> None:
    group, main = group_of(calm, "hostile"), calm.pid("hostile")
    kernel = calm.pid("kernel")
    begin(calm, "forks")
    while True:
        wait(lambda: is_held(group), calm)
        os.kill(kernel, signal.SIGSTOP)  # or it would let go in time
        if is_held(group):
            break
        os.kill(kernel, signal.SIGCONT)
    kill_others(group, main)
    assert is_held(group)
    os.kill(kernel, signal.SIGKILL)
    wait(lambda: not is_held(group), calm)
    calm.wait_ready()
    assert calm.pid("kernel") != kernel


def kill_others(group: Cgroup, main: int) -> None:
    """All but the unit's own process."""
    for pid in group.pids():
        if pid != main:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_nobody_is_held_back_on_the_word_of_one_it_does_not_call(running: Instance) -> None:
    units = {u.name: u.processes[0].uid for u in running.status().units}
    uids = {f"uid {name}": str(units[name]) for name in ("greeter", "desk", "state-local")}
    assert set(attack(running, "accuse", **uids).values()) == {"done"}
    assert not any(is_held(group_of(running, name)) for name in ("greeter", "desk", "state-local"))


def test_children_end_with_their_generation(calm: Instance) -> None:
    begin(calm, "linger")
    uid = next(u for u in calm.status().units if u.name == "hostile").processes[0].uid
    wait(lambda: len(processes_of(uid)) == 2, calm)
    calm.run("restart", "hostile")
    wait(lambda: len(processes_of(uid)) == 1, calm)
    wait(lambda: said(calm, "kernel", 'processes left behind were ended unit="hostile"'), calm)


def processes_of(uid: int) -> list[str]:
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if place.stat().st_uid == uid:
                found.append(place.name)
        except OSError:
            continue
    return found


def test_a_full_directory_ends_its_owner(calm: Instance) -> None:
    uid = next(u for u in calm.status().units if u.name == "hostile").processes[0].uid
    begin(calm, "fill disk")
    wait(lambda: said(calm, "kernel", 'disk limit passed unit="hostile"'), calm, 60)
    wait(lambda: "limits.disk" in unit_problem(calm, "hostile"), calm)
    greets(calm)
    # What it left behind writes on until it is found, also where room has been made.
    wait(lambda: not processes_of(uid), calm)
    data = calm.paths.data / "plugins" / "hostile"
    for file in data.glob("*"):
        file.unlink()
    calm.run("restart", "hostile")
    calm.wait_ready()


def unit_problem(running: Instance, name: str) -> str:
    return next(u.problem for u in running.status().units if u.name == name)


@pytest.mark.parametrize("flood", ["log lines", "titles"])
def test_a_log_does_not_fill_the_disk(calm: Instance, flood: str) -> None:
    begin(calm, flood)
    wait(lambda: said(calm, "kernel", 'log cut unit="hostile"'), calm)
    log = calm.paths.run / "log" / "hostile.log"
    for _ in range(30):
        assert log.stat().st_size <= 16 << 20
        assert not (old := log.with_suffix(".log.1")).exists() or old.stat().st_size <= 1_000_000
        time.sleep(0.1)
    assert said(calm, "kernel", 'log cut unit="hostile"') <= 2
    greets(calm)


FLOODS = {
    "refused calls": ("kernel", "caller shut out for a moment"),
    "malformed": ("kernel", "malformed message refused"),
    "oversize": ("kernel", "malformed message refused"),
    "connections": ("kernel", "connection refused"),
    "streams": ("kernel", "caller shut out for a moment"),
    "reports": ("kernel", "caller shut out for a moment"),
    "endless": ("kernel", "message without an end refused"),
    "unfinished": ("kernel", "message without an end refused"),
}
# What the kernel may grow by: one owner's unfinished messages, and as much again until it is noticed.
ROOM = 2 * GROWTH


@pytest.mark.parametrize("flood", FLOODS)
def test_floods_of_the_bus_leave_the_others_alone(calm: Instance, flood: str) -> None:
    kernel, (log, message) = calm.pid("kernel"), FLOODS[flood]
    before, size = said(calm, log, message), resident(kernel)
    begin(calm, flood)
    wait(lambda: said(calm, log, message) > 0, calm)
    for _ in range(10):
        greets(calm, 5)
        assert resident(kernel) < size + ROOM
    assert calm.pid("kernel") == kernel
    assert said(calm, log, message) <= before + 1
    assert calm.status().units


def resident(pid: int) -> int:
    """Bytes in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * mmap.PAGESIZE


def test_who_floods_what_it_may_call_gets_its_share(calm: Instance) -> None:
    greeter = calm.pid("greeter")
    begin(calm, "granted calls")
    greets(calm, 100)
    assert calm.pid("greeter") == greeter


def test_events_without_end_stay_where_they_are(calm: Instance) -> None:
    begin(calm, "events")
    time.sleep(1.0)
    greets(calm, 50)


def test_one_that_never_answers_is_replaced(calm: Instance) -> None:
    begin(calm, "stubborn")
    old = calm.pid("hostile")
    calm.run("restart", "hostile")
    calm.wait_ready()
    assert calm.pid("hostile") != old
    wait(lambda: not Path(f"/proc/{old}").exists(), calm)


def test_a_huge_state_is_handed_over_or_left(calm: Instance) -> None:
    """48 MiB travel once; the kernel does not keep them."""
    begin(calm, "burden")
    calm.run("restart", "hostile")
    calm.wait_ready()
    greets(calm)


def test_an_unknown_attack_is_no_success(calm: Instance) -> None:
    with pytest.raises(SagongError):
        attack(calm, "nothing of the kind")
