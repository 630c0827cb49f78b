"""Hooks: in a test's host, and installed into a running system's scheduler and API server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import msgspec
import pytest

from sagong.config import UnitConfig
from sagong.contract import Message, method, slot, slot_of
from sagong.contracts.objects import Objects
from sagong.contracts.scheduler import Question, Scheduler
from sagong.errors import InvalidArgument, Unavailable
from sagong.hooks import hookimpl, points, wrapped
from sagong.kernel.units import resolve_one
from sagong.manifest import parse
from sagong.operator import connect
from sagong.scheduling.hooks import SchedulerHooks
from sagong.testing import LocalHost, local
from sagong_scheduler_binpack import SchedulerBinpack
from sagong_scheduler_kube import SchedulerKube
from tests.system.instance import REPOSITORY, Instance, environment, instance

EXAMPLE = REPOSITORY / "examples/03-hooks"
sys.path.append(str(EXAMPLE))


class Word(Message):
    text: str


@pytest.fixture
def slot_with_a_wait() -> type:
    from typing import Protocol

    @slot("talk", version=1)
    class Talk(Protocol):
        @method(idempotent=True)
        async def say(self, word: Word) -> Word: ...

        @method(idempotent=True)
        def count(self, word: Word) -> AsyncIterator[Word]: ...

    return Talk


class Speaker:
    async def say(self, word: Word) -> Word:
        await asyncio.sleep(0)
        return word

    async def count(self, word: Word) -> AsyncIterator[Word]:
        yield word


class Loud:
    @hookimpl(wrapper=True)
    def say(self, word: Word) -> Generator[None, Any, Any]:
        work = yield

        async def louder() -> Word:
            return Word(text=(await work).text.upper())

        return louder()


async def test_a_wrapper_sees_what_a_coroutine_returns(slot_with_a_wait: Any) -> None:
    spec = slot_of(slot_with_a_wait)
    talk: Any = wrapped(spec, Speaker(), (Loud(),))
    assert (await talk.say(Word(text="hello"))).text == "HELLO"
    assert [w.text async for w in talk.count(Word(text="x"))] == ["x"]
    assert isinstance(wrapped(spec, one := Speaker(), ()), Speaker)
    assert wrapped(spec, one, (object(),)) is one


def test_a_hook_of_the_wrong_form_is_named() -> None:
    class Wrong:
        @hookimpl
        def refuses(self, something: int) -> str:
            return ""

    with pytest.raises(InvalidArgument, match="hook Wrong"):
        points(SchedulerHooks, (Wrong(),))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('kind = "hook"\nclass = "a:B"', "go together"),
        ('kind = "hook"\nclass = "a:B"\n[hooks.kube]\nwhy = ""', "say why"),
        ('kind = "plugin"\nclass = "a:B"\n[hooks.kube]\nwhy = "for it"', "go together"),
        (
            'kind = "hook"\nclass = "a:B"\n[hooks.kube]\nwhy = "for it"\n[provides]\nx = 1',
            "none of",
        ),
        ('kind = "hook"\ncommand = ["x"]\n[hooks.kube]\nwhy = "for it"', "none of its own"),
    ],
)
def test_manifests_of_hooks_are_checked(text: str, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        parse(f'[plugin]\nname = "x"\nversion = "1"\nsummary = "s"\n{text}\n', where="test")


class Nobody:
    """Slot `objects` where no API server runs."""

    async def watch(self, request: object) -> Any:
        raise Unavailable("nothing serves objects now")
        yield

    get = list = commit = watch


def question() -> Question:
    def node(name: str, **labels: str) -> bytes:
        allocatable = {"cpu": "4", "memory": "4Gi", "pods": "10"}
        metadata = {"name": name, "labels": labels}
        return msgspec.json.encode({"metadata": metadata, "status": {"allocatable": allocatable}})

    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}}
    return Question(pods=(msgspec.json.encode(pod),), nodes=(node("a", quiet="yes"), node("b")))


@pytest.mark.parametrize("plugin", [SchedulerKube, SchedulerBinpack])
async def test_schedulers_ask_filters_of_hooks(plugin: Any, tmp_path: Any) -> None:
    from sagong_house_rules import HouseRules

    rules = HouseRules(LocalHost("x", data=tmp_path, run=tmp_path))
    async with local(plugin, uses={Objects: Nobody()}, hooks=(rules,)) as candidate:
        assert candidate.place(question()).placements[0].node == "b"
        quiet = question().nodes[:1]
        (placed,) = candidate.place(Question(pods=question().pods, nodes=quiet)).placements
        assert placed.node == ""
        assert "1 node(s) wanted to be quiet" in placed.reasons[0]


class Raising:
    @hookimpl
    def refuses(self, pod: Any, node: Any) -> str:
        raise ValueError("boom")


async def test_a_filter_that_raises_refuses_and_ends_nothing() -> None:
    async with local(SchedulerKube, uses={Objects: Nobody()}, hooks=(Raising(),)) as candidate:
        (placed,) = candidate.place(question()).placements
    assert placed.node == ""
    assert (
        "2 node(s) about which hook tests.examples.test_example_hooks:Raising" in placed.reasons[0]
    )
    assert "failed in refuses: ValueError: boom" in placed.reasons[0]


def test_a_hook_is_no_unit() -> None:
    text = '[plugin]\nname = "x"\nversion = "1"\nsummary = "s"\nkind = "hook"\nclass = "a:B"\n'
    found = parse(f'{text}[hooks.kube]\nwhy = "for it"\n', where="test")
    with pytest.raises(InvalidArgument, match="x is a hook, which runs in another unit"):
        resolve_one("x", UnitConfig(), lambda name: ("a", found))


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    """A kernel with a scheduler, whose hooks the operator then chooses."""
    with instance('profile = "bare"\n[units.scheduler]\nplugin = "scheduler_kube"\n') as found:
        found.wait_ready()
        yield found


def command(running: Instance, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "sagong.cli", "--root", str(running.root), *words],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    return done.stdout + done.stderr


@pytest.mark.root
def test_an_installed_hook_is_loaded_into_a_running_scheduler(running: Instance) -> None:
    def chosen() -> str:
        async def ask() -> str:
            async with connect(running.paths) as operator:
                scheduler = await operator.use(Scheduler)
                return (await scheduler.place(question())).placements[0].node

        return asyncio.run(ask())

    assert chosen() == "a"
    assert "house_rules 0.1.0 installed" in command(running, "plugin", "install", str(EXAMPLE))
    configuration = running.paths.etc / "sagong.toml"
    configuration.write_text(configuration.read_text() + 'hooks = ["house_rules"]\n')
    import os

    killed = running.pid("kernel")
    os.kill(killed, 9)
    running.wait_ready(gone=killed)
    assert "serves after" in command(running, "swap", "scheduler")
    assert chosen() == "b"
    lines = [json.loads(x) for x in command(running, "logs", "scheduler", "--json").splitlines()]
    assert any(line["message"] == "placed" and line["pods"] == 1 for line in lines)
    package = next((running.paths.data / "shelf").rglob("sagong_house_rules/__init__.py"))
    package.write_text(package.read_text() + "\n")
    assert "was changed" in command(running, "swap", "scheduler")
    assert chosen() == "b"
