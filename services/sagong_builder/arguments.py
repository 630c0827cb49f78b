"""Build arguments: who may see which ARG with what value. Pure.

Source: the Dockerfile reference, "Understand how ARG and FROM interact", "Predefined ARGs",
"Automatic platform ARGs in the global scope".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sagong.model import oci
from sagong_builder.dockerfile import Expander, Instruction

__all__ = ["Arguments", "Scope", "platform_arguments"]

_PROXIES = tuple(
    form
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for form in (name, name.lower())
)


def platform_arguments(build: oci.Platform, target: oci.Platform) -> dict[str, str]:
    """The arguments that tell of platforms."""
    return {
        f"{prefix}{name}": value
        for prefix, platform in (("BUILD", build), ("TARGET", target))
        for name, value in (
            ("PLATFORM", oci.platform_text(platform)),
            ("OS", platform.os),
            ("ARCH", platform.architecture),
            ("VARIANT", platform.variant),
        )
    }


@dataclass
class Arguments:
    """All of a build: what was given on the command line, and the global ones."""

    given: dict[str, str]
    platforms: dict[str, str]
    globals: dict[str, str] = field(default_factory=dict)
    consumed: set[str] = field(default_factory=set)

    def declare_global(self, instruction: Instruction, escape: str) -> None:
        """An ARG before the first FROM."""
        for name, default in instruction.pairs:
            self.consumed.add(name)
            expander = Expander({**self.platforms, **self.globals}, escape)
            if name in self.given:
                self.globals[name] = self.given[name]
            elif default is not None:
                self.globals[name] = expander.word(default)
            elif name in self.platforms:
                self.globals[name] = self.platforms[name]

    def origin(self, escape: str) -> Expander:
        """What a FROM is expanded by."""
        return Expander({**self.platforms, **self.globals}, escape)

    def unconsumed(self, given: Iterable[str]) -> list[str]:
        """Those of the `given`, with a value or without, that no ARG asked for."""
        return sorted(set(given) - self.consumed - set(_PROXIES) - set(self.platforms))


@dataclass
class Scope:
    """The arguments of one stage; where they `win`, an ARG hides an ENV before it."""

    arguments: Arguments
    win: bool = False
    declared: dict[str, str | None] = field(default_factory=dict)
    hiding: set[str] = field(default_factory=set)

    def declare(self, name: str, default: str | None) -> None:
        """An ARG of the stage; the default is expanded."""
        self.arguments.consumed.add(name)
        value = self.declared[name] = self._value(name, default)
        if self.win and value is not None:
            self.hiding.add(name)

    def set_environment(self, name: str) -> None:
        """An ENV of the stage: it hides the ARGs before it."""
        self.hiding.discard(name)

    def _value(self, name: str, default: str | None) -> str | None:
        arguments = self.arguments
        if name in arguments.given:
            return arguments.given[name]
        if default is not None:
            return default
        return arguments.globals.get(name, arguments.platforms.get(name))

    def values(self) -> dict[str, str]:
        """Those that have a value."""
        return {name: value for name, value in self.declared.items() if value is not None}

    def proxies(self) -> dict[str, str]:
        """Predefined ones that were given; no ARG need name them, and no cache knows of them.

        Where arguments win, programs find them in large and in small letters.
        """
        found = {n: v for n, v in self.arguments.given.items() if n in _PROXIES}
        if self.win:
            found = {form: v for n, v in found.items() for form in (n.upper(), n.lower())} | found
        return found

    def seen(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Arguments that a command sees: those that its environment does not hide."""
        values = self.values().items()
        return {n: v for n, v in values if n not in environment or n in self.hiding}

    def passed(self, environment: Mapping[str, str]) -> dict[str, str]:
        """What a command is given beside its environment."""
        proxies = self.proxies().items()
        unhidden = {n: v for n, v in proxies if self.win or n not in environment}
        return {**unhidden, **self.seen(environment)}

    def told(self, environment: Mapping[str, str]) -> dict[str, str]:
        """All that were declared, as BuildKit's history names them: with what a command sees."""
        seen = self.visible(environment)
        return {name: seen.get(name, value or "") for name, value in self.declared.items()}

    def visible(self, environment: Mapping[str, str]) -> dict[str, str]:
        """All variables: the environment's, and the arguments that it does not hide."""
        return {**environment, **self.seen(environment)}
