"""Manifests and configuration: mistakes are refused with their place and the remedy."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from sagong import config, manifest
from sagong.config import Paths
from sagong.errors import InvalidArgument, NotFound
from sagong.kernel import directory
from sagong.kernel.directory import Serving
from sagong.kernel.units import Unit, resolve_one

HEAD = """
[plugin]
name = "sample"
version = "1"
summary = "a sample"
class = "sample:Sample"
"""


def read(text: str) -> manifest.Manifest:
    return manifest.parse(HEAD + text, where="sample/plugin.toml")


def test_a_manifest_without_rights_grants_nothing() -> None:
    found = read("")
    assert found.rights.capabilities == ()
    assert found.rights.network.mode == "none"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour = 1", "colour: no such key"),
        ("[rights]\nspeed = 1", r"rights\.speed: no such key; there are capabilities,"),
        ('[rights]\nnetwork = { mode = "all" }', "all"),
        (
            '[rights]\ncapabilities = [{ name = "CAP_CHOWN" }]',
            r"rights\.capabilities\[0\]\.why is missing",
        ),
        ('[rights]\ncapabilities = [{ name = "CAP_CHOWN", why = "" }]', "say why"),
        ('[rights]\nnetwork = { mode = "host" }', "rights.network.why"),
        ('[limits]\nmemory = "lots"', "limits.memory lots: a number"),
        ('[limits]\nmemory = "0"', "limits.memory 0: at least"),
        ('[limits]\nmemory = "99999999999G"', "no more than a petabyte"),
        ('[limits]\ntmp = "0"', "limits.tmp 0: at least"),
        ("[limits]\npids = 0", r"limits\.pids"),
        ("[limits]\npids = -1", r"limits\.pids"),
        ("[limits]\nfiles = -1", r"limits\.files"),
        ("[limits]\ncpu = inf", r"limits\.cpu"),
        ("[limits]\ncpu = nan", r"limits\.cpu"),
        ("[restart]\ndrain_seconds = nan", r"restart\.drain_seconds"),
        ("[restart]\ntrial_seconds = inf", r"restart\.trial_seconds"),
        (
            '[rights]\npaths = [{ path = "/a", access = "read", shared = true, why = "reads" }]',
            "can't be for reading alone",
        ),
        ('[listens.api]\naddress = "nowhere"\nwhy = "an API"', "unix:PATH"),
        ("[life]\non_demand = true", "nothing would wake it"),
        ("[life]\nidle_seconds = 5.0", "only what is on_demand leaves"),
        ("[life]\non_demand = true\nidle_seconds = inf", r"life\.idle_seconds"),
        ("[plugin]", "not TOML"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message) as caught:
        read(text)
    assert caught.value.message.startswith("sample/plugin.toml")


@pytest.mark.parametrize(
    "manifest_says, wish, seconds",
    [
        ("[provides]\nscheduler = 1", None, 0.0),
        ("[provides]\nscheduler = 1\n[life]\non_demand = true", None, 60.0),
        ("[provides]\nscheduler = 1\n[life]\non_demand = true", 5.0, 5.0),
        ("[provides]\nscheduler = 1\n[life]\non_demand = true", 0.0, 0.0),
    ],
)
def test_the_operator_decides_how_long_one_on_demand_stays(
    manifest_says: str, wish: float | None, seconds: float
) -> None:
    def load(name: str) -> tuple[str, manifest.Manifest]:
        return "sample", read(manifest_says)

    unit = config.UnitConfig(plugin="sample", idle_seconds=wish)
    assert resolve_one("scheduler", unit, load).idle_seconds == seconds


def test_one_that_is_always_there_has_no_idle_seconds() -> None:
    def load(name: str) -> tuple[str, manifest.Manifest]:
        return "sample", read("[provides]\nscheduler = 1")

    unit = config.UnitConfig(plugin="sample", idle_seconds=5.0)
    with pytest.raises(InvalidArgument, match=r"units\.scheduler\.idle_seconds: sample does"):
        resolve_one("scheduler", unit, load)


def test_class_and_command_exclude_each_other() -> None:
    with pytest.raises(InvalidArgument, match="either class"):
        manifest.parse(HEAD + 'command = ["x"]', where="here")


@pytest.mark.parametrize(("text", "size"), [("64M", 64 << 20), ("1G", 1 << 30), ("12", 12)])
def test_sizes_are_bytes(text: str, size: int) -> None:
    assert manifest.size_bytes(text) == size


def write(tmp_path: Path, text: str) -> Paths:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "sagong.toml").write_text(text)
    return Paths.below(tmp_path)


def test_own_settings_are_laid_over_the_profile(tmp_path: Path) -> None:
    paths = write(
        tmp_path,
        'profile = "docker"\n[units.state-local.settings]\nhistory_seconds = 9\n'
        "[units.docker]\nenabled = false\n",
    )
    found = config.load(paths)
    local = found.units["state-local"]
    assert local.plugin == "state_sqlite"
    assert local.settings == {"file": "local.db", "history_seconds": 9}
    assert not found.units["docker"].enabled


@pytest.mark.parametrize(
    "text, said",
    [
        ("[units.docker]\ncolour = 1\n", "units.docker.colour: no such key; there are plugin,"),
        ("units = 3\n", "units 3: a table"),
        ("[units]\ndocker = 3\n", "units.docker 3: a table"),
        ("profile = 3\n", "profile 3: a text in quotes"),
        ("uid_base = 0\n", "uid_base 0: a whole number, at least 1000"),
        ("[units.docker]\nidle_second = 3\n", "did you mean idle_seconds?"),
        ("x = ü", "not TOML"),
    ],
)
def test_a_mistake_in_the_configuration_is_told(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(said)) as caught:
        config.load(write(tmp_path, text))
    assert caught.value.message.startswith(f"{tmp_path}/etc/sagong.toml: ")


def test_all_mistakes_in_the_configuration_are_told_at_once(tmp_path: Path) -> None:
    paths = write(tmp_path, "sandbix = true\n[units.kube]\nplugn = 'x'\n[units.dns]\nhooks = 'y'\n")
    with pytest.raises(InvalidArgument) as caught:
        config.load(paths)
    for word in ("sandbix", "units.kube.plugn", 'units.dns.hooks "y": a list'):
        assert word in caught.value.message


def test_unknown_profiles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no profile nonsense"):
        config.load(write(tmp_path, ""), "nonsense")


def unit(name: str, text: str, instance: str = "") -> Unit:
    text = HEAD.replace("sample", name.replace("-", "_")) + text
    return Unit(name, instance, manifest.parse(text, where=name), name, {}, {})


UNITS = {
    found.name: found
    for found in (
        unit("state-local", "[provides]\nstate = 1", "local"),
        unit("state-cluster", "[provides]\nstate = 1", "cluster"),
        unit("image", "[provides]\nimage = 1"),
        unit(
            "node",
            '[uses.state]\nversion = 1\ninstance = "local"\nmethods = ["range"]\nwhy = "records"\n'
            '[uses.image]\nversion = 1\nwhy = "images"\n[hears.image]\nwhy = "changes"\n',
        ),
    )
}


def test_routes_lead_to_the_instance_that_is_asked_for() -> None:
    serving = {"state-local": Serving(4, "/a"), "state-cluster": Serving(5, "/b")}
    routes = directory.routes_of(UNITS["node"], UNITS, serving)
    assert [(r.slot, r.instance, r.generation, r.path) for r in routes] == [
        ("state", "local", 4, "/a")
    ]


def test_access_is_what_the_manifest_says_and_nothing_else() -> None:
    uids = {u.identity: 100 + n for n, u in enumerate(UNITS.values())}
    local = directory.access_of(UNITS["state-local"], UNITS.values(), UNITS, uids)
    assert [(a.name, a.methods) for a in local] == [("node", ("state/1/range",))]
    assert directory.access_of(UNITS["state-cluster"], UNITS.values(), UNITS, uids) == ()
    image = directory.access_of(UNITS["image"], UNITS.values(), UNITS, uids)
    assert image[0].methods == ("image/1/*", "image/1/events")


def test_both_plugins_of_a_swap_have_access() -> None:
    """The newcomer before it is published, the old one while it drains, each by its own uid."""
    other = unit("packer", '[uses.image]\nversion = 1\nmethods = ["list"]\nwhy = "images"\n')
    newcomer = replace(other, name="node")
    callers = [UNITS["node"], newcomer, *UNITS.values()]
    uids = {u.identity: 100 + n for n, u in enumerate(callers)}
    found = directory.access_of(UNITS["image"], callers, UNITS, uids)
    assert {a.uid: a.methods for a in found} == {
        uids["node"]: ("image/1/*", "image/1/events"),
        uids["packer"]: ("image/1/list",),
    }


def test_an_ambiguous_slot_is_nobodys() -> None:
    assert directory.provider_of(UNITS, "state", 1, "") is None
