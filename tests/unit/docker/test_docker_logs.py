"""Tags of logs as Docker's templates make them."""

from __future__ import annotations

import re

import pytest

from sagong.contracts.image import Image, ImageConfig
from sagong.errors import InvalidArgument
from sagong_docker.ask import convert
from sagong_docker.body import CreateBody
from sagong_docker.creation import Lookup, translate
from sagong_docker.log_tags import Value, tag_text
from sagong_docker.settings import Settings

FACTS: dict[str, Value] = {
    "Name": "web",
    "ID": "0123456789ab",
    "ContainerLabels": {"a": "b"},
    "ContainerArgs": ("x", "y"),
    "ContainerEnv": ("A=1", "B=2"),
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("", ""),
        ("plain", "plain"),
        ("{{.Name}}/{{ .ID }}", "web/0123456789ab"),
        ("a {{- .Name -}} b", "awebb"),
        ("{{.Name | upper | truncate}}", None),
        ("{{upper .Name}} {{.Name | upper | lower}}", "WEB web"),
        ("{{truncate .ID 3}}{{pad .Name 1 2}}|", "012 web  |"),
        ('{{title "ab c"}} {{json .Name}} {{`{{`}}', 'Ab C "web" {{'),
        ('{{index .ContainerLabels "a"}}{{.ContainerLabels.a}}{{.ContainerLabels.c}}', "bb<no value>"),
        ('{{.ContainerArgs}} {{.ContainerLabels}}', "[x y] map[a:b]"),
        ('{{join .ContainerEnv ","}}', "A=1,B=2"),
        ('{{index (split .Name "e") 0}}', None),
        ('{{index .ContainerArgs 1}}{{len .ContainerArgs}}{{print .Name "!"}}', "y2web!"),
        ('{{"a|b"}}', "a|b"),
    ],
)  # fmt: skip
def test_a_tag_is_what_its_template_says(template: str, text: str | None) -> None:
    if text is not None:
        assert tag_text(template, FACTS) == text
        return
    with pytest.raises(InvalidArgument, match=r"^template: log-tag:1"):
        tag_text(template, FACTS)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{.Name", "template: log-tag:1: unclosed action"),
        ("{{nosuch .Name}}", 'template: log-tag:1: function "nosuch" not defined'),
        ("{{.Nosuch}}", "<.Nosuch>: can't evaluate field Nosuch in type *logger.Info"),
        ("{{}}", "missing value for command"),
        ("{{.Name .ID}}", "can't give argument to non-function .Name"),
        ('{{"\\q"}}', "template: log-tag:1"),
        ('{{"}}', "template: log-tag:1"),
    ],
)
def test_a_wrong_template_is_refused_in_gos_words(template: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(message)):
        tag_text(template, FACTS)


def test_lines_have_what_the_image_says_too() -> None:
    options = {"tag": "{{.ImageID}} {{.Command}}", "labels": "l,m", "env-regex": "^[AB]"}
    document = {
        "Image": "busybox", "Cmd": ["x"], "Labels": {"l": "own"}, "Env": ["B=own"],
        "HostConfig": {"LogConfig": {"Type": "json-file", "Config": options}},
    }  # fmt: skip
    config = ImageConfig(
        entrypoint=("run",), cmd=("y",), labels=(("l", "image"), ("m", "image")), env=("A=1", "B=2")
    )
    image = Image(id="sha256:" + "7" * 64, config=config)
    wish = translate(
        "a" * 64, "name", convert(document, CreateBody), Settings(), Lookup(image=image)
    )
    assert wish.container.log.tag == "sha256:77777 run x"
    assert dict(wish.container.log.attributes) == {"l": "own", "m": "image", "A": "1", "B": "own"}
