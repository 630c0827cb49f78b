"""Scopes of systemd: names, properties, the messages of D-Bus, and what the manager may answer."""

from __future__ import annotations

import subprocess
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from tests.unit.runtime.fake_bus import FakeBus

from sagong.shim.failure import StartError
from sagong_runtime_linux.oci.dbus import Bus, BusError
from sagong_runtime_linux.oci.dbus_messages import CALL, HEAD_SIZE, Message, Variant, length_of
from sagong_runtime_linux.oci.scopes import (
    Scope,
    device_properties,
    limit_properties,
    properties_of,
    scope_of,
)
from sagong_runtime_linux.oci.systemd import connected

_INFINITE = (1 << 64) - 1
_EXISTS = "org.freedesktop.systemd1.UnitExists"
_GONE = "org.freedesktop.systemd1.NoSuchUnit"


@pytest.mark.parametrize(
    ("path", "unit", "cgroup"),
    [
        ("machine.slice:libpod:1f", "libpod-1f.scope", "machine.slice/libpod-1f.scope"),
        ("a-b-c.slice:cri:x", "cri-x.scope", "a.slice/a-b.slice/a-b-c.slice/cri-x.scope"),
        (":libpod:x", "libpod-x.scope", "system.slice/libpod-x.scope"),
        ("-.slice::x", "x.scope", "x.scope"),
        ("", "sagong-runtime-box.scope", "system.slice/sagong-runtime-box.scope"),
    ],
)
def test_a_cgroups_path_names_a_scope_in_nested_slices(path: str, unit: str, cgroup: str) -> None:
    scope = scope_of(path, "box", default="system.slice")
    assert (scope.unit, scope.path("/")) == (unit, cgroup)
    below = scope.path("/user.slice/user-7.slice/user@7.service")
    assert below == f"user.slice/user-7.slice/user@7.service/{cgroup}"


@pytest.mark.parametrize(
    "path",
    [
        *("/a/b", "a:b", "a-.slice:x:y", "-a.slice:x:y", "a--b.slice:x:y", ".slice:x:y", "a:x:y"),
        *("a.slice:x:", "a.slice:x:y.slice", "a.slice:x:y z", f"a.slice:x:{'y' * 250}"),
    ],
)
def test_what_names_no_scope_is_refused_with_its_key(path: str) -> None:
    with pytest.raises(StartError, match=r"linux\.cgroupsPath: ") as told:
        scope_of(path, "box", default="system.slice")
    assert told.value.code == "invalid_argument"


def test_files_of_limits_have_the_properties_that_runc_gives_them() -> None:
    found = limit_properties(
        [
            ("memory.max", "67108864"),
            ("memory.swap.max", "max"),
            ("memory.low", "5"),
            ("pids.max", "50"),
            ("cpu.weight", "39"),
            ("cpu.max", "12345 100000"),
            ("cpuset.cpus", "0-1,9"),
            ("cpuset.mems", "0"),
            ("io.max", "8:0 rbps=1"),
        ]
    )
    assert dict(found) == {
        "MemoryMax": Variant("t", 67108864),
        "MemorySwapMax": Variant("t", _INFINITE),
        "MemoryLow": Variant("t", 5),
        "TasksMax": Variant("t", 50),
        "CPUWeight": Variant("t", 39),
        "CPUQuotaPeriodUSec": Variant("t", 100000),
        "CPUQuotaPerSecUSec": Variant("t", 130000),
        "AllowedCPUs": Variant("ay", b"\x03\x02"),
        "AllowedMemoryNodes": Variant("ay", b"\x01"),
    }
    assert dict(limit_properties([("cpu.max", "max 50000"), ("pids.max", "max")])) == {
        "CPUQuotaPeriodUSec": Variant("t", 50000),
        "CPUQuotaPerSecUSec": Variant("t", _INFINITE),
        "TasksMax": Variant("t", _INFINITE),
    }
    idle = [("cpu.weight", "39"), ("cpu.idle", "1")]
    assert limit_properties(idle) == [("CPUWeight", Variant("t", 0))]
    for file, value in (("memory.high", "much"), ("cpu.max", "1 2 3"), ("cpuset.cpus", "x")):
        with pytest.raises(StartError, match=file):
            limit_properties([(file, value)])


def test_device_rules_are_systemds_when_all_of_them_can_be() -> None:
    groups = {("c", "136"): "pts"}
    rules = ["c *:* m", "b *:* m", "c 1:3 rwm", "c 136:* rw"]
    policy, emptied, allowed = device_properties(rules, groups)
    assert policy == ("DevicePolicy", Variant("s", "strict"))
    assert emptied == ("DeviceAllow", Variant("a(ss)", []))
    nodes = [("char-*", "m"), ("block-*", "m"), ("/dev/char/1:3", "rwm"), ("char-pts", "rw")]
    assert allowed == ("DeviceAllow", Variant("a(ss)", nodes))
    for unsaid in ("a", "c 137:* rwm", "c *:3 rwm"):
        properties = device_properties([*rules, unsaid], groups)
        assert properties[0] == ("DevicePolicy", Variant("s", "auto"))
        assert properties[1:] == [("DeviceAllow", Variant("a(ss)", []))]


def test_annotations_become_properties_by_their_type() -> None:
    key = "org.systemd.property."
    texts = {
        "TimeoutStopUSec": "uint64 5",
        "TimeoutStopSec": "2",
        "KillSignal": "37",
        "CollectMode": "'inactive-or-failed'",
        "SendSIGHUP": "true",
        "After": "['a.service', \"b.service\"]",
    }
    scope = Scope("x.scope", "a.slice")
    names = {f"{key}{name}": text for name, text in texts.items()}
    found = properties_of(scope, "box", {**names, "other": "1"})[8:]
    assert found == [
        ("TimeoutStopUSec", Variant("t", 5)),
        ("TimeoutStopUSec", Variant("t", 2_000_000)),
        ("KillSignal", Variant("i", 37)),
        ("CollectMode", Variant("s", "inactive-or-failed")),
        ("SendSIGHUP", Variant("b", value=True)),
        ("After", Variant("as", ["a.service", "b.service"])),
    ]
    for name, text in (("Slice", "'b.slice'"), ("X", "(1, 2)"), ("X", "nonsense"), ("", "1")):
        with pytest.raises(StartError, match="annotations: "):
            properties_of(scope, "box", {f"{key}{name}": text})


def test_messages_come_back_as_they_were_written() -> None:
    properties = [
        ("Slice", Variant("s", "ä.slice")),
        ("Delegate", Variant("b", value=True)),
        ("PIDs", Variant("au", [1, 2])),
        ("AllowedCPUs", Variant("ay", b"\x03\x02")),
        ("DeviceAllow", Variant("a(ss)", [("/dev/char/1:3", "rwm")])),
        ("CPUWeight", Variant("t", _INFINITE)),
    ]
    fields = {"path": "/a", "interface": "b.c", "member": "D", "destination": "e.f"}
    fields["signature"] = "ssa(sv)a(sa(sv))nqixdgy"
    values: tuple[Any, ...] = ("x", "y", properties, [], -1, 2, -3, 1 << 40, 0.5, "a{sv}", 7)
    data = Message(CALL, 9, fields, values).encode()
    assert length_of(data[:HEAD_SIZE]) == len(data)
    found = Message.decode(data)
    assert found.fields == fields
    plain = [
        (name, list(value.value) if value.signature == "ay" else value.value)
        for name, value in properties
    ]
    assert found.values == ("x", "y", plain, *values[3:])
    for broken in (data[:-1], data[:40], b"l" + bytes(40)):
        with pytest.raises(ValueError, match="D-Bus"):
            Message.decode(broken)


@pytest.mark.skipif(which("dbus-daemon") is None, reason="needs dbus-daemon (package dbus-daemon)")
def test_a_real_bus_understands_us(tmp_path: Path) -> None:
    address = f"unix:path={tmp_path}/bus"
    words = ["dbus-daemon", "--session", "--nofork", "--nopidfile", "--print-address"]
    with subprocess.Popen(
        [*words, f"--address={address}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as daemon:
        try:
            assert daemon.stdout is not None and daemon.stdout.readline()
            with Bus(address, seconds=60) as bus:
                name = "org.freedesktop.DBus"
                where = (name, "/org/freedesktop/DBus")
                (names,) = bus.call(*where, name, "ListNames")
                assert name in names
                (facts,) = bus.call(*where, name, "GetConnectionCredentials", "s", names[-1])
                assert ("ProcessID" in dict(facts)) and ("UnixUserID" in dict(facts))
                bus.call(*where, name, "UpdateActivationEnvironment", "a{ss}", [("A", "b")])
                with pytest.raises(BusError) as told:
                    bus.call(*where, name, "Nonsense")
                assert told.value.name == f"{name}.Error.UnknownMethod"
        finally:
            daemon.terminate()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the bus is, whoever we are."""
    for name in ("DBUS_SYSTEM_BUS_ADDRESS", "DBUS_SESSION_BUS_ADDRESS"):
        monkeypatch.setenv(name, f"unix:path={tmp_path}/bus")
    return tmp_path


_WANTED: list[Any] = [("Slice", Variant("s", "a.slice"))]


def test_a_scope_is_made_when_its_job_is_done(here: Path) -> None:
    with FakeBus(here) as bus, connected() as manager:
        manager.start_scope("box.scope", _WANTED, 77)
    assert bus.calls() == ["Hello", "AddMatch", "Subscribe", "StartTransientUnit"]
    asked = bus.asked[-1][1]
    assert asked == ("box.scope", "replace", [("Slice", "a.slice"), ("PIDs", [77])], [])


def test_a_failed_scope_of_before_gives_way_once(here: Path) -> None:
    with FakeBus(here, failures={"StartTransientUnit": [_EXISTS]}) as bus, connected() as manager:
        manager.start_scope("box.scope", _WANTED, 77)
    assert bus.calls()[3:] == ["StartTransientUnit", "ResetFailedUnit", "StartTransientUnit"]
    (here / "bus").unlink()
    with (
        FakeBus(here, failures={"StartTransientUnit": [_EXISTS, _EXISTS]}),
        pytest.raises(StartError, match="UnitExists"),
        connected() as manager,
    ):
        manager.start_scope("box.scope", _WANTED, 77)


def test_a_job_that_fails_or_never_ends_is_an_error(here: Path) -> None:
    with (
        FakeBus(here, results=("timeout",)) as bus,
        pytest.raises(StartError, match=r"systemd: starting box\.scope: timeout"),
        connected() as manager,
    ):
        manager.start_scope("box.scope", _WANTED, 77)
    assert bus.calls()[-1] == "ResetFailedUnit"
    (here / "bus").unlink()
    with (
        FakeBus(here, silent=True),
        pytest.raises(StartError, match=r"bus: no answer in 0\.2 s") as told,
        connected(seconds=0.2) as manager,
    ):
        manager.start_scope("box.scope", _WANTED, 77)
    assert told.value.code == "deadline_exceeded"


def test_a_scope_that_is_gone_is_ended(here: Path) -> None:
    with FakeBus(here, failures={"StopUnit": [_GONE]}) as bus, connected() as manager:
        manager.stop("box.scope")
    assert bus.calls()[-2:] == ["StopUnit", "ResetFailedUnit"]


def test_who_is_no_bus_is_told_with_what_to_do(here: Path) -> None:
    with pytest.raises(StartError, match=r"no such file.*cgroupfs manager") as told, connected():
        pass
    assert told.value.code == "unavailable"
    for greeting, text in (
        (b"REJECTED EXTERNAL\r\n", "it refuses us: REJECTED EXTERNAL"),
        (b"", "it closed the connection"),
        (b"x" * 5000, "it speaks no D-Bus"),
    ):
        with (
            FakeBus(here, greeting=greeting),
            pytest.raises(StartError, match=text),
            connected(seconds=20),
        ):
            pass
        (here / "bus").unlink()
