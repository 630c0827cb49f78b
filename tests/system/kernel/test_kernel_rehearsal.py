"""`sagong swap --dry-run` of runtime and network: real containers and traffic, and nothing left."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import pytest

from sagong.linux.cgroup import layout_of_machine
from sagong.linux.process import become_subreaper
from tests.system.instance import Instance, instance
from tests.system.network.outer import machine, shell, until

pytestmark = pytest.mark.root

CONFIGURATION = """
profile = "bare"
[units.runtime]
plugin = "runtime_linux"
settings = { cgroup_parent = "{cgroup}" }
[units.network]
plugin = "network_bridge"
settings = { prefix = "{prefix}" }
"""


async def rehearsed(base: Path) -> None:
    """All of it on one instance: what conforms, what does not, and what is asked wrongly."""
    become_subreaper()
    groups = check_groups()
    with instance(CONFIGURATION) as running:
        interfaces, pids = (
            interfaces_now(),
            (running.pid("runtime"), running.pid("network")),
        )
        good = await rehearse(
            running, "runtime", "", "exit_codes_are_the_programs", "successor_adopts"
        )
        assert (good.code, good.kept) == (0, {"exit_codes_are_the_programs", "successor_adopts"}), (
            good.text
        )
        assert "runtime: conforms" in good.text
        bad = await rehearse(
            running, "runtime", "forgetful", "environment_is_as_given", "limits_are_in_force"
        )
        assert (bad.code, bad.kept) == (1, {"limits_are_in_force"})
        assert "FAILED environment_is_as_given" in bad.text
        good = await rehearse(
            running, "network", "", "policies_let_only_peers_in", "everything_survives_a_crash"
        )
        assert good.code == 0, good.text
        bad = await rehearse(
            running,
            "network",
            "mute",
            "published_port_leads_to_the_sandbox",
            "taken_address_is_a_conflict",
        )
        assert (bad.code, bad.kept) == (1, {"taken_address_is_a_conflict"})
        unknown = await rehearse(running, "network", "", "nonsense")
        assert unknown.code == 2 and "no check nonsense" in unknown.text
        # Those of others' checks go with them.
        await until(lambda: check_groups() <= groups, "control groups of checks are left")
        assert not left_behind(os.getpid())
        assert interfaces_now() == interfaces
        assert (running.pid("runtime"), running.pid("network")) == pids


def interfaces_now() -> list[str]:
    """Their names; a bridge's state settles in its own time."""
    return [line.split()[0] for line in shell("", "ip -br link").splitlines()]


class Rehearsal:
    """What a dry run said."""

    def __init__(self, code: int, text: str) -> None:
        self.code, self.text = code, text
        lines = text.splitlines()
        self.kept = {line.split()[1] for line in lines if line.startswith("ok ")}


async def rehearse(running: Instance, unit: str, plugin: str, *checks: str) -> Rehearsal:
    """`sagong swap --dry-run`, some checks of it."""
    words = [unit, *([plugin] if plugin else []), *(f"--only={check}" for check in checks)]
    done = await asyncio.to_thread(running.run, "swap", "--dry-run", *words, check=False)
    return Rehearsal(done.returncode, done.stdout + done.stderr)


def check_groups() -> set[str]:
    """Control groups of checks, whoever makes them."""
    return layout_of_machine().groups("/sagong-check-*")


def left_behind(parent: int) -> list[str]:
    """Processes of checks below one that has all orphans of its own."""
    found: list[str] = []
    for children in Path(f"/proc/{parent}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it has ended
            for child in children.read_text().split():
                line = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
                found += [line] * ("/tmp/sagong-runtime-" in line or "/tmp/sagong-network-" in line)
                found += left_behind(int(child))
    return found


@pytest.mark.timeout(300)
def test_runtime_and_network_are_rehearsed_with_real_containers_and_traffic() -> None:
    machine(rehearsed)
