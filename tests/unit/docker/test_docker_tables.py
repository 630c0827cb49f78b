"""The pure parts by tables: versions, filters, create bodies, detach keys, views."""

from __future__ import annotations

import re
import stat
from typing import Any

import msgspec
import pytest

from sagong.contracts.network import Endpoint, PortMapping
from sagong.contracts.network import Sandbox as NetworkSandbox
from sagong.contracts.node import (
    ContainerSpec,
    ContainerStatus,
    FileMount,
    HealthState,
    RestartPolicy,
    StatusState,
)
from sagong.errors import InvalidArgument, SagongError
from sagong.settings import decoded
from sagong_docker import signals, wiring
from sagong_docker.archive import go_mode
from sagong_docker.ask import convert
from sagong_docker.body import CreateBody, HostConfig
from sagong_docker.changes import apply_changes
from sagong_docker.container_line import status_text
from sagong_docker.creation import Lookup, Wish, translate
from sagong_docker.credentials import credentials
from sagong_docker.detach import DetachKeys, parse_keys
from sagong_docker.filters import Filters
from sagong_docker.history import Event, event_matches, event_view
from sagong_docker.images import named
from sagong_docker.life import start_error
from sagong_docker.log_options import check_log
from sagong_docker.machine import Machine
from sagong_docker.moment import moment_text, nanos_text, parse_moment
from sagong_docker.naming import check_name, random_name
from sagong_docker.network_view import port_list, port_map
from sagong_docker.process_table import process_table
from sagong_docker.record import ContainerRecord
from sagong_docker.resources import size_of
from sagong_docker.routes import ROUTER
from sagong_docker.settings import Settings
from sagong_docker.validity import check_body, warnings
from sagong_docker.version import API, versioned

ID = "a" * 64
MACHINE = Machine(cpus="0-3", nodes="0")


def wish(document: dict[str, object], **lookup: object) -> Wish:
    """What a create body becomes."""
    body = convert({"Image": "busybox", **document}, CreateBody)
    check_body(body, body.host_config or HostConfig(), MACHINE)
    check_log(body.host_config or HostConfig(), Settings())
    known = Lookup(machine=MACHINE, **lookup)  # type: ignore[arg-type]
    settings = decoded(Settings, {}, "docker", {"data": "/var/lib/sagong"})
    return translate(ID, "name", body, settings, known)


def host(**fields: object) -> dict[str, object]:
    """A body with a HostConfig."""
    return {"HostConfig": fields}


@pytest.mark.parametrize(
    ("path", "version", "rest"),
    [
        ("v1.41/containers/json", (1, 41), ("containers", "json")),
        ("containers/json", API, ("containers", "json")),
        ("version", API, ("version",)),
        ("v1.24/_ping", (1, 24), ("_ping",)),
        ("v1.22/images/load", (1, 22), ("images", "load")),
        ("v1.22/images/get", (1, 22), ("images", "get")),
        ("volumes/v1", API, ("volumes", "v1")),
    ],
)
def test_a_path_names_its_version(
    path: str, version: tuple[int, int], rest: tuple[str, ...]
) -> None:
    found = versioned(tuple(path.split("/")))
    assert (found.version, found.segments) == (version, rest)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("v1.99/info", "too new"),
        ("v1.12/info", "too old"),
        ("v1.23/images/json", "too old"),
        ("v1.22/containers/json", "too old"),
        ("v1.21/images/load", "too old"),
    ],
)
def test_versions_out_of_range_are_refused(path: str, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        versioned(tuple(path.split("/")))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('{"label":{"a=b":true,"c":true}}', ("a=b", "c")),
        ('{"label":["a=b","c"]}', ("a=b", "c")),
        ('{"label":{"a":true,"b":false}}', ("a",)),
        ('{"label":"a"}', ("a",)),
        ("", ()),
        ("{}", ()),
    ],
)
def test_filters_have_two_shapes(text: str, values: tuple[str, ...]) -> None:
    assert Filters.parse(text)["label"] == values


def test_filters_match() -> None:
    filters = Filters.parse('{"label":["a=1","b"],"name":["^we"],"dangling":["True"],"id":["ab"]}')
    assert filters.labels({"a": "1", "b": "x"}) and not filters.labels({"a": "1"})
    assert filters.pattern("name", ["web"]) and not filters.pattern("name", ["a-web"])
    assert filters.boolean("dangling") is True and filters.prefix("id", "abc")
    assert not filters.prefix("id", "xab") and filters.exact("nothing", "x")
    assert Filters.parse('{"name":["[bad"]}').pattern("name", ["x[bad"])
    for text in ("[]", "nonsense", '{"label":5}'):
        with pytest.raises(InvalidArgument):
            Filters.parse(text)
    with pytest.raises(InvalidArgument):
        Filters.parse('{"dangling":["maybe"]}').boolean("dangling")


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "wanted"),
    [
        (None, None, (None, None)),
        (None, ["ls"], (None, ("ls",))),
        (["sh"], None, (("sh",), None)),
        ([], None, (None, None)),
        ([""], ["ls"], (("",), ("ls",))),
        ("one", "two", (("one",), ("two",))),
    ],
)
def test_entrypoint_and_cmd(entrypoint: object, cmd: object, wanted: object) -> None:
    command = wish({"Entrypoint": entrypoint, "Cmd": cmd}).container.command
    assert (command.entrypoint, command.cmd) == wanted


def test_the_network_mode_chooses_networks() -> None:
    networks = {"bridge": "B", "net": "N", "other": "O"}
    default = wish({}, networks=networks).sandbox.network
    assert [a.network for a in default.attachments] == ["B"]
    assert default.attachments[0].aliases == (ID[:12],) and default.names == ("name",)
    endpoints = {
        "EndpointsConfig": {
            "other": {"Aliases": ["x"]},
            "net": {"IPAMConfig": {"IPv4Address": "10.0.0.9"}, "GwPriority": 5},
        }
    }
    several = wish({**host(NetworkMode="net"), "NetworkingConfig": endpoints}, networks=networks)
    places = several.sandbox.network.attachments
    assert [(a.network, a.ipv4, a.priority) for a in places] == [("N", "10.0.0.9", 5), ("O", "", 0)]
    assert places[1].aliases == ("x", ID[:12])
    for mode in ("host", "none"):
        made = wish(host(NetworkMode=mode), networks=networks).sandbox.network
        assert (made.mode, made.attachments) == (mode, ())
    shared = wish(host(NetworkMode="container:c"), containers={"c": "C"}).sandbox
    assert (shared.share_with, shared.network.mode) == ("C", "none")
    assert wish({"NetworkDisabled": True}).sandbox.network.mode == "none"


def test_links_and_nameservers_are_the_network_s() -> None:
    networks = {"bridge": "B", "net": "N", "other": "O"}
    body = {
        **host(NetworkMode="net", Links=["one:db", "two"], Dns=["9.9.9.9"]),
        "NetworkingConfig": {"EndpointsConfig": {"net": {}, "other": {"Links": ["three:x"]}}},
    }
    made = wish(body, networks=networks).sandbox.network
    assert [a.links for a in made.attachments] == [
        (("db", "one"), ("two", "two")),
        (("x", "three"),),
    ]
    assert made.nameservers == ("9.9.9.9",)


def test_ports_are_published() -> None:
    bindings = {
        "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}, {"HostPort": ""}],
        "53/udp": None,
        "9000": [{"HostPort": "7000-7002"}],
    }
    made = wish(host(PortBindings=bindings), published=frozenset({(7000, "tcp")}))
    found = [
        (p.container_port, p.protocol, p.host_ip, p.host_port) for p in made.sandbox.network.ports
    ]
    assert found == [
        (80, "tcp", "127.0.0.1", 8080),
        (80, "tcp", "", 0),
        (53, "udp", "", 0),
        (9000, "tcp", "", 7001),
    ]
    everything = wish(
        host(PublishAllPorts=True, PortBindings={"80/tcp": [{"HostPort": "1"}]}),
        exposed=("80/tcp", "81/tcp"),
    )
    assert [(p.container_port, p.host_port) for p in everything.sandbox.network.ports] == [
        (80, 1),
        (81, 0),
    ]
    for port in ("x/tcp", "0", "70000", "80/icmp"):
        with pytest.raises(InvalidArgument):
            wish(host(PortBindings={port: []}))


def test_mounts_of_all_forms() -> None:
    fields = {
        "Binds": ["/src:/dst:ro,rslave", "vol:/vol:nocopy"],
        "Tmpfs": {"/tmp": "size=10m,exec", "/run": "ro"},
        "Mounts": [
            {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True},
            {"Type": "volume", "Target": "/anon"},
            {
                "Type": "volume",
                "Source": "v2",
                "Target": "/sub",
                "VolumeOptions": {
                    "Subpath": "s",
                    "NoCopy": True,
                    "DriverConfig": {"Name": "nfs", "Options": {"o": "x"}},
                },
            },
            {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1024, "Mode": 0o1777}},
            {"Type": "image", "Source": "busybox", "Target": "/img"},
        ],
    }
    mounts = {
        m.target: m
        for m in wish({**host(**fields), "Volumes": {"/data": {}, "/vol": {}}}).container.mounts
    }
    assert mounts["/dst"] == FileMount(
        kind="bind", source="/src", target="/dst", readonly=True, propagation="rslave", create=True
    )
    assert (mounts["/vol"].source, mounts["/vol"].copy) == ("vol", False)
    assert mounts["/tmp"].options == (f"size={10 << 20}", "exec") and mounts["/run"].readonly
    assert not mounts["/b"].create and mounts["/b"].readonly
    assert mounts["/anon"].anonymous and len(mounts["/anon"].source) == 64
    assert (mounts["/sub"].subpath, mounts["/sub"].driver, mounts["/sub"].driver_options) == (
        "s",
        "nfs",
        (("o", "x"),),
    )
    assert mounts["/t"].options == ("size=1024", "mode=1777")
    assert mounts["/img"].kind == "image" and mounts["/data"].anonymous


@pytest.mark.parametrize(
    "fields",
    [
        {"Binds": ["/a:/b", "/c:/b"]},
        {"Binds": ["a"]},
        {"Binds": ["/"]},
        {"Binds": ["/a:b"]},
        {"Binds": ["/a:/b:nocopy"]},
        {"Binds": ["vol:/b:rshared"]},
        {"Annotations": {"": "x"}},
        {"DeviceCgroupRules": ["c 1:3"]},
        {"Devices": [{"PathOnHost": "/dev/null", "CgroupPermissions": "x"}]},
        {"Devices": [{}]},
        {"SecurityOpt": ["systempaths=x"]},
        {"PortBindings": {"80/tcp": [{"HostPort": "9000-8000"}]}},
        {"Binds": ["/a:/"]},
        {"Binds": ["a/b:/c"]},
        {"Binds": ["/a:/b:sideways"]},
        {"Mounts": [{"Type": "bind", "Source": "rel", "Target": "/b"}]},
        {"Mounts": [{"Type": "volume"}]},
        {"Mounts": [{"Type": "floppy", "Target": "/a"}]},
        {"RestartPolicy": {"Name": "sometimes"}},
        {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 3}},
        {"AutoRemove": True, "RestartPolicy": {"Name": "always"}},
        {"Memory": 1024},
        {"MemorySwap": 1 << 30},
        {"Memory": 1 << 30, "MemorySwap": 1 << 29},
        {"NanoCpus": 1, "CpuQuota": 1},
        {"LogConfig": {"Type": "carrier-pigeon"}},
        {"LogConfig": {"Type": "json-file", "Config": {"max-file": "many"}}},
        {"Runtime": "nosuch"},
        {"SecurityOpt": ["magic=on"]},
        {"ExtraHosts": ["onlyname"]},
        {"ExtraHosts": ["name:notanip"]},
        {"PidMode": "sideways"},
        {"CgroupnsMode": "both"},
        {"DeviceRequests": [{"Driver": "", "Capabilities": [["gpu"]]}]},
        {"StorageOpt": {"colour": "blue"}},
        {"Memory": "a lot"},
        {"CpusetCpus": "0-9"},
        {"CpusetMems": "1"},
        {"CpuPeriod": 5},
        {"OomScoreAdj": 1001},
        {"ShmSize": -1},
        {"CapAdd": ["FLY"]},
        {"UsernsMode": "mine"},
        {"Ulimits": [{"Name": "beer", "Soft": 1, "Hard": 1}]},
        {"Ulimits": [{"Name": "nofile", "Soft": 2, "Hard": 1}]},
        {"LogConfig": {"Type": "json-file", "Config": {"colour": "blue"}}},
        {"LogConfig": {"Type": "local", "Config": {"max-buffer-size": "1m"}}},
        {"LogConfig": {"Type": "json-file", "Config": {"labels-regex": "("}}},
        {"NetworkMode": "container:"},
        {"NetworkMode": "host", "Links": ["a:b"]},
        {"NetworkMode": "container:c", "Dns": ["192.0.2.1"]},
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        wish(host(**fields))


@pytest.mark.parametrize(
    ("fields", "machine", "said"),
    [
        ({"MemorySwappiness": 5}, MACHINE, "Memory swappiness discarded"),
        ({"OomKillDisable": True}, MACHINE, "OomKillDisable discarded"),
        ({"OomKillDisable": True}, Machine(unified=False), "no memory limit is set"),
        ({"BlkioWeight": 20}, Machine(io_weight=False), "Weight discarded"),
        ({"NetworkMode": "host", "PortBindings": {"80/tcp": []}}, MACHINE, "Published ports"),
    ],
)
def test_what_is_left_out_is_said(fields: dict[str, object], machine: Machine, said: str) -> None:
    assert [w for w in warnings(convert(fields, HostConfig), machine) if said in w]
    assert warnings(HostConfig(), machine) == []


def test_lines_of_a_log_have_the_labels_and_variables_that_were_asked_for() -> None:
    options = {"labels": "a,none", "env": "E", "env-regex": "^X_"}
    body = {
        "Labels": {"a": "1", "b": "2"},
        "Env": ["E=3", "X_Y=4", "Z=5"],
        **host(LogConfig={"Type": "json-file", "Config": options}),
    }
    assert dict(wish(body).container.log.attributes) == {"a": "1", "E": "3", "X_Y": "4"}


@pytest.mark.parametrize(
    ("name", "found"), [("TERM", 15), ("sigkill", 9), ("9", 9), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)]
)
def test_signals_have_names_and_numbers(name: str, found: int) -> None:
    assert signals.number(name) == found


@pytest.mark.parametrize("name", ["", "0", "65", "SIGNOTHING", "TERM+1", "RTMIN+99", "15x"])
def test_what_is_no_signal_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument):
        signals.number(name)


def test_limits_and_security_of_a_body() -> None:
    spec = wish(
        host(
            Memory=64 << 20,
            NanoCpus=1_500_000_000,
            PidsLimit=-1,
            Ulimits=[{"Name": "NOFILE", "Soft": 10, "Hard": 20}],
            BlkioDeviceReadIOps=[{"Path": "/dev/sda", "Rate": 9}],
            SecurityOpt=[
                "no-new-privileges",
                "seccomp=unconfined",
                "apparmor=mine",
                "label=type:x",
            ],
            CapAdd=["NET_ADMIN"],
            Devices=[{"PathOnHost": "/dev/fuse", "PathInContainer": "", "CgroupPermissions": "rw"}],
            Sysctls={"net.core.somaxconn": "9", "kernel.msgmax": "1"},
            RestartPolicy={"Name": "on-failure", "MaximumRetryCount": 3},
            IpcMode="container:c",
            ExtraHosts=["gw:host-gateway", "v6=[::1]"],
            LogConfig={"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
        ),
        containers={"c": "C"},
        gateways=("172.17.0.1", "fd00::1"),
    )
    made, limits = spec.container, spec.container.limits
    assert (limits.memory, limits.memory_swap, limits.pids) == (64 << 20, 128 << 20, None)
    assert (limits.cpu_quota, limits.cpu_period) == (150000, 100000)
    assert limits.io_read_iops == (("/dev/sda", 9),)
    assert (made.rlimits[0].name, made.rlimits[0].hard) == ("nofile", 20)
    assert made.no_new_privileges and made.seccomp == "unconfined" and made.selinux == "type:x"
    assert (made.devices[0].target, made.devices[0].permissions) == ("/dev/fuse", "rw")
    assert made.sysctls == (("kernel.msgmax", "1"),)
    assert spec.sandbox.network.sysctls == (("net.core.somaxconn", "9"),)
    assert made.restart == RestartPolicy(name="on-failure", maximum=3)
    assert made.ipc_mode == "container:C"
    assert spec.sandbox.hosts == (
        ("172.17.0.1", "gw"),
        ("fd00::1", "gw"),
        ("::1", "v6"),
    )
    assert (made.log.max_size, made.log.max_files) == (10 << 20, 3)


def test_health_checks_in_nanoseconds() -> None:
    health = wish(
        {"Healthcheck": {"Test": ["CMD", "true"], "Interval": 10**9, "Retries": 2}}
    ).container.health
    # What is not said is the image's to say.
    assert health is not None and (health.interval, health.timeout, health.retries) == (
        1.0,
        0.0,
        2,
    )
    assert wish({"Healthcheck": {"Test": ["NONE"]}}).container.health is not None


@pytest.mark.parametrize(
    ("typed", "passed", "detached"),
    [
        ([b"hello"], b"hello", False),
        ([b"a\x10\x11b"], b"a", True),
        ([b"a\x10", b"\x11"], b"a", True),
        ([b"a\x10", b"b"], b"a\x10b", False),
        ([b"\x10\x10\x11"], b"\x10", True),
        ([b"\x10", b"\x10", b"x"], b"\x10\x10x", False),
    ],
)
def test_detach_keys_are_found_and_nothing_else_is_lost(
    typed: list[bytes], passed: bytes, detached: bool
) -> None:
    keys = DetachKeys(parse_keys(""))
    found = [keys.feed(data) for data in typed]
    assert b"".join(data for data, _ in found) == passed
    assert any(done for _, done in found) is detached


def test_detach_keys_are_parsed() -> None:
    assert parse_keys("ctrl-a,d,ctrl-\\") == b"\x01d\x1c"
    with pytest.raises(InvalidArgument):
        parse_keys("shift-x")


@pytest.mark.parametrize(
    ("mode", "go"),
    [
        (stat.S_IFREG | 0o644, 0o644),
        (stat.S_IFDIR | 0o755, 1 << 31 | 0o755),
        (stat.S_IFLNK | 0o777, 1 << 27 | 0o777),
        (stat.S_IFREG | 0o4755, 1 << 23 | 0o755),
        (stat.S_IFDIR | 0o1777, 1 << 31 | 1 << 20 | 0o777),
        (stat.S_IFCHR | 0o600, 1 << 26 | 1 << 21 | 0o600),
    ],
)
def test_modes_are_gos(mode: int, go: int) -> None:
    assert go_mode(mode) == go


@pytest.mark.parametrize(
    ("state", "ago", "text"),
    [
        (StatusState.RUNNING, 0.2, "Up Less than a second"),
        (StatusState.RUNNING, 1.5, "Up 1 second"),
        (StatusState.RUNNING, 59, "Up 59 seconds"),
        (StatusState.RUNNING, 61, "Up About a minute"),
        (StatusState.RUNNING, 600, "Up 10 minutes"),
        (StatusState.RUNNING, 3600, "Up About an hour"),
        (StatusState.RUNNING, 3 * 86400, "Up 3 days"),
        (StatusState.PAUSED, 5, "Up 5 seconds (Paused)"),
        (StatusState.EXITED, 7200, "Exited (2) 2 hours ago"),
        (StatusState.RESTARTING, 3, "Restarting (2) 3 seconds ago"),
        (StatusState.CREATED, 0, "Created"),
    ],
)
def test_status_is_told_as_docker_tells_it(state: StatusState, ago: float, text: str) -> None:
    spec = ContainerSpec(id=ID, sandbox=ID, image="x")
    then = 0.0 if state is StatusState.CREATED else 1e9 - ago
    status = ContainerStatus(spec=spec, state=state, code=2, started_at=then, finished_at=then)
    assert status_text(status, 1e9) == text


def test_health_is_part_of_the_status() -> None:
    spec = ContainerSpec(id=ID, sandbox=ID, image="x")
    for health, text in (("starting", "(health: starting)"), ("healthy", "(healthy)")):
        status = ContainerStatus(
            spec=spec,
            state=StatusState.RUNNING,
            started_at=1e9 - 5,
            health=HealthState(status=health),
        )
        assert status_text(status, 1e9) == f"Up 5 seconds {text}"


def test_times_have_nanoseconds_and_never_is_the_year_one() -> None:
    assert nanos_text(1_700_000_000_120_000_000) == "2023-11-14T22:13:20.12Z"
    assert moment_text(0) == "0001-01-01T00:00:00Z"
    assert parse_moment("1700000000.5") == 1700000000.5
    assert parse_moment("2023-11-14T22:13:20Z") == 1700000000
    assert parse_moment("") == 0
    with pytest.raises(InvalidArgument):
        parse_moment("yesterday")


def test_names_are_checked_and_made() -> None:
    assert check_name("/web_1.a-b") == "web_1.a-b"
    for name in ("x", "-a", "a/b", "a b", "a\n"):
        with pytest.raises(InvalidArgument, match="Invalid container name"):
            check_name(name)
    taken: set[str] = set()
    for _ in range(500):
        taken.add(check_name(random_name(taken)))
    assert len(taken) == 500


def test_changes_of_a_config() -> None:
    lines = [
        'CMD ["a", "b"]',
        "ENTRYPOINT sh x",
        'ENV A=1 B="2 3"',
        "ENV C 4 5",
        "LABEL k=v",
        "EXPOSE 80 53/udp",
        "VOLUME /a /b",
        "USER u",
        "WORKDIR /w",
        "ONBUILD RUN x",
        "HEALTHCHECK CMD true",
        "STOPSIGNAL 9",
    ]
    made = apply_changes({"Env": ["A=0"]}, lines)
    assert made["Cmd"] == ["a", "b"] and made["Entrypoint"] == ["/bin/sh", "-c", "sh x"]
    assert made["Env"] == ["A=1", "B=2 3", "C=4 5"] and made["Labels"] == {"k": "v"}
    assert set(made["ExposedPorts"]) == {"80/tcp", "53/udp"} and set(made["Volumes"]) == {
        "/a",
        "/b",
    }
    assert made["Healthcheck"] == {"Test": ["CMD-SHELL", "true"]} and made["StopSignal"] == "9"
    with pytest.raises(InvalidArgument, match="RUN is not a valid change command"):
        apply_changes({}, ["RUN ls"])


def test_changes_know_the_variables_so_far() -> None:
    lines = ["ENV PATH=/usr/bin:$PATH B=${C:-d} Q='$A' W=\\$A", "LABEL x=${A:+y}", "CMD echo $A"]
    made = apply_changes({"Env": ["PATH=/bin", "A=1"]}, lines)
    assert made["Env"] == ["PATH=/usr/bin:/bin", "A=1", "B=d", "Q=$A", "W=$A"]
    assert made["Labels"] == {"x": "y"} and made["Cmd"] == ["/bin/sh", "-c", "echo $A"]


def test_networks_that_are_named_are_all_there_are() -> None:
    """The network of the mode comes first where it is one of them, and alone where none is named."""

    def networks(mode: str, *named: str) -> list[str]:
        config: dict[str, Any] = {"EndpointsConfig": {name: {} for name in named}}
        body = convert({"Image": "x", "NetworkingConfig": config}, CreateBody)
        wanted = convert({"NetworkMode": mode}, HostConfig)
        places = wiring.attachments(body, wanted, "c" * 64, lambda name: name)
        return [place.network for place in places]

    assert networks("default") == ["bridge"]
    assert networks("b", "a", "b") == ["b", "a"]
    assert networks("default", "a", "b") == ["a", "b"]


@pytest.mark.parametrize(
    ("repository", "tag", "name"),
    [
        ("docker.io/library/busybox", "latest", "busybox:latest"),
        ("busybox", "", "busybox:latest"),
        ("127.0.0.1:5000/a/b", "v1", "127.0.0.1:5000/a/b:v1"),
        ("busybox", "sha256:" + "0" * 64, "busybox@sha256:" + "0" * 64),
        ("", "x", ""),
    ],
)
def test_repository_and_tag_make_a_name(repository: str, tag: str, name: str) -> None:
    assert named(repository, tag) == name


def test_credentials_are_read() -> None:
    assert credentials("e30=").username == "" and credentials("").password == ""
    found = credentials("eyJ1c2VybmFtZSI6ImEiLCJwYXNzd29yZCI6ImIifQ")
    assert (found.username, found.password) == ("a", "b")
    for unreadable in ("%%%", "{}"):
        assert credentials(unreadable).username == "", "as Docker has it"


@pytest.mark.parametrize(
    ("arguments", "titles"),
    [
        ("ax", ["PID", "TTY", "STAT", "TIME", "COMMAND"]),
        ("-ef", ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]),
        (
            "aux",
            [
                "USER",
                "PID",
                "%CPU",
                "%MEM",
                "VSZ",
                "RSS",
                "TTY",
                "STAT",
                "START",
                "TIME",
                "COMMAND",
            ],
        ),
        ("-o pid,comm", ["PID", "COMMAND"]),
        ("-eo user,pid,args", ["USER", "PID", "COMMAND"]),
        ("-o pid,comm=", ["PID"]),
        ("-o pid=PID", ["PID"]),
        ("--format=uid,pid,nice", ["UID", "PID", "NI"]),
        (
            "-l",
            [
                "F",
                "S",
                "UID",
                "PID",
                "PPID",
                "C",
                "PRI",
                "NI",
                "ADDR",
                "SZ",
                "WCHAN",
                "TTY",
                "TIME",
                "CMD",
            ],
        ),
        ("-jf", ["UID", "PID", "PPID", "PGID", "SID", "C", "STIME", "TTY", "TIME", "CMD"]),
        ("-F", ["UID", "PID", "PPID", "C", "SZ", "RSS", "PSR", "STIME", "TTY", "TIME", "CMD"]),
        ("-e", ["PID", "TTY", "TIME", "CMD"]),
    ],
)
def test_processes_in_the_forms_of_ps(arguments: str, titles: list[str]) -> None:
    facts = (
        ("user", "root"),
        ("ppid", "1"),
        ("seconds", "3661"),
        ("command", "sleep 9"),
        ("tty", "34817"),
    )
    found, rows = process_table([(7, facts)], arguments, 1e9)
    assert found == titles and len(rows[0]) == len(titles)
    line = dict(zip(found, rows[0]))
    time = "61:01" if arguments in ("ax", "aux") else "01:01:01"
    assert line["PID"] == "7" and line.get("TIME", time) == time
    assert line.get("TTY", "pts/1") == "pts/1"


def test_processes_are_told_as_docker_reads_them_from_ps() -> None:
    facts = (
        ("user", "root"), ("uid", "0"), ("state", "S"), ("session", "7"), ("group", "7"),
        ("foreground", "7"), ("nice", "5"), ("threads", "2"), ("name", "sh"),
        ("command", "sh -c  x"), ("started", "0"), ("seconds", "90061"),
    )  # fmt: skip
    rows = process_table([(7, facts)], "-o pid,stat,uid,time,args", 1e9)[1]
    # A session's leader in the foreground, with threads, that is nice; blanks part words.
    assert rows == [["7", "SNsl+", "0", "1-01:01:01", "sh -c x"]]
    assert process_table([(7, facts)], "-e", 1e9)[1][0][-1] == "sh"
    titles = "F S UID PID PPID C PRI NI ADDR SZ WCHAN TTY TIME CMD"
    assert " ".join(process_table([(7, facts)], "-l", 1e9)[0]) == titles
    assert process_table([(7, facts)], "-o pid,comm=", 1e9)[1] == [["7 sh"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("-o args", "Couldn't find PID field in ps output"),
        ("-o pid=", "Couldn't find PID field in ps output"),
        ("--help", "Couldn't find PID field in ps output"),
        ("-o ppid=PID,args", 'specifying "ppid=PID,args" is not allowed'),
        ("-o wrong", 'ps: error: unknown user-defined format specifier "wrong"'),
        ("-q", "ps: error: List of process IDs must follow -q."),
    ],
)
def test_tables_without_processes_are_refused(arguments: str, message: str) -> None:
    with pytest.raises(SagongError, match=re.escape(message)):
        process_table([], arguments, 1e9)


def test_events_keep_dockers_shape_by_version() -> None:
    event = Event(
        "container", "exec_start: ls", ID, {"image": "i", "name": "n", "a": "b"}, 1_500_000_001
    )
    assert event_view(event, (1, 48))["status"] == "exec_start: ls"
    assert "status" not in event_view(event, (1, 52))
    for text, matches in (
        ('{"event":["exec_start"]}', True),
        ('{"container":["n"],"type":["container"],"label":["a"]}', True),
        ('{"container":["other"]}', False),
        ('{"image":["i"]}', True),
        ('{"type":["image"]}', False),
        # As Docker does: by any id or name that begins so, of whatever kind.
        ('{"network":["n"]}', True),
        ('{"network":["x"]}', False),
        ('{"secret":["n"]}', True),
        ('{"config":["x"]}', False),
        ('{"container":["/n"]}', False),
    ):
        assert event_matches(event, Filters.parse(text)) is matches, text


def test_every_documented_route_is_served() -> None:
    documented = """
    GET containers/json|POST containers/create|GET containers/a/json|GET containers/a/top
    GET containers/a/logs|GET containers/a/changes|GET containers/a/export|GET containers/a/stats
    POST containers/a/resize|POST containers/a/start|POST containers/a/stop|POST containers/a/restart
    POST containers/a/kill|POST containers/a/update|POST containers/a/rename|POST containers/a/pause
    POST containers/a/unpause|POST containers/a/attach|GET containers/a/attach/ws
    POST containers/a/wait|DELETE containers/a|HEAD containers/a/archive|GET containers/a/archive
    PUT containers/a/archive|POST containers/prune|GET images/json|POST build|POST build/prune
    POST images/create|GET images/a/b:c/json|GET images/r:5000/a/b:c/history|POST images/a/push
    POST images/a/tag|DELETE images/a/b|GET images/search|POST images/prune|POST auth|GET info
    GET version|GET _ping|HEAD _ping|POST commit|GET events|GET system/df|GET images/a/get
    GET images/get|POST images/load|POST containers/a/exec|POST exec/a/start|POST exec/a/resize
    GET exec/a/json|GET volumes|POST volumes/create|GET volumes/a|DELETE volumes/a
    POST volumes/prune|GET networks|GET networks/a|DELETE networks/a|POST networks/create
    POST networks/a/connect|POST networks/a/disconnect|POST networks/prune|GET plugins|GET nodes
    GET nodes/a|GET swarm|POST swarm/init|GET services|GET tasks|GET tasks/a/logs|GET secrets
    GET configs|GET distribution/a/b/json|POST session|POST grpc
    """
    for line in documented.replace("\n", "|").split("|"):
        if line.strip():
            method, path = line.split()
            assert ROUTER.find(method, tuple(path.split("/"))) is not None, line


def test_sizes_are_parsed() -> None:
    assert [size_of(t) for t in ("10", "10b", "1k", "1.5m", "2GB", "1KiB")] == [
        10,
        10,
        1024,
        3 << 19,
        2 << 30,
        1024,
    ]
    with pytest.raises(InvalidArgument):
        size_of("big")


def test_binds_of_the_engine_s_own_directory_are_slaves() -> None:
    for source, given, shown in (
        ("/var/lib/sagong/lib", "", "rslave"),
        ("/", "", "rslave"),
        ("/var/lib/sagong", ":rshared", "rshared"),
        ("/var/lib/other", "", ""),
        ("/srv", ":private", "private"),
    ):
        (mount,) = wish(host(Binds=[f"{source}:/x{given}"])).container.mounts
        assert mount.propagation == shown, source
    with pytest.raises(InvalidArgument, match="within the daemon root"):
        wish(host(Binds=["/var/lib/sagong:/x:rprivate"]))


def test_ports_of_routed_networks_are_none_of_the_machine_s() -> None:
    port = PortMapping(container_port=80, host_port=8080)
    way = Endpoint(network="n", interface="eth0", mac="", gateway4="172.17.0.1")
    network = NetworkSandbox(id="s", ports=(port,), routed=(6,), endpoints=(way,))
    made = ContainerStatus(
        spec=ContainerSpec(id=ID, sandbox=ID, image="x"), state=StatusState.RUNNING, network=network
    )
    record = ContainerRecord(id=ID, name="n", created=0, config={}, host={})
    assert port_map(made, record) == {
        "80/tcp": [
            {"HostIp": "0.0.0.0", "HostPort": "8080"},
            {"HostIp": "::", "HostPort": ""},
        ]
    }
    assert [line["IP"] for line in port_list(made, record)] == ["0.0.0.0"]
    alone = msgspec.structs.replace(made, network=NetworkSandbox(id="s"))
    assert (port_map(alone, record), port_list(alone, record)) == ({}, [])


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            "executable file not found in $PATH",
            "OCI runtime create failed: unable to start container process: "
            'exec: "nosuch": executable file not found in $PATH: unknown',
        ),
        ("setting cgroup limits: /dev/nosuch: no such file or directory", None),
        ('error gathering device information while adding custom device "/dev/x": '
         "no such file or directory", None),
        ("bind: cannot access path /nosuch: no such file or directory", None),
    ],
)  # fmt: skip
def test_only_programs_that_cannot_be_executed_are_told_as_such(
    message: str, told: str | None
) -> None:
    assert start_error(InvalidArgument(message), ("nosuch",)).message == (told or message)
