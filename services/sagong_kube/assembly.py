"""The parts of the API server, put together."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sagong import call
from sagong.contracts.auth import Auth
from sagong.contracts.metrics import Metrics
from sagong.contracts.network import Networks
from sagong.contracts.node import Node
from sagong.contracts.state import State
from sagong.errors import SagongError
from sagong_kube import refusal
from sagong_kube.admission import claim, limits, namespace, pod, quota
from sagong_kube.admission import node as node_rules
from sagong_kube.admission.chain import Chain
from sagong_kube.admission.escalation import Escalation
from sagong_kube.admission.service import ServiceAddresses
from sagong_kube.convert import document
from sagong_kube.handlers.discovery import Discovery
from sagong_kube.handlers.exchange import Answer, Ask, Reply, json_answer
from sagong_kube.handlers.gate import Gate
from sagong_kube.handlers.health import Health
from sagong_kube.handlers.kubelet import Kubelet
from sagong_kube.handlers.objects import Objects
from sagong_kube.handlers.openapi import OpenApi
from sagong_kube.handlers.podparts import PodParts, Tokens
from sagong_kube.handlers.podstreams import PodStreams
from sagong_kube.handlers.proxy import Proxy
from sagong_kube.handlers.rendering import Renderer
from sagong_kube.handlers.reviews import Reviews
from sagong_kube.handlers.router import ObjectHandler, PathHandler, Router
from sagong_kube.handlers.scale import Scale, ScalePaths
from sagong_kube.handlers.table import Tables
from sagong_kube.handlers.usage import Usage
from sagong_kube.handlers.watching import Watching
from sagong_kube.housekeeping import Expiry, Housekeeping
from sagong_kube.objects_slot import ObjectsSlot, Rule
from sagong_kube.registry.allocation import Allocations
from sagong_kube.registry.builtin import BuiltinShapes, builtin_resources
from sagong_kube.registry.commits import Commits
from sagong_kube.registry.document import Document
from sagong_kube.registry.planner import Planner
from sagong_kube.registry.resource import Catalogue, Resource
from sagong_kube.registry.review import Admission
from sagong_kube.registry.writer import Writer
from sagong_kube.reminders import Reminders, Spawn, Wake
from sagong_kube.settings import Settings
from sagong_kube.storage.keys import ALLOCATIONS, COMMITS
from sagong_kube.storage.record import Record
from sagong_kube.storage.renewals import Renewals
from sagong_kube.storage.seal import Seal, load_key
from sagong_kube.storage.store import Store

__all__ = ["Assembly"]


class Assembly:
    """Everything between the bus and the HTTP server."""

    def __init__(
        self,
        settings: Settings,
        state: State,
        auth: Auth,
        *,
        node: Node | None,
        metrics: Metrics | None,
        network: Networks | None = None,
        data: Path,
        address: str,
        chance: random.Random,
        wake: Wake,
        spawn: Spawn,
        admission: Sequence[Admission] = (),
    ) -> None:
        self._settings = settings
        self._further = admission
        self._auth = auth
        self._state = state
        self._node = node
        self._metrics = metrics
        self._network = network
        self._address = address
        self._chance = chance
        self.listening = False
        self.figures: Callable[[], Iterator[str]] = lambda: iter(())
        seal = Seal(load_key(data / "seal.key"), settings.encrypted)
        self.store = Store(state, seal=seal, consistent=settings.consistent_reads)
        self.catalogue = Catalogue(builtin_resources())
        self.renewals = Renewals(self.store, enabled=settings.volatile_leases)
        self.allocations = Allocations(settings.service_ranges, settings.node_ports, chance)
        self.store.keep(ALLOCATIONS, self.allocations)
        expiry = Expiry(self.store, settings.event_seconds)
        self.planner = Planner(
            BuiltinShapes(),
            self._admission(),
            chance=chance,
            lease=expiry.of_resource,
            renews=self._renews,
        )
        self.writer = Writer(self.store, self.planner, self.renewals)
        commits = Commits(
            self.store, self.planner, self.catalogue, self.renewals, lease=expiry.of_commits
        )
        self.store.keep(COMMITS, commits.marks)
        reminders = Reminders(self.store, wake, spawn)
        self.slot = ObjectsSlot(self.store, self.catalogue, commits, reminders, _rules)
        self.gate = Gate(auth)
        self.housekeeping = Housekeeping(self.store, state, self.renewals, settings.history_seconds)
        self.router = self._router()

    def _renews(self, record: Record, new: Document, old: Document) -> bool:
        if self.renewals.is_premature(record.key, new, old):
            raise refusal.modified("leases", "coordination.k8s.io", record.name)
        return self.renewals.is_renewal(record, new, old)

    def _admission(self) -> Chain:
        pods = pod.PodDefaults()
        services = ServiceAddresses(self.allocations)
        return Chain(
            mutating=(
                namespace.exists,
                limits.default_limits,
                pods.service_account,
                pod.default_priority,
                pod.default_tolerations,
                pod.check_runtime_class,
                claim.default_class,
                claim.default_ingress_class,
                claim.protect,
                services.fill,
            ),
            validating=(
                namespace.is_deletable,
                node_rules.restrict,
                limits.check_limits,
                claim.check_growth,
                services.take,
                quota.charge,
            ),
            further=(*self._further, Escalation(self._auth)),
        )

    def _router(self) -> Router:
        renderer = Renderer(Tables())
        objects = Objects(self.writer, renderer, Watching(self.store, renderer, self._chance))
        usage = self._usage()
        virtual = self._virtual(objects)
        if usage is None:
            self.catalogue.remove("metrics.k8s.io", "nodes")
            self.catalogue.remove("metrics.k8s.io", "pods")
        else:
            virtual["metrics.k8s.io/nodes"] = usage.nodes
            virtual["metrics.k8s.io/pods"] = usage.pods
        return Router(
            self.gate,
            self.catalogue,
            objects,
            paths=self._paths(),
            virtual=virtual,
            subresources=self._subresources(objects),
        )

    def _usage(self) -> Usage | None:
        if self._metrics is None:
            return None
        return Usage(self.store, self._metrics, self._settings.node_name)

    def _virtual(self, objects: Objects) -> dict[str, ObjectHandler]:
        reviews = Reviews(self.gate, self._auth)
        authentication, authorization = "authentication.k8s.io", "authorization.k8s.io"
        return {
            f"{authentication}/selfsubjectreviews": reviews.who_am_i,
            f"{authentication}/tokenreviews": reviews.token,
            f"{authorization}/selfsubjectaccessreviews": reviews.self_access,
            f"{authorization}/subjectaccessreviews": reviews.access,
            f"{authorization}/localsubjectaccessreviews": reviews.access,
            f"{authorization}/selfsubjectrulesreviews": reviews.rules,
            "/bindings": PodParts(objects, self.catalogue).bind,
            "/componentstatuses": self._component_statuses,
        }

    def _subresources(self, objects: Objects) -> dict[tuple[str, str], ObjectHandler]:
        parts = PodParts(objects, self.catalogue)
        streams = PodStreams(objects, self._node)
        tokens = Tokens(objects, self._auth)
        scale = Scale(objects, _scale_paths)
        proxy = Proxy(objects, self._chance)
        return {
            ("core/pods", "proxy"): proxy.pod,
            ("core/services", "proxy"): proxy.service,
            ("core/nodes", "proxy"): self._of_this_node(proxy.node),
            ("core/pods", "binding"): parts.bind,
            ("core/pods", "eviction"): parts.evict,
            ("core/pods", "log"): streams.log,
            ("core/pods", "exec"): streams.exec,
            ("core/pods", "attach"): streams.attach,
            ("core/pods", "portforward"): streams.portforward,
            ("core/serviceaccounts", "token"): tokens.create,
            ("", "scale"): scale.serve,
        }

    def _of_this_node(self, beyond: ObjectHandler) -> ObjectHandler:
        """What a kubelet would tell of this machine, where somebody measures it."""
        if self._metrics is None or self._network is None:
            return beyond
        slots = (self._metrics, self._network)
        return Kubelet(self.store, slots, self._settings.node_name, beyond).proxy

    def _paths(self) -> dict[str, PathHandler]:
        discovery = Discovery(self.catalogue, self._address)
        health = Health(self._checks(), self._all_figures)
        documents = OpenApi(self.catalogue, document.made)
        paths: dict[str, PathHandler] = {
            "/version": health.version,
            "/metrics": health.metrics,
            "/openapi/v2": documents.v2,
            "/openapi/v3": documents.index,
            "/openapi/v3/": documents.v3,
            "/api": discovery.legacy,
            "/apis": discovery.groups,
            "/api/": discovery.resources,
            "/apis/": self._below_apis(discovery),
            "/.well-known/openid-configuration": self._issuer,
            "/openid/v1/jwks": self._keys,
        }
        for name in ("/healthz", "/livez", "/readyz"):
            paths[name] = health.check
            paths[f"{name}/"] = health.check
        return paths

    @staticmethod
    def _below_apis(discovery: Discovery) -> PathHandler:
        async def serve(ask: Ask) -> Reply:
            parts = ask.path.strip("/").split("/")
            if len(parts) == 2:
                return await discovery.group(ask)
            if len(parts) == 3:
                return await discovery.resources(ask)
            raise refusal.no_such_path()

        return serve

    def _checks(self) -> dict[str, Callable[[], str]]:
        return {
            "ping": lambda: "",
            "log": lambda: "",
            "state": lambda: "" if self.store.revision else "the store was not read yet",
            "poststarthook/bootstrap": lambda: (
                "" if self.store.get("core/namespaces", "default") else "not finished"
            ),
        }

    def _all_figures(self) -> Iterator[str]:
        yield from self.figures()
        yield "# HELP apiserver_storage_objects Objects in the cache, by resource."
        yield "# TYPE apiserver_storage_objects gauge"
        for resource in self.catalogue:
            if not resource.virtual and resource.kind == resource.stored_kind:
                count = len(self.store.collection(resource.storage).records)
                yield f'apiserver_storage_objects{{resource="{resource.qualified}"}} {count}'
        yield "# HELP apiserver_registered_watchers Watches that are open."
        yield "# TYPE apiserver_registered_watchers gauge"
        yield f"apiserver_registered_watchers {len(self.store.watchers)}"
        yield "# HELP apiserver_storage_revision Revision of the store that the cache is at."
        yield "# TYPE apiserver_storage_revision gauge"
        yield f"apiserver_storage_revision {self.store.revision}"

    async def _component_statuses(self, ask: Ask, resource: Resource) -> Reply:
        item = await self._store_component()
        if ask.target.verb == "get":
            if ask.target.name != item["metadata"]["name"]:
                raise refusal.not_found("componentstatuses", "", ask.target.name)
            return json_answer({"kind": "ComponentStatus", "apiVersion": "v1", **item})
        head = {"kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {}}
        answer = json_answer({**head, "items": [item]})
        answer.warnings = ("v1 ComponentStatus is deprecated in v1.19+",)
        return answer

    async def _store_component(self) -> Document:
        """The store, under the name that clients look for; nothing else is seen from here."""
        try:
            await self._state.status()
            condition = {"type": "Healthy", "status": "True", "message": "ok"}
        except SagongError as error:
            condition = {"type": "Healthy", "status": "False", "message": error.message}
        metadata = {"name": "etcd-0", "creationTimestamp": None}
        return {"metadata": metadata, "conditions": [condition]}

    async def _issuer(self, ask: Ask) -> Reply:
        keys = await self._auth.keys()
        return json_answer(
            {
                "issuer": keys.issuer,
                "jwks_uri": f"https://{self._address}/openid/v1/jwks",
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256", "ES256"],
            }
        )

    async def _keys(self, ask: Ask) -> Reply:
        keys = await self._auth.keys()
        return Answer(keys.jwks, 200, "application/jwk-set+json")


def _scale_paths(resource: Resource) -> ScalePaths:
    return ScalePaths()


def _rules(caller: call.Call) -> Sequence[Rule] | None:
    """Which callers reach this slot at all is the bus's to say; their rules come with the call."""
    return caller.rules
