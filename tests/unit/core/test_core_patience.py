"""Hooks that do not end: they are cut off, named, and nothing else waits for long."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from typing import Any, Protocol

import pytest

from sagong import hooks
from sagong.contract import Message, method, slot, slot_of
from sagong.errors import DeadlineExceeded, Internal, Unavailable
from sagong.hooks import hookimpl, hookspec, points, wrapped
from sagong.patience import Patience


class Word(Message):
    text: str


@slot("say", version=1)
class Say(Protocol):
    @method(idempotent=True)
    def now(self, word: Word) -> Word: ...

    @method(idempotent=True)
    async def soon(self, word: Word) -> Word: ...


class Rules:
    @hookspec
    def refuses(self, name: str) -> str:
        """Why not."""
        return ""


class Speaker:
    def __init__(self) -> None:
        self.said = 0

    def now(self, word: Word) -> Word:
        self.said += 1
        if word.text == "bad":
            raise ValueError("bad")
        return word

    async def soon(self, word: Word) -> Word:
        await asyncio.sleep(float(word.text))
        return word


class Sleeper:
    """Hangs before, after, or in its own coroutine, as the word says."""

    @hookimpl(wrapper=True)
    def now(self, word: Word) -> Generator[None, Any, Any]:
        if word.text == "before":
            time.sleep(3600)
        found = yield
        while word.text == "after":
            try:
                sum(range(100))
            except Exception:
                continue
        return found

    @hookimpl(wrapper=True)
    def soon(self, word: Word) -> Generator[None, Any, Any]:
        work = yield

        async def later() -> Word:
            found: Word = await work
            await asyncio.sleep(3600)
            return found

        return later()

    @hookimpl
    def refuses(self, name: str) -> str:
        if name == "hang":
            time.sleep(3600)
        return f"not {name}"


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Patience:
    made = Patience(seconds=1.0, rest=3.0)
    monkeypatch.setattr(hooks, "PATIENCE", made)
    return made


@pytest.mark.parametrize(("word", "said"), [("before", 0), ("after", 1)])
def test_a_wrapper_that_hangs_is_cut_off_and_named(
    patience: Patience, word: str, said: int
) -> None:
    speaker = Speaker()
    talk: Any = wrapped(slot_of(Say), speaker, (Sleeper(),))
    with pytest.raises(DeadlineExceeded, match=r"hook .*:Sleeper did not end now"):
        talk.now(Word(text=word))
    assert speaker.said == said
    with pytest.raises(Unavailable, match="Sleeper was given up"):
        talk.now(Word(text=word))
    assert speaker.said == said
    time.sleep(3.0)
    assert talk.now(Word(text="well")) == Word(text="well")
    (trouble,) = patience.troubles()
    assert "Sleeper was given up in now, 1 times" in trouble


def test_an_extension_point_that_hangs_is_cut_off(patience: Patience) -> None:
    rules: Any = points(Rules, (Sleeper(),))
    assert rules.refuses(name="x") == ["not x"]
    with pytest.raises(DeadlineExceeded, match="Sleeper did not end refuses"):
        rules.refuses(name="hang")


def test_a_wrapper_sees_what_the_method_raises(patience: Patience) -> None:
    class Kind:
        @hookimpl(wrapper=True)
        def now(self, word: Word) -> Generator[None, Any, Any]:
            try:
                return (yield)
            except ValueError:
                return Word(text="good")

    talk: Any = wrapped(slot_of(Say), Speaker(), (Kind(),))
    assert talk.now(Word(text="bad")) == Word(text="good")
    plain: Any = wrapped(slot_of(Say), Speaker(), (Sleeper(),))
    with pytest.raises(ValueError, match="bad"):
        plain.now(Word(text="bad"))


def test_one_that_raises_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever asked heard of an internal error of somebody's."""

    class Broken:
        @hookimpl
        def refuses(self, name: str) -> str:
            raise KeyError(name)

    rules = points(Rules, (Broken(),))
    for _ in range(2):
        with pytest.raises(Internal, match=r"hook .*Broken failed in refuses: KeyError: 'x'"):
            rules.refuses(name="x")
    (record,) = [r for r in caplog.records if "Broken failed" in r.message]
    assert record.exc_info is not None and record.exc_info[0] is KeyError


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_wrapper_that_raises_is_named(when: str) -> None:
    class Broken:
        @hookimpl(wrapper=True)
        def now(self, word: Word) -> Generator[None, Any, Any]:
            if when == "before":
                raise RuntimeError("mine")
            yield
            raise RuntimeError("mine")

    talk: Any = wrapped(slot_of(Say), Speaker(), (Broken(),))
    with pytest.raises(Internal, match=r"Broken failed in now: RuntimeError: mine"):
        talk.now(Word(text="well"))


async def test_a_coroutine_that_raises_is_named_and_the_methods_own_error_is_not() -> None:
    class Broken:
        @hookimpl(wrapper=True)
        def soon(self, word: Word) -> Generator[None, Any, Any]:
            work = yield

            async def outer() -> Word:
                found: Word = await work
                raise RuntimeError(f"mine after {found.text}")

            return outer()

    class Bad(Speaker):
        async def soon(self, word: Word) -> Word:
            raise ValueError("the method's")

    talk: Any = wrapped(slot_of(Say), Speaker(), (Broken(),))
    with pytest.raises(Internal, match=r"Broken failed in soon: RuntimeError: mine after 0"):
        await talk.soon(Word(text="0"))
    bad: Any = wrapped(slot_of(Say), Bad(), (Broken(),))
    with pytest.raises(ValueError, match="the method's"):
        await bad.soon(Word(text="0"))


@pytest.mark.parametrize(("inner", "told"), [("0", True), ("3600", False)])
async def test_a_coroutine_that_hangs_is_told_at_its_deadline_unless_the_method_is_late(
    patience: Patience, inner: str, told: bool
) -> None:
    talk: Any = wrapped(slot_of(Say), Speaker(), (Sleeper(),))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await talk.soon(Word(text=inner))
    assert bool(patience.troubles()) == told


def test_elsewhere_than_in_the_main_thread_steps_are_taken_as_they_are() -> None:
    found: list[int] = []
    patience = Patience(seconds=0.05)

    def slow() -> int:
        time.sleep(0.2)
        return 7

    def work() -> None:
        found.append(patience.step("x", "y", slow))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [7] and not patience.troubles()


def test_what_can_not_be_cut_off_ends_the_process() -> None:
    code = (
        "import time\n"
        "from sagong.patience import Patience\n"
        "def stubborn():\n"
        "    while True:\n"
        "        try:\n"
        "            time.sleep(3600)\n"
        "        except BaseException:\n"
        "            pass\n"
        "Patience(seconds=0.1).step('hook x', 'y', stubborn)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "hook x in y can't be cut off" in done.stderr
