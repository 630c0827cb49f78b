"""docs/reference/docker-cli.md has a row for each command and flag of the installed docker CLI."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    shutil.which("docker") is None, reason="needs the docker command line"
)

PAGE = Path(__file__).resolve().parents[3] / "docs/reference/docker-cli.md"
_FLAG = re.compile(r"^ +(?:-\w, )?(--[a-z0-9-]+)")
_COMMAND = re.compile(r"^  ([a-z][a-z-]*)\*? +\S")


def commands(words: tuple[str, ...] = ()) -> Iterator[tuple[str, list[str]]]:
    """Each command with its flags, as `docker COMMAND --help` lists them."""
    text = subprocess.run(
        ["docker", *words, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
    ).stdout
    section, flags, below = "", [], []
    for line in text.splitlines():
        if re.match(r"^[A-Z].*:$", line):
            section = line
        elif "Options" in section and (found := _FLAG.match(line)):
            flags.append(found[1])
        elif "Commands" in section and (found := _COMMAND.match(line)):
            below.append(found[1])
    if words and not below:
        yield " ".join(words), flags
    for name in below:
        yield from commands((*words, name))


def rows() -> tuple[dict[str, str], set[str]]:
    """The text of each command's table, and the families that stand in one row as a whole."""
    tables: dict[str, str] = {}
    for block in PAGE.read_text().split("\n### ")[1:]:
        title, _, body = block.partition("\n")
        for name in re.findall(r"`docker ([^`]+)`", title):
            tables[name] = body.partition("\n## ")[0]
    last = PAGE.read_text().rpartition("\n## ")[2]
    return tables, set(re.findall(r"`docker (\w+)`", last))


def test_every_command_and_flag_has_a_row() -> None:
    tables, families = rows()
    missing = []
    for command, flags in commands():
        if command.partition(" ")[0] in families:
            continue
        if command not in tables:
            missing.append(command)
            continue
        missing += [f"{command} {flag}" for flag in flags if f"`{flag}`" not in tables[command]]
    assert missing == []


def test_every_row_says_whether_it_works_and_else_how_or_why() -> None:
    wrong = []
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("| ") or len(cells) != 3 or set(line) <= set("| "):
            continue
        if cells[1] not in ("works", "differs", "not", "") or (
            cells[1] in ("differs", "not")
        ) > bool(cells[2]):
            wrong.append(line)
    assert wrong == []
