"""The rows of kinds that make pods."""

from __future__ import annotations

from typing import Any, Final

from sagong.model import times
from sagong_kube.convert.cells import (
    NONE,
    UNKNOWN,
    UNSET,
    age_of,
    containers_of,
    elapsed,
    labels_text,
    name_of,
    selector_text,
    spec_of,
    status_of,
)

Document = dict[str, Any]


def _scaled(document: Document, now: float) -> list[Any]:
    spec, status = spec_of(document), status_of(document)
    counts = [spec.get("replicas", 0), status.get("replicas", 0), status.get("readyReplicas", 0)]
    return [name_of(document), *counts, age_of(document, now), *containers_of(spec.get("template"))]


def replication_controller(document: Document, now: float) -> list[Any]:
    """A ReplicationController."""
    return [*_scaled(document, now), labels_text(spec_of(document).get("selector"))]


def replica_set(document: Document, now: float) -> list[Any]:
    """A ReplicaSet."""
    return [*_scaled(document, now), selector_text(spec_of(document).get("selector"))]


def deployment(document: Document, now: float) -> list[Any]:
    """A Deployment."""
    spec, status = spec_of(document), status_of(document)
    return [
        name_of(document),
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        age_of(document, now),
        *containers_of(spec.get("template")),
        selector_text(spec.get("selector")),
    ]


def stateful_set(document: Document, now: float) -> list[Any]:
    """A StatefulSet."""
    spec, status = spec_of(document), status_of(document)
    ready = f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}"
    return [name_of(document), ready, age_of(document, now), *containers_of(spec.get("template"))]


def daemon_set(document: Document, now: float) -> list[Any]:
    """A DaemonSet."""
    spec, status = spec_of(document), status_of(document)
    fields = (
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    )
    template = spec.get("template") or {}
    return [
        name_of(document),
        *(status.get(field, 0) for field in fields),
        labels_text((template.get("spec") or {}).get("nodeSelector")),
        age_of(document, now),
        *containers_of(template),
        selector_text(spec.get("selector")),
    ]


def controller_revision(document: Document, now: float) -> list[Any]:
    """A ControllerRevision."""
    owners = document["metadata"].get("ownerReferences") or ()
    owner = next((each for each in owners if each.get("controller")), None)
    named = NONE
    if owner is not None:
        group = owner["apiVersion"].rpartition("/")[0]
        kind = owner["kind"].lower()
        named = f"{kind}.{group}/{owner['name']}" if group else f"{kind}/{owner['name']}"
    return [name_of(document), named, document.get("revision", 0), age_of(document, now)]


def _job_status(document: Document) -> str:
    listed = status_of(document).get("conditions") or ()
    conditions = {each["type"]: each.get("status") == "True" for each in listed}
    for kind, shown in (("Complete", "Complete"), ("Failed", "Failed")):
        if conditions.get(kind):
            return shown
    if document["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for kind in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if conditions.get(kind):
            return kind
    return "Running"


def job(document: Document, now: float) -> list[Any]:
    """A Job."""
    spec, status = spec_of(document), status_of(document)
    done, wanted = status.get("succeeded", 0), spec.get("completions")
    parallel = spec.get("parallelism", 0)
    if wanted is not None:
        completions = f"{done}/{wanted}"
    else:
        completions = f"{done}/1 of {parallel}" if parallel > 1 else f"{done}/1"
    return [
        name_of(document),
        _job_status(document),
        completions,
        _job_duration(status, now),
        age_of(document, now),
        *containers_of(spec.get("template")),
        selector_text(spec.get("selector")),
    ]


def _job_duration(status: Document, now: float) -> str:
    start, end = status.get("startTime"), status.get("completionTime")
    if not start:
        return ""
    return times.age((times.parse_time(end) if end else now) - times.parse_time(start))


def cron_job(document: Document, now: float) -> list[Any]:
    """A CronJob."""
    spec, status = spec_of(document), status_of(document)
    last = status.get("lastScheduleTime")
    inner = (spec.get("jobTemplate") or {}).get("spec") or {}
    suspend = spec.get("suspend")
    return [
        name_of(document),
        spec.get("schedule", ""),
        spec.get("timeZone") or NONE,
        UNSET if suspend is None else "True" if suspend else "False",
        len(status.get("active") or ()),
        elapsed(last, now) if last else NONE,
        age_of(document, now),
        *containers_of(inner.get("template")),
        selector_text(inner.get("selector")),
    ]


def autoscaler(document: Document, now: float) -> list[Any]:
    """A HorizontalPodAutoscaler."""
    spec, status = spec_of(document), status_of(document)
    target = spec.get("scaleTargetRef") or {}
    least = spec.get("minReplicas")
    return [
        name_of(document),
        f"{target.get('kind', '')}/{target.get('name', '')}",
        _targets(spec, status),
        UNSET if least is None else str(least),
        spec.get("maxReplicas", 0),
        status.get("currentReplicas", 0),
        age_of(document, now),
    ]


_SOURCES: Final = {
    "Resource": "resource",
    "ContainerResource": "containerResource",
    "Pods": "pods",
    "Object": "object",
    "External": "external",
}


def _targets(spec: Document, status: Document) -> str:
    metrics = spec.get("metrics") or []
    if "targetCPUUtilizationPercentage" in spec:
        current = status.get("currentCPUUtilizationPercentage")
        shown = UNKNOWN if current is None else f"{current}%"
        return f"cpu: {shown}/{spec['targetCPUUtilizationPercentage']}%"
    if not metrics:
        return NONE
    known = status.get("currentMetrics") or []
    said = [_target(each, known[at] if at < len(known) else {}) for at, each in enumerate(metrics)]
    more = f" + {len(said) - 2} more..." if len(said) > 2 else ""
    return ", ".join(said[:2]) + more


def _target(metric: Document, known: Document) -> str:
    kind = metric.get("type", "")
    field = _SOURCES.get(kind)
    if field is None:
        return "<unknown type>"
    source, seen = metric.get(field) or {}, (known.get(field) or {}).get("current") or {}
    target = source.get("target") or {}
    prefix = f"{source.get('name', '')}: " if kind in ("Resource", "ContainerResource") else ""
    if target.get("averageUtilization") is not None:
        current = seen.get("averageUtilization")
        shown = UNKNOWN if current is None else f"{current}%"
        return f"{prefix}{shown}/{target['averageUtilization']}%"
    average = target.get("averageValue") is not None
    wanted = target.get("averageValue" if average else "value", UNKNOWN)
    current = seen.get("averageValue" if average else "value", UNKNOWN)
    tail = " (avg)" if average and kind in ("External", "Object") else ""
    return f"{prefix}{current}/{wanted}{tail}"


def budget(document: Document, now: float) -> list[Any]:
    """A PodDisruptionBudget."""
    spec = spec_of(document)
    return [
        name_of(document),
        str(spec.get("minAvailable", "N/A")),
        str(spec.get("maxUnavailable", "N/A")),
        status_of(document).get("disruptionsAllowed", 0),
        age_of(document, now),
    ]
