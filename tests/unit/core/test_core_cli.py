"""The command line: who may use it, what it offers, how it says how long."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.small_disk import mounted, small_disk

from sagong.cli import VERBS, lifecycle, main, parser, utf8_mode, verb_in
from sagong.cli.inspection import age
from sagong.cli.lifecycle import check_readable
from sagong.errors import FailedPrecondition


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


@pytest.mark.parametrize("line", ["", "--root /x", "--ro=/x", "--r up"])
def test_the_verb_is_found_behind_options(line: str) -> None:
    assert verb_in([*line.split(), "down", "--all", "up"]) == "down"
    assert verb_in(line.split()) == ""


def test_a_command_imports_no_other_verbs_modules() -> None:
    script = "import sys\nfrom sagong.cli import parser\nparser('swap')\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "sagong.cli.operation" in done.stdout.split(), done.stderr
    assert "sagong.cli.inspection" not in done.stdout.split()


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


def test_check_holds_settings_and_addresses_against_the_plugin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It said that there was no problem, and the unit did not start."""
    (tmp_path / "etc").mkdir()
    text = '[units.node.settings]\nusrs = "private"\n[units.image.settings.registries]\nindex = 5\n'
    text += '[units.docker.listens]\nnetwork = "tcp:0.0.0.0:tls"\napi = "http://127.0.0.1:1"\n'
    (tmp_path / "etc/sagong.toml").write_text(text)
    assert main(["--root", str(tmp_path), "check"]) == 1
    said = capsys.readouterr().out
    assert "units.node.settings.usrs: no such key; did you mean users?\n" in said
    assert "units.image.settings.registries.index 5: a text in quotes" in said
    assert (
        "units.docker.listens.network tcp:0.0.0.0:tls: tcp:HOST:PORT, a port up to 65535\n" in said
    )
    assert "units.docker.listens.api http://127.0.0.1:1: unix:PATH, tcp:HOST:PORT or udp" in said
    assert said.endswith(" plugins checked, 4 problems\n")


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


def test_check_looks_further_than_a_mistake_of_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It stopped there; what was meant is held against the plugins, and nothing is told twice."""
    (tmp_path / "etc").mkdir()
    text = 'uid_base = 5\n[units.kube]\nlistens = { ap = "tcp:127.0.0.1:1" }\nhoks = ["nope"]\n'
    file = tmp_path / "etc/sagong.toml"
    file.write_text(f'{text}[units.node]\nlistens = 5\n[units.foo]\nplugin = "nonesuch"\n')
    assert main(["--root", str(tmp_path), "check"]) == 1
    said = capsys.readouterr().out
    assert f"{file}: uid_base 5: a whole number, at least 1000" in said
    assert f"{file}: units.kube.hoks: no such key; did you mean hooks?" in said
    assert f"{file}: units.node.listens 5: a table" in said
    assert "units.kube.listens: kube has no listener ap" in said
    assert "units.kube.hooks: no plugin nope is installed\n" in said
    assert "units.foo: no plugin nonesuch is installed" in said
    assert said.count("units.node") == 1


def test_an_installation_of_its_owner_alone_is_told_before_the_start(tmp_path: Path) -> None:
    """It was "No module named sagong_state_sqlite", after a minute."""
    ours, all_may = tmp_path / "ours", tmp_path / "all"
    for place, mode in ((ours, 0o700), (all_may, 0o755)):
        place.mkdir()
        place.chmod(mode)
    check_readable(all_may)
    with pytest.raises(FailedPrecondition, match=f"chmod -R go.rX {ours}"):
        check_readable(all_may, ours)


def test_who_has_read_enough_is_told_nothing() -> None:
    """Output that fits into the buffer was written at the exit, where nobody caught its failure."""
    command = [
        sys.executable,
        "-c",
        "from sagong.cli import main; main()",
        "contracts",
        "scheduler",
    ]
    environment = {**os.environ, "PYTHONPATH": ":".join(_roots()), "PYTHONUNBUFFERED": ""}
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        command, stdout=write, stderr=subprocess.PIPE, env=environment, check=False
    )
    os.close(write)
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("word", "told"),
    [("swp", "did you mean swap?"), ("nonsense", "`sagong --help` lists them")],
)
def test_a_verb_that_is_none_is_told_what_was_meant(
    word: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--root", "/x", word]) == 2
    assert capsys.readouterr().err == f"sagong: no verb {word}; {told}\n"


@pytest.mark.root
def test_where_nothing_runs_it_is_told_how_to_start_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--root", str(tmp_path), "status"]) == 2
    assert f"start it with `sagong --root {tmp_path} up`" in capsys.readouterr().err


INTERRUPTED = """
import signal, sys
import sagong.cli
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "sagong.cli.lifecycle":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
sys.exit(sagong.cli.main(["up"]))
"""


def test_ctrl_c_while_a_command_is_loaded_leaves_no_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "")


def test_what_a_kernel_said_last_is_told_without_when_and_by_whom(tmp_path: Path) -> None:
    log = tmp_path / "kernel.log"
    log.write_text("2026-12-01T13:07:46.786 ERROR sagong.kernel can't start: no plugin\n\n")
    assert lifecycle._last_line(log) == "can't start: no plugin"
    log.write_text("Traceback\n  ValueError: x\n")
    assert lifecycle._last_line(log) == "ValueError: x"


@pytest.mark.root
def test_a_full_disk_is_told_apart_from_one_without_inodes_and_one_with_room(
    open_path: Path,
) -> None:
    with small_disk(open_path, "64k"):
        assert lifecycle._full(open_path) == ""
        with pytest.raises(OSError, match="No space"):
            (open_path / "all").write_bytes(bytes(1 << 20))
        assert lifecycle._full(open_path).startswith(f"the filesystem of {open_path} is full")
    with mounted(open_path, "-t", "tmpfs", "-o", "size=1m,nr_inodes=2", "small"):
        (open_path / "last").touch()
        assert lifecycle._full(open_path)
