"""The command line: who may use it, what it offers, how it says how long."""

from __future__ import annotations

import argparse
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sagong.cli import VERBS, main, parser, utf8_mode
from sagong.cli.inspection import age


@contextmanager
def somebody() -> Iterator[None]:
    """Not root, for a while."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_locale_of_another_encoding_does_not_change_how_files_are_read() -> None:
    assert utf8_mode("utf-8", {}) == {}
    assert utf8_mode("euc_kr", {"PYTHONUTF8": "0"}) == {}, "who says so means it, and never twice"
    assert utf8_mode("euc_kr", {}) == {"PYTHONUTF8": "1", "PYTHONIOENCODING": "euc_kr:replace"}


WORDS = {
    "plugin": ["verify"],
    "swap": ["x"],
    "enable": ["x"],
    "disable": ["x"],
    "restart": ["x"],
    "load": ["x"],
    "registry": ["list"],
}
FOR_ANYBODY = {"plugins", "new-plugin", "contracts", "completion", "check"}


@pytest.mark.root
@pytest.mark.parametrize("verb", sorted(VERBS.keys() - FOR_ANYBODY))
def test_who_is_not_root_is_told(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser()  # imports, from where only root may read in some places
    with somebody():
        status = main([verb, *WORDS.get(verb, [])])
    assert (status, capsys.readouterr().err) == (1, f"sagong {verb} needs root; use sudo\n")


def _arguments(top: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.Action]]:
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _arguments(below)
        else:
            yield top.prog, action


def test_every_argument_says_what_it_is_for() -> None:
    assert [(p, a.dest) for p, a in _arguments(parser()) if not a.help] == []


def test_a_failed_system_call_is_told_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["new-plugin", "scheduler", "own", "--directory", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err.endswith("own: Not a directory\n")


@pytest.mark.root
def test_lines_without_a_time_are_as_old_as_their_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = tmp_path / "run/log"
    logs.mkdir(parents=True)
    (logs / "kernel.log").write_text("2026-01-02T03:04:05.678 INFO sagong.kernel begins\n")
    (logs / "mine.log").write_text("Traceback\n    of a program that has no logger\n")
    assert main(["--root", str(tmp_path), "logs", "mine", "kernel", "-n", "1"]) == 0
    assert capsys.readouterr().out.startswith("mine: Traceback\n")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-1, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172800, "2d")],
)
def test_how_long_is_said_in_two_units_at_least(seconds: float, said: str) -> None:
    assert age(seconds) == said


@pytest.mark.parametrize(
    ("line", "offered", "others"),
    [
        ("sagong sw", {"swap"}, {"status"}),
        ("sagong swap s", {"state-local", "state_sqlite"}, {"status"}),
        ("sagong --root X logs a", {"all"}, {"auth_rbac"}),
        ("sagong plugin v", {"verify"}, set()),
        ("sagong up --pr", {"--profile"}, set()),
        ("sagong registry gc --dr", {"--dry-run"}, set()),
    ],
)
def test_bash_completes(line: str, offered: set[str], others: set[str], tmp_path: Path) -> None:
    (tmp_path / "run/slots/state-local").mkdir(parents=True)
    script = tmp_path / "completion"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(_roots())}
    command = ["python", "-m", "sagong.cli", "--root", str(tmp_path), "completion"]
    script.write_bytes(
        subprocess.run(command, check=True, capture_output=True, env=environment).stdout
    )
    ask = f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(line.split()) - 1}; _sagong; "
    ask += 'echo "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", ask], check=True, capture_output=True, text=True)
    found = set(done.stdout.split())
    assert offered <= found
    assert not others & found


def _roots() -> list[str]:
    root = Path(__file__).parents[3]
    return [str(root / name) for name in ("core", "plugins", "services")]


def test_check_tells_what_of_a_unit_its_plugin_has_no_use_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "etc").mkdir()
    text = '[units.kube]\nlistens = { ap = "tcp:127.0.0.1:1" }\nhooks = ["nope"]\n'
    (tmp_path / "etc/sagong.toml").write_text(f"{text}[units.dns]\nidle_seconds = -1\n")
    assert main(["--root", str(tmp_path), "check"]) == 1
    said = capsys.readouterr().out
    assert "units.kube.listens: kube has no listener ap; there are: api, pods\n" in said
    assert "units.kube.hooks: no plugin nope is installed\n" in said
    assert "units.dns.idle_seconds: at least 0.1 seconds" in said
    assert said.endswith(" plugins checked, 3 problems\n")


def test_check_says_which_plugin_or_profile_was_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "etc").mkdir()
    file = tmp_path / "etc/sagong.toml"
    file.write_text('profile = "singel"\n')
    assert main(["--root", str(tmp_path), "check"]) == 1
    assert "no profile singel; did you mean single?" in capsys.readouterr().out
    file.write_text('profile = "single"\n[units.scheduler]\nplugin = "scheduler_binpakk"\n')
    assert main(["--root", str(tmp_path), "check"]) == 1
    said = capsys.readouterr().out
    assert "no plugin scheduler_binpakk is installed; did you mean scheduler_binpack?" in said


def test_check_reads_a_units_name_as_the_kernel_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "etc").mkdir()
    text = 'profile = "bare"\n[units.state-sqlite]\n[units.auth-rbac]\n'
    (tmp_path / "etc/sagong.toml").write_text(text)
    main(["--root", str(tmp_path), "check"])
    assert "no plugin" not in capsys.readouterr().out
