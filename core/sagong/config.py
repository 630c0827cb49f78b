"""Configuration: one frozen struct, decoded once from `sagong.toml` over a profile.

A profile lists the units that run; `sagong.toml` chooses the profile and changes units. Unknown
keys are refused with their path. Units' own settings are decoded by their plugins.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import msgspec

from sagong import forms
from sagong.errors import FailedPrecondition, InvalidArgument, NotFound
from sagong.settings import PLACES, filled

__all__ = ["Config", "Paths", "UnitConfig", "load"]


@dataclass(frozen=True)
class Paths:
    """Where an instance lives. `--root DIR` moves all of it below DIR."""

    run: Path = Path("/run/sagong")
    data: Path = Path("/var/lib/sagong")
    etc: Path = Path("/etc/sagong")

    @classmethod
    def below(cls, root: str | Path) -> Paths:
        """The instance of a root directory; "/" is the machine's own."""
        root = Path(root).absolute()
        if root == Path("/"):
            return cls()
        return cls(root / "run", root / "lib", root / "etc")

    @property
    def cgroup(self) -> str:
        """The name of the instance's control groups: `/sagong`, or with a mark of the root."""
        if self.run == Paths().run:
            return "/sagong"
        return f"/sagong-{hashlib.sha256(bytes(self.run)).hexdigest()[:8]}"

    def unit_group(self, unit: str, generation: int | str) -> str:
        """The control group of a unit's process, beside all others': each has its own weight.

        The point ends the instance's name: no other one's begins with it.
        """
        return f"{self.cgroup}.{unit}.{generation}"

    @property
    def prefix(self) -> str:
        """Begins the names of interfaces: `sg`, or three letters of the root's own."""
        if self.run == Paths().run:
            return "sg"
        number = int.from_bytes(hashlib.sha256(bytes(self.run)).digest()[:4])
        letters = "abcdefghijklmnopqrstuvwxyz0123456789"
        return f"s{letters[number % 36]}{letters[number // 36 % 36]}"

    def expand(self, text: str) -> str:
        """Fill in `{run}`, `{data}`, `{etc}`, `{cgroup}`, `{prefix}`, `{hostname}`."""
        return str(filled(text, self.places))

    @property
    def places(self) -> dict[str, str]:
        """What those stand for."""
        return {name: str(getattr(self, name)) for name in PLACES}

    @property
    def hostname(self) -> str:
        """The machine's name, as a node is called: sandboxes have names of their own."""
        return os.uname().nodename.lower()


class UnitConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A unit: which plugin fills it, and that plugin's settings. `enabled = false` leaves it out.

    `instance` names one of several providers of a slot (`local`, `cluster`).
    `listens` changes addresses of the manifest's listeners by name. `hooks` are plugins of kind
    `hook` that are loaded into its process, in this order. `idle_seconds` is after how long without
    work one that starts on demand leaves again, instead of what its manifest says; 0: never.
    """

    plugin: str = ""
    instance: str = ""
    enabled: bool = True
    settings: dict[str, Any] = {}
    listens: dict[str, str] = {}
    hooks: tuple[str, ...] = ()
    idle_seconds: float | None = None

    def plugin_of(self, name: str) -> str:
        """What fills the unit of this name: by default the plugin of the same name."""
        return self.plugin or name.replace("-", "_")


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The kernel's configuration.

    `cpu_shares` is the weight of each unit, against 1024 of any process or group beside them, when
    the processor is short; of one that has a bound of cores and computes, a 64th of it.
    Whoever serves, had the processor time to answer and is silent for `silence_seconds` is ended as
    hung and comes up again; 0: nobody is. `log_limit` is in bytes. `preload` is imported before units
    are forked.
    """

    profile: str = "single"
    uid_base: Annotated[int, msgspec.Meta(ge=1000, le=(1 << 32) - 10_000)] = 58000
    sandbox: bool = True
    preload: tuple[str, ...] = ()
    log_limit: Annotated[int, msgspec.Meta(ge=4096)] = 8 << 20
    cpu_shares: Annotated[int, msgspec.Meta(ge=2, le=262_144)] = 8192
    silence_seconds: Annotated[float, msgspec.Meta(ge=0)] = 20.0
    units: dict[str, UnitConfig] = {}

    def running(self) -> dict[str, UnitConfig]:
        """Those that are not left out."""
        return {name: unit for name, unit in self.units.items() if unit.enabled}


def load(paths: Paths, profile: str = "") -> Config:
    """Read `sagong.toml` (which may be missing) over its profile."""
    found, mistakes = look(paths, profile)
    if mistakes:
        raise InvalidArgument("; ".join(f"{file}: {'; '.join(m)}" for file, m in mistakes.items()))
    return found


def look(paths: Paths, profile: str = "") -> tuple[Config, dict[str, list[str]]]:
    """The same as it was probably meant, and what is wrong in each file, by the file's name."""
    path = paths.etc / "sagong.toml"
    mistakes: dict[str, list[str]] = {}
    own = _read(path, mistakes) if path.exists() else {}
    chosen = profile or own.get("profile", Config().profile)
    base = _profile(paths, str(chosen), mistakes)
    units = {**base.get("units", {})}
    for name, unit in own.get("units", {}).items():
        units[name] = _merged(units.get(name, {}), unit)
    whole = {**base, **own, "profile": chosen, "units": units}
    return msgspec.convert(whole, Config), mistakes


def _merged(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Tables are merged key by key, all else is replaced; another plugin drops the old settings."""
    if "plugin" in own and own["plugin"] != base.get("plugin"):
        base = {k: v for k, v in base.items() if k != "settings"}
    merged = {**base, **own}
    for key in ("settings", "listens"):
        if key in base and key in own:
            merged[key] = {**base[key], **own[key]}
    return merged


def _profile(paths: Paths, name: str, mistakes: dict[str, list[str]]) -> dict[str, Any]:
    own = paths.etc / "profiles" / f"{name}.toml"
    if own.exists():
        return _read(own, mistakes)
    shipped = files("sagong").joinpath("profiles", f"{name}.toml")
    if not shipped.is_file():
        raise NotFound(f"no profile {name}; {_profiles_like(name, own.parent)}; {own} would be one")
    return _parse(shipped.read_text(), f"profile {name}", mistakes)


def _profiles_like(name: str, own: Path) -> str:
    """What was meant, or all that there is."""
    shipped = (Path(one.name) for one in files("sagong").joinpath("profiles").iterdir())
    known = {path.stem for path in (*shipped, *own.glob("*.toml")) if path.suffix == ".toml"}
    meant = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {meant[0]}?" if meant else f"there are {', '.join(sorted(known))}"


def _read(path: Path, mistakes: dict[str, list[str]]) -> dict[str, Any]:
    try:
        return _parse(path.read_text(), str(path), mistakes)
    except UnicodeDecodeError:
        raise InvalidArgument(f"{path} is not UTF-8, as TOML has to be") from None
    except OSError as error:
        raise FailedPrecondition(f"{path} can't be read: {error.strerror}") from None


def _parse(text: str, where: str, mistakes: dict[str, list[str]]) -> dict[str, Any]:
    """A file's tables as they were meant; each mistake in them goes to `mistakes`."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument(f"{where}: not TOML: {error}") from None
    meant, said = forms.meant(tables, Config)
    if said:
        mistakes[where] = said
    return meant
