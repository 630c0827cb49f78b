"""The table of controllers, and whom a change concerns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from sagong_replication_kube import (
    accounts,
    deployment,
    endpoints,
    garbage,
    namespace,
    replicas,
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
    Controller("endpoints", "v1/services", endpoints.reconcile, telling=True),
)
GARBAGE: Final = "garbage"
_BY_NAME: Final = {controller.name: controller for controller in CONTROLLERS}
_BY_RESOURCE: Final[dict[str, tuple[Controller, ...]]] = {
    resource: tuple(c for c in CONTROLLERS if c.resource == resource)
    for resource in {c.resource for c in CONTROLLERS}
}
# What may own pods, or replica sets, of its own choice.
_ADOPTERS: Final = {
    "v1/pods": ("apps/v1/replicasets", "v1/replicationcontrollers"),
    "apps/v1/replicasets": ("apps/v1/deployments",),
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
    if item.resource == "v1/pods" and not _matters(change):
        return
    yield from _owners(world, change)
    yield from _namespace(world, change)
    yield from _garbage(world, change)
    special = _SPECIAL.get(item.resource)
    if special is not None:
        yield from special(world, change)


def _tasks(item: Item) -> Iterator[Task]:
    for controller in _BY_RESOURCE.get(item.resource, ()):
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


def _services_of(world: World, change: Change) -> Iterator[Task]:
    forms = [item for item in change if item is not None]
    for service in world.within("v1/services", change.item.meta.namespace):
        if any(service.selector.matches(form.labels) for form in forms):
            yield from _tasks(service)


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
    "v1/pods": _services_of,
    "v1/endpoints": _service_named,
    "discovery.k8s.io/v1/endpointslices": _service_named,
    "v1/serviceaccounts": _account,
    "v1/configmaps": _root_ca,
}
