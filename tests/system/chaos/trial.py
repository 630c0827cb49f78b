"""A whole run: an instance on a small disk of its own, load, faults, rest, and what is left."""

from __future__ import annotations

import contextlib
import functools
import itertools
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from sagong.cli.sweep import sweep
from tests import sample_image
from tests.small_disk import small_disk
from tests.system.chaos import cluster, engine
from tests.system.chaos.cluster import Cluster, Watcher
from tests.system.chaos.defects import defects
from tests.system.chaos.engine import STEADY, Engine
from tests.system.chaos.faults import KINDS, Injector
from tests.system.chaos.history import History, Life, Recorder
from tests.system.chaos.processes import Processes
from tests.system.chaos.transport import Act, Caller, Dial, GaveUp, engine_dial, kube_dial
from tests.system.instance import Instance, instance
from tests.system.platform.rig import single

__all__ = ["run"]

_DISK, _RUN = "256m", "96m"
# Namespaces in advance go soon after their network is not used any more: none is left to compare.
# Nor is a creation that was cut: it goes before the platform has been quiet for long enough.
_SETTINGS = """
[units.docker.settings]
unfinished_seconds = 10.0
[units.network.settings]
pool_seconds = 3
[units.registry]
enabled = true
listens = {{ api = "tcp:{registry}" }}
"""
# Longer than what goes by itself takes to go.
_SETTLE, _QUIET, _JOIN = 90.0, 8.0, 240.0
Belongings = dict[str, tuple[str, ...]]
Tell = Callable[[str], object]


class Trial:
    """The clients of one run, and what they found."""

    def __init__(
        self, running: Instance, home: Path, seed: int, registry: str, tell: Tell, load: str
    ) -> None:
        self._load_of = load
        self.recorder = Recorder(seed)
        self.processes = Processes(running)
        self.stop = threading.Event()
        self._running = running
        self._tell = tell
        self._registry, self._pulled = registry, ""
        self._home = home
        self._engine_dial = engine_dial(running.paths.run / "docker.sock")
        self._kube_dial = kube_dial(running.paths.etc / "kubeconfig", home)
        self._threads: list[threading.Thread] = []
        # What is read before and after is read by clients that are not told to stop.
        self.docker = self._caller("docker-reader", self._engine_dial, threading.Event())
        self.kube = self._caller("kube-reader", self._kube_dial, threading.Event())

    def prepare(self, image: Path) -> None:
        """What stays, and one round of everything, so that the platform is warm."""
        self._load(image)
        self._pulled = engine.pushed(self.docker, self._registry)
        Engine(self.docker, 0).begin_steady()
        cluster.begin_deployment(self.kube)
        for name, step in self._steps("warm"):
            self._tell(f"warming up: {name}")
            step()
        self._clear()
        # What came and went before is cleared away already.
        self.recorder.attempts[:] = [a for a in self.recorder.attempts if a.key in STEADY]
        self.watcher = Watcher(self._caller("kube-watcher", self._kube_dial, self.stop))
        self.born = self._lives()
        self.before = self._settled()

    def begin(self) -> None:
        """Start all clients."""
        for name, step in self._steps("load"):
            if self._load_of in ("both", name.partition("-")[0]):
                self._spawn(name, step)
        for name in STEADY:
            caller = self._caller(f"docker-follow-{name}", self._engine_dial, self.stop)
            follower = Engine(caller, self.recorder.seed)
            self._spawn(f"follow-{name}", partial(follower.follow, name))
        self._spawn("watch", self.watcher.watch)

    def disturb(self, seconds: float, weights: Mapping[str, int]) -> None:
        """Faults, one after the other, with pauses between most of them."""
        names = {self._identity(name): name for name in STEADY}
        injector = Injector(self._running, self.recorder, names, weights)
        limit = time.monotonic() + seconds
        for turn in itertools.count():
            self._tell(injector.act())
            if time.monotonic() > limit and injector.has_done_all:
                break
            time.sleep((0.0, 0.5, 2.0)[turn % 3])

    def end(self) -> None:
        """Let the clients come to their end; the watch must see what was written last."""
        time.sleep(3.0)
        self._tell("clients come to their end")
        self.stop.set()
        limit = time.monotonic() + _JOIN
        for thread in self._threads:
            thread.join(max(0.1, limit - time.monotonic()))
            if thread.is_alive():
                self.recorder.problem(f"the client {thread.name} did not end")

    def history(self) -> History:
        """Everything, when the platform has come to rest."""
        self.watcher.catch_up(self.kube)
        values = cluster.counters(self.kube)
        listed = self._listed()
        for name in STEADY:
            self.recorder.log(engine.read_log(self.docker, name))
        after = self._lives()
        self._tell("clearing up")
        self._clear()
        lives = [
            Life(
                container=name, before=self.born.get(name, "missing"), after=after.get(name, "gone")
            )
            for name in sorted({*self.born, *after})
        ]
        left = self._settled(self.before)
        attempts = tuple(self.recorder.attempts)
        # A reboot takes them away.
        logs = self._running.paths.run / "log"
        shutil.copytree(logs, self._home / "logs", dirs_exist_ok=True)
        self._reboot()
        return History(
            seed=self.recorder.seed,
            attempts=attempts,
            faults=tuple(self.recorder.faults),
            logs=tuple(self.recorder.logs),
            lives=tuple(lives),
            watched=tuple(self.recorder.watched),
            listed=listed,
            values=values,
            before=self.before,
            after=left,
            problems=tuple(self.recorder.problems),
        )

    # -- clients --------------------------------------------------------------------------------

    def _caller(self, name: str, dial: Dial, stop: threading.Event) -> Caller:
        return Caller(name, dial, self.recorder, stop)

    def _steps(self, mark: str) -> Iterator[tuple[str, Callable[[], None]]]:
        seed = self.recorder.seed
        calls = ("run", "run", "run_removed", "hold", "volume", "network", "execute", "build")
        for name in (*calls, "pull"):
            caller = self._caller(
                f"docker-{mark}-{name}-{self._count()}", self._engine_dial, self.stop
            )
            caller.name = caller.name.replace("_", "-")
            step = getattr(Engine(caller, seed), name)
            if name == "pull":
                step = functools.partial(step, self._pulled)
            yield caller.name, step
        for name in ("count", "count", "churn", "pod"):
            caller = self._caller(f"kube-{mark}-{name}-{self._count()}", self._kube_dial, self.stop)
            yield caller.name, getattr(Cluster(caller, seed), name)

    def _count(self) -> int:
        self._made = getattr(self, "_made", 0) + 1
        return self._made

    def _spawn(self, name: str, step: Callable[[], None]) -> None:
        def work() -> None:
            while not self.stop.is_set():
                try:
                    step()
                except GaveUp as error:
                    self.recorder.problem(f"{name}: {error}")
                except Exception as error:
                    self.recorder.problem(f"{name}: {type(error).__name__}: {error}")
                    raise

        thread = threading.Thread(target=work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _reboot(self) -> None:
        """The power goes right after writes were acknowledged, containers with it; all is there."""
        self._tell("reboot")
        last = Engine(self._caller("docker-last", self._engine_dial, self.stop), 0)
        last.leave("docker-last")
        cluster.leave(self.kube, "kube-last")
        written, values = self._listed(), cluster.counters(self.kube)
        _, left = self.processes.cut_power(containers=True)
        if left:
            self.recorder.problem(f"before a reboot: {left}")
        sweep(self._running.paths)
        up = self._running.run("up", "--seconds", "160", check=False)
        if up.returncode:
            self.recorder.problem(f"`up` failed after a reboot: {up.stderr}{up.stdout}")
            return
        found = self._listed()
        for kind in written:
            before, after = set(written[kind]), set(found[kind])
            for word, names in (("lost by", before - after), ("back after", after - before)):
                if names:
                    self.recorder.problem(f"{word} a reboot: {kind} {', '.join(sorted(names))}")
        if (now := cluster.counters(self.kube)) != values:
            self.recorder.problem(f"counters before a reboot: {values}, after: {now}")

    # -- what is there --------------------------------------------------------------------------

    def _load(self, image: Path) -> None:
        connection = self._engine_dial()
        connection.request("POST", "/images/load", image.read_bytes())
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
        connection.close()

    def _identity(self, name: str) -> str:
        return engine.life(self.docker, name)[0]

    def _lives(self) -> dict[str, str]:
        found = {name: engine.life(self.docker, name)[1] for name in STEADY}
        return found | cluster.lives(self.kube)

    def _listed(self) -> dict[str, tuple[str, ...]]:
        def ask(kind: str, path: str) -> Any:
            act = Act(kind=kind, key="*", verb="list")
            return self.docker.insist(act, "GET", path).document

        containers = ask("container", "/containers/json?all=1")
        return {
            "container": tuple(c["Names"][0].lstrip("/") for c in containers),
            "volume": tuple(v["Name"] for v in ask("volume", "/volumes")["Volumes"] or ()),
            "network": tuple(n["Name"] for n in ask("network", "/networks")),
            "image": tuple(t for i in ask("image", "/images/json") for t in i["RepoTags"] or ()),
            "object": cluster.names(self.kube, "object"),
            "pod": cluster.names(self.kube, "pod"),
        }

    def _clear(self) -> None:
        """Take away all that the load left."""
        listed = self._listed()
        paths = {"container": "/containers/{}?v=1&force=1", "volume": "/volumes/{}"}
        for kind, path in (*paths.items(), ("network", "/networks/{}")):
            for name in listed[kind]:
                if name.startswith("docker-"):
                    act = Act(kind="cleared", key=name, verb="remove")
                    self.docker.insist(act, "DELETE", path.format(name), also=("absent",))
        cluster.clear(self.kube)

    def _settled(self, wanted: Belongings | None = None) -> Belongings:
        """What the platform has when it is as wanted, or else does not change for a while."""
        limit, since = time.monotonic() + _SETTLE, time.monotonic()
        last = self.processes.belongings()
        while last != wanted and time.monotonic() < limit:
            time.sleep(0.5)
            now = self.processes.belongings()
            if now != last:
                last, since = now, time.monotonic()
            # What is left at the end has all the time to go.
            if wanted is None and time.monotonic() - since > _QUIET:
                break
        return last


@contextlib.contextmanager
def _disk() -> Iterator[Path]:
    """A root directory whose data, and what it has until a reboot, are on small disks."""
    root = Path(tempfile.mkdtemp(prefix="sgt-", dir="/tmp"))
    data, run = root / "lib", root / "run"
    data.mkdir()
    run.mkdir()
    try:
        with small_disk(data, _DISK), small_disk(run, _RUN):
            yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def run(
    seed: int,
    seconds: float,
    home: Path,
    *,
    port: int,
    subnet: str,
    tell: Tell = print,
    weights: Mapping[str, int] = KINDS,
    load: str = "both",
) -> History:
    """Faults for that long, under the load of both APIs or of one; the history is to be checked."""
    image = sample_image.build(home).docker_archive
    registry = f"127.0.0.1:{port + 1}"
    settings = single(port, subnet) + _SETTINGS.format(registry=registry)
    with _disk() as root, instance(settings, root) as running:
        trial = Trial(running, home, seed, registry, tell, load)
        trial.prepare(image)
        trial.begin()
        try:
            trial.disturb(seconds, weights)
        finally:
            trial.end()
        history = trial.history()
        after = home / "logs-after-reboot"
        shutil.copytree(running.paths.run / "log", after, dirs_exist_ok=True)
        found = (*defects(home / "logs"), *defects(after))
        return msgspec.structs.replace(history, defects=found)
