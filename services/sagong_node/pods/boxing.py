"""From a pod to its sandbox: network, ports, names, resolver. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from sagong.contracts.network import Attachment, JoinRequest, PortMapping
from sagong.contracts.node import SandboxSpec
from sagong.model.k8s.core_v1 import Pod
from sagong.model.quantity import value
from sagong_node.pods.naming import OWNER, sandbox_id
from sagong_node.pods.resources import cgroup_parent
from sagong_node.pods.settings import PodSettings

__all__ = ["hostname_of", "resolv_conf", "sandbox_spec"]

_LONGEST_HOSTNAME = 63
_INGRESS, _EGRESS = "kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth"
_NDOTS = "ndots:5"
_MOST_SEARCHES = 32


def hostname_of(pod: Pod, settings: PodSettings) -> tuple[str, str]:
    """(hostname, domain): the domain only for a pod with a subdomain."""
    if pod.spec.host_network:
        return settings.name, ""
    name = (pod.spec.hostname or pod.metadata.name)[:_LONGEST_HOSTNAME].rstrip("-.")
    if not pod.spec.subdomain:
        return name, ""
    domain = f"{pod.spec.subdomain}.{pod.metadata.namespace}.svc.{settings.cluster_domain}"
    if pod.spec.set_hostname_as_fqdn:
        return f"{name}.{domain}", ""
    return name, domain


def sandbox_spec(
    pod: Pod, settings: PodSettings, *, network: str, generation: int, runtime: str = ""
) -> SandboxSpec:
    """The sandbox; containers of the group share ipc and uts, and pid when the pod says so."""
    id_ = sandbox_id(pod.metadata.uid, generation)
    hostname, domain = hostname_of(pod, settings)
    metadata = pod.metadata
    return SandboxSpec(
        id=id_,
        owner=OWNER,
        hostname=hostname,
        domainname=domain,
        network=_join(pod, id_, network),
        explicit=True,
        group=metadata.uid,
        runtime=runtime,
        share_pid=bool(pod.spec.share_process_namespace),
        users=_users(pod),
        cgroup_parent=cgroup_parent(pod, settings.cgroup_parent),
        hosts=tuple((alias.ip, " ".join(alias.hostnames)) for alias in pod.spec.host_aliases),
        labels=(
            ("io.kubernetes.pod.name", metadata.name),
            ("io.kubernetes.pod.namespace", metadata.namespace),
            ("io.kubernetes.pod.uid", metadata.uid),
            ("io.sagong.sandbox.generation", str(generation)),
        ),
    )


def _users(pod: Pod) -> str:
    """`hostUsers`; a pod that has parts of the host anyway and does not say is among its users."""
    if pod.spec.host_users is not None:
        return "host" if pod.spec.host_users else "private"
    spec = pod.spec
    contexts = [c.security_context for c in (*spec.init_containers, *spec.containers)]
    privileged = any(context is not None and context.privileged for context in contexts)
    return "host" if spec.host_network or spec.host_pid or spec.host_ipc or privileged else ""


def _join(pod: Pod, id_: str, network: str) -> JoinRequest:
    if pod.spec.host_network:
        return JoinRequest(id=id_, mode="host")
    context = pod.spec.security_context
    sysctls = tuple((s.name, s.value) for s in context.sysctls) if context else ()
    return JoinRequest(
        id=id_,
        attachments=(Attachment(network=network),),
        ports=_ports(pod),
        sysctls=tuple((name, text) for name, text in sysctls if name.startswith("net.")),
        ingress_bps=_bandwidth(pod, _INGRESS),
        egress_bps=_bandwidth(pod, _EGRESS),
        labels=(("io.kubernetes.pod.uid", pod.metadata.uid),),
    )


def _ports(pod: Pod) -> tuple[PortMapping, ...]:
    containers = (*pod.spec.init_containers, *pod.spec.containers)
    found = {
        PortMapping(
            container_port=port.container_port,
            protocol=(port.protocol or "TCP").lower(),
            host_ip=port.host_ip,
            host_port=port.host_port,
        ): None
        for container in containers
        for port in container.ports
        if port.host_port
    }
    return tuple(found)


def _bandwidth(pod: Pod, annotation: str) -> int:
    text = pod.metadata.annotations.get(annotation, "")
    return value(text) if text else 0


def resolv_conf(pod: Pod, settings: PodSettings, machine: str) -> str:
    """resolv.conf by dnsPolicy and dnsConfig; `machine` is the machine's own file."""
    policy = pod.spec.dns_policy or "ClusterFirst"
    if policy == "ClusterFirst" and pod.spec.host_network:
        policy = "Default"
    servers, searches, options = _of_machine(machine)
    if policy in ("ClusterFirst", "ClusterFirstWithHostNet") and settings.cluster_dns:
        domain = settings.cluster_domain
        own = [f"{pod.metadata.namespace}.svc.{domain}", f"svc.{domain}", domain]
        servers, searches, options = list(settings.cluster_dns), own + searches, [_NDOTS]
    elif policy == "None":
        servers, searches, options = [], [], []
    config = pod.spec.dns_config
    if config is not None:
        servers = servers + config.nameservers
        searches = searches + config.searches
        wanted = [f"{o.name}:{o.value}" if o.value else o.name for o in config.options]
        named = {text.partition(":")[0] for text in wanted}
        options = [text for text in options if text.partition(":")[0] not in named] + wanted
    return _text(servers, searches, options)


def _of_machine(text: str) -> tuple[list[str], list[str], list[str]]:
    lines = [line.split() for line in text.splitlines()]
    servers = [f[1] for f in lines if f[:1] == ["nameserver"] and len(f) > 1]
    searches = [w for f in lines if f[:1] in (["search"], ["domain"]) for w in f[1:]]
    options = [w for f in lines if f[:1] == ["options"] for w in f[1:]]
    return servers, [s for s in searches if s != "."], options


def _text(servers: Sequence[str], searches: Sequence[str], options: Sequence[str]) -> str:
    lines = []
    if searches:
        lines.append(f"search {' '.join(list(dict.fromkeys(searches))[:_MOST_SEARCHES])}")
    lines += [f"nameserver {address}" for address in dict.fromkeys(servers)]
    if options:
        lines.append(f"options {' '.join(options)}")
    return "".join(f"{line}\n" for line in lines)
