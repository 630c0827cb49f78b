"""HorizontalPodAutoscalers: replicas by what pods use.

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/horizontal-pod-autoscaler-v2/
"""

from __future__ import annotations

from typing import Final

from sagong.model.quantity import NANO, Quantity, nano
from sagong.model.selectors import NOTHING, LabelSelector
from sagong.model.times import time_text
from sagong_replication_kube.item import Document, Item
from sagong_replication_kube.pods import PODS, ready
from sagong_replication_kube.scaling import (
    Measured,
    Memory,
    bounded,
    by_average,
    by_utilization,
    stabilized,
)
from sagong_replication_kube.usage import FRESH_SECONDS
from sagong_replication_kube.work import Ask, Work, condition, conditions_with

__all__ = ["MEASURE", "reconcile"]

MEASURE: Final = Ask("metrics", "")


class _Unknown(Exception):
    """A metric can't be told now; says why, by reason and message."""


def reconcile(work: Work, item: Item) -> None:
    """Measure, decide, scale, tell."""
    document = item.document()
    if item.deleting:
        return
    target = _target(work, item, document)
    status = {**(document.get("status") or {}), "observedGeneration": item.meta.generation}
    status.setdefault("currentReplicas", 0)
    status.setdefault("desiredReplicas", 0)
    if target is None:
        said = f"{document['spec']['scaleTargetRef']['name']} not found"
        _tell(work, item, status, ("AbleToScale", "False", "FailedGetScale", said))
        return
    current = target.document()["spec"].get("replicas", 1)
    status["currentReplicas"] = current
    if current == 0:
        said = "scaling is disabled since the replica count of the target is zero"
        status["desiredReplicas"] = 0
        _tell(work, item, status, ("ScalingActive", "False", "ScalingDisabled", said))
        return
    if not work.world.usage.fresh(work.now) and not work.world.closed:
        work.asks.append(MEASURE)
        return
    work.look_again(FRESH_SECONDS)
    _decide(work, item, document, target, current, status)


def _target(work: Work, item: Item, document: Document) -> Item | None:
    reference = document["spec"]["scaleTargetRef"]
    kind = work.world.kind_of(reference.get("apiVersion", ""), reference["kind"])
    if kind is None:
        return None
    found = work.world.get(kind.resource, (item.meta.namespace, reference["name"]))
    return found if found is not None and found.raw else None


def _decide(
    work: Work, item: Item, document: Document, target: Item, current: int, status: Document
) -> None:
    spec = document["spec"]
    asked, shown, problem = _asked(work, item, spec, target, current)
    status["currentMetrics"] = shown
    if asked is None:
        reason, said = problem
        text = f"the HPA was unable to compute the replica count: {said}"
        status["desiredReplicas"] = current
        _tell(work, item, status, ("ScalingActive", "False", reason, text))
        return
    text = "the HPA was able to successfully calculate a replica count from a resource metric"
    active = ("ScalingActive", "True", "ValidMetricFound", text)
    memory = work.world.scaling.setdefault(item.uid, Memory())
    behavior = spec.get("behavior") or {}
    low, high = spec.get("minReplicas") or 1, spec["maxReplicas"]
    steady, held = stabilized(memory, behavior, current, asked, work.now)
    within = max(low, min(high, steady))
    wanted = bounded(memory, behavior, current, within, work.now)
    if not low <= current <= high:
        wanted = within
    status["desiredReplicas"] = wanted
    if wanted != current:
        status["lastScaleTime"] = time_text(work.now)
    able = _able(held=held, scales=wanted != current)
    _tell(work, item, status, active, able, _limited(steady, low, high))
    if wanted != current:
        _scale(work, item, target, current, wanted)
        memory.done.append((work.now, wanted - current))


def _asked(
    work: Work, item: Item, spec: Document, target: Item, current: int
) -> tuple[int | None, list[Document], tuple[str, str]]:
    """The most that any metric asks for; one that can't be told forbids only to shrink."""
    answers, shown, problem = [], [], ("", "")
    for metric in spec.get("metrics") or ():
        try:
            asked, told = _by_metric(work, target, metric, current)
        except _Unknown as error:
            problem = (str(error.args[0]), str(error.args[1]))
            work.event(item, "Warning", problem[0], problem[1])
            continue
        answers.append(asked)
        shown.append(told)
    if not answers or (problem[0] and max(answers) < current):
        return None, shown, problem
    return max(answers), shown, problem


def _by_metric(work: Work, target: Item, metric: Document, current: int) -> tuple[int, Document]:
    type_ = metric["type"]
    if type_ not in ("Resource", "ContainerResource"):
        said = f"metrics of type {type_} are not measured here"
        raise _Unknown(f"FailedGet{type_}Metric", said)
    said = metric["resource" if type_ == "Resource" else "containerResource"]
    resource, container = said["name"], said.get("container", "")
    pods = _measured(work, target, resource, container)
    total = sum(pods.used)
    now: Document = {"averageValue": str(Quantity(total // len(pods.used)))}
    goal = said["target"]
    if goal["type"] == "Utilization":
        now["averageUtilization"] = 100 * total // sum(pods.requests)
        asked = by_utilization(current, goal["averageUtilization"], pods)
    else:
        asked = by_average(current, nano(goal["averageValue"]), pods)
    told = {"name": resource, "current": now}
    if container:
        return asked, {"type": type_, "containerResource": {**told, "container": container}}
    return asked, {"type": type_, "resource": told}


def _measured(work: Work, target: Item, resource: str, container: str) -> Measured:
    used, requests, missing, unready = [], [], [], []
    for pod in work.world.selected(PODS, target.meta.namespace, _selector(target)):
        if pod.deleting or pod.status.phase in ("Failed", "Succeeded"):
            continue
        request = _request(pod, resource, container)
        amounts = work.world.usage.of(pod)
        if pod.status.phase == "Pending" or (resource == "cpu" and not ready(pod)):
            unready.append(request)
        elif amounts is None or (container and container not in amounts):
            missing.append(request)
        else:
            names = [container] if container else list(amounts)
            used.append(sum(amounts[name].of(resource) for name in names))
            requests.append(request)
    if not used:
        said = f"unable to get metrics for resource {resource}: no metrics returned"
        raise _Unknown("FailedGetResourceMetric", f"failed to get {resource} utilization: {said}")
    return Measured(used, requests, missing, unready)


def _selector(target: Item) -> LabelSelector:
    return target.selector if target.raw else NOTHING


def _request(pod: Item, resource: str, container: str) -> int:
    total = 0
    for one in pod.spec.containers or ():
        if container and one.name != container:
            continue
        said = (one.resources.requests if one.resources is not None else None) or {}
        if resource not in said:
            what = f"missing request for {resource} in container {one.name} of Pod {pod.meta.name}"
            text = f"failed to get {resource} utilization: {what}"
            raise _Unknown("FailedGetResourceMetric", text)
        total += nano(said[resource])
    return total or NANO


def _able(*, held: bool, scales: bool) -> tuple[str, str, str, str]:
    if scales:
        return (
            "AbleToScale",
            "True",
            "SucceededRescale",
            "the HPA controller was able to update the target scale",
        )
    if held:
        return (
            "AbleToScale",
            "True",
            "ScaleDownStabilized",
            "recent recommendations were higher "
            "than current one, applying the highest recent recommendation",
        )
    return ("AbleToScale", "True", "ReadyForNewScale", "recommended size matches current size")


def _limited(asked: int, low: int, high: int) -> tuple[str, str, str, str]:
    if asked > high:
        said = "the desired replica count is more than the maximum replica count"
        return ("ScalingLimited", "True", "TooManyReplicas", said)
    if asked < low:
        said = "the desired replica count is less than the minimum replica count"
        return ("ScalingLimited", "True", "TooFewReplicas", said)
    said = "the desired count is within the acceptable range"
    return ("ScalingLimited", "False", "DesiredWithinRange", said)


def _scale(work: Work, item: Item, target: Item, current: int, wanted: int) -> None:
    work.patch(target, {"spec": {"replicas": wanted}})
    verb = "above" if wanted > current else "below"
    said = f"New size: {wanted}; reason: resource utilization {verb} target"
    work.event(item, "Normal", "SuccessfulRescale", said)
    # The status that tells of it belongs to it.
    work.writes += work.statuses
    work.statuses = []


def _tell(work: Work, item: Item, status: Document, *found: tuple[str, str, str, str]) -> None:
    conditions = list(status.get("conditions") or ())
    for one in found:
        conditions = conditions_with(conditions, condition(*one), work.now)
    status["conditions"] = conditions
    work.statuses = []
    work.status(item, status)
