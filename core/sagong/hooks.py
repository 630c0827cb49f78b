"""pluggy's reading of a slot: implementations are checked at load, and may be wrapped in-process.

A *hook* is a class of somebody's package that is loaded into a unit's process (`hooks` of the unit in
sagong.toml) and has the unit's rights. It may

- wrap methods of the unit's slots: a method of that name, marked `@hookimpl(wrapper=True)`; what it
  gets from its `yield` is what the method returned: a coroutine, if the method is one;
- implement the unit's extension points: classes of `@hookspec` methods, such as
  `sagong.scheduling.hooks.SchedulerHooks` and `sagong.model.admission.AdmissionHooks`.

The unit waits for its hooks. One that does not end is cut off (`sagong.patience`), and its caller told
which it was; a coroutine of a wrapper's own ends with its call's deadline. Of one that raises what is
no error of sagong's its caller hears which it was and what it said; the unit's log has all of it.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import Callable, Generator, Sequence
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import pluggy

from sagong.contract import MethodSpec, SlotSpec
from sagong.errors import Internal, InvalidArgument, SagongError
from sagong.patience import PATIENCE

__all__ = ["PROJECT", "SlotManager", "check", "hookimpl", "hookspec", "points", "wrapped"]

PROJECT = "sagong"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
S = TypeVar("S")


class SlotManager(pluggy.PluginManager):
    """A plugin manager whose hook specifications are one slot's methods, without decorators."""

    def __init__(self, spec: SlotSpec) -> None:
        super().__init__(PROJECT)
        self._spec = spec
        self.add_hookspecs(spec.protocol)

    def parse_hookspec_opts(self, module_or_class: Any, name: str) -> Any:
        """Every method of the slot is a specification whose first result counts."""
        if name not in self._spec.methods:
            return None
        return {
            "firstresult": True,
            "historic": False,
            "warn_on_impl": None,
            "warn_on_impl_args": None,
        }

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        """An implementation is the method of the same name; wrappers are marked by pluggy's own."""
        if name not in self._spec.methods:
            return None
        return super().parse_hookimpl_opts(plugin, name) or {
            "wrapper": False,
            "hookwrapper": False,
            "optionalhook": False,
            "tryfirst": False,
            "trylast": True,
            "specname": None,
        }


def check(spec: SlotSpec, candidate: object) -> list[str]:
    """What keeps `candidate` from filling the slot, a line each; empty when nothing does."""
    problems = [
        f"method {name} is missing"
        for name in spec.methods
        if not callable(getattr(candidate, name, None))
    ]
    problems += [
        f"method {m.name} must be an async generator: it is a stream"
        for m in spec.methods.values()
        if m.stream and inspect.iscoroutinefunction(getattr(candidate, m.name, None))
    ]
    manager = SlotManager(spec)
    try:
        manager.register(candidate)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        problems.append(str(error).splitlines()[-1])
    return problems


def wrapped(spec: SlotSpec, implementation: object, hooks: Sequence[object]) -> object:
    """The slot's methods as the hooks wrap them; the implementation itself if none does."""
    manager = SlotManager(spec)
    manager.register(implementation)
    wrappers = [hook for hook in hooks if any(hasattr(hook, name) for name in spec.methods)]
    if not wrappers:
        return implementation
    for hook in wrappers:
        _register(manager, hook)
    methods = {m.name: _relayed(manager, m) for m in spec.methods.values()}
    return SimpleNamespace(**methods)


def points(kind: type[S], hooks: Sequence[object]) -> S:
    """An extension point as an object: each of its methods gives the list of what all hooks said."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(kind)
    for hook in hooks:
        _register(manager, hook)
    return cast(S, manager.hook)


def _register(manager: pluggy.PluginManager, hook: object) -> None:
    try:
        manager.register(hook)
    except pluggy.PluginValidationError as error:
        said = str(error).splitlines()[-1]
        raise InvalidArgument(f"hook {type(hook).__name__}: {said}") from None
    for caller in manager.get_hookcallers(hook) or ():
        for implementation in caller.get_hookimpls():
            if implementation.plugin is hook:
                _bound(implementation, caller.name)


def _bound(implementation: pluggy.HookImpl, method: str) -> None:
    """From now on its steps have an end."""
    kind = type(implementation.plugin)
    who, function = f"hook {kind.__module__}:{kind.__qualname__}", implementation.function
    wraps = implementation.wrapper or implementation.hookwrapper
    stepped = _stepped if wraps else _stepped_once
    implementation.function = functools.partial(stepped, who, method, function)  # type: ignore[misc]


def _stepped_once(who: str, method: str, function: Callable[..., Any], *arguments: Any) -> Any:
    return _step(who, method, lambda: function(*arguments))


def _step(who: str, method: str, step: Callable[[], Any], given: Exception | None = None) -> Any:
    """A step of a hook's; `given` is what the method itself raised, which is no failure of the hook."""
    try:
        return PATIENCE.step(who, method, step)
    except (SagongError, StopIteration):
        raise
    except Exception as error:
        if error is given:
            raise
        raise _failure(who, method, error) from error


def _failure(who: str, method: str, error: Exception) -> Internal:
    """What the caller hears of a hook that raised; the log has all of it, now and then."""
    PATIENCE.tell(who, method, error)
    return Internal(f"{who} failed in {method}: {type(error).__name__}: {error}")


def _stepped(
    who: str, method: str, function: Callable[..., Any], *arguments: Any
) -> Generator[None, Any, Any]:
    """A wrapper: what it does before its `yield`, and after it."""
    steps, course = function(*arguments), _Course(who, method)
    try:
        _step(who, method, lambda: next(steps))
    except StopIteration:
        return None  # pluggy says that it did not yield
    raised: Exception | None = None
    try:
        given = yield
        work = course.inner(given) if inspect.iscoroutine(given) else given
        after = functools.partial(steps.send, work)
    except BaseException as error:
        raised = error if isinstance(error, Exception) else None
        after = functools.partial(steps.throw, error)
    try:
        _step(who, method, after, raised)
    except StopIteration as end:
        return course.outer(end.value) if inspect.iscoroutine(end.value) else end.value
    yield  # pluggy says that it did so twice
    return None


class _Course:
    """Where a call is on its way through a wrapper's coroutine and the method's own."""

    def __init__(self, who: str, method: str) -> None:
        self._who = who
        self._method = method
        self._since = time.monotonic()
        self._inside = False
        self._raised: Exception | None = None

    async def inner(self, work: Any) -> Any:
        """The method's own."""
        self._inside = True
        try:
            return await work
        except Exception as error:
            self._raised = error
            raise
        finally:
            self._inside, self._since = False, time.monotonic()

    async def outer(self, work: Any) -> Any:
        """The wrapper's: if the call ends while it waits for something else, that is told."""
        self._since = time.monotonic()
        try:
            return await work
        except asyncio.CancelledError:
            if not self._inside and PATIENCE.is_long(time.monotonic() - self._since):
                PATIENCE.note(self._who, self._method)
            raise
        except SagongError:
            raise
        except Exception as error:
            if error is self._raised:
                raise
            raise _failure(self._who, self._method, error) from error


def _relayed(manager: SlotManager, method: MethodSpec) -> Callable[..., Any]:
    caller = getattr(manager.hook, method.name)
    if method.parameter is None:
        return cast(Callable[..., Any], caller)
    name = method.parameter
    return lambda request: caller(**{name: request})
