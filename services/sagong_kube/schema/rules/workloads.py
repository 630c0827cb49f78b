"""Checks of the kinds that make pods: sets, deployments, jobs, autoscalers, disruption budgets."""

from __future__ import annotations

import re
from typing import Any, Final

from sagong.errors import InvalidArgument
from sagong.model import cron, names, selectors
from sagong_kube.schema.rules.findings import Findings
from sagong_kube.schema.rules.metadata import check_label_selector
from sagong_kube.schema.rules.pods import check_template

__all__ = [
    "check_autoscaler",
    "check_budget",
    "check_cron_job",
    "check_daemon_set",
    "check_deployment",
    "check_job",
    "check_replica_set",
    "check_replication_controller",
    "check_revision",
    "check_scale",
    "check_stateful_set",
]

Document = dict[str, Any]

_PERCENT = re.compile(r"[0-9]{1,18}%\Z", re.ASCII)
_PERCENT_SAID: Final = (
    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or "
    "'93%', regex used for validation is '[0-9]+%')"
)
_NO_MATCH: Final = "`selector` does not match template `labels`"
_STATEFUL_FIXED: Final = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
    "'updateStrategy', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)
_STATEFUL_FREE: Final = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
    "revisionHistoryLimit",
)


def _check_selector(found: Findings, spec: Document, kind: str) -> None:
    """That the selector is there, right, not empty, and selects the template."""
    selector = spec.get("selector")
    if selector is None:
        found.required("spec.selector")
        return
    check_label_selector(found, selector, "spec.selector")
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        found.invalid("spec.selector", selector, f"empty selector is invalid for {kind}")


def _check_match(found: Findings, spec: Document) -> None:
    try:
        selector = selectors.from_object(spec.get("selector"))
    except InvalidArgument as error:
        found.invalid("spec.selector", spec.get("selector"), error.message)
        return
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    if not selector.nothing and not selector.empty and not selector.matches(labels):
        found.invalid("spec.template.metadata.labels", labels, _NO_MATCH)


def _check_restart(found: Findings, spec: Document, what: str) -> None:
    template = (spec.get("template") or {}).get("spec") or {}
    if template.get("restartPolicy") != "Always":
        path = "spec.template.spec.restartPolicy"
        found.unsupported(path, template.get("restartPolicy", ""), ("Always",))
    if template.get("activeDeadlineSeconds") is not None:
        said = f"activeDeadlineSeconds in {what} is not Supported"
        found.forbidden("spec.template.spec.activeDeadlineSeconds", said)


def _selector_stays(found: Findings, new: Document, old: Document | None) -> None:
    if old is not None:
        before = (old.get("spec") or {}).get("selector")
        found.immutable("spec.selector", (new.get("spec") or {}).get("selector"), before)


def check_replica_set(found: Findings, item: Document, old: Document | None) -> None:
    """A ReplicaSet."""
    spec = item.get("spec") or {}
    found.nonnegative("spec.replicas", spec.get("replicas"))
    found.nonnegative("spec.minReadySeconds", spec.get("minReadySeconds"))
    _check_selector(found, spec, "deployment")
    _check_match(found, spec)
    check_template(found, spec.get("template"), "spec.template")
    _check_restart(found, spec, "ReplicaSet")
    _selector_stays(found, item, old)


def check_replication_controller(found: Findings, item: Document, old: Document | None) -> None:
    """A ReplicationController; its selector is a plain map."""
    spec = item.get("spec") or {}
    found.nonnegative("spec.minReadySeconds", spec.get("minReadySeconds"))
    selector = spec.get("selector") or {}
    if not selector:
        found.required("spec.selector")
    found.nonnegative("spec.replicas", spec.get("replicas"))
    template = spec.get("template")
    if template is None:
        found.required("spec.template")
        return
    labels = (template.get("metadata") or {}).get("labels") or {}
    if any(labels.get(key) != value for key, value in selector.items()):
        found.invalid("spec.template.metadata.labels", labels, _NO_MATCH)
    check_template(found, template, "spec.template")
    _check_restart(found, spec, "ReplicationController")


def check_deployment(found: Findings, item: Document, old: Document | None) -> None:
    """A Deployment."""
    spec = item.get("spec") or {}
    found.nonnegative("spec.replicas", spec.get("replicas"))
    _check_selector(found, spec, "deployment")
    _check_match(found, spec)
    check_template(found, spec.get("template"), "spec.template")
    _check_restart(found, spec, "ReplicaSet")
    _check_strategy(found, spec.get("strategy") or {})
    for field in ("minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"):
        found.nonnegative(f"spec.{field}", spec.get(field))
    deadline, ready = spec.get("progressDeadlineSeconds"), spec.get("minReadySeconds") or 0
    if deadline is not None and deadline <= ready:
        said = "must be greater than minReadySeconds"
        found.invalid("spec.progressDeadlineSeconds", deadline, said)
    _selector_stays(found, item, old)


def _check_strategy(found: Findings, strategy: Document) -> None:
    kind, rolling = strategy.get("type", ""), strategy.get("rollingUpdate")
    if kind == "Recreate":
        if rolling is not None:
            said = "may not be specified when strategy `type` is 'Recreate'"
            found.forbidden("spec.strategy.rollingUpdate", said)
    elif kind == "RollingUpdate":
        if rolling is None:
            said = "this should be defaulted and never be nil"
            found.required("spec.strategy.rollingUpdate", said)
        else:
            _check_rolling(found, rolling, "spec.strategy.rollingUpdate")
    else:
        found.unsupported("spec.strategy.type", kind, ("Recreate", "RollingUpdate"))


def _check_rolling(found: Findings, rolling: Document, path: str) -> None:
    for field in ("maxUnavailable", "maxSurge"):
        check_int_or_percent(found, rolling.get(field, 0), f"{path}.{field}")
    unavailable, surge = (
        _amount(rolling.get("maxUnavailable", 0)),
        _amount(rolling.get("maxSurge", 0)),
    )
    if unavailable == 0 and surge == 0:
        said = "may not be 0 when `maxSurge` is 0"
        found.invalid(f"{path}.maxUnavailable", rolling.get("maxUnavailable", 0), said)
    _check_hundred(found, rolling.get("maxUnavailable", 0), f"{path}.maxUnavailable")


def _amount(value: int | str) -> int:
    if isinstance(value, int):
        return value
    return int(value[:-1]) if _PERCENT.match(value) else 1


def check_int_or_percent(found: Findings, value: int | str, path: str) -> None:
    """A number or a percentage that may not be negative."""
    if isinstance(value, int):
        found.nonnegative(path, value)
    elif not _PERCENT.match(value):
        found.invalid(path, value, _PERCENT_SAID)


def _check_hundred(found: Findings, value: int | str, path: str) -> None:
    if isinstance(value, str) and _PERCENT.match(value) and int(value[:-1]) > 100:
        found.invalid(path, value, "must not be greater than 100%")


def check_daemon_set(found: Findings, item: Document, old: Document | None) -> None:
    """A DaemonSet."""
    spec = item.get("spec") or {}
    _check_selector(found, spec, "daemonset")
    _check_match(found, spec)
    check_template(found, spec.get("template"), "spec.template")
    _check_restart(found, spec, "DaemonSet")
    found.nonnegative("spec.minReadySeconds", spec.get("minReadySeconds"))
    strategy = spec.get("updateStrategy") or {}
    kind = strategy.get("type", "")
    if kind == "RollingUpdate":
        rolling = strategy.get("rollingUpdate")
        if rolling is None:
            found.required("spec.updateStrategy.rollingUpdate")
        else:
            _check_daemon_rolling(found, rolling, "spec.updateStrategy.rollingUpdate")
    elif kind != "OnDelete":
        found.unsupported("spec.updateStrategy.type", kind, ("OnDelete", "RollingUpdate"))
    found.nonnegative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))
    _selector_stays(found, item, old)


def _check_daemon_rolling(found: Findings, rolling: Document, path: str) -> None:
    _check_rolling_values(found, rolling, path)
    unavailable, surge = (
        _amount(rolling.get("maxUnavailable", 0)),
        _amount(rolling.get("maxSurge", 0)),
    )
    if unavailable and surge:
        said = "may not be set when maxUnavailable is non-zero"
        found.invalid(f"{path}.maxSurge", rolling["maxSurge"], said)
    if not unavailable and not surge:
        said = "cannot be 0 when maxSurge is 0"
        found.required(f"{path}.maxUnavailable", said)


def _check_rolling_values(found: Findings, rolling: Document, path: str) -> None:
    for field in ("maxUnavailable", "maxSurge"):
        check_int_or_percent(found, rolling.get(field, 0), f"{path}.{field}")
        _check_hundred(found, rolling.get(field, 0), f"{path}.{field}")


def check_stateful_set(found: Findings, item: Document, old: Document | None) -> None:
    """A StatefulSet; of its spec only some fields may change."""
    spec = item.get("spec") or {}
    found.one_of(
        "spec.podManagementPolicy",
        spec.get("podManagementPolicy", ""),
        ("OrderedReady", "Parallel"),
    )
    _check_stateful_strategy(found, spec.get("updateStrategy") or {})
    policy = spec.get("persistentVolumeClaimRetentionPolicy") or {}
    for field in ("whenDeleted", "whenScaled"):
        if policy.get(field) is not None and policy[field] not in ("Retain", "Delete"):
            path = f"spec.persistentVolumeClaimRetentionPolicy.{field}"
            found.unsupported(path, policy[field], ("Retain", "Delete"))
    found.nonnegative("spec.replicas", spec.get("replicas"))
    found.nonnegative("spec.minReadySeconds", spec.get("minReadySeconds"))
    found.nonnegative("spec.ordinals.start", (spec.get("ordinals") or {}).get("start"))
    _check_selector(found, spec, "statefulset")
    _check_match(found, spec)
    claims = spec.get("volumeClaimTemplates") or ()
    names = [(claim.get("metadata") or {}).get("name", "") for claim in claims]
    check_template(found, spec.get("template"), "spec.template", claims=names)
    _check_restart(found, spec, "StatefulSet")
    if old is not None and _fixed(spec) != _fixed(old.get("spec") or {}):
        found.forbidden("spec", _STATEFUL_FIXED)


def _fixed(spec: Document) -> Document:
    return {key: value for key, value in spec.items() if key not in _STATEFUL_FREE}


def _check_stateful_strategy(found: Findings, strategy: Document) -> None:
    kind, rolling = strategy.get("type", ""), strategy.get("rollingUpdate")
    path = "spec.updateStrategy"
    if not kind:
        found.required(path)
    elif kind == "OnDelete":
        if rolling is not None:
            said = 'only allowed for updateStrategy "RollingUpdate"'
            found.invalid(f"{path}.rollingUpdate", rolling, said)
    elif kind == "RollingUpdate":
        found.nonnegative(f"{path}.rollingUpdate.partition", (rolling or {}).get("partition"))
    else:
        said = 'must be "RollingUpdate" or "OnDelete"'
        found.invalid(path, strategy, said)


def check_revision(found: Findings, item: Document, old: Document | None) -> None:
    """A ControllerRevision: its data never changes."""
    if item.get("data") is None:
        found.required("data", "data is mandatory")
    if old is not None and item.get("data") != old.get("data"):
        found.invalid("data", item.get("data"), "field is immutable")
    found.nonnegative("revision", item.get("revision"))


def check_scale(found: Findings, item: Document, old: Document | None) -> None:
    """The scale subresource."""
    found.nonnegative("spec.replicas", (item.get("spec") or {}).get("replicas"))


# Jobs


def check_job(found: Findings, item: Document, old: Document | None) -> None:
    """A Job; its selector, template and completions stay."""
    spec = item.get("spec") or {}
    _check_job_spec(found, spec, "spec")
    if spec.get("selector") is None:
        found.required("spec.selector")
    else:
        check_label_selector(found, spec["selector"], "spec.selector")
        _check_match(found, spec)
    if old is not None:
        known = old.get("spec") or {}
        _check_job_update(found, spec, known)


def _check_job_update(found: Findings, new: Document, old: Document) -> None:
    suspended = bool(old.get("suspend"))
    if new.get("completionMode") != "Indexed":
        found.immutable("spec.completions", new.get("completions"), old.get("completions"))
    elif new.get("completions") != old.get("completions") and new.get("completions") != new.get(
        "parallelism"
    ):
        said = (
            "can only be modified in tandem with spec.parallelism: completions and parallelism "
            "must be equal"
        )
        found.invalid("spec.completions", new.get("completions"), said)
    found.immutable("spec.selector", new.get("selector"), old.get("selector"))
    fresh, known = new.get("template") or {}, old.get("template") or {}
    if fresh != (_kept_placement(known, fresh) if suspended else known):
        found.invalid("spec.template", fresh, "field is immutable")
    for field in ("completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy"):
        found.immutable(f"spec.{field}", new.get(field), old.get(field))


def _kept_placement(known: Document, fresh: Document) -> Document:
    """The template of a suspended job, with what may still change taken from the new one."""
    spec = dict(known.get("spec") or {})
    for field in ("nodeSelector", "tolerations", "affinity", "schedulingGates"):
        if field in (fresh.get("spec") or {}):
            spec[field] = fresh["spec"][field]
        else:
            spec.pop(field, None)
    metadata = dict(known.get("metadata") or {})
    for field in ("labels", "annotations"):
        if field in (fresh.get("metadata") or {}):
            metadata[field] = fresh["metadata"][field]
        else:
            metadata.pop(field, None)
    return {**known, "spec": spec, "metadata": metadata}


def _check_job_spec(found: Findings, spec: Document, path: str) -> None:
    for field in (
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
    ):
        found.nonnegative(f"{path}.{field}", spec.get(field))
    mode = spec.get("completionMode", "NonIndexed")
    if mode not in ("NonIndexed", "Indexed"):
        found.unsupported(f"{path}.completionMode", mode, ("NonIndexed", "Indexed"))
    if mode == "Indexed":
        if spec.get("completions") is None:
            said = "when completion mode is Indexed"
            found.required(f"{path}.completions", said)
        if (spec.get("parallelism") or 0) > 100_000:
            said = "must be less than or equal to 100000 when completion mode is Indexed"
            found.invalid(f"{path}.parallelism", spec["parallelism"], said)
    elif spec.get("backoffLimitPerIndex") is not None:
        said = "requires indexed completion mode"
        found.invalid(f"{path}.backoffLimitPerIndex", spec["backoffLimitPerIndex"], said)
    check_template(found, spec.get("template"), f"{path}.template")
    restart = ((spec.get("template") or {}).get("spec") or {}).get("restartPolicy", "")
    where = f"{path}.template.spec.restartPolicy"
    if restart == "Always":
        found.required(where, 'valid values: "OnFailure", "Never"')
    elif restart not in ("OnFailure", "Never"):
        found.unsupported(where, restart, ("OnFailure", "Never"))
    elif spec.get("podFailurePolicy") is not None and restart != "Never":
        said = 'only "Never" is supported when podFailurePolicy is specified'
        found.invalid(where, restart, said)


def check_cron_job(found: Findings, item: Document, old: Document | None) -> None:
    """A CronJob."""
    spec = item.get("spec") or {}
    schedule = spec.get("schedule", "")
    if not schedule:
        found.required("spec.schedule")
    else:
        _check_schedule(found, schedule)
    zone = spec.get("timeZone")
    if zone is not None and (not zone or zone.lower() == "local"):
        said = (
            "timeZone must be nil or non-empty string"
            if not zone
            else "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        )
        found.invalid("spec.timeZone", zone, said)
    found.nonnegative("spec.startingDeadlineSeconds", spec.get("startingDeadlineSeconds"))
    policies = ("Allow", "Forbid", "Replace")
    found.one_of("spec.concurrencyPolicy", spec.get("concurrencyPolicy", ""), policies)
    template = (spec.get("jobTemplate") or {}).get("spec") or {}
    if template.get("selector") is not None:
        found.invalid(
            "spec.jobTemplate.spec.selector",
            template["selector"],
            "`selector` will be auto-generated",
        )
    if template.get("manualSelector"):
        found.unsupported("spec.jobTemplate.spec.manualSelector", True, ("nil", "false"))
    _check_job_spec(found, template, "spec.jobTemplate.spec")
    for field in ("successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        found.nonnegative(f"spec.{field}", spec.get(field))


# Autoscaling and disruption


def _check_schedule(found: Findings, schedule: str) -> None:
    try:
        cron.parse(schedule)
    except InvalidArgument as error:
        found.invalid("spec.schedule", schedule, error.message)
    if "TZ" in schedule:
        said = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        found.invalid("spec.schedule", schedule, said)


def check_autoscaler(found: Findings, item: Document, old: Document | None) -> None:
    """A HorizontalPodAutoscaler."""
    spec = item.get("spec") or {}
    least, most = spec.get("minReplicas"), spec.get("maxReplicas", 0)
    if least is not None and least < 1:
        found.invalid("spec.minReplicas", least, "must be greater than or equal to 1")
    if most < 1:
        found.invalid("spec.maxReplicas", most, "must be greater than 0")
    if least is not None and most < least:
        said = "must be greater than or equal to `minReplicas`"
        found.invalid("spec.maxReplicas", most, said)
    target = spec.get("scaleTargetRef") or {}
    for field in ("kind", "name"):
        if not target.get(field):
            found.required(f"spec.scaleTargetRef.{field}")
        else:
            wrong = names.check_path_segment(target[field])
            found.each(f"spec.scaleTargetRef.{field}", target[field], wrong)
    for at, metric in enumerate(spec.get("metrics") or ()):
        _check_metric(found, metric, f"spec.metrics[{at}]")


_METRICS: Final = {
    "ContainerResource": "containerResource",
    "External": "external",
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
}


def _check_metric(found: Findings, metric: Document, path: str) -> None:
    kind = metric.get("type", "")
    if not kind:
        found.required(f"{path}.type", "must specify a metric source type")
        return
    field = _METRICS.get(kind)
    if field is None:
        found.unsupported(f"{path}.type", kind, tuple(_METRICS))
        return
    source = metric.get(field)
    if source is None:
        said = "must populate information for the given metric source"
        found.required(f"{path}.{field}", said)
        return
    target = source.get("target") or {}
    where = f"{path}.{field}.target"
    found.one_of(f"{where}.type", target.get("type", ""), ("Utilization", "Value", "AverageValue"))
    usage = target.get("averageUtilization")
    if usage is not None and usage < 1:
        found.invalid(f"{where}.averageUtilization", usage, "must be greater than 0")
    if kind in ("Resource", "ContainerResource") and not source.get("name"):
        found.required(f"{path}.{field}.name", "must specify a resource name")


def check_budget(found: Findings, item: Document, old: Document | None) -> None:
    """A PodDisruptionBudget."""
    spec = item.get("spec") or {}
    least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
    if least is not None and most is not None:
        said = "minAvailable and maxUnavailable cannot be both set"
        found.invalid("spec", spec, said)
    for field, value in (("minAvailable", least), ("maxUnavailable", most)):
        if value is not None:
            check_int_or_percent(found, value, f"spec.{field}")
            _check_hundred(found, value, f"spec.{field}")
    check_label_selector(found, spec.get("selector"), "spec.selector")
    policy = spec.get("unhealthyPodEvictionPolicy")
    if policy is not None and policy not in ("AlwaysAllow", "IfHealthyBudget"):
        known = ("AlwaysAllow", "IfHealthyBudget")
        found.unsupported("spec.unhealthyPodEvictionPolicy", policy, known)
