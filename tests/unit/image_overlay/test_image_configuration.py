"""Configs that commits and imports make."""

from __future__ import annotations

import json

import pytest

from sagong.errors import InvalidArgument
from sagong.model import oci
from sagong_image_overlay.configuration import Step, apply_changes, grown_config, new_config


def test_a_step_adds_a_layer_and_history() -> None:
    first = new_config(("linux", "arm", "v7"), Step(diff_id="sha256:1", comment="one"))
    second = grown_config(first, Step(diff_id="sha256:2", author="me", created_by="sh"))
    third = json.loads(grown_config(second, Step(diff_id="", config=b'{"Cmd": ["x"]}')))
    assert third["rootfs"]["diff_ids"] == ["sha256:1", "sha256:2"]
    assert third["variant"] == "v7" and third["config"] == {"Cmd": ["x"]}
    assert [entry.get("empty_layer", False) for entry in third["history"]] == [False, False, True]
    assert third["history"][1]["author"] == "me" and third["history"][1]["created_by"] == "sh"


def test_facts_of_the_container_are_left_behind() -> None:
    old = b'{"container": "abc", "container_config": {}, "os": "linux", "custom": 1}'
    new = json.loads(grown_config(old, Step(diff_id="sha256:1")))
    assert "container" not in new and "container_config" not in new and new["custom"] == 1


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ('CMD ["a", "b c"]', "Cmd", ["a", "b c"]),
        ("cmd echo hi", "Cmd", ["/bin/sh", "-c", "echo hi"]),
        ("ENTRYPOINT []", "Entrypoint", []),
        ("ENV A=1 B='2 3'", "Env", ["PATH=/bin", "A=1", "B=2 3"]),
        ("ENV PATH /sbin", "Env", ["PATH=/sbin"]),
        ("EXPOSE 80 53/udp", "ExposedPorts", {"80/tcp": {}, "53/udp": {}}),
        ("LABEL a=b c=", "Labels", {"a": "b", "c": ""}),
        ('VOLUME ["/a", "/b"]', "Volumes", {"/a": {}, "/b": {}}),
        ("VOLUME /a /b", "Volumes", {"/a": {}, "/b": {}}),
        ("WORKDIR /srv", "WorkingDir", "/srv"),
        ("USER app", "User", "app"),
        ("STOPSIGNAL SIGINT", "StopSignal", "SIGINT"),
        ("ONBUILD RUN x", "OnBuild", ["RUN x"]),
    ],
)
def test_dockerfile_lines(line: str, key: str, value: object) -> None:
    assert apply_changes({"Env": ["PATH=/bin"]}, [line])[key] == value


@pytest.mark.parametrize("line", ["RUN true", "ENV A='", "ENV =x", "EXPOSE abc", "", "FROM x"])
def test_other_lines_are_refused(line: str) -> None:
    with pytest.raises(InvalidArgument):
        apply_changes({}, [line])


def test_what_is_null_is_not_there() -> None:
    """Programs in Go write lists without members so; such images were refused."""
    raw = b'{"created":null,"os":"linux","config":null,"rootfs":{"diff_ids":null},"history":null}'
    config = oci.decode(raw, oci.Config, "the config")
    assert (config.rootfs.diff_ids, config.os) == ((), "linux")
    with pytest.raises(InvalidArgument, match="the config is not valid"):
        oci.decode(b'{"os":7,"rootfs":null}', oci.Config, "the config")
