"""A platform whose containers are in user namespaces unless they say otherwise; and runc beside it."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from shutil import which

import pytest
from tests import sample_image
from tests.system.instance import instance
from tests.system.platform.rig import (
    IMAGE,
    Platform,
    fetch,
    needs_docker,
    needs_kubectl,
    single,
    wait_for,
)

pytestmark = [pytest.mark.root, needs_docker, needs_kubectl]
FIRST = 0x70000000


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Private by default."""
    home = tmp_path_factory.mktemp("home")
    configuration = single(16593, "10.247.0").replace("[units.node.settings]",
        '[units.node.settings]\nusers = "private"')  # fmt: skip
    with instance(configuration) as running:
        found = Platform(running, home)
        found("docker", "load", "-i", str(sample_image.build(home).docker_archive))
        yield found


def shell(platform: Platform, script: str, *options: str) -> list[str]:
    """Lines that a script in a container wrote."""
    found = platform("docker", "run", "--rm", *options, IMAGE, "sh", "-c", script)
    return found.splitlines()


def base_of(platform: Platform, name: str) -> int:
    """Where the ids of a running container begin on the host."""
    return int(platform("docker", "exec", name, "cat", "/proc/self/uid_map").split()[1])


def test_root_inside_is_nobody_outside(platform: Platform, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "secret").write_text("secret\n")
    (tmp_path / "secret").chmod(0o600)
    script = "id -u; cat /proc/self/uid_map; stat -c %u /bin/busybox; touch /x; chown 5:6 /x; "
    script += "stat -c %u:%g /x; cat /h/secret || touch /h/made || echo refused"
    found = shell(platform, script, "-v", f"{tmp_path}:/h")
    assert [found[0], *found[1].split(), *found[2:]] == [
        *("0", "0", str(FIRST), "65536"),
        *("0", "5:6", "refused"),
    ]
    assert os.listdir(tmp_path) == ["secret"]


def test_the_network_is_its_own(platform: Platform) -> None:
    options = ("--cap-add", "NET_ADMIN", "-d", "--name", "served", "-p", "127.0.0.1:18593:80")
    script = "ip link set lo mtu 9000; mkdir /www; echo here > /www/index.html; "
    script += "exec httpd -f -p 80 -h /www"
    platform("docker", "run", *options, IMAGE, "sh", "-c", script)
    try:
        wait_for(lambda: fetch("127.0.0.1:18593") == "here")
        inside = platform("docker", "exec", "served", "sh", "-c", "ls /sys/class/net; hostname")
        assert {"eth0", "lo"} <= set(inside.split())
        shared = shell(platform, "cat /proc/self/uid_map", "--network", "container:served")
        assert int(shared[0].split()[1]) == base_of(platform, "served")
    finally:
        platform("docker", "rm", "-f", "served")


def test_ranges_are_apart_and_stay(platform: Platform) -> None:
    names = ("one", "two")
    for name in names:
        platform("docker", "run", "-d", "--name", name, IMAGE, "sleep", "1000")
    bases = [base_of(platform, name) for name in names]
    assert len(set(bases)) == 2
    assert all((base - FIRST) % 65536 == 0 for base in bases)
    for unit in ("node", "runtime"):
        platform.swap(unit)
    platform("docker", "restart", "-t", "0", "one")
    assert [base_of(platform, name) for name in names] == bases
    platform("docker", "rm", "-f", *names)


def test_files_keep_their_owners_over_all_roads(platform: Platform, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.write_text("x")
    os.chown(given, 3, 4)
    platform("docker", "run", "-d", "--name", "box", "-v", "kept:/v", IMAGE, "sleep", "1000")
    try:
        platform("docker", "exec", "box", "sh", "-c", "touch /made /v/a; chown 7:8 /made /v/a")
        platform("docker", "cp", "-a", str(given), "box:/given")
        found = platform("docker", "exec", "box", "stat", "-c", "%u:%g", "/made", "/given")
        assert found.split() == ["7:8", "3:4"]
        archive = platform("docker", "cp", "box:/made", "-").encode()
        with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
            (entry,) = packed
            assert (entry.uid, entry.gid) == (7, 8)
        assert set(platform("docker", "diff", "box").splitlines()) >= {"A /made", "A /given"}
        platform("docker", "commit", "box", "committed")
        other = platform("docker", "run", "--rm", "--userns", "host", "-v", "kept:/v", "committed",
                         "stat", "-c", "%u:%g", "/made", "/given", "/v/a")  # fmt: skip
        assert other.split() == ["7:8", "3:4", "7:8"]
    finally:
        platform("docker", "rm", "-f", "box")
        platform("docker", "rmi", "-f", "committed")
        platform("docker", "volume", "rm", "kept")


def test_what_belongs_to_the_host_needs_the_hosts_users(platform: Platform) -> None:
    run = ("docker", "run", "--rm")
    for options, text in (
        (("--privileged",), "privileged mode is incompatible with user namespaces"),
        (("--network", "host"), "cannot share the host's network namespace"),
        (("--pid", "host"), "cannot share the host's PID namespace"),
    ):
        assert text in platform.refused(*run, *options, IMAGE, "true", code=125)
        mapped = shell(platform, "cat /proc/self/uid_map", *options, "--userns", "host")
        assert mapped[0].split()[:2] == ["0", "0"]
    assert "name=userns" in platform("docker", "info", "-f", "{{.SecurityOptions}}")
    private = ("--security-opt", "userns=private")
    assert int(shell(platform, "cat /proc/self/uid_map", *private)[0].split()[1]) >= FIRST


def test_processes_are_shared_within_a_user_namespace(platform: Platform) -> None:
    """proc can't be mounted for a PID namespace of another one: the start failed with an errno."""
    platform("docker", "run", "-d", "--name", "donor", "--ipc", "shareable", IMAGE, "sleep", "1000")
    run = ("docker", "run", "--rm")
    try:
        for kind in ("pid", "ipc"):
            joined = (f"--{kind}", "container:donor")
            said = platform.refused(*run, *joined, IMAGE, "true", code=125)
            assert f"cannot share the {kind.upper()} namespace of container" in said
            assert "share its network, too" in said
            shell(platform, "true", *joined, "--userns", "host")
            together = (*joined, "--network", "container:donor")
            assert any("sleep 1000" in line for line in shell(platform, "ps", *together)) == (
                kind == "pid"
            )
    finally:
        platform("docker", "rm", "-f", "donor")


def test_pods_are_in_one_as_they_say(platform: Platform) -> None:
    def pod(name: str, **spec: object) -> None:
        script = "cat /proc/self/uid_map; stat -c %u /e; touch /e/f; stat -c %u /e/f; sleep 1000"
        container = {
            "name": "main",
            "image": IMAGE,
            "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", script],
            "volumeMounts": [{"name": "e", "mountPath": "/e"}],
        }
        body = {
            "terminationGracePeriodSeconds": 0,
            "volumes": [{"name": "e", "emptyDir": {}}],
            "containers": [container, {**container, "name": "second"}],
            **spec,
        }
        document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body}
        platform("kubectl", "apply", "-f", "-", given=json.dumps(document).encode())

    def first(name: str, container: str = "main") -> list[str]:
        wait_for(lambda: platform("kubectl", "logs", name, "-c", container).count("\n") == 3)
        return platform("kubectl", "logs", name, "-c", container).split()

    pod("mapped", hostUsers=False, shareProcessNamespace=True)
    pod("hosts", hostUsers=True)
    pod("parts", hostNetwork=True)
    mapped = first("mapped")
    assert int(mapped[1]) >= FIRST
    assert mapped[3:] == ["0", "0"]
    assert first("mapped", "second")[:2] == mapped[:2]
    # Pods' own /dev/shm is no volume of Docker's.
    assert platform("docker", "volume", "ls", "-q") == ""
    assert first("hosts")[1] == first("parts")[1] == "0"
    platform("kubectl", "delete", "pod", "--all", "--now")


@pytest.mark.skipif(which("runc") is None, reason="needs runc (package runc)")
def test_runc_stands_beside_the_built_in_runtime(platform: Platform) -> None:
    enable = ("enable", "runc", "--plugin", "runtime_oci", "--instance", "runc")
    platform.running.run(*enable, "--set", "cgroup_parent={cgroup}/runc")
    wait_for(lambda: "runc" in platform("docker", "info", "-f", "{{json .Runtimes}}"))
    try:
        script = "id -u; cat /proc/self/uid_map; touch /x; stat -c %u /x; exit 7"
        done = platform.run("docker", "run", "--rm", "--runtime", "runc", IMAGE, "sh", "-c", script)
        assert done.returncode == 7, done.stderr
        assert done.stdout.split()[::4] == ["0", "0"]
        platform(
            "docker", "run", "-d", "--name", "by-runc", "--runtime", "runc", IMAGE, "sleep", "1000"
        )
        assert platform("docker", "exec", "by-runc", "echo", "inside") == "inside\n"
        pid = platform("docker", "inspect", "-f", "{{.State.Pid}}", "by-runc").strip()
        assert "/runc/" in Path(f"/proc/{pid}/cgroup").read_text()
        for unit in ("runc", "node"):
            platform.swap(unit)
            assert platform("docker", "exec", "by-runc", "echo", unit) == f"{unit}\n"
        platform("docker", "rm", "-f", "by-runc")
        _check_pods_of_a_class(platform)
    finally:
        platform.running.run("disable", "runc")


def _check_pods_of_a_class(platform: Platform) -> None:
    """A pod whose RuntimeClass names the instance is runc's, beside one that names none."""
    container = {
        "name": "main",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", "echo said; cat /proc/self/cgroup; sleep 1000"],
        "resources": {"limits": {"memory": "64Mi"}},
    }
    documents = [
        {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": "by-runc"},
            "handler": "runc",
        },
        *(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name},
                "spec": {"containers": [container], "hostUsers": True, **more},
            }
            for name, more in (("classed", {"runtimeClassName": "by-runc"}), ("plain", {}))
        ),
    ]
    listed = {"apiVersion": "v1", "kind": "List", "items": documents}
    platform("kubectl", "apply", "-f", "-", given=json.dumps(listed).encode())
    wait = ("wait", "--for=condition=Ready", "--timeout=60s")
    platform("kubectl", *wait, "pod/classed", "pod/plain")
    made = list(platform.running.paths.run.glob("slots/runc/run/*/oci/*/state.json"))
    ids = "jsonpath={.status.containerStatuses[0].containerID}"
    classed = platform("kubectl", "get", "pod", "classed", "-o", ids).partition("//")[2]
    assert [path.parent.name for path in made] == [classed]
    assert platform("kubectl", "exec", "classed", "--", "echo", "inside") == "inside\n"
    assert platform("kubectl", "logs", "classed").startswith("said\n")
    platform("kubectl", "delete", "pod", "--all", "--now")
    wait_for(lambda: not platform("kubectl", "get", "pods", "-o", "name"))
    platform("kubectl", "delete", "runtimeclass", "by-runc")


@pytest.mark.skipif(which("runc") is None, reason="needs runc (package runc)")
def test_another_runtime_takes_the_place_of_the_default_and_gives_it_back(
    platform: Platform,
) -> None:
    ends = "trap 'exit 6' TERM; echo said; while :; do sleep 0.1; done"
    run = ("docker", "run", "-d", "--userns", "host", "--name")
    platform(*run, "before", IMAGE, "sh", "-c", ends)
    platform.running.run("swap", "runtime", "runtime_oci", "--quiet")
    platform(*run, "after", IMAGE, "sh", "-c", ends)
    assert platform("docker", "exec", "after", "echo", "inside") == "inside\n"
    assert platform("docker", "exec", "before", "echo", "inside") == "inside\n"
    platform("docker", "pause", "before")
    platform("docker", "unpause", "before")
    platform("docker", "stop", "-t", "60", "before")
    assert platform("docker", "logs", "before") == "said\n"
    assert platform("docker", "inspect", "-f", "{{.State.ExitCode}}", "before") == "6\n"
    assert shell(platform, "id -u; cat /proc/self/uid_map")[0] == "0"
    platform.running.run("swap", "runtime", "runtime_linux", "--quiet")
    platform("docker", "start", "before")
    for name in ("before", "after"):
        assert platform("docker", "exec", name, "echo", "inside") == "inside\n"
    platform("docker", "stop", "-t", "60", "after")
    assert platform("docker", "inspect", "-f", "{{.State.ExitCode}}", "after") == "6\n"
    platform("docker", "rm", "-f", "before", "after")
    kept = next(platform.running.paths.run.glob("slots/runtime/run/*/oci"))
    assert list(kept.iterdir()) == []
