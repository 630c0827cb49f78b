"""Companions: programs of a plugin's package that run outside its sandbox, with full rights.

There is one today, the runtime's launcher. They are few, named in the manifests with their reason,
and looked after like plugins: adopted by a new kernel, started again when they die. That of a unit on
demand sleeps with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sagong.config import Paths
from sagong.kernel.journal import ProcessRecord
from sagong.kernel.units import Unit
from sagong.linux.process import ProcessId, open_identified, start_time
from sagong.shim.interpreter import arguments, readonly_view

if TYPE_CHECKING:
    from sagong.kernel.cell import Cells

__all__ = ["Companions"]

_LOG = logging.getLogger("sagong.kernel")
_REST_SECONDS = 1.0


class Companions:
    """All companions, by unit."""

    def __init__(self, paths: Paths, cells: Cells, changed: Callable[[], None]) -> None:
        self._paths = paths
        self._cells = cells
        self._changed = changed
        self._records: dict[str, tuple[ProcessRecord, Unit | None, int]] = {}
        self._stopping = False
        self._children: list[subprocess.Popen[bytes]] = []

    def records(self) -> tuple[ProcessRecord, ...]:
        """For the journal."""
        return tuple(record for record, _, _ in self._records.values())

    def adopt(self, records: tuple[ProcessRecord, ...]) -> None:
        """Take over those of an earlier kernel that live."""
        for record in records:
            pidfd = open_identified(ProcessId(record.pid, record.started))
            if pidfd is not None:
                self._watch(record, None, pidfd)

    def ensure(self, unit: Unit) -> None:
        """Start the unit's companion unless it runs."""
        known = self._records.get(unit.name)
        if known is not None:
            self._records[unit.name] = (known[0], unit, known[2])
            return
        companion = unit.manifest.companion
        assert companion is not None
        log = self._cells.open_log(f"{unit.name}-companion")
        try:
            child = self._executed(
                unit, [self._fill(unit, word) for word in companion.command], log
            )
        finally:
            os.close(log)
        self._children = [c for c in self._children if c.poll() is None] + [child]
        record = ProcessRecord(
            unit=unit.name,
            identity=unit.identity,
            plugin=unit.manifest.plugin.name,
            generation=0,
            pid=child.pid,
            started=start_time(child.pid),
            since=time.time(),
            state="running",
        )
        self._watch(record, unit, os.pidfd_open(child.pid))
        self._changed()

    def _executed(self, unit: Unit, words: list[str], log: int) -> subprocess.Popen[bytes]:
        if words[0] != "{lean}":
            return _begun(words, log)
        module, *rest = words[1:]
        root = str(self._cells.programs.package(unit).parent)
        text = f"from {module} import main\nmain(*sys.argv[1:])"
        view = readonly_view()
        try:
            # It outlives this process: nothing of its environment is for it but where programs are.
            environment = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}
            program = f"/proc/{os.getpid()}/fd/{view}"  # the child's own is closed by then
            return _begun(arguments(text, root, rest), log, program, environment)
        finally:
            os.close(view)

    def renew(self, unit: str) -> bool:
        """End the unit's companion, so that a new one of the present code follows; false for none."""
        known = self._records.get(unit)
        if known is None:
            return False
        _terminate(known[2])
        return True

    def drop(self, name: str) -> None:
        """End a unit's companion, if it has one, until it is needed again; what it started lives on."""
        known = self._records.get(name)
        if known is not None:
            self._records[name] = (known[0], None, known[2])
            _terminate(known[2])

    def stop(self) -> None:
        """End all; what they started lives on."""
        self._stopping = True
        for _, _, pidfd in self._records.values():
            _terminate(pidfd)

    def _fill(self, unit: Unit, word: str) -> str:
        places = {
            "{python}": sys.executable,
            "{own}": str(self._cells.run_directory(unit)),
            "{uid}": str(self._cells.uid(unit)),
        }
        return self._paths.expand(places.get(word, word))

    def _watch(self, record: ProcessRecord, unit: Unit | None, pidfd: int) -> None:
        self._records[record.unit] = (record, unit, pidfd)
        asyncio.get_running_loop().add_reader(pidfd, self._gone, record)

    def _gone(self, record: ProcessRecord) -> None:
        known, unit, pidfd = self._records.pop(record.unit)
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        for child in self._children:
            child.poll()
        self._changed()
        if unit is not None and not self._stopping:
            wait = 0.0 if time.time() - known.since > _REST_SECONDS else _REST_SECONDS
            asyncio.get_running_loop().call_later(wait, self._again, unit)

    def _again(self, unit: Unit) -> None:
        if self._stopping:
            return
        try:
            self.ensure(unit)
        except OSError as error:
            _LOG.error("a companion does not start: %s", error, extra={"unit": unit.name})
            asyncio.get_running_loop().call_later(_REST_SECONDS, self._again, unit)


def _terminate(pidfd: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended, and its pidfd says so in a moment
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)


def _begun(
    words: list[str],
    log: int,
    program: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        words,
        executable=program,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
