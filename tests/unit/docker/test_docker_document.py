"""Bodies as Go reads them, and what links give."""

from __future__ import annotations

import pytest

from sagong.errors import InvalidArgument
from sagong_docker.ask import convert
from sagong_docker.body import CreateBody
from sagong_docker.document import read
from sagong_docker.links import Link


def test_names_are_found_in_any_case_as_in_go() -> None:
    given = {
        "image": "busybox",
        "ENV": ["A=b", None],
        "HOSTCONFIG": {
            "binds": ["/a:/b"],
            "PortBindings": {"80/tcp": [{"hostport": "8080"}], "81/tcp": None},
            "logConfig": {"type": "none", "config": {"Env": None}},
            "memory": None,
            "of-the-future": 1,
        },
        "labels": {"Image": "mine", "image": None},
        "Unknown": {"x": 1},
        "volumes": {"/V": None},
    }
    assert read(given, CreateBody) == {
        "Image": "busybox",
        "Env": ["A=b", ""],
        "HostConfig": {
            "Binds": ["/a:/b"],
            "PortBindings": {"80/tcp": [{"HostPort": "8080"}], "81/tcp": None},
            "LogConfig": {"Type": "none", "Config": {"Env": ""}},
        },
        "Labels": {"Image": "mine", "image": ""},
        "Volumes": {"/V": None},
    }


@pytest.mark.parametrize("given", [{"Env": "x"}, {"HostConfig": []}, {"Labels": ["a"]}])
def test_what_has_another_shape_is_complained_of(given: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument, match="invalid JSON"):
        convert(given, CreateBody)


def test_a_link_gives_the_variables_of_docker() -> None:
    link = Link("db", "my-db", "10.0.0.2", ("8080/tcp", "53/udp", "81"), ("A=b=c", "PATH=/", "X"))
    said = list(link.variables("web"))
    assert said[0] == "MY_DB_PORT=udp://10.0.0.2:53"
    assert said[1:5] == [
        "MY_DB_PORT_81_TCP=tcp://10.0.0.2:81",
        "MY_DB_PORT_81_TCP_ADDR=10.0.0.2",
        "MY_DB_PORT_81_TCP_PORT=81",
        "MY_DB_PORT_81_TCP_PROTO=tcp",
    ]
    assert said[-2:] == ["MY_DB_NAME=/web/my-db", "MY_DB_ENV_A=b=c"] and len(said) == 15
