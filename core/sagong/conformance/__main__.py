"""`python -m sagong.conformance PLUGIN`: put an installed plugin to the suites of its slots.

One line a check; status 1 if one fails, 2 if the plugin can't be put to a suite here. Where the
suite allows, all runs in the sandbox that the plugin's manifest describes, below `--uid`; where it
needs a machine of its own, each check has one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
import traceback
from collections.abc import Collection
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import uvloop

from sagong import manifest
from sagong.conformance.candidate import Candidate
from sagong.conformance.rigs import RIGS, Rig
from sagong.conformance.scratch import scratch
from sagong.errors import FailedPrecondition, NotFound, SagongError
from sagong.linux import process
from sagong.manifest import Manifest, size_bytes
from sagong.process import configure_logging
from sagong.sandbox import Plan, ProcessLimits, Rights, plan, probe
from sagong.testing import Check, check_name, checks

__all__ = ["main"]

_CHECK_SECONDS = 60.0
# What is left to a check on a machine of its own for taking that away.
_SLACK_SECONDS = 15.0
_SAID = 4096
_SUITES = Path(__file__).parent


def main() -> None:
    """Run the suites of every slot that the plugin provides."""
    parser = argparse.ArgumentParser(prog="sagong.conformance", description=__doc__)
    parser.add_argument("plugin", help="name of an installed plugin")
    parser.add_argument(
        "--short-for",
        action="append",
        default=[],
        metavar="SLOT",
        help="let binpack be short for SLOT_binpack",
    )
    parser.add_argument(
        "--package", default="", help="where it is, of one that no entry point names"
    )
    parser.add_argument("--uid", type=int, default=0, help="uid of the sandbox; 0 for no sandbox")
    parser.add_argument(
        "--only", action="append", default=[], metavar="CHECK", help="only this one, or these"
    )
    options = parser.parse_args()
    try:
        named = options.package
        package, found = (
            (named, manifest.load(named)) if named else _find(options.plugin, options.short_for)
        )
        raise SystemExit(_rehearse(package, found, options.uid, frozenset(options.only)))
    except SagongError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error


def _find(name: str, slots: list[str]) -> tuple[str, Manifest]:
    installed = manifest.discover()
    for full in (*(f"{slot}_{name}" for slot in slots), name):
        package = installed.get(full, f"sagong_{full}")
        try:
            return package, manifest.load(package)
        except NotFound:
            continue
    raise NotFound(f"no plugin {name} is installed; see `sagong plugins`")


def _rehearse(package: str, found: Manifest, uid: int, only: Collection[str]) -> int:
    rigs = {slot: _rig(slot, found) for slot in found.provides}
    if not rigs:
        name = found.plugin.name
        raise FailedPrecondition(f"{name} provides no slot, so there is no suite for it")
    todo = {slot: _chosen(slot, only) for slot in rigs}
    unknown = sorted(
        set(only) - {check_name(check) for chosen in todo.values() for check in chosen}
    )
    if unknown:
        raise NotFound(f"no check {', '.join(unknown)} in the suites of {', '.join(rigs)}")
    return max([_apart(Trial(s, rig, todo[s], package, found), uid) for s, rig in rigs.items()])


def _chosen(slot: str, only: Collection[str]) -> list[Check]:
    suite = checks(import_module(f"sagong.conformance.{slot}"))
    return [check for check in suite if not only or check_name(check) in only]


def _rig(slot: str, found: Manifest) -> Rig:
    name = found.plugin.name
    if slot not in RIGS:
        raise FailedPrecondition(
            f"{name}: slot {slot} has no rig that can be made here; its suite is run by the tests "
            f"alone (there are rigs for {', '.join(sorted(RIGS))})"
        )
    rig = RIGS[slot] if found.plugin.class_ else RIGS[slot].program
    if rig is None:
        raise FailedPrecondition(
            f"{name} is a program of its own, which can't be hosted beside the suite of {slot}"
        )
    missing = rig.missing()
    if missing:
        raise FailedPrecondition(f"{name} can't be put to the suite of {slot}: {missing}")
    return rig


@dataclass(frozen=True)
class Trial:
    """A plugin before a slot's suite."""

    slot: str
    rig: Rig
    checks: list[Check]
    package: str
    found: Manifest


def _apart(trial: Trial, uid: int) -> int:
    """In a child, confined as the plugin will be; its exit status."""
    found = trial.found
    with scratch() as base:
        confined = trial.rig.sandboxed and uid > 0 and _grants_nothing(found)
        todo = _plan(found, str(base), uid) if confined else None
        where = "in its sandbox" if confined else "outside its sandbox"
        if trial.rig.shared:
            where = "on a platform of its own"
        count = f"{len(trial.checks)} checks"
        print(
            f"{found.plugin.name} against the suite of {trial.slot}, {where}: {count}", flush=True
        )
        pid = os.fork()
        if pid == 0:
            _become(todo, trial)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _grants_nothing(found: Manifest) -> bool:
    """Paths, devices and the machine's network would be those of the running system."""
    rights = found.rights
    return not (rights.paths or rights.devices or rights.network.mode != "none")


def _plan(found: Manifest, base: str, uid: int) -> Plan:
    rights, limits = found.rights, found.limits
    for name in ("data", "run", "stage"):
        os.mkdir(f"{base}/{name}")
        os.chown(f"{base}/{name}", uid if name != "stage" else 0, -1)
    wanted = Rights(
        name=found.plugin.name,
        uid=uid,
        gid=uid,
        capabilities=tuple(c.name for c in rights.capabilities),
        data=f"{base}/data",
        run=f"{base}/run",
        seccomp=tuple(s.group for s in rights.seccomp),
        limits=ProcessLimits(
            memory=size_bytes(limits.memory),
            pids=limits.pids,
            cores=limits.cpu,
            files=limits.files,
            tmp=size_bytes(limits.tmp),
        ),
    )
    return plan(wanted, probe(stage=f"{base}/stage"), descriptors=(0, 1, 2))


def _become(todo: Plan | None, trial: Trial) -> None:
    code = 70
    try:
        configure_logging()
        if todo is not None:
            todo.apply()
        code = _run(trial)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(trial: Trial) -> int:
    candidate = _candidate(trial.package, trial.found)
    began = time.monotonic()
    if trial.rig.shared:
        failed = _all_on_one(trial, candidate)
    else:
        failed = 0
        for check in trial.checks:
            then = time.monotonic()
            problem = _problem(trial.rig, candidate, check)
            failed += _tell(check, then, problem)
    took = f"{len(trial.checks)} checks, {time.monotonic() - began:.1f} s"
    verdict = f"{failed} checks failed" if failed else "conforms"
    print(f"{trial.slot}: {verdict} ({took})", flush=True)
    return 1 if failed else 0


def _tell(check: Check, began: float, problem: str) -> bool:
    """One line a check; whether it failed."""
    if problem:
        print(f"FAILED {check_name(check)}: {problem}", flush=True)
    else:
        print(f"ok {check_name(check)} ({time.monotonic() - began:.2f} s)", flush=True)
    return bool(problem)


def _all_on_one(trial: Trial, candidate: Candidate) -> int:
    """How many checks fail on the lab that all of them have; all, if it can't be made."""
    if trial.rig.enter is not None:
        trial.rig.enter()

    async def run() -> int:
        failed = 0
        async with trial.rig.lab(candidate) as lab:
            for check in trial.checks:
                began = time.monotonic()
                failed += _tell(check, began, await _tried(check, lab))
        return failed

    try:
        return uvloop.run(run())
    except SagongError as error:
        print(f"FAILED before the first check: {_reason(error)}", flush=True)
        return len(trial.checks)


async def _tried(check: Check, lab: object) -> str:
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            await check(lab)
    except Exception as error:
        return _reason(error)
    return ""


def _problem(rig: Rig, candidate: Candidate, check: Check) -> str:
    """What a check says against the candidate; "" if nothing."""
    if rig.enter is None:
        return uvloop.run(_one(rig, candidate, check))
    return _on_a_machine_of_its_own(rig, candidate, check)


async def _one(rig: Rig, candidate: Candidate, check: Check) -> str:
    try:
        async with asyncio.timeout(_CHECK_SECONDS), rig.lab(candidate) as lab:
            return await _tried(check, lab)
    except Exception as error:
        return _reason(error)


def _on_a_machine_of_its_own(rig: Rig, candidate: Candidate, check: Check) -> str:
    """A child's answer; one that hangs, and can't be timed out from within, is killed."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    pid = os.fork()
    if pid == 0:
        _enter(rig, candidate, check, writer)
    os.close(writer)
    pidfd = os.pidfd_open(pid)
    try:
        if not process.wait_ended(pidfd, _CHECK_SECONDS + _SLACK_SECONDS):
            os.kill(pid, signal.SIGKILL)
            return f"it hangs: not done after {_CHECK_SECONDS:.0f} s"
        _, status = os.waitpid(pid, 0)
        # Its end is not waited for: what the candidate has started may have the pipe, too.
        with open(reader, "rb", closefd=False) as pipe:
            said = (pipe.read() or b"").decode()
        return said if status == 0 else f"its process ended with {status}; {said}"
    finally:
        os.close(pidfd)
        os.close(reader)


def _enter(rig: Rig, candidate: Candidate, check: Check, writer: int) -> None:
    code = 70
    try:
        if rig.enter is not None:
            rig.enter()
        os.write(writer, uvloop.run(_one(rig, candidate, check)).encode()[:_SAID])
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _reason(error: Exception) -> str:
    """The error, and the line of the suite where it came up."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).parent == _SUITES] or frames
    return f"{text} ({Path(ours[-1].filename).name}:{ours[-1].lineno}: {ours[-1].line})"


def _candidate(package: str, found: Manifest) -> Candidate:
    module, _, name = found.plugin.class_.partition(":")
    plugin = getattr(import_module(module), name) if module else None
    rig = import_module(f"{package}.rig") if find_spec(f"{package}.rig") else None
    companion = found.companion.command if found.companion is not None else ()
    restored = getattr(rig, "restored", None)
    return Candidate(plugin, restored=restored, companion=companion, name=found.plugin.name)


if __name__ == "__main__":
    main()
