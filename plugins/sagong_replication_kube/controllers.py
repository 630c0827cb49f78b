"""The table of controllers, and whom a change concerns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from sagong_replication_kube import (
    accounts,
    autoscaler,
    binding,
    budget,
    cronjob,
    daemonset,
    deployment,
    endpoints,
    ephemeral,
    garbage,
    job,
    mirror,
    namespace,
    nodes,
    quota,
    replicas,
    statefulset,
)
from sagong_replication_kube.item import Item
from sagong_replication_kube.slices import SERVICE_NAME
from sagong_replication_kube.work import Work
from sagong_replication_kube.world import Change, World

__all__ = ["CONTROLLERS", "Task", "concerned", "reconcile"]

Reconcile = Callable[[Work, Item], None]


class Controller(NamedTuple):
    """Who looks after a resource; `telling`: all it writes may wait until changes cease."""

    name: str
    resource: str
    reconcile: Reconcile
    telling: bool = False


class Task(NamedTuple):
    """An object to be looked at by a controller."""

    controller: str
    resource: str
    key: tuple[str, str]


CONTROLLERS: Final = (
    Controller("namespace", "v1/namespaces", namespace.reconcile),
    Controller("accounts", "v1/namespaces", accounts.reconcile),
    Controller("deployment", "apps/v1/deployments", deployment.reconcile),
    Controller("replicaset", "apps/v1/replicasets", replicas.reconcile),
    Controller("replicationcontroller", "v1/replicationcontrollers", replicas.reconcile),
    Controller("statefulset", "apps/v1/statefulsets", statefulset.reconcile),
    Controller("daemonset", "apps/v1/daemonsets", daemonset.reconcile),
    Controller("job", "batch/v1/jobs", job.reconcile),
    Controller("cronjob", "batch/v1/cronjobs", cronjob.reconcile),
    Controller("endpoints", "v1/services", endpoints.reconcile, telling=True),
    Controller("mirror", "v1/endpoints", mirror.reconcile, telling=True),
    Controller("budget", "policy/v1/poddisruptionbudgets", budget.reconcile),
    Controller("autoscaler", "autoscaling/v2/horizontalpodautoscalers", autoscaler.reconcile),
    Controller("quota", "v1/resourcequotas", quota.reconcile),
    Controller("claim", binding.CLAIMS, binding.reconcile_claim),
    Controller("volume", binding.VOLUMES, binding.reconcile_volume),
    Controller("ephemeral", "v1/pods", ephemeral.reconcile),
    Controller("node", "v1/nodes", nodes.reconcile),
    Controller("podgc", "v1/pods", nodes.forget_pods),
)
GARBAGE: Final = "garbage"
PODS: Final = "v1/pods"
_BY_NAME: Final = {controller.name: controller for controller in CONTROLLERS}
_BY_RESOURCE: Final[dict[str, tuple[Controller, ...]]] = {
    resource: tuple(c for c in CONTROLLERS if c.resource == resource)
    for resource in {c.resource for c in CONTROLLERS}
}
# What may own pods, or replica sets, of its own choice.
_ADOPTERS: Final = {
    "v1/pods": (
        "apps/v1/replicasets",
        "v1/replicationcontrollers",
        "apps/v1/statefulsets",
        "apps/v1/daemonsets",
        "batch/v1/jobs",
    ),
    "apps/v1/replicasets": ("apps/v1/deployments",),
    "apps/v1/controllerrevisions": ("apps/v1/statefulsets", "apps/v1/daemonsets"),
}


def reconcile(world: World, task: Task) -> Work | None:
    """Let the controller look at the object; None if it is not there any more."""
    item = world.get(task.resource, task.key)
    if item is None:
        return None
    work = Work(world, item.uid)
    if task.controller == GARBAGE:
        garbage.reconcile(work, item)
        return work
    controller = _BY_NAME[task.controller]
    controller.reconcile(work, item)
    if controller.telling:
        work.statuses, work.writes = [*work.writes, *work.statuses], []
    return work


def concerned(world: World, change: Change) -> Iterator[Task]:
    """All that should be looked at because of a change."""
    item = change.item
    if change.after is not None:
        yield from _own(item)
    if item.resource == PODS and not _matters(change):
        return
    yield from _owners(world, change)
    yield from _quotas(world, change)
    yield from _namespace(world, change)
    yield from _garbage(world, change)
    special = _SPECIAL.get(item.resource)
    if special is not None:
        yield from special(world, change)


def _tasks(item: Item) -> Iterator[Task]:
    for controller in _BY_RESOURCE.get(item.resource, ()) if item.resource != PODS else ():
        yield Task(controller.name, item.resource, item.key)


_own = _tasks


def _matters(change: Change) -> bool:
    """Whether a pod changed in what anybody here reads."""
    before, after = change
    if before is None or after is None:
        return True
    return _essence(before) != _essence(after)


def _essence(pod: Item) -> tuple[object, ...]:
    meta, spec, status = pod.meta, pod.spec, pod.status
    ready = status.condition("Ready")
    return (
        meta.labels,
        meta.annotations,
        meta.owner_references,
        meta.deletion_timestamp,
        meta.finalizers,
        spec.node_name,
        status.phase,
        status.pod_ip,
        status.pod_ips,
        ready.status if ready is not None else "",
        ready.last_transition_time if ready is not None else "",
    )


def _owners(world: World, change: Change) -> Iterator[Task]:
    """Those who control the object now or did before, their controllers, and who may adopt it."""
    seen = set()
    for item in {id(i): i for i in change if i is not None}.values():
        reference = item.meta.controller
        if reference is None:
            yield from _adopters(world, item)
            continue
        owner = world.by_uid(reference.uid)
        if owner is None or owner.uid in seen:
            continue
        seen.add(owner.uid)
        yield from _tasks(owner)
        above = owner.meta.controller
        further = world.by_uid(above.uid) if above is not None else None
        if further is not None:
            yield from _tasks(further)


def _adopters(world: World, item: Item) -> Iterator[Task]:
    for resource in _ADOPTERS.get(item.resource, ()):
        for candidate in world.within(resource, item.meta.namespace):
            if candidate.selector.matches(item.labels):
                yield from _tasks(candidate)


def _namespace(world: World, change: Change) -> Iterator[Task]:
    """A namespace that is being emptied waits for each object's end, and ends new ones."""
    item = change.item
    if not item.meta.namespace or (change.before is not None and change.after is not None):
        return
    space = world.get("v1/namespaces", ("", item.meta.namespace))
    if space is not None and space.deleting:
        yield Task("namespace", space.resource, space.key)


def _garbage(world: World, change: Change) -> Iterator[Task]:
    before, after = change
    item = change.item
    if after is not None and (after.meta.owner_references or (after.deleting and _held(after))):
        yield Task(GARBAGE, after.resource, after.key)
    ends = after is None or (after.deleting and (before is None or not before.deleting))
    for one in world.dependents(item.uid) if ends else ():
        yield Task(GARBAGE, one.resource, one.key)
    for owner in _left(before, after):
        found = world.by_uid(owner)
        if found is not None and found.deleting and _held(found):
            yield Task(GARBAGE, found.resource, found.key)


def _held(item: Item) -> bool:
    finalizers = item.meta.finalizers or ()
    return garbage.FOREGROUND in finalizers or garbage.ORPHAN in finalizers


def _left(before: Item | None, after: Item | None) -> set[str]:
    """Owners that the object had before and has no more."""
    if before is None:
        return set()
    kept = {o.uid for o in after.meta.owner_references or ()} if after is not None else set()
    return {o.uid for o in before.meta.owner_references or ()} - kept


def _quotas(world: World, change: Change) -> Iterator[Task]:
    item = change.item
    if item.resource == PODS or change.before is None or change.after is None:
        for one in world.within("v1/resourcequotas", item.meta.namespace):
            yield from _tasks(one)


def _pod(world: World, change: Change) -> Iterator[Task]:
    """Services and budgets that select it, and its node if there is something wrong with that."""
    item = change.item
    forms = [form for form in change if form is not None]
    for resource in ("v1/services", "policy/v1/poddisruptionbudgets"):
        for one in world.within(resource, item.meta.namespace):
            if any(one.selector.matches(form.labels) for form in forms):
                yield from _tasks(one)
    yield from _claims_of(world, change)
    name = item.spec.node_name
    if change.after is None or not name:
        return
    node = world.get("v1/nodes", ("", name))
    if node is None:
        yield Task("podgc", PODS, item.key)
    elif b"NoExecute" in node.raw:
        yield from _tasks(node)


def _claims_of(world: World, change: Change) -> Iterator[Task]:
    """Claims that the pod's end frees, and those that its coming makes."""
    item = change.item
    ended = change.after is None or item.status.phase in ("Succeeded", "Failed")
    for name in item.spec.claims(item.meta.name) if ended else ():
        found = world.get(binding.CLAIMS, (item.meta.namespace, name))
        if found is not None and found.deleting:
            yield from _tasks(found)
    if change.before is None and any(v.ephemeral is not None for v in item.spec.volumes or ()):
        yield Task("ephemeral", PODS, item.key)


def _claim(world: World, change: Change) -> Iterator[Task]:
    """Volumes that hold the claim or that it names."""
    for volume in world.all(binding.VOLUMES):
        holder = volume.document()["spec"].get("claimRef") or {}
        if (holder.get("namespace"), holder.get("name")) == change.item.key:
            yield from _tasks(volume)


def _volume(world: World, change: Change) -> Iterator[Task]:
    """The claim that holds it; a free one may suit any that seeks."""
    holder = change.item.document()["spec"].get("claimRef") or {}
    if holder:
        found = world.get(binding.CLAIMS, (holder.get("namespace", ""), holder.get("name", "")))
        if found is not None:
            yield from _tasks(found)
        return
    yield from _seeking(world, change)


def _seeking(world: World, change: Change) -> Iterator[Task]:
    for claim in world.all(binding.CLAIMS):
        if not claim.document()["spec"].get("volumeName"):
            yield from _tasks(claim)


def _node(world: World, change: Change) -> Iterator[Task]:
    """Daemon sets mind what nodes there are; pods of one that is gone must go too."""
    before, after = change
    if before is None or after is None or _face(before) != _face(after):
        for one in world.all("apps/v1/daemonsets"):
            yield from _tasks(one)
    if after is None:
        for pod in world.on_node(change.item.meta.name):
            yield Task("podgc", PODS, pod.key)


def _face(node: Item) -> tuple[object, ...]:
    spec = node.document().get("spec") or {}
    return (node.labels, spec.get("taints"), spec.get("unschedulable"))


def _lease(world: World, change: Change) -> Iterator[Task]:
    item = change.item
    node = world.get("v1/nodes", ("", item.meta.name))
    if node is not None and item.meta.namespace == nodes.LEASE_SPACE:
        yield from _tasks(node)


def _service(world: World, change: Change) -> Iterator[Task]:
    found = world.get("v1/endpoints", change.item.key)
    if found is not None:
        yield Task("mirror", found.resource, found.key)


def _service_named(world: World, change: Change) -> Iterator[Task]:
    item = change.item
    name = item.meta.name
    if item.resource != "v1/endpoints":
        name = item.labels.get(SERVICE_NAME, "")
    service = world.get("v1/services", (item.meta.namespace, name))
    if service is not None:
        yield from _tasks(service)


def _account(world: World, change: Change) -> Iterator[Task]:
    if change.after is None and change.item.meta.name == "default":
        yield from _accounts_of(world, change.item.meta.namespace)


def _root_ca(world: World, change: Change) -> Iterator[Task]:
    item = change.item
    if item.meta.name != accounts.ROOT_CA:
        return
    if item.meta.namespace == accounts.SYSTEM:
        for space in world.all("v1/namespaces"):
            yield Task("accounts", space.resource, space.key)
    else:
        yield from _accounts_of(world, item.meta.namespace)


def _accounts_of(world: World, namespace_: str) -> Iterable[Task]:
    space = world.get("v1/namespaces", ("", namespace_))
    return (Task("accounts", space.resource, space.key),) if space is not None else ()


_SPECIAL: Final[dict[str, Callable[[World, Change], Iterator[Task]]]] = {
    PODS: _pod,
    "v1/nodes": _node,
    "v1/services": _service,
    binding.CLAIMS: _claim,
    binding.VOLUMES: _volume,
    "storage.k8s.io/v1/storageclasses": _seeking,
    "coordination.k8s.io/v1/leases": _lease,
    "v1/endpoints": _service_named,
    "discovery.k8s.io/v1/endpointslices": _service_named,
    "v1/serviceaccounts": _account,
    "v1/configmaps": _root_ca,
}
