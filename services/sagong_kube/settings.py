"""Settings of the Kubernetes API server."""

from __future__ import annotations

import msgspec

__all__ = ["Settings"]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`advertise` is the address that clients and pods reach the API at, "" for the listener's.

    `service_ranges` are one or two networks (IPv4, IPv6); `node_ports` the first and last port.
    `names` are further names and addresses in the server's certificate. `event_seconds` is how
    long events are kept. `volatile_leases` keeps renewals of Leases in memory; `consistent_reads`
    asks the store before reads: set it (and not the former) where several servers share a store.
    `storage_class` is the name of the default StorageClass that a new cluster gets, "" for none.
    `encrypted` are storages sealed at rest. `audit` writes a line per write to the log.
    `cluster_domain` ends the names of services. The history of changes is kept for `history_seconds`.
    `certificate` and `key` are files to serve with instead of what the cluster's authority issues,
    `client_ca` one of authorities whose clients are believed then. `node_name` is this machine's node
    ("": there is no other).
    """

    advertise: str = ""
    names: tuple[str, ...] = ()
    service_ranges: tuple[str, ...] = ("10.96.0.0/16",)
    node_ports: tuple[int, int] = (30000, 32767)
    cluster_domain: str = "cluster.local"
    event_seconds: int = 3600
    history_seconds: int = 300
    volatile_leases: bool = True
    consistent_reads: bool = False
    storage_class: str = "local"
    encrypted: tuple[str, ...] = ("core/secrets",)
    audit: bool = False
    certificate: str = ""
    key: str = ""
    client_ca: str = ""
    node_name: str = ""
