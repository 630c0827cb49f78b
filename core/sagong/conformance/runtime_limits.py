"""Checks of the runtime suite: cgroup limits, out of memory."""

from __future__ import annotations

from sagong.conformance.runtime_lab import RuntimeLab
from sagong.contracts.runtime import ContainerRef, Limits, OutOfMemory, RunSpec, UpdateRequest


async def _limits_seen(lab: RuntimeLab, spec: RunSpec, *names: str) -> list[str]:
    """Values of cgroup files inside, the version 1 name or the version 2 name."""
    script = "cd /sys/fs/cgroup; for f in " + " ".join(names) + "; do cat $f 2>/dev/null; done"
    return (await lab.exec_output(spec.id, lab.process(script))).lines


async def check_limits_are_in_force(lab: RuntimeLab) -> None:
    """Memory, pids and CPU stand in the container's own cgroup, and can be changed."""
    limits = Limits(memory=64 << 20, pids=50, cpu_quota=50_000, cpu_period=100_000, cpu_shares=512)
    spec = lab.spec(lab.process("sleep", "1000"), limits=limits)
    await lab.runtime.run(spec)
    files = ("memory/memory.limit_in_bytes", "memory.max", "pids/pids.max", "pids.max")
    assert await _limits_seen(lab, spec, *files) == [str(64 << 20), "50"]
    quota = await _limits_seen(lab, spec, "cpu/cpu.cfs_quota_us", "cpu.max")
    assert quota[0].split()[0] == "50000"
    change = Limits(memory=96 << 20, pids=60)
    await lab.runtime.update(UpdateRequest(id=spec.id, limits=change))
    assert await _limits_seen(lab, spec, *files) == [str(96 << 20), "60"]
    assert (await _limits_seen(lab, spec, "cpu/cpu.cfs_quota_us", "cpu.max")) == quota


async def check_pids_limit_holds(lab: RuntimeLab) -> None:
    """Forks beyond it fail."""
    script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 600 & done; echo all"
    found = await lab.shell(script, limits=Limits(pids=4))
    assert b"all" not in found.stdout
    assert b"fork" in found.stderr


async def check_out_of_memory_is_told(lab: RuntimeLab) -> None:
    """The kernel's kill shows in the end of the run, and as an event."""
    limits = Limits(memory=16 << 20, memory_swap=16 << 20)
    spec = lab.spec("head -c 200000000 /dev/zero | tail", limits=limits)
    await lab.runtime.run(spec)
    ended = await lab.ended(spec.id)
    assert ended.oom_killed
    assert (await lab.runtime.inspect(ContainerRef(id=spec.id))).oom_killed
    events = [e for e in lab.emitted() if isinstance(e, OutOfMemory) and e.id == spec.id]
    assert events, "no OutOfMemory"
    assert events[0].run == 1
    calm = lab.spec("exit 1", limits=limits)
    await lab.runtime.run(calm)
    assert not (await lab.ended(calm.id)).oom_killed
