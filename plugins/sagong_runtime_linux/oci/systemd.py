"""Scopes of systemd, made and ended by D-Bus: of the system's manager, or of the user's for others.

systemd makes a scope only with a process in it, so the container's first one asks for it on its way
(`JoinScope`). What has no property is written below the scope, which is ours (Delegate).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

from sagong.shim.failure import StartError
from sagong_runtime_linux.oci.caller import owner, run_directory
from sagong_runtime_linux.oci.dbus import Bus, BusError
from sagong_runtime_linux.oci.dbus_messages import Variant
from sagong_runtime_linux.oci.scopes import Property

__all__ = ["Systemd", "connected", "device_groups"]

_SECONDS = 30.0
_NAME = "org.freedesktop.systemd1"
_PATH = "/org/freedesktop/systemd1"
_MANAGER = (_NAME, _PATH, f"{_NAME}.Manager")
_JOBS = f"type='signal',sender='{_NAME}',interface='{_NAME}.Manager',member='JobRemoved'"
_EXISTS = f"{_NAME}.UnitExists"
_GONE = f"{_NAME}.NoSuchUnit"
_MODE = "replace"
_INSTEAD = "use the cgroupfs manager where systemd does not run"


def device_groups() -> dict[tuple[str, str], str]:
    """Names of major numbers, by "c" or "b" and the number."""
    found: dict[tuple[str, str], str] = {}
    kind = ""
    with open("/proc/devices", encoding="utf-8") as file:
        for line in file:
            number, _, name = line.strip().partition(" ")
            if name == "devices:":
                kind = number[:1].lower()
            elif number:
                found.setdefault((kind, number), name)
    return found


def _address() -> str:
    if owner() == 0:
        default = "unix:path=/run/dbus/system_bus_socket"
        return os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or default
    default = f"unix:path={run_directory()}/bus"
    return os.environ.get("DBUS_SESSION_BUS_ADDRESS") or default


@contextlib.contextmanager
def connected(*, seconds: float = _SECONDS) -> Iterator[Systemd]:
    """The caller's manager; an error says whom we did not reach."""
    try:
        with Bus(_address(), seconds=seconds) as bus:
            yield Systemd(bus)
    except BusError as error:
        raise StartError("failed_precondition", f"systemd: {error} ({error.name})") from None
    except StartError as error:
        text = f"systemd: {error.message}"
        if error.code == "unavailable":
            text += f"; {_INSTEAD}"
        raise StartError(error.code, text) from None


class Systemd:
    """A manager of units."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._hears = False

    def control_group(self) -> str:
        """The cgroup below which its units are."""
        name = "org.freedesktop.DBus.Properties"
        (found,) = self._bus.call(_NAME, _PATH, name, "Get", "ss", _MANAGER[2], "ControlGroup")
        return str(found)

    def start_scope(self, unit: str, properties: Sequence[Property], pid: int) -> None:
        """Make a scope with a process in it. What is left of one that failed gives way."""
        wanted = [*properties, ("PIDs", Variant("au", [pid]))]
        try:
            self._start(unit, wanted)
        except BusError as error:
            if error.name != _EXISTS:
                raise
            self._reset(unit)
            self._start(unit, wanted)

    def _start(self, unit: str, properties: Sequence[Property]) -> None:
        signature = "ssa(sv)a(sa(sv))"
        result = self._job("StartTransientUnit", signature, unit, _MODE, properties, [])
        if result != "done":
            self._reset(unit)
            raise StartError("failed_precondition", f"starting {unit}: {result}")

    def set_properties(self, unit: str, properties: Sequence[Property]) -> None:
        """Until the next boot, which the scope does not see."""
        if properties:
            arguments = ("sba(sv)", unit, True, properties)
            self._bus.call(*_MANAGER, "SetUnitProperties", *arguments)

    def stop(self, unit: str) -> None:
        """End a unit and forget that it failed; one that is gone is no error."""
        try:
            self._job("StopUnit", "ss", unit, _MODE)
        except BusError as error:
            if error.name != _GONE:
                raise
        self._reset(unit)

    def _reset(self, unit: str) -> None:
        with contextlib.suppress(BusError):
            self._bus.call(*_MANAGER, "ResetFailedUnit", "s", unit)

    def _job(self, member: str, *arguments: Any) -> str:
        """What became of a job: done, failed, timeout, canceled, …"""
        if not self._hears:
            self._bus.listen(_JOBS)
            # Without a subscriber systemd sends no signals.
            self._bus.call(*_MANAGER, "Subscribe")
            self._hears = True
        (job,) = self._bus.call(*_MANAGER, member, *arguments)
        values = self._bus.wait_signal("JobRemoved", lambda values: values[1] == job)
        return str(values[3])
