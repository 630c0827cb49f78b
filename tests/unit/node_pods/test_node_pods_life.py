"""The life of pods on a node: from bound to running, ended, deleted, adopted."""

from __future__ import annotations

from pathlib import Path

from tests.unit.node_pods.pod_lab import Lab, container, lab, pod


async def test_a_pod_runs_and_says_so_in_one_status_write(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        node.objects.put(pod())
        await node.until(lambda: node.phase("web") == "Running", "running")
        status = node.status("web")
        assert len(node.objects.status_writes) == 1
        assert status["podIP"] == "10.244.0.2"
        assert status["podIPs"] == [{"ip": "10.244.0.2"}]
        assert status["hostIP"] == "192.168.7.1"
        assert status["qosClass"] == "BestEffort"
        assert status["startTime"]
        main = node.container("web", "main")
        assert main["ready"] and main["started"] and main["restartCount"] == 0
        assert main["containerID"].startswith("sagong://")
        assert main["state"]["running"]["startedAt"]
        for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready"):
            assert node.condition("web", kind)["status"] == "True"
        await node.until(lambda: len(node.reasons()) >= 3, "events")
        assert node.reasons()[:3] == ["Pulled", "Created", "Started"]


async def test_a_deleted_pod_is_stopped_cleaned_up_and_removed(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        node.objects.put(pod())
        await node.until(lambda: node.phase("web") == "Running")
        node.objects.delete("Pod", "web", grace=30)
        await node.until(lambda: node.objects.pod("web") is None, "deleted")
        assert node.runtime.signals == [("main", 15)]
        assert node.runtime.containers == {}
        assert node.networks.joined == {}
        assert node.registry.sandboxes == {} and node.registry.containers == {}
        assert list((tmp_path / "data" / "pods").iterdir()) == []
        last = node.objects.status_writes[-1]
        assert last["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 143


async def test_a_pod_that_ignores_the_signal_is_killed_after_its_grace(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        node.runtime.stubborn.add("main")
        node.objects.put(pod())
        await node.until(lambda: node.phase("web") == "Running")
        node.objects.delete("Pod", "web", grace=1)
        await node.until(lambda: node.objects.pod("web") is None, "deleted")
        assert node.runtime.signals == [("main", 15), ("main", 9)]


async def test_a_deletion_that_meets_a_status_on_its_way_is_not_missed(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        node.objects.put(pod())
        await node.until(lambda: node.runtime.running() == ["main"])
        # The status is refused as older; what is read again says more than the watch will.
        node.objects.break_watches()
        node.objects.delete("Pod", "web", grace=1)
        await node.until(lambda: node.objects.pod("web") is None, "deleted")


async def test_a_forced_deletion_does_not_wait(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        node.runtime.stubborn.add("main")
        node.objects.put(pod())
        await node.until(lambda: node.phase("web") == "Running")
        node.objects.delete("Pod", "web", grace=3600)
        await node.until(lambda: node.runtime.signals == [("main", 15)])
        node.objects.delete("Pod", "web")
        await node.until(lambda: not node.registry.sandboxes, "cleaned up")
        assert node.runtime.running() == []


async def test_everything_is_adopted_after_a_kill(tmp_path: Path) -> None:
    node = Lab(tmp_path)
    await node.start()
    node.objects.put(pod())
    await node.until(lambda: node.phase("web") == "Running")
    await node.kill()
    writes = len(node.objects.status_writes)
    await node.start()
    try:
        await node.until(lambda: node.kubelet._workers)
        node.objects.put(pod("second"))
        await node.until(lambda: node.phase("second") == "Running")
        assert node.runtime.started == ["main", "main"]
        assert node.container("web", "main")["restartCount"] == 0
        assert len(node.objects.status_writes) == writes + 1
        node.runtime.end("main", 1)
        await node.until(lambda: node.container("web", "main")["restartCount"] == 1)
    finally:
        await node.stop()


async def test_pods_that_went_while_the_node_was_away_are_removed(tmp_path: Path) -> None:
    node = Lab(tmp_path)
    await node.start()
    node.objects.put(pod())
    await node.until(lambda: node.phase("web") == "Running")
    await node.kill()
    node.objects.delete("Pod", "web")
    await node.start()
    try:
        await node.until(lambda: not node.registry.sandboxes, "orphans removed")
        assert node.runtime.running() == []
        await node.until(lambda: not list((tmp_path / "data" / "pods").iterdir()))
    finally:
        await node.stop()


async def test_a_crash_restarts_at_once_then_with_back_off(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        node.objects.put(pod())
        await node.until(lambda: node.phase("web") == "Running")
        node.runtime.end("main", 3, message="out of luck")
        await node.until(lambda: node.container("web", "main")["restartCount"] == 1)
        last = node.container("web", "main")["lastState"]["terminated"]
        assert (last["exitCode"], last["reason"], last["message"]) == (3, "Error", "out of luck")
        node.runtime.end("main", 3)
        state = await node.until(
            lambda: node.container("web", "main")["state"].get("waiting"), "back-off"
        )
        assert state["reason"] == "CrashLoopBackOff"
        assert state["message"] == (
            "back-off 10s restarting failed container=main pod=web_default(uid-web)"
        )
        assert node.phase("web") == "Running"
        assert node.condition("web", "Ready")["reason"] == "ContainersNotReady"
        await node.until(lambda: "BackOff" in node.reasons())


async def test_a_pod_that_is_done_succeeds_and_frees_its_address(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        node.objects.put(pod(restartPolicy="Never"))
        await node.until(lambda: node.phase("web") == "Running")
        node.runtime.end("main", 0)
        await node.until(lambda: node.phase("web") == "Succeeded")
        main = node.container("web", "main")
        assert main["state"]["terminated"]["reason"] == "Completed"
        assert not main["ready"]
        assert node.condition("web", "Ready")["reason"] == "PodCompleted"
        (sandbox,) = node.networks.joined.values()
        await node.until(lambda: not next(iter(node.networks.joined.values())).endpoints)
        assert sandbox.id in node.registry.sandboxes
        node.objects.delete("Pod", "web", grace=1)
        await node.until(lambda: node.objects.pod("web") is None)


async def test_a_pod_whose_container_fails_for_good_has_failed(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        node.objects.put(pod(restartPolicy="OnFailure"))
        await node.until(lambda: node.phase("web") == "Running")
        node.runtime.end("main", 1)
        await node.until(lambda: node.container("web", "main")["restartCount"] == 1)
        node.runtime.end("main", 0)
        await node.until(lambda: node.phase("web") == "Succeeded")
        node.objects.put(pod("other", restartPolicy="Never"))
        await node.until(lambda: node.phase("other") == "Running")
        node.runtime.end("main", 137, oom=True)
        await node.until(lambda: node.phase("other") == "Failed")
        assert node.container("other", "main")["state"]["terminated"]["reason"] == "OOMKilled"


async def test_init_containers_run_in_order_and_sidecars_stay(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        inits = [
            container("first"),
            container("side", restartPolicy="Always"),
            container("last"),
        ]
        node.objects.put(pod("web", container("main"), initContainers=inits, restartPolicy="Never"))
        await node.until(lambda: node.runtime.running() == ["first"])
        await node.until(lambda: node.container("web", "main").get("state"))
        waiting = node.container("web", "main")["state"]["waiting"]
        assert waiting["reason"] == "PodInitializing"
        assert node.condition("web", "Initialized")["reason"] == "ContainersNotInitialized"
        node.runtime.end("first")
        await node.until(lambda: node.runtime.running() == ["last", "side"])
        node.runtime.end("last")
        await node.until(lambda: node.runtime.running() == ["main", "side"])
        assert node.runtime.started == ["first", "side", "last", "main"]
        await node.until(lambda: node.phase("web") == "Running")
        node.runtime.end("main")
        await node.until(lambda: node.phase("web") == "Succeeded")
        assert node.runtime.running() == []


async def test_an_active_deadline_ends_the_pod(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        node.objects.put(pod(activeDeadlineSeconds=1))
        await node.until(lambda: node.phase("web") == "Running")
        await node.until(lambda: node.phase("web") == "Failed")
        assert node.status("web")["reason"] == "DeadlineExceeded"
        assert node.runtime.running() == []
