"""What versions 1.49, 1.50 and 1.51 of the API added and left out (docs.docker.com/reference/api)."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from tests.unit.docker.docker_lab import IMAGE, Lab, docker_lab

from sagong.errors import InvalidArgument
from sagong.model.oci import Platform
from sagong_docker.platforms import wanted_platform

HERE = {"architecture": "amd64", "os": "linux"}
ELSEWHERE = {"architecture": "s390x", "os": "linux"}


async def found(lab: Lab, path: str, status: int = 200) -> Any:
    """What is answered."""
    got, answer = await lab.raw("GET", path)
    assert got == status, (path, got, answer)
    return json.loads(answer)


def platform(value: object) -> str:
    """A platform as it stands in a query."""
    return quote(json.dumps(value))


async def test_info_tells_the_firewall_and_leaves_out_what_meant_nothing() -> None:
    async with docker_lab() as lab:
        old, middle, new = [await found(lab, f"/v{v}/info") for v in ("1.48", "1.49", "1.50")]
    assert "FirewallBackend" not in old
    assert middle["FirewallBackend"] == new["FirewallBackend"] == {"Driver": "nftables"}
    for key in ("ContainerdCommit", "RuncCommit", "InitCommit"):
        assert old[key]["Expected"] == old[key]["ID"]
        assert "Expected" not in middle[key] and "Expected" not in new[key]
    for key in ("BridgeNfIptables", "BridgeNfIp6tables"):
        assert old[key] is middle[key] is False and key not in new


async def test_info_of_old_versions() -> None:
    async with docker_lab() as lab:
        oldest, old, later = [await found(lab, f"/v{v}/info") for v in ("1.24", "1.46", "1.47")]
    assert oldest["SecurityOptions"][0] == "seccomp"
    assert old["SecurityOptions"][0] == "name=seccomp,profile=builtin"
    assert old["RegistryConfig"]["AllowNondistributableArtifactsCIDRs"] is None
    assert "AllowNondistributableArtifactsCIDRs" not in later["RegistryConfig"]


async def test_an_images_config_has_no_fields_of_containers() -> None:
    async with docker_lab() as lab:
        old, new = [await found(lab, f"/v{v}/images/{IMAGE}/json") for v in ("1.49", "1.50")]
    assert old["Config"]["Hostname"] == "" and old["Config"]["AttachStdin"] is False
    gone = set(old["Config"]) - set(new["Config"])
    assert gone == {
        "Hostname", "Domainname", "AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin",
        "StdinOnce", "Image",
    }  # fmt: skip
    # These are there though they are empty.
    assert new["Config"].keys() >= {"Volumes", "OnBuild", "Entrypoint", "User", "WorkingDir"}


async def test_images_count_their_containers() -> None:
    async with docker_lab() as lab:
        body = json.dumps({"Image": IMAGE, "Cmd": ["true"]}).encode()
        for _ in range(2):
            assert (await lab.raw("POST", "/containers/create", body))[0] == 201
        assert (await found(lab, "/v1.50/images/json"))[0]["Containers"] == -1
        assert (await found(lab, "/v1.51/images/json"))[0]["Containers"] == 2


async def test_the_one_filter_of_old_versions_is_ignored_by_new_ones() -> None:
    """aiodocker still sends it."""
    async with docker_lab() as lab:
        for version, shown in (("1.40", 0), ("1.41", 1), ("1.51", 1)):
            assert len(await found(lab, f"/v{version}/images/json?filter=nothing")) == shown


async def test_an_image_of_another_platform_is_not_found() -> None:
    async with docker_lab() as lab:
        for path in (f"/v1.49/images/{IMAGE}/json", f"/v1.48/images/{IMAGE}/history"):
            await found(lab, f"{path}?platform={platform(HERE)}")
            said = await found(lab, f"{path}?platform={platform(ELSEWHERE)}", 404)
            assert "does not match the specified platform (linux/s390x)" in said["message"]
        # A parameter that the version does not know.
        await found(lab, f"/v1.48/images/{IMAGE}/json?platform={platform(ELSEWHERE)}")
        both = f"/v1.49/images/{IMAGE}/json?manifests=1&platform={platform(HERE)}"
        assert "manifests and platform" in (await found(lab, both, 400))["message"]


async def test_an_image_is_removed_by_its_platform() -> None:
    async with docker_lab() as lab:
        path = f"/v1.50/images/{IMAGE}?platforms="
        assert (await lab.raw("DELETE", path + platform(ELSEWHERE)))[0] == 404
        two = path + platform(HERE) + "&platforms=" + platform(ELSEWHERE)
        status, answer = await lab.raw("DELETE", two)
        assert (status, json.loads(answer)) == (
            400,
            {"message": "multiple platforms are not supported"},
        )
        assert (await lab.raw("DELETE", path + platform(HERE)))[0] == 200
        await found(lab, f"/v1.50/images/{IMAGE}/json", 404)


def test_platforms_as_clients_write_them() -> None:
    assert wanted_platform("") is None
    assert wanted_platform('{"os":"linux","architecture":"aarch64","os.features":["x"]}') == (
        Platform(architecture="arm64", os="linux")
    )
    for text, said in (
        ("{", "failed to parse platform"),
        ('{"variant":"v7"}', "OS and Architecture are missing"),
        ('{"os":"linux"}', "both OS and Architecture must be provided"),
    ):
        with pytest.raises(InvalidArgument, match=said):
            wanted_platform(text)


async def test_lists_show_annotations_since_1_46() -> None:
    async with docker_lab() as lab:
        body = json.dumps({"Image": IMAGE, "HostConfig": {"Annotations": {"a": "b"}}}).encode()
        assert (await lab.raw("POST", "/containers/create?name=noted", body))[0] == 201
        (old,) = await found(lab, "/v1.45/containers/json?all=1")
        (new,) = await found(lab, "/v1.46/containers/json?all=1")
    assert "Annotations" not in old["HostConfig"]
    assert new["HostConfig"]["Annotations"] == {"a": "b"}


async def test_addresses_need_a_subnet_that_was_named() -> None:
    async with docker_lab() as lab:
        named = {"IPAM": {"Config": [{"Subnet": "10.99.0.0/24"}]}}
        for name, body in (("chosen", {}), ("named", named)):
            made = json.dumps({"Name": name, **body}).encode()
            assert (await lab.raw("POST", "/networks/create", made))[0] == 201
        for network, address, said in (
            (
                "chosen",
                "10.99.0.9",
                "only when connecting to networks with user configured subnets",
            ),
            ("named", "10.98.0.9", "no configured subnet or ip-range contain the IP address"),
        ):
            ends = {network: {"IPAMConfig": {"IPv4Address": address}}}
            wanted = {"Image": IMAGE, "NetworkingConfig": {"EndpointsConfig": ends}}
            given = json.dumps({**wanted, "HostConfig": {"NetworkMode": network}}).encode()
            status, answer = await lab.raw("POST", "/containers/create", given)
            assert status == 400 and said in json.loads(answer)["message"]


async def test_a_client_that_is_too_old_is_told_so_in_text() -> None:
    async with docker_lab() as lab:
        status, answer = await lab.raw("GET", "/v1.23/version")
    assert status == 400 and answer.startswith(b"client version 1.23 is too old. ")
