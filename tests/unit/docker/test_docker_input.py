"""Odd and wrong input: what Docker refuses is refused, in its words; what it takes is taken."""

from __future__ import annotations

import json

import msgspec
import pytest
from tests.unit.docker.docker_lab import IMAGE, docker_lab

from sagong.errors import Conflict, FailedPrecondition, InvalidArgument, NotFound, SagongError
from sagong_docker.ask import convert, decoded, fitted, whole_number
from sagong_docker.body import CreateBody, ExecBody, HostConfig
from sagong_docker.connectivity import network_error
from sagong_docker.document import read
from sagong_docker.filters import Filters
from sagong_docker.machine import Machine, numbers
from sagong_docker.malformed import query_complaint
from sagong_docker.resources import check_limits, discarded
from sagong_docker.validity import check_body


def body(text: str, kind: type[msgspec.Struct] = CreateBody) -> msgspec.Struct:
    return fitted(read(decoded(text.encode()), kind), kind)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (CreateBody, '{"Tty": "true"}'),
        (CreateBody, '{"Tty": 1}'),
        (CreateBody, '{"StopTimeout": "5"}'),
        (CreateBody, '{"ExposedPorts": {"80": 5}}'),
        (CreateBody, '{"Volumes": {"/a": 5}}'),
        (CreateBody, '{"HostConfig": {"NanoCpus": "1"}}'),
        (CreateBody, '{"HostConfig": {"BlkioWeight": 70000}}'),
        (CreateBody, '{"HostConfig": {"ConsoleSize": [-1, -1]}}'),
        (CreateBody, '{"NetworkingConfig": 5}'),
        (ExecBody, '{"Cmd": "true"}'),
        (ExecBody, '{"Detach": "x"}'),
    ],
)
def test_values_of_another_type_are_refused(kind: type[msgspec.Struct], text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid JSON"):
        body(text, kind)


def test_a_published_port_is_text() -> None:
    given = body('{"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": 80}]}}}')
    assert isinstance(given, CreateBody) and given.host_config is not None
    with pytest.raises(InvalidArgument, match="HostPort of type string"):
        check_body(given, given.host_config, Machine())


def test_what_was_kept_in_other_types_is_still_read() -> None:
    assert convert({"Memory": "5", "Privileged": "true"}, HostConfig).memory == 5


def test_one_word_need_be_no_list() -> None:
    given = body('{"Shell": "sh", "Cmd": "true", "HostConfig": {"CapAdd": "ALL"}}')
    assert isinstance(given, CreateBody) and given.host_config is not None
    assert list(given.shell or ()) == ["sh"] and list(given.host_config.cap_add or ()) == ["ALL"]


def test_isolation_is_default_in_any_case() -> None:
    check_body(CreateBody(), HostConfig(isolation="DEFAULT"), Machine())


@pytest.mark.parametrize("text", ["x", "1.5", "", "1_0", " 5", "٣", "+", "--1"])
def test_what_is_no_number_is_refused_as_by_docker(text: str) -> None:
    with pytest.raises(
        InvalidArgument, match=f'strconv.Atoi: parsing "{text}": invalid syntax'.replace("+", r"\+")
    ):
        whole_number(text)


def test_numbers_have_64_bits() -> None:
    assert [whole_number(t) for t in ("5", "-5", "+5", "007")] == [5, -5, 5, 7]
    with pytest.raises(InvalidArgument, match="value out of range"):
        whole_number("99999999999999999999")


def test_shares_of_processors_are_positive_in_updates_too() -> None:
    with pytest.raises(InvalidArgument, match=r"invalid CPU shares \(-1\)"):
        check_limits(HostConfig(cpu_shares=-1), Machine(), update=True)


def test_what_the_machine_cannot_do_is_not_shown() -> None:
    given = HostConfig(blkio_weight=100, memory_swappiness=10, oom_kill_disable=True)
    assert discarded(given, Machine(io_weight=False, swappiness=False, unified=True)) == {
        "BlkioWeight": 0,
        "MemorySwappiness": None,
        "OomKillDisable": None,
    }
    assert discarded(given, Machine(io_weight=True, swappiness=True, unified=False)) == {}


def test_a_list_of_processors_is_named_whole() -> None:
    with pytest.raises(ValueError, match="invalid format: 0,,1"):
        numbers("0,,1")


def test_filters_may_be_null() -> None:
    assert not Filters.parse("null") and not Filters.parse('{"status":null}')
    with pytest.raises(InvalidArgument):
        Filters.parse('{"status":{"running":5}}')


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("a=%zz", 'invalid URL escape "%zz"'),
        ("a=%", 'invalid URL escape "%"'),
        ("a;b", "invalid semicolon separator in query"),
        ("a=%7B%22b%22%7D&c", ""),
    ],
)
def test_queries_that_are_none(query: str, said: str) -> None:
    assert query_complaint(query) == said


def test_ports_that_are_taken_are_told_as_docker_does() -> None:
    taken = "Bind for 0.0.0.0:80 failed: port is already allocated"
    shown = network_error(Conflict(taken), "web", "e1")
    assert type(shown) is SagongError and shown.message == (
        "failed to set up container networking: driver failed programming external connectivity "
        f"on endpoint web (e1): {taken}"
    )
    by_program = network_error(Conflict(f"{taken} by a program of this machine"), "web", "e1")
    assert by_program.message.endswith("address already in use")
    address = "failed to bind host port for 1.2.3.4:80/tcp: Cannot assign requested address"
    assert "tcp: cannot assign" in network_error(FailedPrecondition(address), "w", "e").message


def test_settings_that_are_not_there_are_told_as_runc_does() -> None:
    found = f"sandbox {'a' * 64}: [Errno 2] /proc/sys/net/nosuch: No such file or directory"
    shown = network_error(FailedPrecondition(found), "web", "e1")
    assert isinstance(shown, InvalidArgument)
    assert "open /proc/sys/net/nosuch: no such file or directory" in shown.message
    other = NotFound("no network")
    assert network_error(other, "web", "e1") is other


async def test_wrong_requests_are_the_client_s_fault() -> None:
    created = "/v1.48/containers/create"
    async with docker_lab() as lab:
        for path, given, said in (
            (created, {"HostConfig": {"Memory": 1 << 63}}, "of type int64"),
            # The limits are looked at before the name is.
            (f"{created}?name=a", {"HostConfig": {"CpuShares": -1}}, "invalid CPU shares"),
            (f"{created}?name=a", {}, "Invalid container name (a)"),
            (created, {"WorkingDir": "/a\0b"}, "zero byte"),
            ("/v1.48/volumes/create?x=%zz", {}, "invalid URL escape"),
            ("/v1.48/volumes/create", {"ClusterVolumeSpec": {}}, "not a swarm manager"),
        ):
            body = json.dumps({"Image": IMAGE, "Cmd": ["true"], **given}).encode()
            status, answer = await lab.raw("POST", path, body)
            assert status == (503 if "swarm" in said else 400) and said in answer.decode(), answer
        for path in (
            "plugins?filters=x",
            "containers/x/archive?path=%00",
            "containers/json?limit=x",
        ):
            status, answer = await lab.raw("GET", f"/v1.48/{path}")
            assert status in (400, 404), answer


async def test_what_is_created_is_shown_as_docker_shows_it() -> None:
    wanted = {
        "Image": IMAGE,
        "WorkingDir": "/not/there/../../tmp",
        "HostConfig": {
            "PidsLimit": -1,
            "Mounts": [{"Type": "bind", "Source": "/tmp/../tmp", "Target": "/x"}],
        },
    }
    async with docker_lab() as lab:
        status, answer = await lab.raw(
            "POST", "/v1.48/containers/create?name=one", json.dumps(wanted).encode()
        )
        assert status == 201, answer
        found = json.loads(await lab.ok("inspect", "one"))[0]
    assert found["HostConfig"]["PidsLimit"] is None
    assert found["Mounts"][0]["Source"] == "/tmp" and found["Config"]["WorkingDir"] == "/tmp"


async def test_an_address_of_the_default_network_is_shown_where_older_clients_look() -> None:
    wanted = {
        "Image": IMAGE,
        "HostConfig": {"NetworkMode": "default"},
        "NetworkingConfig": {"EndpointsConfig": {"default": {"MacAddress": "02:42:aa:bb:cc:dd"}}},
    }
    async with docker_lab() as lab:
        body = json.dumps(wanted).encode()
        assert (await lab.raw("POST", "/v1.48/containers/create?name=one", body))[0] == 201
        found = json.loads(await lab.ok("inspect", "one"))[0]
    assert found["Config"]["MacAddress"] == "02:42:aa:bb:cc:dd"
