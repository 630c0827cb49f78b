"""Static pods: from files, without an API server."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.node_pods.pod_lab import Lab, container, lab, pod

Document = dict[str, Any]


@pytest.fixture
def files(tmp_path: Path) -> Document:
    """Settings of a node that has only its files, in directories that are there."""
    settings: Document = {"api": False}
    for name in ("static_pods", "static_containers"):
        (tmp_path / name).mkdir()
        settings[name] = str(tmp_path / name)
    return settings


def write(tmp_path: Path, name: str, *pods: Document) -> Path:
    """A manifest, complete at once as editors write it."""
    path = tmp_path / "static_pods" / name
    fresh = path.with_name(f".{name}.new")
    fresh.write_text(yaml.safe_dump_all(pods))
    os.replace(fresh, path)
    return path


def names(node: Lab) -> list[str]:
    """Pods and containers that run, as POD/CONTAINER."""
    return sorted(
        f"{labels['io.kubernetes.pod.name']}/{labels['io.kubernetes.container.name']}"
        for record in node.registry.containers.values()
        if record.alive and (labels := dict(record.spec.labels))
    )


async def test_a_pod_of_a_file_runs_and_ends_with_its_file(tmp_path: Path, files: Document) -> None:
    path = write(tmp_path, "web.yaml", pod("web"))
    async with lab(tmp_path, **files) as node:
        await node.until(lambda: names(node) == ["web-node-1/main"], "running")
        path.unlink()
        await node.until(lambda: node.registry.sandboxes == {}, "gone")
        assert node.runtime.signals == [("main", 15)]
        pods = tmp_path / "data" / "pods"
        await node.until(lambda: list(pods.iterdir()) == [], "its files too")
        assert node.objects.status_writes == []


async def test_a_changed_file_replaces_the_pod_when_the_old_one_has_ended(
    tmp_path: Path, files: Document
) -> None:
    write(tmp_path, "web.yaml", pod("web"))
    async with lab(tmp_path, **files) as node:
        await node.until(lambda: names(node) == ["web-node-1/main"], "running")
        (first,) = node.registry.containers
        write(tmp_path, "web.yaml", pod("web", container("main", command=["other"])))
        await node.until(
            lambda: names(node) == ["web-node-1/main"] and first not in node.registry.containers,
            "replaced",
        )
        assert node.runtime.signals == [("main", 15)]
        assert len(node.registry.sandboxes) == 1


async def test_a_file_that_comes_back_before_its_pod_has_ended_runs_again(
    tmp_path: Path, files: Document
) -> None:
    path = write(tmp_path, "web.yaml", pod("web"))
    async with lab(tmp_path, **files) as node:
        node.runtime.stubborn.add("main")
        await node.until(lambda: names(node) == ["web-node-1/main"], "running")
        path.unlink()
        await node.until(lambda: node.runtime.signals == [("main", 15)], "asked to end")
        write(tmp_path, "web.yaml", pod("web"))
        node.runtime.end("main")
        await node.until(lambda: node.runtime.started == ["main", "main"], "running again")


async def test_a_broken_file_is_told_once_with_its_line_and_hurts_nobody(
    tmp_path: Path, files: Document, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    write(tmp_path, "a.yaml", pod("first", container("one")))
    write(tmp_path, "b.yaml", pod("second", container("two")))
    async with lab(tmp_path, **files) as node:
        await node.until(lambda: len(names(node)) == 2, "running")
        broken = tmp_path / "static_pods" / "b.yaml"
        broken.write_text(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: second}\nspec:\n  containerz: []\n"
        )

        def told() -> list[str]:
            return [r.getMessage() for r in caplog.records if str(broken) in r.getMessage()]

        await node.until(told, "told")
        write(tmp_path, "c.yaml", pod("third", container("three")))
        await node.until(lambda: len(names(node)) == 3, "the others go on")
        assert told() == [
            f"{broken}:5: unknown field spec.containerz; the pods that it had before go on"
        ]
        assert node.runtime.signals == []


async def test_a_node_that_was_killed_finds_its_static_pods_again(
    tmp_path: Path, files: Document
) -> None:
    write(tmp_path, "web.yaml", pod("web"))
    gone = write(tmp_path, "gone.yaml", pod("gone", container("other")))
    node = Lab(tmp_path)
    node.settings = type(node.settings)(name="node-1", address="192.168.7.1", **files)
    await node.start()
    await node.until(lambda: len(names(node)) == 2, "running")
    await node.registry.flushed()
    await node.kill()
    gone.unlink()
    await node.start()
    try:
        await node.until(lambda: len(node.registry.sandboxes) == 1, "what has no file is gone")
        assert names(node) == ["web-node-1/main"]
        assert sorted(node.runtime.started) == ["main", "other"]
    finally:
        await node.stop()


async def test_a_failed_container_is_started_again(tmp_path: Path, files: Document) -> None:
    write(tmp_path, "web.yaml", pod("web"))
    async with lab(tmp_path, **files) as node:
        await node.until(lambda: names(node) == ["web-node-1/main"], "running")
        node.runtime.end("main", 1)
        await node.until(lambda: node.runtime.started == ["main", "main"], "again")


async def test_a_container_of_a_file_runs_beside_pods(tmp_path: Path, files: Document) -> None:
    path = tmp_path / "static_containers" / "sensor.toml"
    path.write_text('image = "busybox:1"\ncommand = ["sleep", "9"]\nmemory = "32Mi"\n')
    async with lab(tmp_path, **files) as node:
        await node.until(lambda: names(node) == ["sensor-node-1/sensor"], "running")
        (record,) = node.registry.containers.values()
        assert record.spec.command.cmd == ("sleep", "9")
        assert record.spec.limits.memory == 32 << 20


async def test_with_an_api_server_pods_of_both_run_and_neither_sweeps_the_others(
    tmp_path: Path, files: Document
) -> None:
    write(tmp_path, "web.yaml", pod("web"))
    async with lab(tmp_path, **{**files, "api": True}) as node:
        node.objects.put(pod("api", container("served")))
        both = ["api/served", "web-node-1/main"]
        await node.until(lambda: names(node) == both, "both")
        node.objects.break_watches()
        node.objects.delete("Pod", "api", grace=1)
        await node.until(lambda: names(node) == ["web-node-1/main"], "the static one stays")


async def test_a_directory_that_goes_takes_its_pods_along(tmp_path: Path, files: Document) -> None:
    write(tmp_path, "web.yaml", pod("web"))
    async with lab(tmp_path, **files) as node:
        await node.until(lambda: names(node) == ["web-node-1/main"], "running")
        shutil.rmtree(tmp_path / "static_pods")
        await node.until(lambda: node.registry.sandboxes == {}, "gone")
