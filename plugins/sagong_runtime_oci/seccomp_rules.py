"""A seccomp policy as `linux.seccomp` of the OCI specification; pure."""

from __future__ import annotations

from typing import Any

from sagong.linux import seccomp
from sagong.linux.seccomp import Condition, Policy, Rule
from sagong.linux.syscall_table import AARCH64, I386, X86_64

__all__ = ["seccomp_of"]

_ACTIONS = {
    seccomp.KILL: "SCMP_ACT_KILL_PROCESS",
    seccomp.KILL_THREAD: "SCMP_ACT_KILL_THREAD",
    seccomp.TRAP: "SCMP_ACT_TRAP",
    seccomp.LOG: "SCMP_ACT_LOG",
    seccomp.ALLOW: "SCMP_ACT_ALLOW",
    seccomp.errno_action(0): "SCMP_ACT_ERRNO",
    seccomp.TRACE: "SCMP_ACT_TRACE",
}
_WITH_NUMBER = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
_ARCHITECTURES = {
    X86_64: "SCMP_ARCH_X86_64",
    I386: "SCMP_ARCH_X86",
    AARCH64: "SCMP_ARCH_AARCH64",
}


def seccomp_of(policy: Policy) -> dict[str, Any]:
    """The object; rules that say what holds anyway are left out."""
    name, number = _action(policy.default)
    found: dict[str, Any] = {
        "defaultAction": name,
        "architectures": [_ARCHITECTURES[one] for one in policy.architectures],
        "syscalls": [_rule(rule) for rule in policy.rules if rule.names],
    }
    if name in _WITH_NUMBER:
        found["defaultErrnoRet"] = number
    return found


def _action(action: int) -> tuple[str, int]:
    if action in _ACTIONS:
        return _ACTIONS[action], 0
    return _ACTIONS[action & ~0xFFFF], action & 0xFFFF


def _rule(rule: Rule) -> dict[str, Any]:
    name, number = _action(rule.action)
    found: dict[str, Any] = {"names": list(rule.names), "action": name}
    if name in _WITH_NUMBER:
        found["errnoRet"] = number
    if rule.conditions:
        found["args"] = [_condition(test) for test in rule.conditions]
    return found


def _condition(test: Condition) -> dict[str, Any]:
    found = {"index": test.argument, "op": f"SCMP_CMP_{test.operator.upper()}"}
    if test.operator == "masked_eq":
        return {**found, "value": test.mask, "valueTwo": test.value}
    return {**found, "value": test.value}
