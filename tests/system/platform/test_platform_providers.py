"""What users choose by name: schedulers, runtimes, drivers; each added and taken away live."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import sample_image
from tests.system.instance import instance
from tests.system.platform.rig import (
    IMAGE,
    Platform,
    needs_docker,
    needs_kubectl,
    single,
    wait_for,
)

pytestmark = [pytest.mark.root, needs_docker, needs_kubectl]
READ = ("kubectl", "exec", "reader", "--", "cat", "/books/a")
SECOND = (
    "second", "--plugin", "runtime_linux", "--instance", "second", "--set",
    "cgroup_parent={cgroup}/second",
)  # fmt: skip


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One instance with the sample image."""
    home = tmp_path_factory.mktemp("home")
    with instance(single(16553, "10.252.0")) as running:
        found = Platform(running, home)
        sample = sample_image.build(home)
        found("docker", "load", "-i", str(sample.docker_archive))
        yield found


@pytest.fixture(scope="module")
def second(platform: Platform) -> Iterator[Platform]:
    """With a second runtime, added while the first one runs something."""
    platform("docker", "run", "-d", "--name", "first", IMAGE, "sleep", "1000")
    platform.running.run("enable", *SECOND)
    wait_for(lambda: "second" in platform("docker", "info", "-f", "{{json .Runtimes}}"))
    yield platform
    platform.running.run("disable", "second")
    assert platform("docker", "exec", "first", "echo", "lives") == "lives\n"
    platform("docker", "rm", "-f", "first")


def pod(name: str, **spec: object) -> bytes:
    """A pod that sleeps."""
    container = {"name": "main", "image": IMAGE, "command": ["sleep", "1000"]}
    container["imagePullPolicy"] = "IfNotPresent"
    body = {"terminationGracePeriodSeconds": 0, "containers": [container], **spec}
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body}
    return json.dumps(document).encode()


def phase(platform: Platform, name: str) -> str:
    """The pod's phase."""
    return platform("kubectl", "get", "pod", name, "-o", "jsonpath={.status.phase}")


def events(platform: Platform, name: str) -> str:
    """Reasons and messages of the pod's events."""
    return platform(
        "kubectl", "get", "events", "--field-selector", f"involvedObject.name={name}", "-o",
        "jsonpath={range .items[*]}{.reason} {.source.component}: {.message}{'\\n'}{end}",
    )  # fmt: skip


def test_each_scheduler_takes_the_pods_that_name_it(platform: Platform, tmp_path: Path) -> None:
    def create(name: str, scheduler: str) -> None:
        platform("kubectl", "apply", "-f", "-", given=pod(name, schedulerName=scheduler))

    create("early", "packer")
    create("plain", "default-scheduler")
    wait_for(lambda: phase(platform, "plain") == "Running")
    assert phase(platform, "early") == "Pending"
    run = platform.running.run
    run("new-plugin", "scheduler", "packer", "--directory", str(tmp_path))
    # Without its pyproject.toml, so that nobody asks an index for what builds it.
    run("plugin", "install", str(tmp_path / "packer/packer"))
    run("enable", "packer", "--instance", "packer")
    wait_for(lambda: phase(platform, "early") == "Running")
    wait_for(lambda: "Scheduled packer" in events(platform, "early"))
    create("nobodys", "no-such-scheduler")
    run("disable", "packer")
    create("late", "packer")
    create("plain2", "default-scheduler")
    wait_for(lambda: phase(platform, "plain2") == "Running")
    assert phase(platform, "late") == phase(platform, "nobodys") == "Pending"
    platform("kubectl", "delete", "pod", "--all", "--now")


def test_an_unknown_runtime_is_refused_in_dockers_words(second: Platform) -> None:
    said = second.refused("docker", "run", "--rm", "--runtime", "nosuch", IMAGE, "true", code=125)
    assert "unknown or invalid runtime name: nosuch" in said
    default = second("docker", "info", "-f", "{{.DefaultRuntime}}").strip()
    assert default == "runc"
    assert second("docker", "run", "--rm", "--runtime", "runc", IMAGE, "echo", "a") == "a\n"


def test_what_new_plugin_makes_stands_before_the_runtime_there_is(
    second: Platform, tmp_path: Path
) -> None:
    run = second.running.run
    run("new-plugin", "runtime", "fore", "--directory", str(tmp_path))
    run("plugin", "install", str(tmp_path / "fore/fore"))
    run("enable", "fore", "--instance", "outer")
    try:
        wait_for(lambda: "outer" in second("docker", "info", "-f", "{{json .Runtimes}}"))
        said = second("docker", "run", "--rm", "--runtime", "outer", IMAGE, "echo", "handed on")
        assert said == "handed on\n"
    finally:
        run("disable", "fore", "--force")
        run("plugin", "remove", "fore")


def test_containers_of_both_runtimes_live_side_by_side(second: Platform) -> None:
    run = ("docker", "run", "-d", "--name", "other", "--runtime", "second", IMAGE)
    second(*run, "sh", "-c", "echo said; exec sleep 1000")
    try:
        shown = second("docker", "inspect", "-f", "{{.HostConfig.Runtime}} {{.State.Pid}}", "other")
        runtime, pid = shown.split()
        assert runtime == "second"
        with open(f"/proc/{pid}/cgroup") as file:
            assert "/second/" in file.read()
        assert second("docker", "exec", "other", "echo", "inside") == "inside\n"
        wait_for(lambda: second("docker", "logs", "other") == "said\n")
        for unit in ("second", "runtime", "node"):
            second.swap(unit)
            assert second("docker", "exec", "other", "echo", unit) == f"{unit}\n"
            assert second("docker", "exec", "first", "echo", unit) == f"{unit}\n"
        assert second("docker", "inspect", "-f", "{{.State.Pid}}", "other").strip() == pid
        second("docker", "stop", "-t", "0", "other")
        assert second("docker", "inspect", "-f", "{{.State.ExitCode}}", "other") == "137\n"
    finally:
        second("docker", "rm", "-f", "other")


def test_ends_are_heard_of_both(second: Platform) -> None:
    for runtime in ("runc", "second"):
        name = f"ends-{runtime}"
        second("docker", "run", "-d", "--name", name, "--runtime", runtime, IMAGE, "sh", "-c",
               "exit 7")  # fmt: skip
        assert second("docker", "wait", name) == "7\n"
        second("docker", "rm", name)


def test_a_runtime_class_names_the_runtime_of_its_pods(second: Platform) -> None:
    for name, handler in (("other", "second"), ("none", "nosuch")):
        kind = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "handler": handler}
        document = {**kind, "metadata": {"name": name}}
        second("kubectl", "apply", "-f", "-", given=json.dumps(document).encode())
    second("kubectl", "apply", "-f", "-", given=pod("classed", runtimeClassName="other"))
    second("kubectl", "apply", "-f", "-", given=pod("lost", runtimeClassName="none"))
    wait_for(lambda: phase(second, "classed") == "Running")
    assert second("kubectl", "exec", "classed", "--", "echo", "in") == "in\n"
    text = 'failed to get sandbox runtime: no runtime for "nosuch" is configured'
    wait_for(lambda: "FailedCreatePodSandBox" in events(second, "lost"))
    assert text in events(second, "lost")
    absent = pod("x", runtimeClassName="absent")
    refused = second.refused("kubectl", "apply", "-f", "-", given=absent)
    assert 'RuntimeClass "absent" not found' in refused
    second("kubectl", "delete", "pod", "classed", "lost", "--now")


def test_a_container_whose_runtime_is_away_is_left_alone(second: Platform) -> None:
    second("docker", "run", "-d", "--name", "waits", "--runtime", "second", IMAGE, "sleep", "1000")
    before = second("docker", "inspect", "-f", "{{.State.Pid}}", "waits")
    second.running.run("disable", "second")
    told = "held by runtime second, which is not here now"
    wait_for(lambda: told in second.run("docker", "pause", "waits").stderr)
    second.running.run("enable", *SECOND)
    limit = time.monotonic() + 60.0
    while second.run("docker", "exec", "waits", "true").returncode:
        assert time.monotonic() < limit, second.running.logs()
    assert second("docker", "inspect", "-f", "{{.State.Pid}}", "waits") == before
    second("docker", "rm", "-f", "waits")


def test_a_volumes_driver_names_an_instance(platform: Platform) -> None:
    said = platform.refused("docker", "volume", "create", "-d", "nosuch", "xx")
    assert 'create xx: error looking up volume plugin nosuch: plugin "nosuch" not found' in said
    platform.running.run("enable", "shelf", "--plugin", "volume_local", "--instance", "shelf")
    wait_for(lambda: "shelf" in platform("docker", "info", "-f", "{{json .Plugins.Volume}}"))
    platform("docker", "volume", "create", "-d", "shelf", "books")
    platform("docker", "volume", "create", "plain")
    listed = platform("docker", "volume", "ls", "--format", "{{.Driver}} {{.Name}}").splitlines()
    assert {"shelf books", "local plain"} <= set(listed)
    place = platform("docker", "volume", "inspect", "-f", "{{.Mountpoint}}", "books")
    assert "/plugins/volume_local@shelf/" in place
    said = platform.refused("docker", "volume", "create", "-d", "local", "books")
    assert "different driver (shelf) already exists" in said
    mount = ("-v", "books:/books", "-v", "plain:/plain")
    write = "echo a > /books/a; echo b > /plain/b"
    platform("docker", "run", "--rm", *mount, IMAGE, "sh", "-c", write)
    platform.swap("shelf")
    read = ("cat", "/books/a", "/plain/b")
    assert platform("docker", "run", "--rm", *mount, IMAGE, *read) == "a\nb\n"
    platform("docker", "volume", "rm", "books", "plain")
    platform.running.run("disable", "shelf")
    again = ("docker", "volume", "create", "-d", "shelf", "yy")
    wait_for(lambda: "not found" in platform.run(*again).stderr)


def test_a_storage_class_names_the_instance_of_its_volumes(platform: Platform) -> None:
    platform.running.run("enable", "shelf", "--plugin", "volume_local", "--instance", "shelf")
    kind = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass"}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    documents = [
        {**kind, "metadata": {"name": "shelf"}, "provisioner": "shelf.sagong.io"},
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "books"},
            "spec": {**claim, "storageClassName": "shelf"},
        },
    ]
    for document in documents:
        platform("kubectl", "apply", "-f", "-", given=json.dumps(document).encode())
    volume = {"name": "books", "persistentVolumeClaim": {"claimName": "books"}}
    container = {
        "name": "main",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", "echo read > /books/a; exec sleep 1000"],
        "volumeMounts": [{"name": "books", "mountPath": "/books"}],
    }
    reader = pod("reader", containers=[container], volumes=[volume])
    platform("kubectl", "apply", "-f", "-", given=reader)
    wait_for(lambda: phase(platform, "reader") == "Running")
    # It runs, and has perhaps not written yet.
    wait_for(lambda: platform.run(*READ).stdout == "read\n")
    shelf = platform.running.paths.data / "plugins" / "volume_local@shelf"
    assert [path.read_text() for path in shelf.rglob("a")] == ["read\n"]
    platform("kubectl", "delete", "pod", "reader", "--now")
    container["command"] = ["sh", "-c", "cat /books/a && exec sleep 1000"]
    platform(
        "kubectl", "apply", "-f", "-", given=pod("next", containers=[container], volumes=[volume])
    )
    wait_for(lambda: phase(platform, "next") == "Running")
    # What a claim holds outlives the pods that use it, and goes with its volume.
    wait_for(lambda: platform("kubectl", "logs", "next") == "read\n")
    platform("kubectl", "delete", "pod", "next", "--now")
    platform("kubectl", "delete", "pvc", "books")
    wait_for(lambda: not [*shelf.rglob("a")])
    wait_for(lambda: not platform("kubectl", "get", "pv", "-o", "name"))
    platform.running.run("disable", "shelf")


def test_an_unknown_network_driver_is_refused_in_dockers_words(platform: Platform) -> None:
    said = platform.refused("docker", "network", "create", "-d", "nosuch", "net")
    assert 'plugin "nosuch" not found' in said
