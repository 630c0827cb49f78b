"""`sagong up` and `sagong down`."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

from sagong import config
from sagong.call import deadline
from sagong.config import Paths
from sagong.contracts.kernel import StatusQuery, StopSystem, SystemStatus
from sagong.errors import DeadlineExceeded, FailedPrecondition, NotFound, SagongError, Unavailable
from sagong.keeper import START
from sagong.operator import connect

# systemd's directory exists where it is pid 1, see sd_booted(3).
_SYSTEMD = Path("/run/systemd/system")
_UNIT = Path("/etc/systemd/system/sagong.service")
_COMING_UP_SECONDS = 10.0
# Of a line of the log.
_STAMP = re.compile(r"^\d\S+ [A-Z]+ sagong\.\S+ ")
# To read a directory, and to go through it, for all.
_READABLE = 0o005

__all__ = [
    "check_readable",
    "down_arguments",
    "end",
    "raise_up",
    "run_down",
    "run_up",
    "up_arguments",
]


def up_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `up`."""
    parser.add_argument("--profile", default="", help="docker, single, appliance, … or your own")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to wait until ready")
    parser.add_argument("--foreground", action="store_true", help="stay, as the keeper itself")


def down_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `down`."""
    parser.add_argument("--all", action="store_true", help="end containers too, leave nothing")
    parser.add_argument(
        "--containers",
        action="store_true",
        help="end containers too, but keep them: they start again by their restart policies",
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="bound of each drain")


def run_up(options: argparse.Namespace) -> int:
    """Start the keeper unless it runs; wait until every unit serves."""
    paths = Paths.below(options.root)
    if options.foreground:
        command = _keeper_command(paths, options.root, options.profile)
        os.execv(sys.executable, [*command, "--supervised"])
    began = time.monotonic()
    ran, status = raise_up(paths, options.root, options.profile, options.seconds)
    verb = "runs already" if ran else "is up"
    print(
        f"sagong {status.version} {verb}: profile {status.profile}, {len(status.units)} units"
        f" ready after {time.monotonic() - began:.2f} s"
    )
    return 0


def raise_up(paths: Paths, root: str, profile: str, seconds: float) -> tuple[bool, SystemStatus]:
    """Start the keeper unless it runs, wait until all is ready; whether it ran already, and how."""
    command = _keeper_command(paths, root, profile)
    running = asyncio.run(_status(paths))
    if running is not None and profile and running.profile != profile:
        raise FailedPrecondition(
            f"profile {running.profile} runs already; `sagong down` first, then {profile} can: "
            "containers run on meanwhile"
        )
    has_ended = _start(paths, command) if running is None else lambda: not _keeper_lives(paths)
    if running is None:
        _tell_lacks(paths, profile)
    status = asyncio.run(_wait_ready(paths, seconds, has_ended))
    asyncio.run(_give_access(paths, status))
    return bool(running and running.ready), status


def _tell_lacks(paths: Paths, profile: str) -> None:
    """What a unit's failure would come from; while the kernel comes up, so that nobody waits for it."""
    from sagong.cli.machine import lacks

    for text in lacks(config.load(paths, profile).running()):
        print(f"sagong up: {text}", file=sys.stderr, flush=True)


def _keeper_command(paths: Paths, root: str, profile: str) -> list[str]:
    """The keeper's command line, after what can be known to be wrong was said."""
    if os.geteuid() != 0:
        raise FailedPrecondition("sagong needs root: namespaces, mounts and control groups")
    check_readable(Path(__file__).parents[1], Path(sysconfig.get_path("purelib")))
    config.load(paths, profile)
    command = [sys.executable, *START, "--run", str(paths.run)]
    return [*command, "--root", root, "--profile", profile]


def check_readable(*places: Path) -> None:
    """What was installed under umask 077 is nobody's but root's, and plugins have other users."""
    for place in places:
        if place.stat().st_mode & _READABLE != _READABLE:
            raise FailedPrecondition(
                f"{place} can be read by its owner alone, and plugins run as users of their own: "
                f"chmod -R go+rX {place}"
            )


async def _give_access(paths: Paths, status: SystemStatus) -> None:
    """The administrator's kubeconfig, where there is an API to use it with."""
    from sagong.cli.access import api_server, write_kubeconfig

    if any(unit.name == "kube" for unit in status.units):
        server = api_server(paths, status.profile)
        async with connect(paths) as operator:
            await write_kubeconfig(operator, paths.etc / "kubeconfig", server)


def _start(paths: Paths, command: list[str]) -> Callable[[], bool]:
    """Start the keeper; what is returned tells whether it has ended already."""
    if paths == Paths() and _UNIT.exists() and _SYSTEMD.is_dir():
        # Else the keeper would be part of a session, and end with it.
        subprocess.run(["systemctl", "start", "--no-block", _UNIT.name], check=True)
        failed = ["systemctl", "is-failed", "--quiet", _UNIT.name]
        return lambda: subprocess.run(failed, check=False).returncode == 0
    log = paths.run / "log" / "kernel.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as file:
        keeper = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
    return lambda: keeper.poll() is not None and not _keeper_lives(paths)


async def _status(paths: Paths) -> SystemStatus | None:
    if not _keeper_lives(paths):
        return None
    try:
        async with connect(paths) as operator:
            with deadline(2.0):
                return await operator.kernel.status(StatusQuery())
    except (NotFound, Unavailable, SagongError):
        return None


def _keeper_lives(paths: Paths) -> bool:
    """Whether somebody holds the instance's lock."""
    import fcntl

    try:
        with open(paths.run / "kernel" / "lock") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True


async def _wait_ready(paths: Paths, seconds: float, has_ended: Callable[[], bool]) -> SystemStatus:
    limit = time.monotonic() + seconds
    status, pause = None, 0.02
    while time.monotonic() < limit:
        status = await _status(paths) or status
        if status is not None and status.ready:
            return status
        if (status is None and has_ended()) or (status is not None and _is_given_up(status)):
            break
        await asyncio.sleep(pause)
        pause = min(pause * 1.2, 0.2)
    raise FailedPrecondition(_why_not(paths, status))


def _is_given_up(status: SystemStatus) -> bool:
    """Whether nothing is on its way any more: what does not serve has failed too often."""
    return bool(status.units) and all(
        unit.state in ("serving", "asleep", "down") for unit in status.units
    )


def _why_not(paths: Paths, status: SystemStatus | None) -> str:
    if status is None:
        log = paths.run / "log" / "kernel.log"
        return f"the kernel does not come up: {_full(paths.run) or _last_line(log)}; see {log}"
    late = [u for u in status.units if u.state not in ("serving", "asleep")]
    why = "; ".join(f"{u.name}: {u.problem or u.state}" for u in late)
    return f"not ready: {why}; see `sagong logs {' '.join(u.name for u in late)}`"


def _full(directory: Path) -> str:
    """A kernel whose disk is full can't even say so; "" if that is not so."""
    room = os.statvfs(directory)
    # Filesystems without a bound count none, nor inodes those that make them as they need them.
    if (room.f_bavail or not room.f_blocks) and (room.f_favail or not room.f_files):
        return ""
    return f"the filesystem of {directory} is full: free space, or files, there"


def _last_line(log: Path) -> str:
    """What was said last, without when and by whom: a kernel that can't begin says why."""
    try:
        lines = log.read_text(errors="replace").split("\n")
    except OSError as error:
        return f"{error.strerror}"
    said = (line.strip() for line in reversed(lines) if line.strip())
    return _STAMP.sub("", next(said, "it said nothing"))


def run_down(options: argparse.Namespace) -> int:
    """Stop everything in order; what is not running is no error."""
    paths = Paths.below(options.root)
    if options.all and not _keeper_lives(paths) and Path(paths.run, "kernel").exists():
        _up_to_purge(options.root)
    ran = end(paths, options.seconds, everything=options.all, containers=options.containers)
    over = options.all or options.containers
    print(f"sagong is down{'' if over else '; containers go on'}" if ran else "sagong does not run")
    return 0


def end(
    paths: Paths,
    seconds: float,
    *,
    everything: bool,
    containers: bool = False,
    patience: float | None = None,
) -> bool:
    """Stop in order, within `seconds` for each drain; whether anything ran.

    `containers` ends those too, `everything` also takes away all that was made beside data; who has not
    ended by himself after `patience` (seconds) is killed then.
    """
    pid = _keeper_pid(paths)
    ran = _tell_to_stop(paths, seconds, everything=everything)
    if patience is None:
        # Services and then plugins have half a minute to take away what they made.
        patience = 30.0 + seconds + (60.0 if everything else 0.0)
    late = bool(pid) and not _wait_gone(paths, patience)
    if late and not everything:
        raise FailedPrecondition(f"keeper {pid} does not end; see {paths.run}/log/kernel.log")
    if everything or containers:
        from sagong.cli import sweep

        if late:
            _force(paths, patience)
        sweep.end_containers(paths, seconds)
        if late:
            sweep.end_platform(paths, everybody=True)
        if everything:
            sweep.sweep(paths)
    return ran or late


def _force(paths: Paths, patience: float) -> None:
    """End what does not end by itself: the operator wants it gone, and hears of it."""
    from sagong.cli import sweep

    said = _last_line(paths.run / "log" / "kernel.log")
    killed = ", ".join(sorted(sweep.end_platform(paths)))
    print(
        f"not ended after {patience:.0f} s, and killed: {killed}; interfaces and firewall rules that "
        f"were made may be left over; the kernel's last word: {said}",
        file=sys.stderr,
    )


def _up_to_purge(root: str) -> None:
    """Interfaces, firewall rules and mounts are taken away by who made them, not by their names."""
    try:
        run_up(argparse.Namespace(root=root, profile="", seconds=60.0, foreground=False))
    except SagongError as error:
        print(f"what sagong made may be left over: {error}", file=sys.stderr)


def _tell_to_stop(paths: Paths, seconds: float, *, everything: bool) -> bool:
    """Also a kernel that is only coming up; whether there was any."""
    limit = time.monotonic() + _COMING_UP_SECONDS
    while True:
        try:
            asyncio.run(_stop(paths, seconds, everything=everything))
            return True
        except (NotFound, Unavailable, DeadlineExceeded):
            if not _keeper_lives(paths) or time.monotonic() > limit:
                return False
            time.sleep(0.1)


async def _stop(paths: Paths, seconds: float, *, everything: bool) -> None:
    async with connect(paths) as operator:
        with deadline(5.0):
            await operator.kernel.stop(StopSystem(seconds=seconds, purge=everything))


def _keeper_pid(paths: Paths) -> int:
    try:
        return int(Path(paths.run, "keeper.pid").read_text())
    except (FileNotFoundError, ValueError):
        return 0


def _wait_gone(paths: Paths, seconds: float) -> bool:
    limit = time.monotonic() + seconds
    while _keeper_lives(paths):
        if time.monotonic() > limit:
            return False
        time.sleep(0.02)
    return True
