"""Create bodies of networks: the engine's default options, and versions of IP that options name."""

from __future__ import annotations

import pytest

from sagong.errors import InvalidArgument
from sagong_docker.network_body import defaulted, network_of

MTU, SIX = "com.docker.network.driver.mtu", "com.docker.network.enable_ipv6"
FOUR = "com.docker.network.enable_ipv4"


def test_default_options_are_of_networks_that_do_not_name_them() -> None:
    options = {MTU: "1400", "other": "x"}
    made = network_of("id", "n", "bridge", defaulted({"Options": {MTU: "1300"}}, options))
    assert dict(made.options) == {MTU: "1300", "other": "x"}
    assert defaulted({"Name": "n"}, {}) == {"Name": "n"}


def test_a_version_of_ip_may_be_a_default_option() -> None:
    made = network_of("id", "n", "bridge", defaulted({}, {SIX: "true", FOUR: "0"}))
    assert made.ipv6 and not made.ipv4 and dict(made.options) == {SIX: "true", FOUR: "0"}
    # What is overridden is not shown: it would say something else than the network is.
    overridden = defaulted({"EnableIPv6": False}, {SIX: "true"})
    assert overridden == {"EnableIPv6": False}
    own = defaulted({"Options": {SIX: "true"}}, {})
    assert own["EnableIPv6"] is True and own["Options"] == {SIX: "true"}


def test_a_version_of_ip_is_on_or_off() -> None:
    with pytest.raises(InvalidArgument, match="enable_ipv6: perhaps"):
        defaulted({}, {SIX: "perhaps"})
