"""Rules by which a job ends early, or forgives a failure.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sagong_replication_kube.indexes import parse_indexes
from sagong_replication_kube.item import Document, Item

__all__ = ["early_verdict", "ignored"]


class Counted(Protocol):
    """What the rules read of the count."""

    completed: set[int]
    failed_indexes: set[int]


def ignored(document: Document, pod: Item) -> bool:
    """Whether the failure of a pod is not held against the job."""
    rule = _rule_of(document, pod)
    return rule is not None and rule.get("action") == "Ignore"


def early_verdict(
    document: Document, counted: Counted, pods: Sequence[Item]
) -> tuple[str, str, str] | None:
    """(condition, reason, message) when a rule ends the job before its number is reached."""
    spec = document["spec"]
    for pod in pods:
        rule = _rule_of(document, pod) if pod.status.phase == "Failed" else None
        if rule is not None and rule.get("action") == "FailJob":
            return ("Failed", "PodFailurePolicy", _said(document, rule, pod))
    most = spec.get("maxFailedIndexes")
    if most is not None and len(counted.failed_indexes) > most:
        said = "Job has exceeded the specified maximal number of failed indexes"
        return ("Failed", "MaxFailedIndexesExceeded", said)
    for number, rule in enumerate((spec.get("successPolicy") or {}).get("rules") or ()):
        if _succeeded(rule, counted):
            return ("Complete", "SuccessPolicy", f"Matched rules at index {number}")
    return None


def _succeeded(rule: Document, counted: Counted) -> bool:
    done = counted.completed
    if "succeededIndexes" in rule:
        wanted = parse_indexes(rule["succeededIndexes"])
        done = done & wanted
        return len(done) >= int(rule.get("succeededCount", len(wanted)))
    return len(done) >= int(rule.get("succeededCount", 0)) > 0


def _rule_of(document: Document, pod: Item) -> Document | None:
    """The first rule that fits how the pod failed."""
    policy = document["spec"].get("podFailurePolicy") or {}
    for rule in policy.get("rules") or ():
        if "onExitCodes" in rule and _exit_code(rule["onExitCodes"], pod) is not None:
            return dict(rule)
        for wanted in rule.get("onPodConditions") or ():
            found = pod.status.condition(wanted["type"])
            if found is not None and found.status == wanted.get("status", "True"):
                return dict(rule)
    return None


def _exit_code(wanted: Document, pod: Item) -> tuple[str, int] | None:
    """The container and code that fit."""
    statuses = (*(pod.status.container_statuses or ()), *(pod.status.init_container_statuses or ()))
    for status in statuses:
        ended = status.state.terminated if status.state is not None else None
        if ended is None or ended.exit_code == 0:
            continue
        if wanted.get("containerName") not in (None, status.name):
            continue
        inside = ended.exit_code in (wanted.get("values") or ())
        if inside == (wanted.get("operator") == "In"):
            return status.name, ended.exit_code
    return None


def _said(document: Document, rule: Document, pod: Item) -> str:
    rules = document["spec"]["podFailurePolicy"]["rules"]
    number = next((at for at, one in enumerate(rules) if one == rule), 0)
    name = "/".join(pod.key)
    if "onExitCodes" in rule:
        found = _exit_code(rule["onExitCodes"], pod)
        if found is not None:
            return (
                f"Container {found[0]} for pod {name} failed with exit code {found[1]} matching "
                f"FailJob rule at index {number}"
            )
    return f"Pod {name} has a condition matching FailJob rule at index {number}"
