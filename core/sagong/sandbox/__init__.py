"""The sandbox of a plugin's process: rights become a plan, the plan is applied after a fork.

    machine = probe(stage="/run/sagong/sandbox")      # once, in the zygote
    todo = plan(rights, machine)                      # pure; print(todo.describe())
    ...fork...
    todo.apply()                                      # in the child, single-threaded, as root

`effective(pid)` reads back what a process really has; `differences` holds that against its rights.
"""

from sagong.sandbox.effective import Effective, companions, differences, effective
from sagong.sandbox.machine import Machine, probe
from sagong.sandbox.plan import Plan, cores_limits, plan, turns
from sagong.sandbox.rights import DeviceGrant, PathGrant, ProcessLimits, Rights
from sagong.sandbox.syscall_groups import GROUPS, plugin_policy

__all__ = [
    "GROUPS",
    "DeviceGrant",
    "Effective",
    "Machine",
    "PathGrant",
    "Plan",
    "ProcessLimits",
    "Rights",
    "companions",
    "cores_limits",
    "differences",
    "effective",
    "plan",
    "plugin_policy",
    "probe",
    "turns",
]
