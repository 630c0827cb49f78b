"""Which units run: what is configured, and what the operator has asked for since."""

from __future__ import annotations

import pytest

from sagong.config import Config, UnitConfig
from sagong.contracts.kernel import UnitSpec
from sagong.errors import InvalidArgument
from sagong.kernel.enabling import wish
from sagong.kernel.journal import Choices
from sagong.kernel.units import chosen, laid, with_unit, without_unit


def configured(**fields: object) -> Config:
    """Unit `docker`, which the configuration has."""
    return Config(units={"docker": UnitConfig(**fields)})  # type: ignore[arg-type]


def test_a_unit_that_was_enabled_follows_what_is_configured_later() -> None:
    """Its first configuration was kept for ever, without hooks: a rule of authorization was gone."""
    choices = Choices(units={"docker": wish(UnitSpec(unit="docker"))})
    for later in (
        configured(hooks=("guard",), settings={"history": 5}, idle_seconds=0.0),
        configured(enabled=False, listens={"network": "tcp:0.0.0.0:2376"}),
    ):
        (unit,) = chosen(later, choices).values()
        assert unit.enabled
        was = later.units["docker"]
        assert (unit.hooks, unit.settings, unit.listens) == (was.hooks, was.settings, was.listens)
        assert unit.idle_seconds == was.idle_seconds


def test_what_was_asked_for_goes_before_what_is_configured() -> None:
    spec = UnitSpec(unit="docker", settings='{"history": 9}', listens=(("api", "unix:/x"),))
    choices = Choices(units={"docker": wish(spec)})
    later = configured(settings={"history": 5, "name": "box"}, listens={"network": "tcp:1:1"})
    unit = chosen(later, choices)["docker"]
    assert unit.settings == {"history": 9, "name": "box"}
    assert unit.listens == {"api": "unix:/x", "network": "tcp:1:1"}


def test_another_plugin_has_settings_of_its_own() -> None:
    choices = Choices(units={"docker": wish(UnitSpec(unit="docker", plugin="other"))})
    unit = chosen(configured(settings={"history": 5}), choices)["docker"]
    assert (unit.plugin, unit.settings) == ("other", {})


def test_settings_that_are_no_object_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="settings of docker"):
        wish(UnitSpec(unit="docker", settings="[]"))


def test_one_that_comes_back_is_as_it_was() -> None:
    """What it was enabled with was forgotten when it was taken away."""
    spec = UnitSpec(unit="docker", settings='{"history": 9}', listens=(("api", "unix:/x"),))
    config = configured(settings={"history": 5, "name": "box"})
    was = with_unit(Choices(), "docker", wish(spec))
    away = without_unit(was, config, "docker")
    assert chosen(config, away) == {}
    back = with_unit(away, "docker", laid("docker", wish(UnitSpec(unit="docker")), resting(away)))
    assert chosen(config, back) == chosen(config, was)
    assert back.resting == {}


def test_what_it_is_given_anew_goes_before_what_it_was() -> None:
    away = without_unit(
        with_unit(Choices(), "docker", asked('{"a": 1, "b": 1}')), Config(), "docker"
    )
    assert laid("docker", asked('{"b": 2}'), resting(away)).settings == {"a": 1, "b": 2}
    other = laid("docker", wish(UnitSpec(unit="docker", plugin="other")), resting(away))
    assert (other.plugin, other.settings) == ("other", {})
    same = laid("docker", wish(UnitSpec(unit="docker", plugin="docker")), resting(away))
    assert same.settings == {"a": 1, "b": 1}


def test_a_plugin_that_was_swapped_in_comes_back() -> None:
    was = with_unit(Choices(plugins={"docker": "other"}), "docker", asked('{"a": 1}'))
    away = without_unit(was, Config(), "docker")
    assert away.plugins == {}
    assert resting(away) == UnitConfig(plugin="other")


def test_what_is_forgotten_comes_back_as_it_is_configured() -> None:
    was = with_unit(Choices(), "docker", asked('{"a": 1}'))
    assert without_unit(was, configured(), "docker", forget=True) == Choices(disabled=("docker",))
    later = without_unit(without_unit(was, Config(), "docker"), Config(), "docker", forget=True)
    assert later == Choices()


def asked(settings: str) -> UnitConfig:
    """Unit `docker`, enabled with these settings."""
    return wish(UnitSpec(unit="docker", settings=settings))


def resting(choices: Choices) -> UnitConfig:
    return choices.resting["docker"]
